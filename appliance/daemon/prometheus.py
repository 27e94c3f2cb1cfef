"""Metrics in Prometheus' text format, on the loopback interface alone.

Labels are states, steps, reason codes and the digest of the bundle: never a UID, and nothing that a file says.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from socketserver import TCPServer
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from lungstage.appliance import __version__
from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import Damaged, Unavailable
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
            "lungstage_studies", "Jobs that came into a state, by reason.", ["state", "reason"], registry=registry
        )
        self._studies.labels(JobState.DELIVERED, "")
        self._seconds = Histogram(
            "lungstage_step_seconds", "Time of each step of the jobs delivered.", ["step"],
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
        jobs, beat = _read(self._jobs), _read(self._heartbeat)
        yield _gauge("lungstage_ledger_available", "Whether the ledger can be read.", jobs is not None)
        yield from jobs or ()
        yield from beat or ()

    def _heartbeat(self) -> Iterable[Metric]:
        if (beat := heartbeat.read(self._state)) is not None:
            yield _gauge("lungstage_heartbeat_timestamp_seconds", "Last sign of life.", beat.at.timestamp())
            yield _gauge("lungstage_outbox_replaced", "Whether the outbox is another folder.", beat.outbox_replaced)
            if beat.canary is not None:
                yield _gauge("lungstage_canary_well", "Whether the last canary came through.", beat.canary)

    def _jobs(self) -> Iterable[Metric]:
        with DatabaseReader(self._state / "ledger.sqlite") as database:
            known = Jobs(database)
            counts, oldest = known.counts(), known.oldest_waiting()
        jobs = GaugeMetricFamily("lungstage_jobs", "Jobs in the ledger, by state.", labels=["state"])
        for state in JobState:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        since = None if oldest is None else oldest.waiting_since
        age = 0.0 if since is None else max((utc_now() - since).total_seconds(), 0.0)
        yield _gauge("lungstage_oldest_waiting_seconds", "How long the longest wait lasts; 0: none waits.", age)


def _read(part: Callable[[], Iterable[Metric]]) -> list[Metric] | None:
    """Return what can be read now, None where it cannot; what was raised the server would print, message and all."""
    try:
        return list(part())
    except Damaged as error:
        logger.error("damaged", extra={"why": str(error)})
        return None
    except Unavailable:
        return None
    except Exception as error:
        logger.error("metrics_defect", extra=defect(error))
        return None


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


class _Server(ThreadingWSGIServer):
    """prometheus-client's own server, as it stands behind ``start_http_server``, but for two habits of its base."""

    def server_bind(self) -> None:
        """Bind without looking this host's name up, as HTTPServer does: a name server is none of our business."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a client go that hung up or said nothing, without printing a traceback."""


class _Handler(WSGIRequestHandler):
    timeout = 5.0  # so that clients that say nothing do not keep threads

    def log_message(self, *_: object) -> None:
        """Log no request."""


@contextlib.contextmanager
def serving(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Answer scrapes of `registry` on a port of the loopback interface, until the block ends.

    Raises
    ------
    Unavailable
        When the port cannot be opened: monitoring that was asked for must not be missing in silence.
    """
    try:
        server = make_server(ADDRESS, port, make_wsgi_app(registry), _Server, _Handler)
    except OSError as error:
        raise Unavailable(f"Port {port} of {ADDRESS} cannot be opened for metrics: {error.strerror}.") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
