"""When the inboxes are looked at: soon after a file event or a file's rest, and neither too often nor too seldom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.source import Source, next_due
from lungstage.appliance.intake.inbox import Inbox
from lungstage.appliance.intake.watch import Watcher

# A look may take at most this share of the time, so that a huge inbox does not keep the machine busy.
_BUSY_SHARE, _IDLE_SHARE = 0.3, 0.05


class Scanner(Source):
    """Looks at inboxes.

    Parameters
    ----------
    inboxes
        The folders; the watcher watches the first alone.
    watcher
        Tells of file events; None where the scan does all the work.
    settings
        How often to look.
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
        """Whether a change in the first inbox rings."""
        return self._watcher is not None and self._watcher.events_come()

    def earliest(self) -> float:
        """When the next look may be taken, whatever happens."""
        return self._after(_BUSY_SHARE)

    def next_due(self) -> float:
        """When the next look is to be taken, although nothing happens."""
        latest = self._after(_IDLE_SHARE)
        if self.events_come():
            latest = max(latest, self._looked_at + self._settings.scan_seconds)
        rested = next_due(self._inboxes)
        return latest if rested is None else min(latest, rested)

    def look(self) -> bool:
        """Look at every inbox; True when what lies in the index has changed.

        Raises
        ------
        Unavailable
            As :meth:`intake.inbox.Inbox.look`.
        """
        changed = [inbox.look() for inbox in self._inboxes]
        self._looked_at = self._clock()
        if self._watcher is not None:
            self._watcher.looked(found=self._inboxes[0].found)
        return any(changed)

    def arriving(self) -> frozenset[str]:
        """Return the folders of the inboxes that something is still being sent to."""
        return frozenset().union(*(inbox.arriving() for inbox in self._inboxes))

    def unsettled_since(self) -> float | None:
        """When the longest waiting of the files that are not read yet was first seen; None when all are read."""
        moments = [inbox.unsettled_since() for inbox in self._inboxes]
        return min((moment for moment in moments if moment is not None), default=None)

    def _after(self, share: float) -> float:
        cost = sum(inbox.scan_cost for inbox in self._inboxes)
        return self._looked_at + max(self._settings.poll_seconds, cost / share)
