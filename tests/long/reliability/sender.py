"""Send studies to an inbox as hospitals do: as folders, file by file, late, twice, and with junk files."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.long.reliability.studies import Sample, junk

INCOMPLETE, TWICE, WHOLE, JUNK = 0.1, 0.1, 0.4, 0.1  # shares of the studies

Errand = Callable[[], None]


class Sender(threading.Thread):
    """Sends its studies while the daemon runs and is killed; a file is visible before it is complete.

    Parameters
    ----------
    inbox
        Folder to send to.
    samples
        Studies to send, in this order.
    chance
        Random source for the way of sending; used by this thread alone.
    """

    def __init__(self, inbox: Path, samples: Sequence[Sample], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._inbox, self._chance = inbox, chance
        self._samples, self._total, self._allowed = deque(samples), len(samples), 0
        self._late: deque[Errand] = deque()
        self._released: deque[int] = deque()
        self._bell = threading.Semaphore(0)
        self.ways = dict.fromkeys(("whole", "file by file", "incomplete at first", "sent twice", "junk"), 0)

    def release_up_to(self, share: float) -> None:
        """Send studies up to this share of all, and half of the files that were delayed before."""
        count = round(share * self._total) - self._allowed
        self._allowed += count
        self._release(count)

    def release_all(self) -> None:
        """Send all remaining studies."""
        self._release(self._total - self._allowed)
        self._release(0)

    def _release(self, count: int) -> None:
        self._released.append(count)
        self._bell.release()

    def idle(self) -> bool:
        """Whether everything released so far has been sent."""
        return not self._released

    def run(self) -> None:
        while True:
            self._bell.acquire()
            count = self._released[0]
            late = [self._late.popleft() for _ in range((len(self._late) + 1) // 2 if count else len(self._late))]
            errands = [errand for _ in range(count) for errand in self._errands(self._samples.popleft())]
            for errand in (*errands, *late):
                errand()
            self._released.popleft()

    def _errands(self, sample: Sample) -> list[Errand]:
        chance, name, files = self._chance, sample.folder.name, sample.files
        errands: list[Errand] = []
        if chance.random() < JUNK:
            self.ways["junk"] += 1
            errands.append(partial(self._write, junk(chance, files[1]), f"junk-{name}"))
        if sample.end is None and chance.random() < INCOMPLETE:
            self.ways["incomplete at first"] += 1
            late = files.pop(chance.choice((0, 3, 4)))  # the ROI, or a slice in its middle
            self._late.append(partial(self._copy, late, f"{name}-late"))
        if chance.random() < TWICE:
            self.ways["sent twice"] += 1
            self._late.extend(partial(self._copy, path, f"twice/{name}/{path.name}") for path in sample.files)
        if chance.random() < WHOLE:
            self.ways["whole"] += 1
            return [*errands, partial(self._move_in, files, f"whole-{name}")]
        self.ways["file by file"] += 1
        chance.shuffle(files)
        return [*errands, *(partial(self._copy, path, f"{name}-{path.name}") for path in files)]

    def _move_in(self, files: Sequence[Path], name: str) -> None:
        """Move a complete folder into the inbox."""
        aside = self._inbox.with_name("aside") / name
        aside.mkdir(parents=True)
        for path in files:
            shutil.copy(path, aside)
        aside.rename(self._inbox / name)

    def _copy(self, path: Path, name: str) -> None:
        self._write(path.read_bytes(), name)

    def _write(self, content: bytes, name: str) -> None:
        """Write a file in two steps."""
        target = self._inbox / name
        target.parent.mkdir(parents=True, exist_ok=True)
        cut = self._chance.randrange(len(content) + 1)
        with target.open("wb", buffering=0) as file:
            file.write(content[:cut])
            time.sleep(self._chance.choice((0.0, 0.0, 0.0, 0.02)))
            file.write(content[cut:])
