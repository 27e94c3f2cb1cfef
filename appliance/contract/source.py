"""What the daemon waits for: one way to say when there is something to do, and what wakes the daemon sooner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Source(Protocol):
    """Something that the daemon waits for; who has no due time, or no file descriptor, inherits that."""

    def next_due(self) -> float | None:
        """When it next has something to do, on the daemon's monotonic clock; None: not before something happens."""
        return None

    def descriptors(self) -> Sequence[int]:
        """File descriptors that become readable when it has something to do."""
        return ()


def next_due(sources: Iterable[Source]) -> float | None:
    """When the first of them has something to do; None where none says so."""
    return min((due for source in sources if (due := source.next_due()) is not None), default=None)


def descriptors(sources: Iterable[Source]) -> list[int]:
    """File descriptors of all of them."""
    return [descriptor for source in sources for descriptor in source.descriptors()]
