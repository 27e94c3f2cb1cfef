"""Foreign files that block a document's name in the outbox. A blocked case continues when the file goes or changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lungstage.appliance.contract.source import Source
from lungstage.appliance.daemon.open_cases import OpenCases

_EVERY_SECONDS = 5.0

_Seen = tuple[int, int, int, bool]


class Obstacles(Source):
    """The files that block deliveries.

    Parameters
    ----------
    cases
        The open cases; a case whose obstacle is gone becomes due again.
    clock
        A monotonic clock.
    """

    def __init__(self, cases: OpenCases, clock: Callable[[], float]) -> None:
        self._cases, self._clock = cases, clock
        self._met: dict[str, tuple[Path, _Seen | None]] = {}
        self._due = 0.0

    def next_due(self) -> float | None:
        """When to check the obstacles again; None if there are none."""
        return self._due if self._met else None

    def met(self, case_key: str, path: Path) -> None:
        """Remember the file that blocks the delivery of a case's report."""
        if not self._met:
            self._due = self._clock() + _EVERY_SECONDS
        self._met[case_key] = path, _look_at(path)

    def tick(self) -> None:
        """If it is time to check: make the cases due whose obstacle is gone or has changed."""
        now = self._clock()
        if not self._met or now < self._due:
            return
        self._due = now + _EVERY_SECONDS
        for key, (path, former) in list(self._met.items()):
            seen = _look_at(path)
            if seen is None or seen != former:
                del self._met[key]
                if key in self._cases:
                    self._cases[key].due = now


def _look_at(path: Path) -> _Seen | None:
    """Return values that change if the file is replaced, written to or made readable; None if there is no file."""
    try:
        at = path.lstat()
    except OSError:
        return None
    return at.st_dev, at.st_ino, at.st_ctime_ns, os.access(path, os.R_OK)
