"""Actions that the daemon repeats at an interval."""

from __future__ import annotations

from collections.abc import Callable

from lungstage.appliance.contract.source import Source


class Periodic(Source):
    """An action that is repeated at an interval; the first time is at once.

    Parameters
    ----------
    every
        Interval in seconds, also after an error.
    do
        The action.
    clock
        A monotonic clock.
    """

    def __init__(self, every: float, do: Callable[[], None], clock: Callable[[], float]) -> None:
        self._every, self._do, self._clock = every, do, clock
        self._due = float("-inf")

    def next_due(self) -> float:
        """When the action is due."""
        return self._due

    def tick(self) -> None:
        """Do the action if it is due."""
        if self._clock() >= self._due:
            self._due = self._clock() + self._every
            self._do()
