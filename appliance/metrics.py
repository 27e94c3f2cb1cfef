"""What the daemon tells of itself while it runs, for whoever counts: by default nobody, and then no port is open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from appliance.job import Job
from appliance.settings import Settings


class Meter:
    """Takes note of nothing; :class:`appliance.prometheus.PrometheusMeter` does."""

    def moved(self, job: Job) -> None:
        """Take note of a job that has come into another state."""

    def looked(self, seconds: float, files: int) -> None:
        """Take note of a look at the inbox: how long its scan took, and how many files lie there."""

    def process_started(self) -> None:
        """Take note of a process that was started to read or stage."""

    def answers_by(self, bundle_digest: str) -> None:
        """Take note of the bundle that answers from now on."""


@contextlib.contextmanager
def metering(settings: Settings) -> Iterator[Meter]:
    """Let Prometheus read metrics until the block ends, where the settings name a port.

    Raises
    ------
    Unavailable
        When the port cannot be opened: monitoring that was asked for must not be missing in silence.
    """
    if settings.metrics_port is None:
        yield Meter()
        return
    from appliance.prometheus import PrometheusMeter, serving

    meter = PrometheusMeter(settings.state)
    with serving(meter.registry, settings.metrics_port):
        yield meter
