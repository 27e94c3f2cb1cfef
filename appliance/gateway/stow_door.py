"""Reception by DICOMweb: STOW-RS (PS3.18, 10.5); each object is written to the disk as it arrives."""

from __future__ import annotations

import contextlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.arrivals import Arrivals
from lungstage.appliance.gateway.head import CANNOT_UNDERSTAND, NO_SPACE, NotTakenError
from lungstage.appliance.gateway.listening import listen
from lungstage.appliance.gateway.multipart import Begin, Data, MultipartError, Parts, boundary_of
from lungstage.appliance.gateway.settings import Receive, host_and_port
from lungstage.appliance.gateway.tls import server_context

_JSON: Final = "application/dicom+json"
_CALLING: Final = "STOW-RS"
_SECONDS_TO_START: Final = 20.0
_SECONDS_TO_STOP: Final = 5


class StowDoor:
    """Serves until it is closed.

    Parameters
    ----------
    settings
        Port, and who may send; and the limits for both protocols.
    arrivals
        Writes objects into the inbox.

    Raises
    ------
    Unavailable
        The port cannot be opened, or token or certificate cannot be used.
    """

    def __init__(self, settings: Receive, arrivals: Arrivals) -> None:
        stow = settings.stow
        assert stow is not None
        token = None if stow.token is None else stow.token.read()
        app = Starlette(routes=_routes(_Receiver(arrivals, token, settings.max_object_mb * 1024**2)))
        host, port = host_and_port(stow.bind)
        config = uvicorn.Config(
            app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, proxy_headers=False,
            timeout_keep_alive=30, limit_concurrency=settings.max_associations, loop="asyncio",
            timeout_graceful_shutdown=_SECONDS_TO_STOP,
        )  # fmt: skip
        config.load()
        if stow.tls is not None:
            config.ssl = server_context(stow.tls)  # not uvicorn's own context, which would accept weaker settings
        self._socket = listen(host, port, "bind in [receive.stow]")
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="stow", daemon=True
        )
        self._thread.start()
        if not self._server.began.wait(_SECONDS_TO_START):
            raise Unavailable(
                f"The STOW-RS server did not start within {_SECONDS_TO_START:g} s. Start the gateway again."
            )

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Finish the present requests, and stop."""
        self._server.should_exit = True
        self._thread.join(_SECONDS_TO_STOP + 1)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.began = threading.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the gateway's process."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.began.set()


@dataclass(slots=True)
class _Outcome:
    """The stored and failed objects of one request."""

    stored: list[tuple[str, str]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    def response(self) -> Response:
        body: dict[str, Any] = {}
        if self.stored:
            items = [
                {"00081150": {"vr": "UI", "Value": [sop_class]}, "00081155": {"vr": "UI", "Value": [instance]}}
                for sop_class, instance in self.stored
            ]
            body["00081199"] = {"vr": "SQ", "Value": items}
        if self.failed:
            reasons = [{"00081197": {"vr": "US", "Value": [status]}} for status in self.failed]
            body["00081198"] = {"vr": "SQ", "Value": reasons}
        code = 200 if not self.failed else 202 if self.stored else 507 if NO_SPACE in self.failed else 409
        return Response(json.dumps(body), code, media_type=_JSON)


class _Receiver:
    def __init__(self, arrivals: Arrivals, token: str | None, longest: int) -> None:
        self._arrivals, self._token, self._longest = arrivals, token, longest

    async def store(self, request: Request) -> Response:
        """Store the objects of one request."""
        if not self._may(request):
            return _say(401, "A valid bearer token is needed.", {"WWW-Authenticate": "Bearer"})
        if not self._arrivals.has_room():
            logger.error("no_room")
            return _say(503, "The disk of the inbox is nearly full. Try again later.", {"Retry-After": "60"})
        try:
            parts = Parts(boundary_of(request.headers.get("content-type", "")))
        except MultipartError as error:
            return _say(415, str(error))
        outcome, sender = _Outcome(), id(request)
        try:
            await self._receive(request, parts, outcome, sender)
        except MultipartError as error:
            return _say(400, str(error))
        except ClientDisconnect:
            logger.warning("object_cut_short")
            return _say(400, "The request ended before its body was complete. Send it again.")
        except OSError as error:
            logger.error("not_stored", extra={"why": type(error).__name__})
            return _say(503, "The objects could not be written to the disk. Try again later.", {"Retry-After": "60"})
        except Exception as error:
            logger.error("gateway_defect", extra=defect(error))
            return _say(500, "Internal error. Please report it, with the line of the gateway's log.")
        finally:
            self._arrivals.marks.close(sender)
        if not outcome.stored and not outcome.failed:
            return _say(400, "The body contains no object.")
        return outcome.response()

    def _may(self, request: Request) -> bool:
        if self._token is None:
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())

    async def _receive(self, request: Request, parts: Parts, outcome: _Outcome, sender: int) -> None:
        draft = _Draft(self._arrivals.draft(), self._longest)
        try:
            async for chunk in request.stream():
                for piece in parts.feed(chunk):
                    if isinstance(piece, Begin):
                        draft = _Draft(self._arrivals.draft(), self._longest)
                        draft.open(of_dicom=piece.kind == "application/dicom")
                    elif isinstance(piece, Data):
                        draft.write(piece.content)
                    else:
                        await self._take(draft, request, outcome, sender)
            if not parts.is_closed:
                raise MultipartError("The body ends before its last boundary.")
        finally:
            draft.drop()

    async def _take(self, draft: _Draft, request: Request, outcome: _Outcome, sender: int) -> None:
        draft.close()
        try:
            if draft.fault is not None:
                raise draft.fault
            study = request.path_params.get("study")
            head = await run_in_threadpool(self._arrivals.take, draft.path, sender, _CALLING, study)
        except NotTakenError as error:
            logger.warning("object_refused", extra={"status": f"{error.status:04X}", "why": error.why})
            outcome.failed.append(error.status)
            return
        outcome.stored.append((head.sop_class_uid, head.sop_instance_uid))


class _Draft:
    """One object during its reception."""

    def __init__(self, path: Path, longest: int) -> None:
        self.path, self._left = path, longest
        self._file: IO[bytes] | None = None
        self.fault: NotTakenError | None = None

    def open(self, *, of_dicom: bool) -> None:
        if not of_dicom:
            self.fault = NotTakenError(CANNOT_UNDERSTAND, "the type of a part is not application/dicom")
        self._file = self.path.open("xb")

    def write(self, content: bytes) -> None:
        self._left -= len(content)
        if self._left < 0 and self.fault is None:
            self.fault = NotTakenError(NO_SPACE, "an object is larger than max_object_mb")
        if self.fault is None and self._file is not None:
            self._file.write(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self.close()
            self.path.unlink(missing_ok=True)


def _routes(receiver: _Receiver) -> list[Route]:
    return [
        Route("/studies", receiver.store, methods=["POST"]),
        Route("/studies/{study}", receiver.store, methods=["POST"]),
    ]


def _say(code: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return Response(sentence, code, headers, "text/plain")
