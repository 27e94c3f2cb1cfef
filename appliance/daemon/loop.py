"""The daemon: looks at the inbox, has cases examined, stages one job at a time and delivers its report.

It is the only place that catches every exception: whatever a study does to us, the next one is served.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance import __version__
from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.daemon.canary import Canary
from lungstage.appliance.daemon.cases import Cases
from lungstage.appliance.daemon.dispatcher import Dispatcher, Stagers, pause_after, told
from lungstage.appliance.daemon.examination import Prepare
from lungstage.appliance.daemon.hot_swap import HotSwap
from lungstage.appliance.daemon.metrics import Meter
from lungstage.appliance.daemon.upkeep import Upkeep
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.intake.inbox import Inbox
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.intake.watch import Wake, Watcher
from lungstage.appliance.report import outbox
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileTable
from lungstage.appliance.state.heartbeat import Heartbeat
from lungstage.appliance.state.jobs import utc_now
from lungstage.appliance.state.ledger import Ledger

# A look may take at most this share of the time, so that a huge inbox does not keep the machine busy.
_BUSY_SHARE, _IDLE_SHARE = 0.3, 0.05
_HANGING_SECONDS = 30.0  # without a sign of life, beyond what a request may take
_LAST_SECONDS = 8.0  # before a job in hand is given back at the end; container engines wait for ten
_UNMETERED = Meter()


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that the daemon drives; other ones in its tests."""

    read_headers: Callable[[Path], tuple[Header, ...]]
    assemble: Callable[[Iterable[Header]], tuple[Case, ...]]
    prepare: Prepare
    stagers: Stagers
    write_phantom: Callable[[Path, str], str]


class Daemon:
    """One inbox, one outbox, one bundle at a time.

    Parameters
    ----------
    settings, bundle_digest
        How to run, and which bundle it is that `steps` answer by at first.
    steps
        The steps from file to report.
    database
        The state folder's database.
    wake
        Alarm that ends a sleep, and says when to stop.
    watcher
        What rings `wake` on file events; None where the scan does all the work.
    clock
        A monotonic clock, so that setting the time of day disturbs nothing.
    meter
        What it tells of itself.
    swap
        What exchanges the bundle; None where it is never exchanged.
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
        self._swap = swap
        self._settings, self._bundle_digest, self._steps, self._wake = settings, bundle_digest, steps, wake
        self._watcher, self._clock = watcher, clock
        self._database = database
        self._meter = meter
        meter.answers_by(bundle_digest)
        self._ledger = Ledger(database, moved=meter.moved)
        self._claims = Claims(self._ledger)
        files = FileTable(database, __version__)
        self._canary = self._make_canary(files)
        is_canary = self._canary.is_one if self._canary else lambda _: False
        canary_outbox = self._canary.outbox if self._canary else None
        roots = [settings.inbox] + ([self._canary.inbox] if self._canary else [])
        index = StudyIndex(files, steps.assemble)
        patience, read = settings.settle_seconds, steps.read_headers
        self._inboxes = [Inbox(root, files, index, patience, read=read, clock=clock) for root in roots]
        self._cases = Cases(self._ledger, bundle_digest, settings, index, steps.prepare, clock, is_canary)
        self._dispatcher = Dispatcher(self._ledger, self._cases.open, settings, steps.stagers, clock, canary_outbox)
        self._upkeep = Upkeep(self._ledger, settings, clock)
        self._begin_anew = True
        self._data_version = -1
        self._looked_at = self._beat_at = -1e9

    def _make_canary(self, files: FileTable) -> Canary | None:
        settings = self._settings
        if settings.canary_seconds is None:
            return None
        return Canary(
            settings.state / "canary",
            self._steps.write_phantom,
            self._ledger.jobs,
            files.forget,
            settings.canary_seconds,
            settings.canary_patience_seconds,
            self._clock,
        )

    def run(self, announce: Callable[[], None] = lambda: None) -> None:
        """Serve until told to stop; jobs in hand are finished, or given back where that is not done soon."""
        about = {"software": __version__, "bundle": self._bundle_digest}
        self._ledger.audit.write("daemon_started", **about, **self._settings.for_audit())
        released = self._claims.release_all()
        leftovers = outbox.clean(self._settings.outbox)
        logger.info("started", extra={"bundle": self._bundle_digest, "released": released, "cleaned": leftovers})
        self._beat()
        announce()
        failures = 0
        while not self._wake.stopping:
            try:
                self.step()
                failures = 0
            except Exception as error:
                known = isinstance(error, (Unavailable, OSError))
                if known:
                    logger.warning("unavailable", extra={"error": type(error).__name__, "why": told(error)})
                else:
                    logger.error("defect", extra=defect(error))
                self._begin_anew = True
                failures += 1
                self._wake.pause(pause_after(failures, self._settings))
        self._finish()
        self._claims.release_all()
        self._ledger.audit.write("daemon_stopped", **about)
        heartbeat.end(self._settings.state)
        logger.info("stopped")

    def _finish(self) -> None:
        """Wait a little for what is being staged, and deliver it."""
        until = self._clock() + _LAST_SECONDS
        try:
            while self._dispatcher.in_hand() and self._clock() < until:
                select.select(self._steps.stagers.descriptors(), [], [], until - self._clock())
                self._dispatcher.work(claim=False)
        except (Unavailable, OSError) as error:
            logger.warning("unavailable", extra={"error": type(error).__name__, "why": told(error)})

    def step(self) -> None:
        """Look, examine, have staged what is ready; then sleep until something happens or is due."""
        self._beat()
        if self._canary:
            self._canary.tick()
        self._swap_bundle()
        self._look()
        version = self._database.data_version()
        if version != self._data_version:
            self._data_version = version
            self._note_ready(self._cases.requeue())
        self._note_ready(self._cases.tick(self._unsettled_since()))
        self._upkeep.tick()
        if not self._dispatcher.work() and not self._cases.behind:
            self._sleep()

    def _swap_bundle(self) -> None:
        digest = self._swap.look() if self._swap else None
        if digest is not None:
            self._bundle_digest = digest
            self._meter.answers_by(digest)
            self._cases.answer_by(digest)

    def _look(self) -> None:
        if not self._begin_anew and self._clock() < self._next_look(_BUSY_SHARE):
            return
        looks = [inbox.look() for inbox in self._inboxes]
        self._looked_at = self._clock()
        if self._watcher:
            self._watcher.looked(found=self._inboxes[0].found)
        self._meter.looked(self._inboxes[0].scan_cost, len(self._inboxes[0]))
        if self._begin_anew:
            self._claims.release_all()
            self._cases.forget()
        if any(looks) or self._begin_anew:
            self._note_ready(self._cases.update(self._unsettled_since()))
        self._begin_anew = False

    def _sleep(self) -> None:
        now = self._clock()
        earliest = self._next_look(_BUSY_SHARE)
        latest = self._next_look(_IDLE_SHARE)
        if self._watcher and self._watcher.events_come() and not (self._canary and self._canary.is_under_way):
            latest = max(latest, self._looked_at + self._settings.scan_seconds)
        stagers = self._steps.stagers
        dues = [inbox.next_due() for inbox in self._inboxes]
        dues += [
            self._cases.next_due(),
            stagers.next_due(),
            latest,
            self._beat_at + self._settings.heartbeat_seconds,
        ]
        if self._canary:
            dues.append(self._canary.next_due())
        descriptors = stagers.descriptors()
        if self._swap:
            dues.append(self._swap.next_due())
            descriptors += self._swap.descriptors()
        due = [moment for moment in dues if moment is not None]
        if self._dispatcher.resume_at > now:
            due.append(self._dispatcher.resume_at)
        if self._wake.wait(max(min(due), earliest) - now, descriptors):
            self._wake.pause(earliest - self._clock())

    def _next_look(self, share: float) -> float:
        cost = sum(inbox.scan_cost for inbox in self._inboxes)
        return self._looked_at + max(self._settings.poll_seconds, cost / share)

    def _unsettled_since(self) -> float | None:
        moments = [inbox.unsettled_since() for inbox in self._inboxes]
        return min((moment for moment in moments if moment is not None), default=None)

    def _beat(self) -> None:
        if self._clock() < self._beat_at + self._settings.heartbeat_seconds:
            return
        self._beat_at = self._clock()
        by_events = self._watcher is not None and self._watcher.events_come()
        overdue = self._ledger.jobs.overdue()  # and where the ledger does not answer, there is no sign of life
        with contextlib.suppress(OSError):  # its absence is told by whoever looks for it
            heartbeat.write(
                self._settings.state,
                Heartbeat(
                    at=utc_now(),
                    patience=self._settings.heartbeat_seconds + self._settings.work_seconds + _HANGING_SECONDS,
                    version=__version__,
                    bundle_digest=self._bundle_digest,
                    watch="events" if by_events else "poll",
                    files=len(self._inboxes[0]),
                    in_hand=self._dispatcher.in_hand(),
                    overdue=overdue,
                    canary=self._canary.well if self._canary else None,
                ),
            )

    def _note_ready(self, became_ready: bool) -> None:
        if became_ready:
            self._dispatcher.encourage()
