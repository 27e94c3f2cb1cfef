"""What must hold when all is over: each study one whole report that an undisturbed run makes too, or one refusal."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom as hd
import pydicom
from pydicom.uid import EncapsulatedPDFStorage

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
    """Counts of what came out, and every fault in a sentence."""

    reports: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    recovered: int = 0
    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __str__(self) -> str:
        refused = ", ".join(f"{code} {count}" for code, count in sorted(self.refusals.items()))
        lines = [
            f"{self.reports} reports; refused: {refused or 'none'}; unreadable files on record: {self.unreadable}; "
            f"places of the audit log that a crash tore and the next start closed: {self.recovered}"
        ]
        lines += [f"{sort}: {len(which)}: {'; '.join(which[:5])}" for sort, which in sorted(self.faults.items())]
        return "\n".join(lines if self.faults else [*lines, "lost 0, doubled 0, torn 0, wrong 0, left over 0"])


def documents_of(sample: Sample, bundle: Bundle, job: Job) -> dict[str, bytes]:
    """The documents that an undisturbed run makes of a study at the moment that its job bears."""
    (case,) = assemble(header for path in sample.files for header in read_headers(path))
    plan = pipeline.prepare(case, bundle, settled=True)
    assert job.created_at is not None
    staged = pipeline.stage(plan, bundle, created=job.created_at, site=Site())
    return {one.name: one.content for one in staged.documents}


def judge(root: Path, samples: Sequence[Sample], bundle: Bundle, junk: int) -> Verdict:
    """Hold ledger and outbox to what must have become of the studies, after the daemon has stopped.

    Parameters
    ----------
    root
        Folder of inbox, outbox and state.
    samples
        Every study that was sent.
    bundle
        That answered.
    junk
        How many files were sent that nobody can read.
    """
    verdict = Verdict()
    with Database(root / "state" / "ledger.sqlite") as database:
        every = Jobs(database).find()
        verdict.unreadable = database.query("SELECT count(*) FROM files WHERE present AND reason_code IS NOT NULL")[0][
            0
        ]
    if verdict.unreadable != junk:
        verdict.faults["wrong"].append(f"{verdict.unreadable} files are on record as unreadable, {junk} were sent")
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
        expected |= _judge_one(sample, by_series.pop(sample.series_instance_uid, []), bundle, there, verdict)
    verdict.faults["wrong"] += [f"job {job.id} is about no study" for left in by_series.values() for job in left]
    objects = {*there, *(f"SEG-{uid}.dcm" for uid in sources)}
    for name in sorted(there):
        if name.endswith(".part"):
            verdict.faults["left over"].append(name)
        elif name not in expected:
            verdict.faults["doubled"].append(f"{name} is nobody's")
        else:
            _prove_whole(root / "outbox" / name, objects, verdict)
    verdict.faults = defaultdict(list, {sort: which for sort, which in verdict.faults.items() if which})
    return verdict


def _judge_one(sample: Sample, jobs: list[Job], bundle: Bundle, there: dict[str, bytes], verdict: Verdict) -> set[str]:
    """Judge one study; returns the names of the documents that are rightly its own."""
    name = sample.folder.name
    ended = [job for job in jobs if job.state in (JobState.DELIVERED, JobState.REFUSED)]
    if not ended:
        verdict.faults["lost"].append(f"{name}: {[(job.state, job.reason and job.reason.code) for job in jobs]}")
        return set()
    if len(jobs) > 1:
        verdict.faults["doubled"].append(f"{name}: {[(job.id, str(job.state)) for job in jobs]}")
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
            verdict.faults["torn"].append(f"{name}: {document} is not what an undisturbed run makes")
    return set(documents)


def _prove_whole(path: Path, objects: set[str], verdict: Verdict) -> None:
    """Prove that a document parses whole, bears its own name, and that what an SR refers to is there."""
    try:
        dataset = read_dataset(path)
        list(dataset.iterall())
        if dataset.Modality == "SR":
            hd.sr.srread(path)
            assert not faults_in(path.read_bytes()), faults_in(path.read_bytes())
    except Exception as error:
        verdict.faults["torn"].append(f"{path.name}: {error!r}")
        return
    is_page = dataset.SOPClassUID == EncapsulatedPDFStorage
    kind = "PDF" if is_page else dataset.Modality
    if is_page and not re.fullmatch(rb"%PDF-.*%%EOF\s*\0?", dataset.EncapsulatedDocument, re.DOTALL):
        verdict.faults["torn"].append(f"{path.name}: its page is not whole")
    if path.name != f"{kind}-{dataset.SOPInstanceUID}.dcm":
        verdict.faults["torn"].append(f"{path.name}: is of another name")
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
