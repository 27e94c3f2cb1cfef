"""The page's process: it opens its one port, says so, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.notify.settings import load_notify
from lungstage.appliance.page.app import make_app, make_context
from lungstage.appliance.page.messages import Messages
from lungstage.appliance.page.settings import Site
from lungstage.appliance.page.shield import HEADERS

_SECONDS_TO_STOP: Final = 5
_NICENESS: Final = 10


class _Protocol(H11Protocol):
    """Whose answer to what is no HTTP bears the policy, too."""

    def send_400_response(self, msg: str) -> None:
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
        """Stop at a signal, and be done: uvicorn's own would end the process by it once more."""
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
        What is served, and how.
    announce
        Told, once it is served, the address to open: with the token where that has just been made, and else without.
    new_token
        Whether a new token takes the place of the one there is.

    Raises
    ------
    Unavailable
        There is no state folder, another page is served from it, the port cannot be opened, or the certificate cannot
        be used.
    """
    os.nice(_NICENESS)  # the daemon goes first, and so do its workers
    if not site.state.is_dir():
        raise Unavailable(f"There is no state folder {site.state}. Start the daemon first, or correct --state.")
    notify = load_notify(site.config)
    context = make_context(site)
    page = site.page
    with (site.folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("Another page is served from this state folder.") from error
        token = None
        if not context.users.all() and (new_token or not context.token.exists()):
            token = context.token.renew()
        listening = _listen(page.address.host, page.address.port)
        context.viewer.start()
        port = listening.getsockname()[1]
        scheme = "https" if page.tls_certificate is not None else "http"
        host = page.address.in_url.rpartition(":")[0]
        address = f"{scheme}://{host}:{port}/"
        tls: dict[str, Any] = {}
        if page.tls_certificate is not None and page.tls_key is not None:
            tls = {"ssl_certfile": str(page.tls_certificate), "ssl_keyfile": str(page.tls_key)}
        config = uvicorn.Config(
            make_app(context), http=_Protocol, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, timeout_keep_alive=30, h11_max_incomplete_event_size=32 * 1024,
            limit_concurrency=200, timeout_graceful_shutdown=_SECONDS_TO_STOP, loop="asyncio", **tls,
        )  # fmt: skip
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise Unavailable(
                f"The certificate {page.tls_certificate} or its key cannot be used: {error.strerror or error}."
            ) from error
        logger.info("page_started", extra={"address": address})
        try:
            server = _Server(config, lambda: announce(f"{address}login?token={token}" if token else address))
            with Messages(site.state, notify, context.viewer):
                asyncio.run(server.serve([listening]))
        finally:
            context.viewer.end()
            context.records.close()
        logger.info("page_stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        why = "something else listens there" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise Unavailable(
            f"Port {port} of {host} cannot be opened: {why}. bind in [page], or --bind, names it."
        ) from error
    return listening
