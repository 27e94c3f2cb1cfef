"""What the daemon does again and again."""

from __future__ import annotations

from collections.abc import Callable

from lungstage.appliance.contract.source import Source


class Periodic(Source):
    """Something that is done every so often, for the first time at once.

    Parameters
    ----------
    every
        Seconds from one time to the next, whether or not it raises.
    do
        What is done.
    clock
        A monotonic clock.
    """

    def __init__(self, every: float, do: Callable[[], None], clock: Callable[[], float]) -> None:
        self._every, self._do, self._clock = every, do, clock
        self._due = float("-inf")

    def next_due(self) -> float:
        """When it is due."""
        return self._due

    def tick(self) -> None:
        """Do it where it is due."""
        if self._clock() >= self._due:
            self._due = self._clock() + self._every
            self._do()
