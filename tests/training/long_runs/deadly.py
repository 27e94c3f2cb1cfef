"""Work that kills the process in which it runs."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Deadly:
    """A number to square, and how many processes this work kills before it succeeds."""

    number: int
    deaths: int
    folder: Path

    def attempts(self) -> int:
        """Number of processes that have tried."""
        return len(list(self.folder.glob(f"{self.number}-*")))


def square(item: Deadly) -> int:
    """Square the number, or kill this process if more deaths are due."""
    tried = item.attempts()
    (item.folder / f"{item.number}-{tried}").touch()
    if tried < item.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return item.number**2


def nap(seconds: float) -> float:
    """Sleep, and return how long."""
    time.sleep(seconds)
    return seconds


def babble(item: Deadly) -> int:
    """Write invalid data to the pipe for results, and do not end."""
    tried = item.attempts()
    (item.folder / f"{item.number}-{tried}").touch()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the descriptor of the listing itself
            if descriptor > 2 and os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:"):
                os.write(descriptor, b"no pickle\n")
    time.sleep(600)
    return 0
