"""The daemon's loop: reads the inbox, examines cases, has jobs staged and delivers their reports.

Only this module catches every exception: after an error in one study, the next study is processed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

from lungstage.appliance import __version__
from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import Damaged, Unavailable
from lungstage.appliance.contract.source import Source, descriptors, next_due
from lungstage.appliance.daemon.canary import Canary
from lungstage.appliance.daemon.cases import Cases
from lungstage.appliance.daemon.dispatcher import Dispatcher, Stagers, pause_after, told
from lungstage.appliance.daemon.examination import Prepare
from lungstage.appliance.daemon.folder_guard import FolderGuard
from lungstage.appliance.daemon.former_reports import FormerReports
from lungstage.appliance.daemon.hot_swap import HotSwap
from lungstage.appliance.daemon.metrics import Meter
from lungstage.appliance.daemon.periodic import Periodic
from lungstage.appliance.daemon.refusal_pages import Explain, RefusalPages
from lungstage.appliance.daemon.requests import Requests
from lungstage.appliance.daemon.upkeep import Upkeep
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.intake.inbox import Inbox
from lungstage.appliance.intake.scanner import Scanner
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.intake.watch import Wake, Watcher
from lungstage.appliance.report import outbox
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileTable
from lungstage.appliance.state.heartbeat import Heartbeat
from lungstage.appliance.state.job import Job
from lungstage.appliance.state.jobs import utc_now
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.state.secret import identity_key, reader_of
from lungstage.appliance.workers.messages import SCRATCH

_HANGING_SECONDS = 30.0  # without a heartbeat, beyond the time that a request may take
_LAST_SECONDS = 8.0  # for jobs being processed when the daemon stops; container engines wait ten seconds
_UNMETERED = Meter()


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that the daemon runs; tests use others."""

    read_headers: Callable[[Path], tuple[Header, ...]]
    assemble: Callable[[Iterable[Header]], tuple[Case, ...]]
    prepare: Prepare
    stagers: Stagers
    write_phantom: Callable[[Path, str], str]
    explain: Explain = lambda case, reason, created: ()


class Daemon:
    """One inbox, one outbox, one bundle at a time.

    Parameters
    ----------
    settings, bundle_digest
        The daemon's settings, and the digest of the bundle that `steps` use at first.
    steps
        The steps from file to report.
    database
        The state folder's database.
    wake
        Ends a pause of the loop, and says when to stop.
    watcher
        Calls `wake` on file events; None if only scans find new files.
    clock
        A monotonic clock; a change of the time of day has no effect.
    meter
        Counts for monitoring.
    swap
        Exchanges the bundle; None if it is never exchanged.
    """

    def __init__(
        self,
        settings: Settings,
        bundle_digest: str,
        steps: Steps,
        database: Database,
        wake: Wake,
        watcher: Watcher | None = None,
        clock: Callable[[], float] = time.monotonic,
        meter: Meter = _UNMETERED,
        swap: HotSwap | None = None,
    ) -> None:
        self._settings, self._bundle_digest, self._wake, self._clock = settings, bundle_digest, wake, clock
        self._database, self._meter, self._swap = database, meter, swap
        meter.answers_by(bundle_digest)
        self._ledger = Ledger(database, moved=self._moved)
        self._claims = Claims(self._ledger)
        files = FileTable(database, reader_of(__version__, identity_key(settings.state)))
        self._canary = canary = self._make_canary(files, steps.write_phantom)
        index = StudyIndex(files, steps.assemble)
        patience, read = settings.settle_seconds, steps.read_headers
        folders = [settings.inbox] if canary is None else [settings.inbox, canary.inbox]
        inboxes = [Inbox(folder, files, index, patience, read=read, clock=clock) for folder in folders]
        self._inbox = inboxes[0]
        self._scanner = Scanner(inboxes, watcher, settings, clock)
        is_canary = (lambda _: False) if canary is None else canary.is_one
        self._cases = Cases(self._ledger, bundle_digest, settings, index, steps.prepare, clock, is_canary)
        canary_outbox = None if canary is None else canary.outbox
        self._inbox_guard = FolderGuard("inbox", settings.inbox, settings.state, strict=False)
        self._outbox_guard = FolderGuard("outbox", settings.outbox, settings.state, strict=True)
        self._former = FormerReports()
        self._refusal_pages = RefusalPages(
            self._ledger, index.case, steps.explain, settings.outbox, self._outbox_guard.prove,
            settings.retry_seconds, clock,
        )  # fmt: skip
        prove_outbox = self._outbox_guard.prove
        self._dispatcher = Dispatcher(
            self._ledger, self._cases.open, settings, steps.stagers, clock, canary_outbox, prove_outbox, self._former
        )
        self._heartbeat = Periodic(settings.heartbeat_seconds, self._beat, clock)
        self._upkeep = Upkeep(self._ledger, settings, clock)
        self._requests = Requests(self._ledger, settings, clock)
        sources = (
            self._heartbeat, canary, swap, self._scanner, self._cases, self._upkeep, self._dispatcher,
            self._refusal_pages, self._requests,
        )  # fmt: skip
        self._sources: list[Source] = [source for source in sources if source is not None]
        self._begin_anew = True
        self._data_version = -1

    def _moved(self, job: Job) -> None:
        self._meter.moved(job)
        if self._settings.refusal_page:
            self._refusal_pages.note(job)

    def _make_canary(self, files: FileTable, write: Callable[[Path, str], str]) -> Canary | None:
        settings = self._settings
        if settings.canary_seconds is None:
            return None
        every, patience = settings.canary_seconds, settings.canary_patience_seconds
        return Canary(
            settings.state / SCRATCH / "canary", write, self._ledger.jobs, files.forget, every, patience, self._clock,
            lambda: self._ledger.audit.write("canary_alarm"),
        )  # fmt: skip

    def run(self, announce: Callable[[], None] = lambda: None) -> None:
        """Run until told to stop. Then finish the jobs being processed; a job that needs too long starts again later.

        Raises
        ------
        Damaged
            The ledger is damaged; waiting does not help.
        """
        try:
            self._serve(announce)
        except Damaged as error:
            logger.error("damaged", extra={"why": str(error)})
            raise
        finally:
            self._requests.close()
            with contextlib.suppress(OSError):
                heartbeat.end(self._settings.state)

    def _serve(self, announce: Callable[[], None]) -> None:
        about = {"software": __version__, "bundle": self._bundle_digest}
        self._ledger.audit.write("daemon_started", **about, **self._settings.for_audit())
        released = self._claims.release_all()
        leftovers = outbox.clean(self._settings.outbox)
        self._former.read(self._settings.outbox, self._ledger.jobs.began())
        logger.info("started", extra={"bundle": self._bundle_digest, "released": released, "cleaned": leftovers})
        self._heartbeat.tick()
        announce()
        failures = 0
        while not self._wake.stopping:
            try:
                self.step()
                failures = 0
            except Damaged:
                raise
            except Exception as error:
                if isinstance(error, (Unavailable, OSError)):
                    _warn_of(error)
                else:
                    logger.error("defect", extra=defect(error))
                self._begin_anew = True
                failures += 1
                self._wake.pause(pause_after(failures, self._settings))
        self._finish()
        self._claims.release_all()
        self._ledger.audit.write("daemon_stopped", **about)
        logger.info("stopped")

    def _finish(self) -> None:
        """Wait a short time for the jobs that are being staged, and deliver their reports."""
        until = self._clock() + _LAST_SECONDS
        try:
            while self._dispatcher.in_hand() and self._clock() < until:
                connection.wait(self._dispatcher.descriptors(), until - self._clock())
                self._dispatcher.work(claim=False)
        except Damaged:
            raise
        except (Unavailable, OSError) as error:
            _warn_of(error)

    def step(self) -> None:
        """Do all steps that are due, from file to report; then wait for an event or the next step."""
        self._heartbeat.tick()
        if self._canary is not None:
            self._canary.tick()
        self._swap_bundle()
        became_ready = self._look()
        self._requests.tick()
        version = self._database.data_version()
        if self._requests.granted or version != self._data_version:  # the second: another process wrote to the ledger
            self._data_version = version
            became_ready |= self._cases.requeue()
        became_ready |= self._cases.tick(self._scanner.unsettled_since(), self._scanner.arriving())
        if became_ready:
            self._dispatcher.encourage()
        self._upkeep.tick()
        self._refusal_pages.tick()
        if not self._dispatcher.work() and not self._cases.behind:
            self._sleep()

    def _swap_bundle(self) -> None:
        digest = self._swap.look() if self._swap is not None else None
        if digest is not None:
            self._bundle_digest = digest
            self._meter.answers_by(digest)
            self._cases.answer_by(digest)

    def _look(self) -> bool:
        """Look at the inboxes if it is time; True if a job became ready."""
        if not self._begin_anew and self._clock() < self._scanner.earliest():
            return False
        self._inbox_guard.prove()
        changed = self._scanner.look()
        self._meter.looked(self._inbox.scan_cost, len(self._inbox))
        if self._begin_anew:
            self._claims.release_all()
            self._cases.forget()
        became_ready = (changed or self._begin_anew) and self._cases.update(self._scanner.unsettled_since())
        self._begin_anew = False
        return became_ready

    def _sleep(self) -> None:
        """Wait until a source is due or gives an event, but at least until the next look at the inbox is allowed."""
        due, earliest = next_due(self._sources), self._scanner.earliest()
        until = earliest if due is None else max(due, earliest)
        if self._wake.wait(until - self._clock(), descriptors(self._sources)):
            self._wake.pause(earliest - self._clock())

    def _beat(self) -> None:
        overdue = self._ledger.jobs.overdue()  # if the ledger does not answer, no heartbeat is written
        with contextlib.suppress(OSError):  # `lungstage health` reports a missing heartbeat
            heartbeat.write(
                self._settings.state,
                Heartbeat(
                    at=utc_now(),
                    patience=self._settings.heartbeat_seconds + self._settings.wall_seconds + _HANGING_SECONDS,
                    version=__version__,
                    bundle_digest=self._bundle_digest,
                    watch="events" if self._scanner.events_come() else "poll",
                    files=len(self._inbox),
                    in_hand=self._dispatcher.in_hand(),
                    overdue=overdue,
                    canary=self._canary.well if self._canary else None,
                    outbox_replaced=self._outbox_guard.is_replaced(),
                ),
            )


def _warn_of(error: Exception) -> None:
    logger.warning("unavailable", extra={"error": type(error).__name__, "why": told(error)})
