"""Checks at the end of a run: each study has one complete report, as in an undisturbed run, or one refusal."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import highdicom as hd
import pydicom
from pydicom.uid import EncapsulatedPDFStorage

from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.files import read_dataset, read_headers
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.report.preflight import faults_in
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.state import chain
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import Jobs
from tests.long.reliability.studies import Sample

Fault = tuple[str, str]
"""What sort of fault (lost, twice, damaged, wrong, left over), and a sentence about it."""


@dataclass(frozen=True)
class Checked:
    """What was found about one study: the documents that it should have, or its refusal."""

    documents: frozenset[str] = frozenset()
    refusal: str | None = None
    faults: tuple[Fault, ...] = ()


@dataclass
class Verdict:
    """Counts of the results, and every fault in a sentence."""

    reports: int = 0
    documents: set[str] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    recovered: int = 0
    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, study: Checked) -> None:
        """Count the result of a study."""
        self.documents |= study.documents
        self.reports += bool(study.documents)
        if study.refusal is not None:
            self.refusals[study.refusal] += 1
        self.blame(study.faults)

    def blame(self, faults: Iterable[Fault]) -> None:
        """Add faults."""
        for sort, told in faults:
            self.faults[sort].append(told)

    def __str__(self) -> str:
        refused = ", ".join(f"{code} {count}" for code, count in sorted(self.refusals.items()))
        lines = [
            f"{self.reports} reports; refused: {refused or 'none'}. Unreadable files on record: {self.unreadable}. "
            f"Audit log entries torn by a crash and closed at the next start: {self.recovered}."
        ]
        lines += [f"{sort}: {len(which)}: {'; '.join(which[:5])}" for sort, which in sorted(self.faults.items())]
        return "\n".join(lines if self.faults else [*lines, "Lost 0, twice 0, damaged 0, wrong 0, left over 0."])


def documents_of(sample: Sample, bundle: Bundle, job: Job) -> dict[str, bytes]:
    """Return the documents that an undisturbed run makes of a study at the time of its job."""
    (case,) = assemble(header for path in sample.files for header in read_headers(path))
    usual = RobustnessOptions()
    plan = pipeline.prepare(case, bundle, settled=True, beyond_mm=usual.reach_mm)
    assert job.created_at is not None
    staged = pipeline.stage(plan, bundle, created=job.created_at, site=Site(), robustness=usual)
    return {one.name: one.content for one in staged.documents}


def judge(root: Path, samples: Sequence[Sample], bundle: Path, junk: int) -> Verdict:
    """Compare ledger and outbox with the expected results of the studies, after the daemon has stopped.

    Parameters
    ----------
    root
        Folder of inbox, outbox and state.
    samples
        Every study that was sent.
    bundle
        Folder of the bundle that answered.
    junk
        Number of unreadable files that were sent.
    """
    verdict = Verdict()
    with Database(root / "state" / "ledger.sqlite") as database:
        every = Jobs(database).find()
        verdict.unreadable = database.query("SELECT count(*) FROM files WHERE present AND reason_code IS NOT NULL")[0][
            0
        ]
    if verdict.unreadable != junk:
        verdict.faults["wrong"].append(f"{verdict.unreadable} files are recorded as unreadable, {junk} were sent")
    audit = chain.verify(root / "state", every)
    verdict.recovered = len(audit.recovered)
    if audit.fault or audit.torn:
        verdict.faults["wrong"].append(f"audit log: {audit.fault or 'its end is torn'}")
    by_series: defaultdict[str | None, list[Job]] = defaultdict(list)
    for job in [job for job in every if not job.superseded]:
        by_series[job.series_instance_uid].append(job)
    outbox = root / "outbox"
    sources = {pydicom.dcmread(sample.files[0], stop_before_pixels=True).SOPInstanceUID for sample in samples}
    jobs = [by_series.pop(sample.series_instance_uid, []) for sample in samples]
    verdict.faults["wrong"] += [f"job {job.id} is about no study" for left in by_series.values() for job in left]
    there = sorted(path.name for path in outbox.iterdir())
    objects = frozenset({*there, *(f"SEG-{uid}.dcm" for uid in sources)})
    # Every report is made again, which takes as long as the run did: on all processors.
    with ProcessPoolExecutor(initializer=_open, initargs=(bundle,), mp_context=get_context("spawn")) as pool:
        studies = pool.map(partial(_check_study, outbox=outbox), samples, jobs, chunksize=8)
        for study in studies:
            verdict.add(study)
        expected = verdict.documents
        for name in there:
            if name.endswith(".part"):
                verdict.faults["left over"].append(name)
            elif name not in expected:
                verdict.faults["twice"].append(f"{name} belongs to no study")
        whole = [outbox / name for name in there if name in expected]
        for faults in pool.map(partial(_check_complete, objects=objects), whole, chunksize=16):
            verdict.blame(faults)
    verdict.faults = defaultdict(list, {sort: which for sort, which in verdict.faults.items() if which})
    return verdict


_bundle: Bundle
"""The bundle of a process that makes reports again."""


def _open(folder: Path) -> None:
    global _bundle
    _bundle = load_bundle(folder)


def _check_study(sample: Sample, jobs: list[Job], outbox: Path) -> Checked:
    """Check one study: its jobs, and each of its documents against an undisturbed run."""
    name = sample.folder.name
    ended = [job for job in jobs if job.state in (JobState.DELIVERED, JobState.REFUSED)]
    if not ended:
        told = f"{name}: {[(job.state, job.reason and job.reason.code) for job in jobs]}"
        return Checked(faults=(("lost", told),))
    faults = []
    if len(jobs) > 1:
        faults.append(("twice", f"{name}: {[(job.id, str(job.state)) for job in jobs]}"))
    (job, *_) = ended
    if job.state is JobState.REFUSED:
        assert job.reason is not None
        if job.reason.code != sample.end:
            faults.append(("wrong", f"{name}: {job.reason.code} ({job.reason.message}), not {sample.end}"))
        return Checked(refusal=str(job.reason.code), faults=tuple(faults))
    if sample.end is not None:
        return Checked(faults=(*faults, ("wrong", f"{name}: delivered, not {sample.end}")))
    documents = documents_of(sample, _bundle, job)
    for document, content in documents.items():
        path = outbox / document
        if not path.exists():
            faults.append(("lost", f"{name}: {document}"))
        elif path.read_bytes() != content:
            faults.append(("damaged", f"{name}: {document} is not what an undisturbed run makes"))
    return Checked(documents=frozenset(documents), faults=tuple(faults))


def _check_complete(path: Path, objects: frozenset[str]) -> tuple[Fault, ...]:
    """Check that a document parses completely, has its own name, and that an SR's references are present."""
    try:
        dataset = read_dataset(path)
        list(dataset.iterall())
        if dataset.Modality == "SR":
            hd.sr.srread(path)
            assert not faults_in(path.read_bytes()), faults_in(path.read_bytes())
    except Exception as error:
        return (("damaged", f"{path.name}: {error!r}"),)
    faults = []
    is_page = dataset.SOPClassUID == EncapsulatedPDFStorage
    kind = "PDF" if is_page else dataset.Modality
    if is_page and not re.fullmatch(rb"%PDF-.*%%EOF\s*\0?", dataset.EncapsulatedDocument, re.DOTALL):
        faults.append(("damaged", f"{path.name}: its page is not complete"))
    if path.name != f"{kind}-{dataset.SOPInstanceUID}.dcm":
        faults.append(("damaged", f"{path.name}: has another name"))
    if dataset.Modality == "SR":
        evidence = [
            (item.ReferencedSOPClassUID.name, item.ReferencedSOPInstanceUID)
            for study in dataset.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        ]
        segments = [uid for kind, uid in evidence if kind == "Segmentation Storage"]
        if not segments or any(f"SEG-{uid}.dcm" not in objects for uid in segments):
            faults.append(("lost", f"{path.name}: the SEG that it refers to"))
    return tuple(faults)
