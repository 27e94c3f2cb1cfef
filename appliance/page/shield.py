"""Security headers of every response, and checks of every request before a page handles it.

The Content Security Policy allows only the page's own files. Every response passes through this module, also redirects
and errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.page.sessions import RateLimit

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_NOT_KEPT: Final = (b"cache-control", b"no-store")

MOST_BYTES: Final = 64 * 1024  # size of a form
MOST_AT_ONCE: Final = 200  # requests being answered; a browser sends six
SECONDS_TO_SEND: Final = 20.0  # time to send a form
_METHODS: Final = frozenset({"GET", "HEAD", "POST"})


class Shield:
    """Wraps the page.

    Parameters
    ----------
    app
        The page.
    hosts
        Host names that a request may use; empty for any.
    secure
        Whether browsers use TLS.
    limit
        Limit of requests for each client.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], *, secure: bool, limit: RateLimit) -> None:
        self._app, self._hosts, self._limit = app, frozenset(host.lower() for host in hosts), limit
        self._in_hand = 0
        self._headers = (*HEADERS, _HSTS) if secure else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        started = False
        body = _Body(receive)

        async def sealed(message: Message) -> None:
            nonlocal started
            if body.is_refused:  # the refusal is sent below
                return
            if message["type"] == "http.response.start":
                started = True
                own = {name.lower() for name, _ in message.get("headers", ())}
                added = [header for header in self._headers if header[0] not in own]
                if _NOT_KEPT[0] not in own:
                    added.append(_NOT_KEPT)
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        self._in_hand += 1
        try:
            if refusal := self._refusal(scope):
                await _say(sealed, *refusal)
            else:
                await self._app(scope, body.receive, sealed)
        except _RefusedBodyError as error:
            body.is_refused = False
            await _say(sealed, error.status, str(error))
        except Exception as error:  # its message may quote patient data of a file
            logger.error("page_defect", extra=defect(error))
            if not started:
                await _say(sealed, 500, "Internal error (please report it). The log of the page has the details.")
        finally:
            self._in_hand -= 1

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        client = scope.get("client")
        if not self._limit.allows(client[0] if client else ""):
            return 429, "Too many requests. Wait a moment and try again."
        if self._in_hand > MOST_AT_ONCE:
            return 503, "Too many requests at once. Wait a moment and try again."
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if self._hosts and name.removeprefix("[").removesuffix("]") not in self._hosts:
            return 400, "This page is not available under this host name. Add the name to host_names in [page]."
        if scope["method"] not in _METHODS:
            return 405, "This page accepts only GET and POST."
        if scope["method"] == "POST":
            origin = headers.get(b"origin")
            scheme = "https" if (b"strict-transport-security" in dict(self._headers)) else "http"
            foreign = headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none")
            if foreign or (origin is not None and origin.decode("latin-1").lower() != f"{scheme}://{host}"):
                return 403, "This request was sent from another site."
            if not headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
                return 415, "This page accepts only forms."
        return None


class _RefusedBodyError(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Body:
    """The body of a request, with limits for size and time.

    Attributes
    ----------
    is_refused
        Whether a limit was exceeded. Then only the refusal is sent.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._left = receive, MOST_BYTES
        self._until = asyncio.get_running_loop().time() + SECONDS_TO_SEND
        self.is_refused = False

    async def receive(self) -> Message:
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            self.is_refused = True
            raise _RefusedBodyError(408, "The form was not received in time.") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_refused = True
            raise _RefusedBodyError(413, "The form is too large.")
        return message


async def _say(send: Callable[[Message], object], status: int, sentence: str) -> None:
    body = sentence.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})  # type: ignore[misc]
    await send({"type": "http.response.body", "body": body})  # type: ignore[misc]
