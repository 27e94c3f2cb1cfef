"""The daemon's counters for monitoring. By default nothing is counted."""

from __future__ import annotations

from lungstage.appliance.state.job import Job


class Meter:
    """Counts nothing; :class:`daemon.prometheus.PrometheusMeter` counts."""

    def moved(self, job: Job) -> None:
        """Count a job that has changed its state."""

    def looked(self, seconds: float, files: int) -> None:
        """Note the duration of a scan of the inbox, and the number of its files."""

    def process_started(self) -> None:
        """Count a process that was started to read or stage."""

    def answers_by(self, bundle_digest: str) -> None:
        """Note the bundle that answers from now on."""
