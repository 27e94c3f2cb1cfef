"""Metrics in Prometheus' text format, on the loopback interface only.

Labels are states, steps, reason codes and the digest of the bundle. No label contains a UID or text from a file.
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
    """Counts for Prometheus, in a separate registry.

    Parameters
    ----------
    state
        The state folder; each scrape reads its ledger and its heartbeat.

    Attributes
    ----------
    registry
        The registry that a scrape reads.
    """

    def __init__(self, state: Path) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a reset of a counter shows its start as well
        self.registry = registry = CollectorRegistry()
        self._studies = Counter(
            "lungstage_studies", "Jobs delivered, refused or held, by reason.", ["state", "reason"], registry=registry
        )
        self._studies.labels(JobState.DELIVERED, "")
        self._seconds = Histogram(
            "lungstage_step_seconds", "Time of each step, for delivered jobs.", ["step"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._processes = Counter(
            "lungstage_processes_started", "Processes started to read or stage, including the first.", registry=registry
        )
        self._files = Gauge("lungstage_inbox_files", "Files in the inbox at the last scan.", registry=registry)
        self._scan = Gauge("lungstage_inbox_scan_seconds", "Duration of the last scan of the inbox.", registry=registry)
        self._bundle = Info("lungstage_bundle", "The bundle in use.", registry=registry)
        Info("lungstage_build", "The software version.", registry=registry).info({"version": __version__})
        registry.register(_StateCollector(state))

    def moved(self, job: Job) -> None:
        """Count a job that was delivered, refused or held."""
        if job.canary or job.state not in _COUNTED_STATES:
            return
        self._studies.labels(job.state, "" if job.reason is None else job.reason.code).inc()
        if job.state is JobState.DELIVERED and job.outcome is not None:
            for step, seconds in (job.outcome.get("seconds") or {}).items():
                if seconds is not None:
                    self._seconds.labels(step).observe(seconds)

    def looked(self, seconds: float, files: int) -> None:
        """Note duration and number of files of a scan of the inbox."""
        self._scan.set(seconds)
        self._files.set(files)

    def process_started(self) -> None:
        """Count a process."""
        self._processes.inc()

    def answers_by(self, bundle_digest: str) -> None:
        """Note the bundle in use."""
        self._bundle.info({"digest": bundle_digest})


class _StateCollector(Collector):
    """Reads ledger and heartbeat at the time of each scrape, independent of the daemon's loop."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        jobs, beat = _read(self._jobs), _read(self._heartbeat)
        yield _gauge("lungstage_ledger_available", "Whether the ledger can be read.", jobs is not None)
        yield from jobs or ()
        yield from beat or ()

    def _heartbeat(self) -> Iterable[Metric]:
        if (beat := heartbeat.read(self._state)) is not None:
            yield _gauge("lungstage_heartbeat_timestamp_seconds", "Time of the last heartbeat.", beat.at.timestamp())
            yield _gauge(
                "lungstage_outbox_replaced",
                "Whether another folder is in the place of the outbox.",
                beat.outbox_replaced,
            )
            if beat.canary is not None:
                yield _gauge("lungstage_canary_well", "Whether the last canary was delivered in time.", beat.canary)

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
        yield _gauge("lungstage_oldest_waiting_seconds", "Longest wait of a job; 0: no job waits.", age)


def _read(part: Callable[[], Iterable[Metric]]) -> list[Metric] | None:
    """Return the metrics that can be read now, or None; the server would print an exception with its message."""
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
    """The server of prometheus-client's ``start_http_server``, without two behaviours of its base class."""

    def server_bind(self) -> None:
        """Bind without a look-up of the host's name, so that no name server is asked (HTTPServer would ask one)."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that closed the connection or sent nothing; print no traceback."""


class _Handler(WSGIRequestHandler):
    timeout = 5.0  # a client that sends nothing must not keep a thread

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@contextlib.contextmanager
def serving(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Answer scrapes of `registry` on a port of the loopback interface, until the block ends.

    Raises
    ------
    Unavailable
        The port cannot be opened. The daemon then does not start, because the site asked for monitoring.
    """
    try:
        server = make_server(ADDRESS, port, make_wsgi_app(registry), _Server, _Handler)
    except OSError as error:
        raise Unavailable(
            f"Port {port} of {ADDRESS} cannot be opened for metrics: {error.strerror}. Stop the program that uses it, "
            "or set another metrics_port."
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
