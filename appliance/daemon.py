"""The daemon: looks at the inbox, has cases examined, stages one job at a time and delivers its report.

It is the only place that catches every exception: whatever a study does to us, the next one is served.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import __version__, outbox
from appliance.casebook import Casebook, Prepare
from appliance.covariates import Site
from appliance.database import Database
from appliance.errors import Refused, Unavailable
from appliance.filetable import FileTable
from appliance.inbox import Inbox
from appliance.ledger import Ledger
from appliance.logs import defect, logger
from appliance.settings import Settings
from appliance.watch import Wake, watching
from appliance.worker import Stage, Worker, pause_after, told

if TYPE_CHECKING:
    from appliance.bundle import Bundle
    from appliance.dicom.cases import Case
    from appliance.dicom.instance import Header

# A look may take at most this share of the time, so that a huge inbox does not keep the machine busy.
_BUSY_SHARE, _IDLE_SHARE = 0.3, 0.05


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that the daemon drives; other ones in its tests."""

    read_header: Callable[[Path], Header | None]
    assemble: Callable[[Iterable[Header]], tuple[Case, ...]]
    prepare: Prepare
    stage: Stage

    @classmethod
    def real(cls) -> Steps:
        """Return the appliance's own steps."""
        from appliance.dicom.cases import assemble
        from appliance.dicom.files import read_header
        from appliance.pipeline import prepare, stage

        return cls(read_header, assemble, prepare, stage)


@contextlib.contextmanager
def sole_daemon(state: Path) -> Iterator[None]:
    """Hold the state folder's lock.

    Raises
    ------
    Unavailable
        When another daemon holds it.
    """
    with (state / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("Another daemon is at work on this state folder.") from error
        yield


def serve(settings: Settings, wake: Wake, load: Callable[[Path], Bundle], announce: Callable[[], None]) -> None:
    """Run the daemon until `wake` is told to stop.

    Parameters
    ----------
    settings
        How to run.
    wake
        Alarm that file events ring and signal handlers stop.
    load
        Loader and prover of a bundle.
    announce
        Called once the inbox is watched.

    Raises
    ------
    Refused
        When the bundle does not prove itself, or the table of covariates is not well-formed.
    Unavailable
        When the state folder is in use or cannot be used.
    """
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (settings.inbox, settings.outbox):
        folder.mkdir(parents=True, exist_ok=True)
    with sole_daemon(settings.state):
        bundle = load(settings.bundle)
        Site.read(settings.prevalence, settings.covariates)  # read for each study; what is wrong with it is said now
        steps = Steps.real()
        rehearse(bundle, steps, settings.state)
        with Database(settings.state / "ledger.sqlite") as database, watching(settings.inbox, wake) as events_come:
            gc.freeze()  # what was made at start-up stays: no collection need look at it again
            gc.enable()
            daemon = Daemon(settings, bundle, steps, database, wake, events_come)
            daemon.run(announce)


def rehearse(bundle: Bundle, steps: Steps, state: Path) -> None:
    """Send the phantom study through every step, and throw its report away.

    The first study of a day then meets warm libraries, and a machine on which no report can be made says so at once.
    That the phantom lies outside a bundle's intended use is no fault.
    """
    from appliance import phantom

    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=state) as folder, contextlib.suppress(Refused):
        headers = [steps.read_header(path) for path in phantom.write_study(Path(folder))]
        (case,) = steps.assemble(header for header in headers if header is not None)
        plan = steps.prepare(case, bundle, settled=True, roi_name=None, match_by_geometry=False)
        for document in steps.stage(plan, bundle, created=datetime(2026, 1, 1, tzinfo=UTC), site=Site()).documents:
            document.save_as(io.BytesIO(), enforce_file_format=True)


class Daemon:
    """One inbox, one outbox, one bundle.

    Parameters
    ----------
    settings, bundle
        How to run, and what to answer with.
    steps
        The steps from file to report.
    database
        The state folder's database.
    wake
        Alarm that ends a sleep, and says when to stop.
    events_come
        Whether file events can be relied on to ring `wake`.
    clock
        A monotonic clock, so that setting the time of day disturbs nothing.
    """

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        steps: Steps,
        database: Database,
        wake: Wake,
        events_come: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._bundle, self._steps, self._wake = settings, bundle, steps, wake
        self._events_come, self._clock = events_come, clock
        self._database = database
        self._ledger = Ledger(database)
        files = FileTable(database, __version__)
        self._inbox = Inbox(settings.inbox, files, settings.settle_seconds, read=steps.read_header, clock=clock)
        self._casebook = Casebook(self._ledger, bundle, settings, steps.prepare, clock)
        self._worker = Worker(self._ledger, self._casebook, bundle, settings, steps.stage, clock)
        self._begin_anew = True
        self._data_version = -1
        self._looked_at = -1e9

    def run(self, announce: Callable[[], None] = lambda: None) -> None:
        """Serve until told to stop; the job in hand is finished, or given back if its report cannot be delivered."""
        released = self._ledger.release_claims(max_attempts=self._settings.max_attempts, counted=True)
        leftovers = outbox.clean(self._settings.outbox)
        logger.info("started", extra={"bundle": self._bundle.digest, "released": len(released), "cleaned": leftovers})
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
        self._ledger.release_claims(max_attempts=self._settings.max_attempts, counted=False)
        logger.info("stopped")

    def step(self) -> None:
        """Look, examine, stage at most one job; then sleep until something happens or is due."""
        self._look()
        version = self._database.data_version()
        if version != self._data_version:
            self._data_version = version
            self._note_ready(self._casebook.requeue())
        self._note_ready(self._casebook.tick(self._inbox.unsettled_since()))
        if not self._worker.work():
            self._sleep()

    def _look(self) -> None:
        if not self._begin_anew and self._clock() < self._next_look(_BUSY_SHARE):
            return
        changed = self._inbox.look()
        self._looked_at = self._clock()
        if self._begin_anew:
            self._worker.forget()
            self._ledger.release_claims(max_attempts=self._settings.max_attempts, counted=False)
            self._casebook.forget()
        if changed or self._begin_anew:
            self._note_ready(self._casebook.update(self._steps.assemble(self._inbox.headers())))
        self._begin_anew = False

    def _sleep(self) -> None:
        now = self._clock()
        earliest = self._next_look(_BUSY_SHARE)
        latest = self._next_look(_IDLE_SHARE)
        if self._events_come():
            latest = max(latest, self._looked_at + self._settings.scan_seconds)
        due = [t for t in (self._inbox.next_due(), self._casebook.next_due(), latest) if t is not None]
        if self._worker.resume_at > now:
            due.append(self._worker.resume_at)
        if self._wake.wait(max(min(due), earliest) - now):
            self._wake.pause(earliest - self._clock())

    def _next_look(self, share: float) -> float:
        return self._looked_at + max(self._settings.poll_seconds, self._inbox.scan_cost / share)

    def _note_ready(self, became_ready: bool) -> None:
        if became_ready:
            self._worker.encourage()
