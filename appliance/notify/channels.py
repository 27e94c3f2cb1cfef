"""The channels: e-mail by SMTP, and a webhook. Each sends one message, or raises."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import smtplib
import ssl
import time
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lungstage.appliance import __version__
from lungstage.appliance.config.logs import logger
from lungstage.appliance.notify.settings import Email, Webhook

_SECONDS: Final = 20.0
_LONGEST_SECRET = 4096

Event = Mapping[str, Any]

SIGNATURE: Final = "X-Lungstage-Signature"
TIMESTAMP: Final = "X-Lungstage-Timestamp"


class NotSentError(Exception):
    """A message was not sent; says briefly why, without text from the other side."""


def send_email(settings: Email, batch: str, events: Sequence[Event]) -> None:
    """Send events as one e-mail.

    Raises
    ------
    NotSentError
        The server was not reached, or refused all recipients.
    """
    message = EmailMessage()
    message["From"], message["To"] = settings.sender, ", ".join(settings.to)
    message["Message-ID"] = f"<{batch}@{settings.sender.rpartition('@')[2]}>"  # the same in each attempt
    message["Auto-Submitted"] = "auto-generated"
    message["Subject"] = f"lungstage: {_subject(events)}"
    lines = ["Research use only; not a medical device.", "", *(line for event in events for line in _lines(event))]
    message.set_content("\n".join(lines))
    try:
        context = ssl.create_default_context()
        secure = settings.tls == "tls"
        make = smtplib.SMTP_SSL if secure else smtplib.SMTP
        options: dict[str, Any] = {"context": context} if secure else {}
        with make(settings.host, settings.port, timeout=_SECONDS, **options) as server:
            if settings.tls == "starttls":
                server.starttls(context=context)
            if settings.user is not None and settings.password_file is not None:
                server.login(settings.user, secret_of(settings.password_file))
            refused = server.send_message(message)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise NotSentError(type(error).__name__) from error
    if refused:  # sending it again would reach the other recipients twice
        logger.warning("recipient_refused", extra={"count": len(refused)})


def send_webhook(settings: Webhook, batch: str, events: Sequence[Event]) -> None:
    """Post events as signed JSON.

    The signature is the HMAC-SHA-256, with the secret as key, of the timestamp's text, a full stop and the body.

    Raises
    ------
    NotSentError
        The address was not reached, or did not answer with success; a redirection is not success.
    """
    body = json.dumps({"id": batch, "software": f"lungstage {__version__}", "events": list(events)}).encode()
    parts = urlsplit(settings.url)
    moment = str(int(time.time()))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        signature = sign(secret_of(settings.secret_file), moment, body)
        host, port = str(parts.hostname), parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
        try:
            headers = {"Content-Type": "application/json", SIGNATURE: signature, TIMESTAMP: moment}
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotSentError(type(error).__name__) from error
    if not 200 <= status < 300:
        raise NotSentError(f"status {status}")


def sign(secret: str, moment: str, body: bytes) -> str:
    """Sign a body; the receiver of the webhook computes the same signature."""
    return "sha256=" + hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def secret_of(path: Path) -> str:
    """Read a secret, without the line break after it.

    Raises
    ------
    OSError, ValueError
        It cannot be read, or the file is empty.
    """
    with path.open("rb") as file:
        secret = file.read(_LONGEST_SECRET).decode().strip()
    if not secret:
        raise ValueError("the secret is empty")
    return secret


def _subject(events: Sequence[Event]) -> str:
    if len(events) > 1:
        return f"{len(events)} events"
    (event,) = events
    return f"{event['event']}" + (f", job {event['job']}" if event.get("job") is not None else "")


def _lines(event: Event) -> list[str]:
    what = f"{event['at']}  {event['event']}" + (f", job {event['job']}" if event.get("job") is not None else "")
    told = [what]
    if event.get("patient"):
        told.append(f"    patient: {event['patient']}")
    if event.get("study"):
        told.append(f"    study: {event['study']}")
    if event.get("reason"):
        told.append(f"    {event['reason']}")
    return [*told, ""]
