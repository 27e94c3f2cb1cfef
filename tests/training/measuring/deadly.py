"""Work that kills the process it runs in."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Deadly:
    """A number to square, and how many processes it kills before it lets itself be squared."""

    number: int
    deaths: int
    folder: Path

    def attempts(self) -> int:
        """How many processes have tried."""
        return len(list(self.folder.glob(f"{self.number}-*")))


def square(item: Deadly) -> int:
    """Square the number, if it lets."""
    tried = item.attempts()
    (item.folder / f"{item.number}-{tried}").touch()
    if tried < item.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return item.number**2


def nap(seconds: float) -> float:
    """Sleep, and say how long."""
    time.sleep(seconds)
    return seconds
