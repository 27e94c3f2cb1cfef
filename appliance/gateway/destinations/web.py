"""A DICOMweb server: STOW-RS to store, QIDO-RS to query (PS3.18, 10.5 and 10.6)."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.destinations.destination import (
    Answer,
    AwayError,
    Commitment,
    Destination,
    DoesNotWantError,
    Session,
)
from lungstage.appliance.gateway.queue import Document
from lungstage.appliance.gateway.settings import ClientTls
from lungstage.appliance.gateway.tls import client_context

_SECONDS: Final = 60.0
_LONGEST_ANSWER: Final = 2**20  # bytes
_JSON: Final = "application/dicom+json"
_STORED, _FAILED, _INSTANCE = "00081199", "00081198", "00081155"
_LATER: Final = frozenset({401, 403, 404, 408, 413, 429})  # the cause is in settings or server, not in the document


class Web(Destination):
    """``https://HOST/…/studies``, with a bearer token if one is set."""

    @contextlib.contextmanager
    def session(self, answered: Callable[[Commitment], None]) -> Iterator[Session]:
        """Connect; redirections are not followed."""
        parts = urlsplit(self.route.to)
        try:
            connection: http.client.HTTPConnection
            if parts.scheme == "https":
                context = client_context(self.route.tls or ClientTls(ca=None, certificate=None, key=None))
                host = str(parts.hostname)
                connection = http.client.HTTPSConnection(host, parts.port, timeout=_SECONDS, context=context)
            else:
                connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_SECONDS)
            token = None if self.route.token is None else self.route.token.read()
        except Unavailable as error:
            raise AwayError(str(error)) from error
        try:
            yield _Requests(connection, parts.path, token)
        finally:
            connection.close()

    def prove(self) -> str:
        """Query one study."""
        with self.session(lambda _: None) as session:
            assert isinstance(session, _Requests)
            status = session.ask("GET", "?limit=1", {"Accept": _JSON})[0]
        if status >= 300:
            raise AwayError(f"it answers with status {status}")
        return f"It answers with status {status}."


class _Requests(Session):
    def __init__(self, connection: http.client.HTTPConnection, path: str, token: str | None) -> None:
        self._connection, self._path = connection, path
        self._own = {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, rest: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
        """Make one request; return status and body of the answer."""
        try:
            self._connection.request(method, self._path + rest, body, {**headers, **self._own})
            response = self._connection.getresponse()
            return response.status, response.read(_LONGEST_ANSWER)
        except ssl.SSLError as error:
            raise AwayError(f"its certificate or TLS version is not accepted ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise AwayError(type(error).__name__) from error

    def has(self, document: Document) -> bool | None:
        study, instance = quote(document.study_instance_uid), quote(document.sop_instance_uid)
        status, body = self.ask("GET", f"/{study}/instances?SOPInstanceUID={instance}", {"Accept": _JSON})
        if status == 204:
            return False
        if status != 200:
            return None
        found = _objects(body)
        return None if found is None else document.sop_instance_uid in {_first(item, "00080018") for item in found}

    def send(self, document: Document, path: Path) -> Answer:
        boundary = secrets.token_hex(24)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        status, said = self.ask("POST", "", {"Content-Type": kind, "Accept": _JSON}, body)
        if status in _LATER or status >= 500 or status < 200:
            raise AwayError(f"it answers with status {status}")
        answer = _objects(b"[" + said + b"]") or _objects(said) or []
        stored = {_first(item, _INSTANCE) for one in answer for item in _items(one, _STORED)}
        failed = {_first(item, _INSTANCE) for one in answer for item in _items(one, _FAILED)}
        if status >= 300 or document.sop_instance_uid in failed:
            raise DoesNotWantError(f"it answers with status {status}")
        named = document.sop_instance_uid in stored
        return Answer(committed=named, remark="" if status == 200 else f"it answers with status {status}")


def _objects(body: bytes) -> list[dict[str, Any]] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(found, list) and all(isinstance(one, dict) for one in found)
    return found if is_list else None


def _values(dataset: dict[str, Any], tag: str) -> list[Any]:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _items(dataset: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return [item for item in _values(dataset, tag) if isinstance(item, dict)]


def _first(dataset: dict[str, Any], tag: str) -> str | None:
    values = _values(dataset, tag)
    return values[0] if values and isinstance(values[0], str) else None
