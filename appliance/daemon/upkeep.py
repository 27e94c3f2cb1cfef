"""Warnings to the operator: jobs that wait too long, and disks that are nearly full."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from lungstage.appliance.config.disks import free_mb
from lungstage.appliance.config.logs import logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.daemon.periodic import Periodic
from lungstage.appliance.state.ledger import Ledger

_EVERY_SECONDS = 10.0


class Upkeep(Periodic):
    """Checks the ledger and the disks at an interval.

    Parameters
    ----------
    ledger, settings
        The jobs, and the limits for a warning.
    clock
        A monotonic clock.
    """

    def __init__(self, ledger: Ledger, settings: Settings, clock: Callable[[], float]) -> None:
        super().__init__(_EVERY_SECONDS, self._look, clock)
        self._ledger, self._settings = ledger, settings
        self._full: frozenset[str] = frozenset()

    def _look(self) -> None:
        self._alert()
        self._mind_space()

    def _alert(self) -> None:
        for job in self._ledger.jobs.long_waiting(timedelta(seconds=self._settings.alert_after_seconds)):
            code = None if job.reason is None else job.reason.code
            since = None if job.waiting_since is None else job.waiting_since.isoformat(timespec="seconds")
            logger.warning("alert", extra=job.uids | {"state": job.state, "code": code, "since": since})
            self._ledger.alerted(job.id)

    def _mind_space(self) -> None:
        full = set()
        for name in ("outbox", "state"):
            free = free_mb(getattr(self._settings, name))
            if free is not None and free < self._settings.min_free_mb:
                full.add(name)
                if name not in self._full:
                    logger.warning("low_space", extra={"folder": name, "free_mb": free})
        for name in self._full - full:
            logger.info("space_regained", extra={"folder": name})
        self._full = frozenset(full)
