"""When the inboxes are scanned: soon after a file event or when a file can be read, within limits of frequency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.source import Source, next_due
from lungstage.appliance.intake.inbox import Inbox
from lungstage.appliance.intake.watch import Watcher

# Scans may take at most this share of the time, so a very large inbox does not use the machine all the time.
_BUSY_SHARE, _IDLE_SHARE = 0.3, 0.05


class Scanner(Source):
    """Scans inboxes.

    Parameters
    ----------
    inboxes
        The folders; the watcher watches only the first.
    watcher
        Source of file events; None if there are only scans.
    settings
        Settings with the intervals of the scans.
    clock
        A monotonic clock.
    """

    def __init__(
        self,
        inboxes: Sequence[Inbox],
        watcher: Watcher | None,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._inboxes, self._watcher, self._settings, self._clock = inboxes, watcher, settings, clock
        self._looked_at = float("-inf")

    def events_come(self) -> bool:
        """Whether a change in the first inbox causes an event."""
        return self._watcher is not None and self._watcher.events_come()

    def earliest(self) -> float:
        """Earliest time of the next scan."""
        return self._after(_BUSY_SHARE)

    def next_due(self) -> float:
        """Time of the next scan if no event occurs."""
        latest = self._after(_IDLE_SHARE)
        if self.events_come():
            latest = max(latest, self._looked_at + self._settings.scan_seconds)
        rested = next_due(self._inboxes)
        return latest if rested is None else min(latest, rested)

    def look(self) -> bool:
        """Scan every inbox; True if the index has changed.

        Raises
        ------
        Unavailable
            As in :meth:`intake.inbox.Inbox.look`.
        """
        changed = [inbox.look() for inbox in self._inboxes]
        self._looked_at = self._clock()
        if self._watcher is not None:
            self._watcher.looked(found=self._inboxes[0].found)
        return any(changed)

    def arriving(self) -> frozenset[str]:
        """Return the folders of the inboxes that are still receiving files."""
        return frozenset().union(*(inbox.arriving() for inbox in self._inboxes))

    def unsettled_since(self) -> float | None:
        """Time when the first of the files not read yet was seen; None if all are read."""
        moments = [inbox.unsettled_since() for inbox in self._inboxes]
        return min((moment for moment in moments if moment is not None), default=None)

    def _after(self, share: float) -> float:
        cost = sum(inbox.scan_cost for inbox in self._inboxes)
        return self._looked_at + max(self._settings.poll_seconds, cost / share)
