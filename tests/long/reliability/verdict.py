"""Checks at the end of a run: each study has one complete report, as in an undisturbed run, or one refusal."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom as hd
import pydicom
from pydicom.uid import EncapsulatedPDFStorage

from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.files import read_dataset, read_headers
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.report.preflight import faults_in
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.state import chain
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import Jobs
from tests.long.reliability.studies import Sample


@dataclass
class Verdict:
    """Counts of the results, and every fault in a sentence."""

    reports: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    recovered: int = 0
    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

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


def judge(root: Path, samples: Sequence[Sample], bundle: Bundle, junk: int) -> Verdict:
    """Compare ledger and outbox with the expected results of the studies, after the daemon has stopped.

    Parameters
    ----------
    root
        Folder of inbox, outbox and state.
    samples
        Every study that was sent.
    bundle
        The bundle that answered.
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
    there = {path.name: path.read_bytes() for path in (root / "outbox").iterdir()}
    sources = {pydicom.dcmread(sample.files[0], stop_before_pixels=True).SOPInstanceUID for sample in samples}
    expected: set[str] = set()
    for sample in samples:
        expected |= _check_one(sample, by_series.pop(sample.series_instance_uid, []), bundle, there, verdict)
    verdict.faults["wrong"] += [f"job {job.id} is about no study" for left in by_series.values() for job in left]
    objects = {*there, *(f"SEG-{uid}.dcm" for uid in sources)}
    for name in sorted(there):
        if name.endswith(".part"):
            verdict.faults["left over"].append(name)
        elif name not in expected:
            verdict.faults["twice"].append(f"{name} belongs to no study")
        else:
            _check_complete(root / "outbox" / name, objects, verdict)
    verdict.faults = defaultdict(list, {sort: which for sort, which in verdict.faults.items() if which})
    return verdict


def _check_one(sample: Sample, jobs: list[Job], bundle: Bundle, there: dict[str, bytes], verdict: Verdict) -> set[str]:
    """Check one study; return the names of its expected documents."""
    name = sample.folder.name
    ended = [job for job in jobs if job.state in (JobState.DELIVERED, JobState.REFUSED)]
    if not ended:
        verdict.faults["lost"].append(f"{name}: {[(job.state, job.reason and job.reason.code) for job in jobs]}")
        return set()
    if len(jobs) > 1:
        verdict.faults["twice"].append(f"{name}: {[(job.id, str(job.state)) for job in jobs]}")
    (job, *_) = ended
    if job.state is JobState.REFUSED:
        assert job.reason is not None
        verdict.refusals[str(job.reason.code)] += 1
        if job.reason.code != sample.end:
            verdict.faults["wrong"].append(f"{name}: {job.reason.code} ({job.reason.message}), not {sample.end}")
        return set()
    verdict.reports += 1
    if sample.end is not None:
        verdict.faults["wrong"].append(f"{name}: delivered, not {sample.end}")
        return set()
    documents = documents_of(sample, bundle, job)
    for document, content in documents.items():
        if document not in there:
            verdict.faults["lost"].append(f"{name}: {document}")
        elif there[document] != content:
            verdict.faults["damaged"].append(f"{name}: {document} is not what an undisturbed run makes")
    return set(documents)


def _check_complete(path: Path, objects: set[str], verdict: Verdict) -> None:
    """Check that a document parses completely, has its own name, and that an SR's references are present."""
    try:
        dataset = read_dataset(path)
        list(dataset.iterall())
        if dataset.Modality == "SR":
            hd.sr.srread(path)
            assert not faults_in(path.read_bytes()), faults_in(path.read_bytes())
    except Exception as error:
        verdict.faults["damaged"].append(f"{path.name}: {error!r}")
        return
    is_page = dataset.SOPClassUID == EncapsulatedPDFStorage
    kind = "PDF" if is_page else dataset.Modality
    if is_page and not re.fullmatch(rb"%PDF-.*%%EOF\s*\0?", dataset.EncapsulatedDocument, re.DOTALL):
        verdict.faults["damaged"].append(f"{path.name}: its page is not complete")
    if path.name != f"{kind}-{dataset.SOPInstanceUID}.dcm":
        verdict.faults["damaged"].append(f"{path.name}: has another name")
    if dataset.Modality == "SR":
        evidence = [
            (item.ReferencedSOPClassUID.name, item.ReferencedSOPInstanceUID)
            for study in dataset.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        ]
        segments = [uid for kind, uid in evidence if kind == "Segmentation Storage"]
        if not segments or any(f"SEG-{uid}.dcm" not in objects for uid in segments):
            verdict.faults["lost"].append(f"{path.name}: the SEG that it refers to")
