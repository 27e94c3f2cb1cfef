"""Work that kills the process it runs in."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
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


def babble(item: Deadly) -> int:
    """Write what is no result to where results go, and never end."""
    tried = item.attempts()
    (item.folder / f"{item.number}-{tried}").touch()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # that of the listing itself
            if descriptor > 2 and os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:"):
                os.write(descriptor, b"no pickle\n")
    time.sleep(600)
    return 0
