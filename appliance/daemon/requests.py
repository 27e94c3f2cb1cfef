"""Executes the requests of page users: process a case again, or measure the region that a person chose.

If two people ask for the same job, the first request counts. The change, its audit entry and the note that the request
was taken are one transaction of the ledger. The request's file is removed after that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from lungstage.appliance.config.logs import logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.source import Source
from lungstage.appliance.state import requests
from lungstage.appliance.state.job import Job
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.state.requests import Request

_EVERY_SECONDS = 1.0  # if the system gives no file events

_IN_MOVED_TO = 0x80  # inotify(7): a request appears by being renamed

_UNREADABLE = "The file is not a valid request, or another release wrote it."


class Requests(Source):
    """Looks for requests in each round of the daemon; a new request wakes the daemon.

    Parameters
    ----------
    ledger, settings
        The jobs, and the state folder that contains the requests.
    clock
        A monotonic clock.

    Attributes
    ----------
    granted
        Whether the last look granted a request, so that a case must be examined.
    """

    def __init__(self, ledger: Ledger, settings: Settings, clock: Callable[[], float]) -> None:
        self._ledger, self._state, self._clock = ledger, settings.state, clock
        self._stuck: set[str] = set()
        self._looked_at = float("-inf")
        self.granted = False
        folder = settings.state / requests.FOLDER
        with contextlib.suppress(OSError):  # a full disk is reported elsewhere
            folder.mkdir(mode=0o700, exist_ok=True)
        self._descriptor = _events_of(folder)
        if self._descriptor is not None:
            self._give_back = weakref.finalize(self, os.close, self._descriptor)

    def close(self) -> None:
        """Close the descriptor; later requests wait for the next daemon."""
        if self._descriptor is not None:
            self._give_back()
            self._descriptor = None

    def next_due(self) -> float | None:
        """When to look again, if the system gives no file events."""
        return None if self._descriptor is not None else self._looked_at + _EVERY_SECONDS

    def descriptors(self) -> tuple[int, ...]:
        """Return the descriptor that becomes readable when a request appears."""
        return () if self._descriptor is None else (self._descriptor,)

    def tick(self) -> None:
        """Execute the requests that are there."""
        self.granted = False
        self._looked_at = self._clock()
        if self._descriptor is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, 65536)
        self._look()

    def _look(self) -> None:
        for name in requests.waiting(self._state):
            if name not in self._stuck:
                self._take(name)

    def _take(self, name: str) -> None:
        path = self._state / requests.FOLDER / name
        try:
            request = requests.read(self._state, name)
        except FileNotFoundError:
            return
        except (OSError, ValueError):  # their messages would quote the file
            self._ledger.audit.write("request_unreadable", request=name, why=_UNREADABLE)
            logger.warning("request_unreadable", extra={"request": name})
        else:
            self.granted |= self._ledger.take_request(name, request, self._why_not)
        try:
            path.unlink(missing_ok=True)
        except OSError:  # for example a folder; it is reported once
            self._stuck.add(name)

    @staticmethod
    def _why_not(request: Request, job: Job | None) -> str | None:
        """Return the sentence why a request is refused; None if it is granted."""
        if job is None or job.canary:
            return f"There is no job {request.job}."
        if job.updated_at != request.seen:
            return f"Job {job.id} has changed since it was shown. Open it again, and repeat the request if needed."
        if request.choice is not None and not job.region_is_open:
            return f"Job {job.id} does not need a choice of region."
        return None


def _events_of(folder: Path) -> int | None:
    """Return a descriptor that becomes readable when a file appears in a folder; None if the system has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_MOVED_TO) < 0:
        os.close(descriptor)
        return None
    return descriptor
