"""What the daemon tells of itself while it runs, for whoever counts: by default nobody."""

from __future__ import annotations

from lungstage.appliance.state.job import Job


class Meter:
    """Takes note of nothing; :class:`daemon.prometheus.PrometheusMeter` does."""

    def moved(self, job: Job) -> None:
        """Take note of a job that has come into another state."""

    def looked(self, seconds: float, files: int) -> None:
        """Take note of a look at the inbox: how long its scan took, and how many files lie there."""

    def process_started(self) -> None:
        """Take note of a process that was started to read or stage."""

    def answers_by(self, bundle_digest: str) -> None:
        """Take note of the bundle that answers from now on."""
