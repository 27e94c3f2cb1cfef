"""What bears a document's name in the outbox and is none of ours: the case goes on once that is gone or has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lungstage.appliance.contract.source import Source
from lungstage.appliance.daemon.open_cases import OpenCases

_EVERY_SECONDS = 5.0

_Seen = tuple[int, int, int, bool]


class Obstacles(Source):
    """The obstacles that deliveries have met.

    Parameters
    ----------
    cases
        Where a case is made due again.
    clock
        A monotonic clock.
    """

    def __init__(self, cases: OpenCases, clock: Callable[[], float]) -> None:
        self._cases, self._clock = cases, clock
        self._met: dict[str, tuple[Path, _Seen | None]] = {}
        self._due = 0.0

    def next_due(self) -> float | None:
        """When to look at them again; None where there are none."""
        return self._due if self._met else None

    def met(self, case_key: str, path: Path) -> None:
        """Remember what keeps a case's report from being delivered."""
        if not self._met:
            self._due = self._clock() + _EVERY_SECONDS
        self._met[case_key] = path, _look_at(path)

    def tick(self) -> None:
        """Have the cases examined whose obstacle is gone, or is no longer what it was, where it is time to look."""
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
    """Return what changes when something is replaced, written to, or made readable; None where nothing is there."""
    try:
        at = path.lstat()
    except OSError:
        return None
    return at.st_dev, at.st_ino, at.st_ctime_ns, os.access(path, os.R_OK)
