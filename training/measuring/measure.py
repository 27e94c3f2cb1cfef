"""Measure a cohort list of CT and ROI, or of NIfTI pairs, with the appliance's extraction.

Training data are then measured in exactly the same way as patients, so the two cannot differ.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from lungstage.appliance import __version__
from lungstage.appliance.config.logs import defect
from lungstage.appliance.contract.errors import LungstageError, ReasonCode
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics import parameters
from lungstage.appliance.staging.one_shot import Options, measure_paths
from lungstage.training.measuring.journal import Entry, Journal
from lungstage.training.measuring.subjects import Subject

UNAVAILABLE: Final = "unavailable"
WORKER_DIED: Final = "worker_died"
DEFECT: Final = str(ReasonCode.INTERNAL_ERROR)
INTERNAL_ERRORS: Final = "internal errors"
"""How the outcome of such studies is counted."""
_UNCHANGED: Final = "unchanged"
_DIED = (
    "Every process that worked on this study was killed. The last one ran alone. "
    "The study may need more memory than this machine has."
)


@dataclass(frozen=True, slots=True)
class Method:
    """Everything except the study that the values depend on.

    Attributes
    ----------
    spec, order
        PyRadiomics parameter file, and the features in order.
    match_by_geometry
        Match slices by position even if the region refers to other images.
    software
        Versions.
    """

    spec: str
    order: tuple[str, ...]
    match_by_geometry: bool
    software: str

    @classmethod
    def of(cls, spec: ExtractionSpec, *, match_by_geometry: bool = False) -> Method:
        """Return the method by which this process measures `spec`."""
        return cls(parameters.render(spec), spec.features, match_by_geometry, software())

    @property
    def digest(self) -> str:
        """Hash of all attributes."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Task:
    """The work order of a worker.

    Attributes
    ----------
    number
        Number of the subject in the list, from 0.
    study, roi, method
        What to measure, and how.
    known
        Fingerprint of the files whose result is in the journal; None without one.
    mask, label
        Mask and label of a NIfTI image, instead of the region's name.
    """

    number: int
    study: Path
    roi: str
    method: Method
    known: str | None
    mask: Path | None = None
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a subject, and whether it came from the journal."""

    subject: Subject
    entry: Entry
    recalled: bool

    @property
    def outcome(self) -> str:
        """The outcome under which it is counted."""
        if self.entry.features is not None:
            return "measured"
        return {UNAVAILABLE: "unavailable", DEFECT: INTERNAL_ERRORS}.get(self.entry.code, "refused")


Run = Callable[[Callable[[Task], Entry], Iterable[Task]], Iterator[tuple[Task, Entry | None]]]
"""Runs tasks in several processes. The result is None if the processes die on a task."""


@cache
def software() -> str:
    """Return the software versions that the values depend on."""
    libraries = ("highdicom", "numpy", "pydicom", "SimpleITK")
    return ", ".join([f"lungstage {__version__}", *(f"{name} {version(name)}" for name in libraries)])


def fingerprint(*paths: Path) -> str:
    """Digest of the names, sizes and modification times of a study's files. It changes when a file changes."""
    facts: list[list[str | int]] = []
    for path in paths:
        inside = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in inside or [path]:
            try:
                status = file.stat()
            except OSError:
                facts.append([str(file.relative_to(path))])  # the measurement decides whether this file matters
            else:
                facts.append([str(file.relative_to(path)), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def measure_study(task: Task) -> Entry:
    """Measure one study. Runs in a worker and always returns an entry."""
    method = task.method
    if software() != method.software:
        return Entry(
            "",
            UNAVAILABLE,
            f"A worker has {software()} instead of {method.software}. Install the same versions on every worker.",
        )
    try:
        paths = [task.study] if task.mask is None else [task.study, task.mask]
        files = fingerprint(*paths)
        if files == task.known:
            return Entry(files, _UNCHANGED)
        spec = parameters.parse(method.spec, order=method.order)
        options = (
            Options(task.roi or None, method.match_by_geometry, describes=False)
            if task.mask is None
            else Options(label=task.label, describes=False)
        )
        answer = measure_paths(paths, ROI_RULE, spec, options)
    except (LungstageError, OSError, MemoryError) as error:
        return Entry("", UNAVAILABLE, str(error) or type(error).__name__)
    except Exception as error:  # an error of one study must not stop the others
        found = defect(error)
        return Entry("", DEFECT, f"Internal error (please report it): {found['error']} at {found['frames']}.")
    if answer["reason"] is not None:
        return Entry(files, answer["reason"]["code"], answer["reason"]["message"])
    return Entry(files, features=tuple(answer["features"].values()), warnings=tuple(answer["warnings"]))


def measure_cohort(subjects: Sequence[Subject], method: Method, journal: Journal, run: Run) -> Iterator[Measured]:
    """Measure subjects in parallel.

    Parameters
    ----------
    subjects
        The subjects to measure.
    method
        How to measure them.
    journal
        Results of studies whose files have not changed are taken from it. New results are written to it, except those
        that another try may change: a study was unavailable, a worker died, or an internal error occurred.
    run
        Runs the work in several processes, e.g. :func:`training.long_runs.processes.run`.

    Yields
    ------
    Measured
        One for each subject, in the order in which they finish; results from the journal come first.
    """
    known = [journal.get(subject.key) for subject in subjects]
    tasks = [
        Task(
            number, subject.study, subject.roi, method, None if entry is None else entry.files,
            mask=subject.mask, label=subject.label,
        )
        for number, (subject, entry) in enumerate(zip(subjects, known, strict=True))
    ]  # fmt: skip
    for task, answer in run(measure_study, sorted(tasks, key=lambda task: task.known is None)):
        subject, old = subjects[task.number], known[task.number]
        entry = Entry("", WORKER_DIED, _DIED) if answer is None else answer
        if entry.code == _UNCHANGED and old is not None:
            yield Measured(subject, old, recalled=True)
            continue
        if entry.code not in (UNAVAILABLE, WORKER_DIED, DEFECT):
            journal.add(subject.key, entry)
        yield Measured(subject, entry, recalled=False)
