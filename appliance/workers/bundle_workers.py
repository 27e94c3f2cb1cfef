"""The processes at work over the bundle in use, and how those of another bundle take their place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.case import Predecessor, RegionChoice
from lungstage.appliance.contract.errors import Reason
from lungstage.appliance.contract.source import Source, descriptors, next_due
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.model.bundle_files import BundleFiles
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.state.secret import identity_key
from lungstage.appliance.workers.confinement import Confinement
from lungstage.appliance.workers.messages import (
    SCRATCH,
    Answer,
    Explain,
    Prepare,
    ReadHeaders,
    SealedPlan,
    Setting,
    Stage,
    WritePhantom,
)
from lungstage.appliance.workers.pool import WorkerPool
from lungstage.appliance.workers.process import Limits, WorkerProcess


class BundleWorkers:
    """Processes that take the steps over one bundle.

    One reads and plans, which is short work that the daemon waits for; the others stage.

    Parameters
    ----------
    settings
        How many they are, and what each may take.
    files
        The bundle's files.
    started
        Told of each process that is started.
    """

    def __init__(self, settings: Settings, files: BundleFiles, started: Callable[[], None] = lambda: None) -> None:
        limits = Limits(settings.work_seconds, settings.work_memory_mb * 1024**2)
        scratch = settings.state / SCRATCH
        scratch.mkdir(exist_ok=True)
        key = identity_key(settings.state)
        setting = Setting(
            files, settings.engine, scratch, key, settings.documents, settings.robustness, settings.descriptors
        )
        self.examiner = WorkerProcess(replace(setting, rehearses=False), limits, started)
        self.stagers: WorkerPool[int, Answer] = WorkerPool(
            lambda: WorkerProcess(setting, limits, started), settings.workers
        )
        self._awaited = [self.examiner, self.stagers.first]

    def start(self) -> None:
        """Start one process of each kind, without waiting until they are set up."""
        for process in self._awaited:
            process.start()

    def is_set_up(self) -> bool:
        """Whether both are ready to work, without waiting.

        Raises
        ------
        Refused
            When the bundle does not prove itself.
        ExhaustedError
            When a process died of it, or took too long.
        DefectError
            When it met a defect of ours.
        """
        self._awaited = [process for process in self._awaited if not process.is_set_up()]
        return not self._awaited

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when one of them is set up."""
        return [descriptor for process in self._awaited if (descriptor := process.descriptor) is not None]

    def next_due(self) -> float | None:
        """When the first has taken too long to be set up."""
        return min((process.due for process in self._awaited), default=None)

    def end_idle(self) -> None:
        """End the processes that have nothing in hand."""
        self.examiner.end()
        self.stagers.end_idle()

    def end(self) -> None:
        """End all processes."""
        self.examiner.end()
        self.stagers.end()


class Workers:
    """The workers of the bundle in use; of a candidate that may take its place; and of former ones until they are done.

    It takes the daemon's short steps, which it waits for, and is its stagers (:class:`daemon.dispatcher.Stagers`).

    Parameters
    ----------
    make
        Makes the workers of a bundle, not started.
    files
        The bundle to begin with.
    """

    def __init__(self, make: Callable[[BundleFiles], BundleWorkers], files: BundleFiles) -> None:
        self._make = make
        self._current = make(files)
        self._former: list[BundleWorkers] = []
        self._candidate: BundleWorkers | None = None

    def set_up(self) -> None:
        """Start the first workers, and wait until they can read, plan and stage."""
        self._current.start()
        self._current.examiner.set_up()
        self._current.stagers.first.set_up()

    def start_candidate(self, files: BundleFiles) -> BundleWorkers:
        """Start the workers of another bundle, in the place of any other candidate's."""
        self.drop_candidate()
        self._candidate = self._make(files)
        self._candidate.start()
        return self._candidate

    def drop_candidate(self) -> None:
        """End the candidate's workers."""
        if self._candidate is not None:
            self._candidate.end()
            self._candidate = None

    def switch_over(self) -> None:
        """Give all new work to the candidate's workers; what the others have in hand is finished by them."""
        if self._candidate is None:
            raise RuntimeError("there is no candidate")
        self._current.end_idle()
        self._former.append(self._current)
        self._current, self._candidate = self._candidate, None

    @property
    def confinement(self) -> Confinement:
        """How the processes of the bundle in use are confined."""
        return self._current.examiner.confinement

    def read_headers(self, path: Path) -> tuple[Header, ...]:
        """Have a file read; raises what :meth:`WorkerProcess.answer` does."""
        return self._current.examiner.call(ReadHeaders(path))

    def prepare(
        self,
        case: Case,
        *,
        settled: bool,
        waited: bool,
        roi_name: str | None,
        match_by_geometry: bool,
        strict_frame_of_reference: bool,
        choice: RegionChoice | None,
    ) -> SealedPlan:
        """Have a case planned; raises what :meth:`WorkerProcess.answer` does."""
        return self._current.examiner.call(
            Prepare(case, settled, roi_name, match_by_geometry, waited, strict_frame_of_reference, choice)
        )

    def explain(self, case: Case, reason: Reason, created: datetime) -> tuple[Document, ...]:
        """Have the page of a refusal made; raises what :meth:`WorkerProcess.answer` does."""
        return self._current.examiner.call(Explain(case, reason.code, reason.message, created))

    def write_phantom(self, folder: Path, study: str) -> str:
        """Have a phantom study written; raises what :meth:`WorkerProcess.answer` does."""
        return self._current.examiner.call(WritePhantom(folder, study))

    def free(self) -> bool:
        """Whether another plan can be staged."""
        return self._current.stagers.free()

    def start(
        self,
        ticket: int,
        plan: SealedPlan,
        *,
        created: datetime,
        site: Site,
        predecessor: Predecessor | None,
        beyond: tuple[str, ...],
    ) -> None:
        """Have a plan staged."""
        self._current.stagers.ask(ticket, Stage(plan, created, site, predecessor, beyond))

    def finished(self) -> Iterator[tuple[int, Future[Answer]]]:
        """Give each plan that has come to an end; the workers of a former bundle end with their last."""
        for workers in (self._current, *self._former):
            yield from workers.stagers.finished()
        for workers in [workers for workers in self._former if not workers.stagers.keys]:
            workers.end()
            self._former.remove(workers)

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when a plan was staged."""
        return descriptors(self._pools())

    def next_due(self) -> float | None:
        """When the first plan in hand has taken too long."""
        return next_due(self._pools())

    def _pools(self) -> list[Source]:
        return [workers.stagers for workers in (self._current, *self._former)]

    def end(self) -> None:
        """End all sets."""
        self.drop_candidate()
        for workers in (self._current, *self._former):
            workers.end()


@contextlib.contextmanager
def at_work(settings: Settings, files: BundleFiles, started: Callable[[], None]) -> Iterator[Workers]:
    """Set up processes that take the steps over a bundle, until the block ends.

    Raises
    ------
    Refused
        When the bundle does not prove itself.
    Unavailable
        When no process comes up.
    """
    workers = Workers(partial(BundleWorkers, settings, started=started), files)
    try:
        workers.set_up()
        yield workers
    finally:
        workers.end()
