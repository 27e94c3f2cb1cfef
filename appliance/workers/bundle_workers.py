"""The worker processes of the bundle in use, and their exchange for those of another bundle."""

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
    """The processes that carry out the steps with one bundle.

    One process reads and plans: short work that the daemon waits for. The others stage.

    Parameters
    ----------
    settings
        Number of processes, and their limits.
    files
        The bundle's files.
    started
        Called for each process that is started.
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
            The bundle fails its self-test.
        ExhaustedError
            A process died with this bundle, or took too long.
        DefectError
            An internal error.
        """
        self._awaited = [process for process in self._awaited if not process.is_set_up()]
        return not self._awaited

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when one of them is set up."""
        return [descriptor for process in self._awaited if (descriptor := process.descriptor) is not None]

    def next_due(self) -> float | None:
        """When the set-up of the first process exceeds its time."""
        return min((process.due for process in self._awaited), default=None)

    def end_idle(self) -> None:
        """End the processes without a request."""
        self.examiner.end()
        self.stagers.end_idle()

    def end(self) -> None:
        """End all processes."""
        self.examiner.end()
        self.stagers.end()


class Workers:
    """The workers of the bundle in use, of a candidate to replace it, and of former bundles until they have finished.

    It carries out the daemon's short steps, and is its stagers (:class:`daemon.dispatcher.Stagers`).

    Parameters
    ----------
    make
        Makes the workers of a bundle, not started.
    files
        The first bundle.
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
        """Start the workers of another bundle; they replace those of an earlier candidate."""
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
        """Give all new work to the candidate's workers; the former ones finish their present requests."""
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
        """Have a file read; raises the same errors as :meth:`WorkerProcess.answer`."""
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
        """Have a case planned; raises the same errors as :meth:`WorkerProcess.answer`."""
        return self._current.examiner.call(
            Prepare(case, settled, roi_name, match_by_geometry, waited, strict_frame_of_reference, choice)
        )

    def explain(self, case: Case, reason: Reason, created: datetime) -> tuple[Document, ...]:
        """Have the page of a refusal made; raises the same errors as :meth:`WorkerProcess.answer`."""
        return self._current.examiner.call(Explain(case, reason.code, reason.message, created))

    def write_phantom(self, folder: Path, study: str) -> str:
        """Have a phantom study written; raises the same errors as :meth:`WorkerProcess.answer`."""
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
        """Give each finished plan; end the workers of a former bundle after their last one."""
        for workers in (self._current, *self._former):
            yield from workers.stagers.finished()
        for workers in [workers for workers in self._former if not workers.stagers.keys]:
            workers.end()
            self._former.remove(workers)

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when a plan has been staged."""
        return descriptors(self._pools())

    def next_due(self) -> float | None:
        """When the first plan being staged exceeds its time."""
        return next_due(self._pools())

    def _pools(self) -> list[Source]:
        return [workers.stagers for workers in (self._current, *self._former)]

    def end(self) -> None:
        """End the processes of all bundles."""
        self.drop_candidate()
        for workers in (self._current, *self._former):
            workers.end()


@contextlib.contextmanager
def at_work(settings: Settings, files: BundleFiles, started: Callable[[], None]) -> Iterator[Workers]:
    """Set up the worker processes of a bundle, and end them when the block ends.

    Raises
    ------
    Refused
        The bundle fails its self-test.
    Unavailable
        No process can be started.
    """
    workers = Workers(partial(BundleWorkers, settings, started=started), files)
    try:
        workers.set_up()
        yield workers
    finally:
        workers.end()
