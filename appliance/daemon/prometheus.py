"""Metrics in Prometheus' text format, on the loopback interface alone.

Labels are states, steps, reason codes and the digest of the bundle: never a UID, and nothing that a file says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lungstage.appliance import __version__
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.daemon.metrics import Meter
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import Jobs, utc_now

ADDRESS = "127.0.0.1"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_COUNTED_STATES = (JobState.DELIVERED, JobState.REFUSED, JobState.HELD)


class PrometheusMeter(Meter):
    """Counts for Prometheus, in a registry of its own.

    Parameters
    ----------
    state
        The state folder: each scrape looks at its ledger and its heartbeat.

    Attributes
    ----------
    registry
        What a scrape reads.
    """

    def __init__(self, state: Path) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began says nothing that its resets do not
        self.registry = registry = CollectorRegistry()
        self._studies = Counter(
            "lungstage_studies", "Studies that came into a state, by reason.", ["state", "reason"], registry=registry
        )
        self._studies.labels(JobState.DELIVERED, "")
        self._seconds = Histogram(
            "lungstage_step_seconds", "Time of each step of the studies delivered.", ["step"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._processes = Counter(
            "lungstage_processes_started", "Processes started to read or stage, the first included.", registry=registry
        )
        self._files = Gauge("lungstage_inbox_files", "Files in the inbox at the last look.", registry=registry)
        self._scan = Gauge(
            "lungstage_inbox_scan_seconds", "Time that the last scan of the inbox took.", registry=registry
        )
        self._bundle = Info("lungstage_bundle", "The bundle that answers.", registry=registry)
        Info("lungstage_build", "The software.", registry=registry).info({"version": __version__})
        registry.register(_StateCollector(state))

    def moved(self, job: Job) -> None:
        """Count a job that came to an answer, a refusal or a hold."""
        if job.canary or job.state not in _COUNTED_STATES:
            return
        self._studies.labels(job.state, "" if job.reason is None else job.reason.code).inc()
        if job.state is JobState.DELIVERED and job.outcome is not None:
            for step, seconds in (job.outcome.get("seconds") or {}).items():
                if seconds is not None:
                    self._seconds.labels(step).observe(seconds)

    def looked(self, seconds: float, files: int) -> None:
        """Take note of a look at the inbox."""
        self._scan.set(seconds)
        self._files.set(files)

    def process_started(self) -> None:
        """Count a process."""
        self._processes.inc()

    def answers_by(self, bundle_digest: str) -> None:
        """Take note of the bundle."""
        self._bundle.info({"digest": bundle_digest})


class _StateCollector(Collector):
    """What the state folder says at the moment of the scrape, whatever the daemon is at."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        yield from self._ledger()
        with contextlib.suppress(Unavailable):
            if (beat := heartbeat.read(self._state)) is not None:
                yield _gauge("lungstage_heartbeat_timestamp_seconds", "Last sign of life.", beat.at.timestamp())
                if beat.canary is not None:
                    yield _gauge("lungstage_canary_well", "Whether the last canary came through.", beat.canary)

    def _ledger(self) -> Iterable[Metric]:
        try:
            with DatabaseReader(self._state / "ledger.sqlite") as database:
                known = Jobs(database)
                counts, oldest = known.counts(), known.oldest_waiting()
        except Unavailable:
            yield _gauge("lungstage_ledger_available", "Whether the ledger can be read.", False)
            return
        yield _gauge("lungstage_ledger_available", "Whether the ledger can be read.", True)
        jobs = GaugeMetricFamily("lungstage_jobs", "Jobs in the ledger, by state.", labels=["state"])
        for state in JobState:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        since = None if oldest is None else oldest.waiting_since
        age = 0.0 if since is None else max((utc_now() - since).total_seconds(), 0.0)
        yield _gauge("lungstage_oldest_waiting_seconds", "How long the longest wait lasts; 0: none waits.", age)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


@contextlib.contextmanager
def serving(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Answer scrapes of `registry` on a port of the loopback interface, until the block ends.

    Raises
    ------
    Unavailable
        When the port cannot be opened: monitoring that was asked for must not be missing in silence.
    """
    try:
        server, thread = start_http_server(port, addr=ADDRESS, registry=registry)
    except OSError as error:
        raise Unavailable(f"Port {port} of {ADDRESS} cannot be opened for metrics: {error.strerror}.") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
