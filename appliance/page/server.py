"""The process of the page: it opens its port, announces it, and serves until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lungstage.appliance.config.disks import make_private
from lungstage.appliance.config.logs import logger
from lungstage.appliance.config.settings import SettingsError
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.notify.settings import load_notify
from lungstage.appliance.page.app import make_app, make_context
from lungstage.appliance.page.messages import Messages
from lungstage.appliance.page.settings import Address, PageSettings, Site
from lungstage.appliance.page.shield import HEADERS

_SECONDS_TO_STOP: Final = 5
_NICENESS: Final = 10
_SECONDS_TO_ASK: Final = 30.0  # from the opening of a connection, or the last response, to the end of the next headers
_MOST_CONNECTIONS: Final = 400


class Protocol(H11Protocol):
    """A connection. It is closed after a time without a request, or earlier if there are too many connections.

    The response to invalid HTTP also has the security headers.
    """

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; if there are too many, close the one that has been idle longest."""
        super().connection_made(transport)
        self._rest()
        if len(self.connections) > _MOST_CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, Protocol) and one._due is not None]
            min(idle, key=lambda one: one._due.when() if one._due else 0.0).close()

    def handle_events(self) -> None:
        """Handle received data; during a request the connection is not idle."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._work()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._rest()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the idle timer."""
        self._work()
        super().connection_lost(exc)

    def close(self) -> None:
        """Close the connection."""
        self._work()
        self.transport.close()

    def _rest(self) -> None:
        self._work()
        self._due = self.loop.call_later(_SECONDS_TO_ASK, self.close)

    def _work(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP."""
        head = [b"HTTP/1.1 400 Bad Request", b"content-type: text/plain; charset=utf-8", b"connection: close"]
        body = msg.encode("ascii", "replace")
        head += [b"%s: %s" % header for header in HEADERS] + [b"content-length: %d" % len(body)]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal without raising it again, as uvicorn would do."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def serve(site: Site, announce: Callable[[str | None], None], *, new_token: bool = False) -> None:
    """Serve the page until SIGTERM or SIGINT.

    Parameters
    ----------
    site
        Folders and settings.
    announce
        Called with the address when the page is served. The address contains the token if the token is new.
    new_token
        Whether to replace the token by a new one.

    Raises
    ------
    SettingsError
        A new token was requested, but there are users.
    Unavailable
        There is no state folder, another page uses it, the port cannot be opened, or the certificate cannot be used.
    """
    os.nice(_NICENESS)  # the daemon and its workers have priority
    if not site.state.is_dir():
        raise Unavailable(f"There is no state folder {site.state}. Start the daemon first, or correct --state.")
    notify = load_notify(site.config)
    with alone(site.folder), _listen(site.page.address) as listening:
        context = make_context(site)
        config = make_config(make_app(context), site.page)
        has_users, token = bool(context.users.all()), None
        if new_token and has_users:
            raise SettingsError(
                "--new-token has no effect while there are users. lungstage page users list shows them."
            )
        if not has_users and (new_token or not context.token.exists()):
            token = context.token.renew()  # shown only once, so nothing after it may fail
        scheme = "https" if site.page.tls_certificate is not None else "http"
        address = f"{scheme}://{Address(site.page.address.host, listening.getsockname()[1]).in_url}/"
        logger.info("page_started", extra={"address": address})
        context.viewer.start()
        try:
            server = _Server(config, lambda: announce(f"{address}login?token={token}" if token else address))
            with Messages(site.state, notify, context.viewer):
                asyncio.run(server.serve([listening]))
        finally:
            context.viewer.end()
            context.records.close()
        logger.info("page_stopped")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the folder of the page; it is made if it does not exist."""
    try:
        make_private(folder)
        lock = (folder / "lock").open("ab")
    except OSError as error:
        raise Unavailable(f"{folder} cannot be used: {error.strerror}. Run the page as the daemon's user.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("Another page is running with this state folder. Stop it first.") from error
        yield


def make_config(app: Any, page: PageSettings) -> uvicorn.Config:
    """Make the configuration of the server.

    Raises
    ------
    Unavailable
        The certificate cannot be used.
    """
    tls: dict[str, Any] = {}
    if page.tls_certificate is not None and page.tls_key is not None:
        tls = {"ssl_certfile": str(page.tls_certificate), "ssl_keyfile": str(page.tls_key)}
    config = uvicorn.Config(
        app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=int(_SECONDS_TO_ASK), h11_max_incomplete_event_size=32 * 1024,
        timeout_graceful_shutdown=_SECONDS_TO_STOP, loop="asyncio", **tls,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise Unavailable(
            f"The certificate {page.tls_certificate} or its key cannot be used: {error.strerror or error}."
        ) from error
    return config


def _listen(at: Address) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        why = "another program uses it" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise Unavailable(
            f"Port {at.port} of {at.host} cannot be opened: {why}. Set another one with bind in [page], or with --bind."
        ) from error
    return listening
