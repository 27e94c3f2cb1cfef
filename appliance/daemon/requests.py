"""Takes what people ask for on the page: a case processed again, or a region chosen where no rule could.

Of two who ask for the same job, whoever was first is served. What is done, what the audit log is told and that a
request was taken are one transaction of the ledger; its file is removed after that.
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

_EVERY_SECONDS = 1.0  # where no event can tell

_IN_MOVED_TO = 0x80  # inotify(7): a request appears by being renamed

_UNREADABLE = "This is no request, or one of another release."


class Requests(Source):
    """Looks for requests whenever the daemon is awake, and is woken by them.

    Parameters
    ----------
    ledger, settings
        What is asked about, and where the requests lie.
    clock
        A monotonic clock.

    Attributes
    ----------
    granted
        Whether the last look found one that was granted, so that a case waits to be examined.
    """

    def __init__(self, ledger: Ledger, settings: Settings, clock: Callable[[], float]) -> None:
        self._ledger, self._state, self._clock = ledger, settings.state, clock
        self._stuck: set[str] = set()
        self._looked_at = float("-inf")
        self.granted = False
        folder = settings.state / requests.FOLDER
        with contextlib.suppress(OSError):  # of a disk that is full, which is told of elsewhere
            folder.mkdir(mode=0o700, exist_ok=True)
        self._descriptor = _events_of(folder)
        if self._descriptor is not None:
            self._give_back = weakref.finalize(self, os.close, self._descriptor)

    def close(self) -> None:
        """Give the descriptor back; requests wait from then on."""
        if self._descriptor is not None:
            self._give_back()
            self._descriptor = None

    def next_due(self) -> float | None:
        """When to look, where no event tells."""
        return None if self._descriptor is not None else self._looked_at + _EVERY_SECONDS

    def descriptors(self) -> tuple[int, ...]:
        """Return what becomes readable when a request appears."""
        return () if self._descriptor is None else (self._descriptor,)

    def tick(self) -> None:
        """Take what is there."""
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
        except (OSError, ValueError):  # whose words would quote the file
            self._ledger.audit.write("request_unreadable", request=name, why=_UNREADABLE)
            logger.warning("request_unreadable", extra={"request": name})
        else:
            self.granted |= self._ledger.take_request(name, request, self._why_not)
        try:
            path.unlink(missing_ok=True)
        except OSError:  # a folder, say: told of once
            self._stuck.add(name)

    @staticmethod
    def _why_not(request: Request, job: Job | None) -> str | None:
        """Say why a request is not granted, in a sentence; None where it is."""
        if job is None or job.canary:
            return f"There is no job {request.job}."
        if job.updated_at != request.seen:
            return f"Job {job.id} has changed since it was looked at. Look at it again, and ask again if need be."
        if request.choice is not None and not job.region_is_open:
            return f"In job {job.id} there is no region to be chosen."
        return None


def _events_of(folder: Path) -> int | None:
    """Return a descriptor that becomes readable when a file appears in a folder; None where the system gives none."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_MOVED_TO) < 0:
        os.close(descriptor)
        return None
    return descriptor
