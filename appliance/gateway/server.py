"""The gateway's process: reception, senders and regular tasks."""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from lungstage.appliance.config.disks import prove_writable
from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.config.settings import SettingsError
from lungstage.appliance.contract.arrival import RENEWED_SECONDS
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.administration import QUEUE
from lungstage.appliance.gateway.arrivals import Arrivals
from lungstage.appliance.gateway.destinations import destination_of
from lungstage.appliance.gateway.destinations.destination import Commitment
from lungstage.appliance.gateway.dimse_door import DimseDoor
from lungstage.appliance.gateway.marks import Marks
from lungstage.appliance.gateway.outbox import Outbox
from lungstage.appliance.gateway.queue import Queue
from lungstage.appliance.gateway.retention import Retention
from lungstage.appliance.gateway.sender import Sender, take_commitment
from lungstage.appliance.gateway.settings import GatewaySettings, Receive
from lungstage.appliance.gateway.stow_door import StowDoor
from lungstage.appliance.notify.notifier import Notifier
from lungstage.appliance.notify.runner import Runner
from lungstage.appliance.notify.settings import NotifySettings, load_notify
from lungstage.appliance.state import chain

_LOOK_SECONDS: Final = 0.25
_PAUSE_SECONDS: Final = 5.0
_RETENTION_SECONDS: Final = 600.0
_SECONDS_TO_STOP: Final = 10.0


def serve(settings: GatewaySettings, config: Path, stopping: Callable[[], bool], announce: Callable[[], None]) -> None:
    """Run the gateway until it is told to stop.

    Parameters
    ----------
    settings
        The gateway's settings.
    config
        Their file, for ``[notify]``.
    stopping
        Returns whether to stop; called several times a second.
    announce
        Called when the ports are open.

    Raises
    ------
    SettingsError
        ``[notify]`` cannot be used here.
    Unavailable
        Inbox, outbox, queue, port or certificate cannot be used, or another gateway uses this state folder.
    """
    notify = _notify_settings(settings, config)
    _prove_folders(settings)
    with _sole_gateway(settings.state), contextlib.ExitStack() as stack:
        queue = Queue(settings.state / QUEUE)
        stack.callback(queue.close)
        senders = _senders(settings, queue)
        if settings.receive is not None:
            arrivals = _open_doors(settings, settings.receive, queue, stack)
            stack.enter_context(_renewing(arrivals.marks))
            if settings.keep_received is not None:
                retention = Retention(settings.inbox, settings.daemons, settings.keep_received, queue, arrivals.marks)
                stack.enter_context(_now_and_then(retention))
        for state in settings.daemons:
            news = partial(chain.entries_from, state)
            stack.enter_context(Runner(None if notify is None else Notifier(state, notify, news)))
        for sender in senders:
            sender.start()
        logger.info("gateway_started", extra={"routes": len(settings.route)})
        announce()
        try:
            _look(Outbox(settings.outbox, settings.route, queue), senders, stopping)
        finally:
            for sender in senders:
                sender.stop()
            until = time.monotonic() + _SECONDS_TO_STOP
            for sender in senders:
                sender.join(max(until - time.monotonic(), 0.0))
        logger.info("gateway_stopped")


def _notify_settings(settings: GatewaySettings, config: Path) -> NotifySettings | None:
    notify = load_notify(config)
    if notify is not None and notify.patient:
        raise SettingsError(
            "[notify] patient: the gateway opens no study, so it cannot name patients. Delete this setting, or let the "
            "page send the messages."
        )
    if notify is not None and not settings.daemons:
        raise SettingsError("[notify] needs the setting daemons: the state folders of the daemons to report on.")
    return notify


def _prove_folders(settings: GatewaySettings) -> None:
    for name, folder in (("inbox", settings.inbox), ("outbox", settings.outbox)):
        if not folder.is_dir():
            raise Unavailable(f"There is no {name} {folder}. Correct the path, or mount its disk or share.")
    try:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        prove_writable(settings.state)
    except OSError as error:
        raise Unavailable(
            f"The gateway's state folder {settings.state} cannot be used: {error.strerror}. Give the gateway's user "
            "the right to write there."
        ) from error


@contextlib.contextmanager
def _sole_gateway(state: Path) -> Iterator[None]:
    with (state / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                f"Another gateway is running on the state folder {state}. Stop that gateway first, or set another "
                "state in the settings file."
            ) from error
        yield


def _senders(settings: GatewaySettings, queue: Queue) -> list[Sender]:
    """Make a sender for each destination; the first route to a destination gives its access data."""
    routes = {route.to: route for route in reversed(settings.route)}
    return [Sender(destination_of(route, settings), queue, settings.outbox, settings) for route in routes.values()]


def _open_doors(settings: GatewaySettings, receive: Receive, queue: Queue, stack: contextlib.ExitStack) -> Arrivals:
    arrivals = Arrivals(settings.inbox, queue, receive.min_free_mb)

    def answered(commitment: Commitment) -> None:
        take_commitment(queue, commitment, settings.retry_seconds)

    if not receive.addresses and not receive.calling and receive.tls is None:
        logger.warning("open_to_everybody", extra={"bind": receive.bind})
    dimse = DimseDoor(receive, arrivals, answered)
    stack.callback(dimse.close)
    logger.info("listening", extra={"by": "DIMSE", "port": dimse.port, "tls": receive.tls is not None})
    if receive.stow is not None:
        stow = StowDoor(receive, arrivals)
        stack.callback(stow.close)
        logger.info("listening", extra={"by": "STOW-RS", "port": stow.port, "tls": receive.stow.tls is not None})
    return arrivals


def _look(outbox: Outbox, senders: list[Sender], stopping: Callable[[], bool]) -> None:
    next_look = 0.0
    while not stopping():
        time.sleep(_LOOK_SECONDS)
        if time.monotonic() < next_look:
            continue
        try:
            if outbox.look():
                for sender in senders:
                    sender.ring()
        except (Unavailable, OSError) as error:
            logger.warning("outbox_unavailable", extra={"error": type(error).__name__})
            next_look = time.monotonic() + _PAUSE_SECONDS
        except Exception as error:
            logger.error("gateway_defect", extra=defect(error))
            next_look = time.monotonic() + _PAUSE_SECONDS


@contextlib.contextmanager
def _renewing(marks: Marks) -> Iterator[None]:
    """Renew the marks in a separate thread, so that slow work elsewhere does not make them invalid."""
    with _every(RENEWED_SECONDS, marks.renew, "marks"):
        yield


@contextlib.contextmanager
def _now_and_then(retention: Retention) -> Iterator[None]:
    with _every(_RETENTION_SECONDS, lambda: retention.step(_RETENTION_SECONDS), "retention"):
        yield


@contextlib.contextmanager
def _every(seconds: float, step: Callable[[], object], name: str) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            try:
                step()
            except (Unavailable, OSError) as error:
                logger.warning("upkeep_unavailable", extra={"what": name, "error": type(error).__name__})
            except Exception as error:
                logger.error("gateway_defect", extra=defect(error))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5.0)
