"""Progress of a long run on stderr: a bar on a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_SECONDS: Final = 30.0


class Tally:
    """Count finished pieces by outcome, and estimate the remaining time; see :func:`counting`.

    Attributes
    ----------
    counts
        Number of pieces by outcome.
    """

    def __init__(self, total: int, outcomes: Sequence[str], console: Console) -> None:
        self.counts = Counter(dict.fromkeys(outcomes, 0))
        self._total, self._console = total, console
        self._timed, self._start = 0, time.monotonic()
        self._last_line = self._start
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self.bar.add_task("", total=total)

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.counts.items())

    def add(self, outcome: str, *, timed: bool = True) -> None:
        """Count one piece. Without `timed` it is not used for the estimate, because it needed no work."""
        now = time.monotonic()
        self.counts[outcome] += 1
        if timed:
            self._timed += 1
        else:
            self._start = now
        self.bar.update(self._task, completed=self.counts.total(), description=f"{self}{self._left(now)}")
        if not self._console.is_terminal and now - self._last_line > LINE_SECONDS:
            self._last_line = now
            self._console.print(f"{self} of {self._total}{self._left(now)}", soft_wrap=True)

    def _left(self, now: float) -> str:
        rest = self._total - self.counts.total()
        if not self._timed or not rest:
            return ""
        minutes = (now - self._start) / self._timed * rest / 60
        if minutes < 1:
            return "; less than a minute left"
        return f"; about {minutes:.0f} min left" if minutes < 90 else f"; about {minutes / 60:.0f} h left"


@contextmanager
def counting(total: int, outcomes: Sequence[str]) -> Iterator[Tally]:
    """Yield a tally that shows its progress towards `total` on stderr; `outcomes` are shown from the start."""
    tally = Tally(total, outcomes, Console(stderr=True))
    with tally.bar:
        yield tally
