"""Sources of work that the daemon waits for: when the next work is due, and what wakes the daemon earlier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Source(Protocol):
    """A source of work for the daemon. The defaults are: no due time, and no file descriptor."""

    def next_due(self) -> float | None:
        """Time of its next work on the daemon's monotonic clock; None if it only waits for events."""
        return None

    def descriptors(self) -> Sequence[int]:
        """File descriptors that become readable when it has work."""
        return ()


def next_due(sources: Iterable[Source]) -> float | None:
    """Earliest due time of all sources; None if no source has one."""
    return min((due for source in sources if (due := source.next_due()) is not None), default=None)


def descriptors(sources: Iterable[Source]) -> list[int]:
    """File descriptors of all sources."""
    return [descriptor for source in sources for descriptor in source.descriptors()]
