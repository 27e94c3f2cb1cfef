"""Control of :file:`faults.c`, which makes one chosen disk call of the daemon fail."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.long.reliability.house import House

FUNCTIONS = ("open", "write", "fsync", "rename", "unlink", "ftruncate", "mkdir")
PLACES = (
    "outbox/.part", "outbox/document", "outbox", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "lock",
    "audit", "rehearsal", "heartbeat", "state",
)  # fmt: skip

Calls = Mapping[tuple[int, int], int]
"""How often each function was called on files of each place."""


class Page(ctypes.Structure):
    """The page shared with :file:`faults.c`."""

    _fields_ = (
        ("outbox", ctypes.c_char * 512),
        ("state", ctypes.c_char * 512),
        ("calls", ctypes.c_uint32 * len(PLACES) * len(FUNCTIONS)),
        *((name, ctypes.c_uint32) for name in ("functions", "places", "number", "lasting", "error", "seen", "failed")),
    )


@dataclass(frozen=True)
class Site:
    """One call among those of its function on files of its place, while a handful of studies is served."""

    function: int
    place: int
    number: int

    def __str__(self) -> str:
        return f"{FUNCTIONS[self.function]} {self.number} on {PLACES[self.place]}"


class Faults:
    """Arms and disarms faults in the processes that have the library preloaded."""

    def __init__(self, folder: Path) -> None:
        shared, library = folder / "page", folder / "faults.so"
        shared.write_bytes(bytes(mmap.PAGESIZE))
        with shared.open("r+b") as file:
            self._page = Page.from_buffer(mmap.mmap(file.fileno(), mmap.PAGESIZE))
        compiler = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
        subprocess.run([*compiler, "-o", library, Path(__file__).with_name("faults.c"), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "FAULTS_PAGE": str(shared)}

    def watch(self, house: House) -> None:
        """Set the folders in which calls are counted."""
        self._page.outbox, self._page.state = (os.fsencode(folder) for folder in (house.outbox, house.state))

    def arm(self, functions: int, places: int, number: int, error: int, *, lasting: bool = False) -> None:
        """Make the call with this number fail, counted from now; `functions` and `places` are sets of bits."""
        shared = self._page
        shared.functions = shared.seen = shared.failed = 0
        shared.number, shared.error, shared.lasting, shared.places = number, error, lasting, places
        shared.functions = functions

    def disarm(self) -> int:
        """End all faults; return the number of failed calls."""
        self._page.functions = 0
        return int(self._page.failed)

    def calls(self) -> Calls:
        """Return all calls so far."""
        every = itertools.product(range(len(FUNCTIONS)), range(len(PLACES)))
        return {(f, p): int(self._page.calls[f][p]) for f, p in every if self._page.calls[f][p]}


def between(before: Calls, after: Calls) -> Calls:
    """Return the calls between two counts."""
    return {key: after[key] - before.get(key, 0) for key in sorted(after) if after[key] > before.get(key, 0)}


def sites(calls: Calls, most: int) -> list[Site]:
    """Return every call, or `most` evenly spread ones if a function has more in one place."""

    def chosen(count: int) -> Iterator[int]:
        few = min(count, most)
        return iter(sorted({round(1 + k * (count - 1) / max(few - 1, 1)) for k in range(few)}))

    return [Site(*key, number) for key, count in calls.items() for number in chosen(count)]


def bits(*names: str) -> int:
    """Return the set of these functions or places as bits."""
    every = FUNCTIONS if names[0] in FUNCTIONS else PLACES
    return sum(1 << every.index(name) for name in names)
