"""Steps for tests of the daemon alone: text files in place of DICOM, and a pipeline that answers at once.

An image file reads ``CT <series> <number>``, a ROI file ``ROI <uid> <series> <needed,needed,…> [flag …]``; both must
end with ``END``, so that a half-copied file is recognised. Flags cause faults: ``refuse``, ``ambiguous`` (until a
region is chosen), ``margin`` and ``neighbours`` (slices -1 and the one after the last needed slice are listed, too) in
prepare, ``stage-refuse``, ``broken``, ``away`` in stage. With ``ALSO=<series>``, the file lists another series, with
another region on its slice 0.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Held, ReasonCode, Refused, Unavailable
from lungstage.appliance.daemon.loop import Steps
from lungstage.appliance.dicom.cases import Case, assemble
from lungstage.appliance.dicom.files import NOT_DICOM
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.dicom.linking import POSITION_ALONE
from lungstage.appliance.report.outbox import Document, encode
from lungstage.appliance.staging.covariates import Site

BUNDLE = SimpleNamespace(digest="b" * 64)
SECRET = "DOE^JANE"
READABLE = os.open(os.devnull, os.O_RDONLY)  # always readable, because the work has already finished


@dataclass(frozen=True)
class FakePlan:
    case: Case
    fingerprint: str
    flags: frozenset[str]
    instances: tuple[dict[str, str], ...] = ()
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True)
class FakeAnswer:
    outcome: dict[str, Any]
    documents: tuple[Document, ...]


class InProcess:
    """Stagers that call the given function in this process, and have always finished."""

    def __init__(self, stage: Callable[..., FakeAnswer]) -> None:
        self._stage = stage
        self._done: list[tuple[int, Future[FakeAnswer]]] = []

    def free(self) -> bool:
        return not self._done

    def start(self, ticket: int, plan: FakePlan, **arguments: Any) -> None:
        became: Future[FakeAnswer] = Future()
        try:
            became.set_result(self._stage(plan, **arguments))
        except Exception as error:
            became.set_exception(error)
        self._done.append((ticket, became))

    def finished(self) -> list[tuple[int, Future[FakeAnswer]]]:
        done, self._done = self._done, []
        return done

    def descriptors(self) -> list[int]:
        return [READABLE] if self._done else []

    def next_due(self) -> float | None:
        return None


@dataclass
class FakeSteps:
    """The four steps, with a count of their calls and a hook in the middle of staging."""

    calls: Counter[str] = field(default_factory=Counter)
    settled_calls: list[bool] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    predecessors: list[object] = field(default_factory=list)
    canary_flags: tuple[str, ...] = ()
    during_stage: Callable[[], None] = lambda: None
    during_prepare: Callable[[], None] = lambda: None
    during_read: Callable[[], None] = lambda: None

    def steps(self) -> Steps:
        return Steps(self.read_headers, assemble, self.prepare, InProcess(self.stage), self.write_phantom)  # type: ignore[arg-type]

    def write_phantom(self, folder: Path, study: str) -> str:
        """Write a separate study; return its name, which is also the name of its series."""
        series = f"2.25.{int.from_bytes(study.encode()[-8:], 'big')}"
        put_roi(folder, f"{series}.99", series, range(3), f"STUDY={series}", *self.canary_flags)
        for n in range(3):
            put_slice(folder, series, n, extra=f"STUDY={series}")
        return series

    def read_headers(self, path: Path) -> tuple[Header, ...]:
        self.calls["read"] += 1
        self.during_read()
        text = path.read_text()
        if text.startswith("NONE"):
            return ()
        if not text.startswith(("CT", "ROI")):
            raise Refused(ReasonCode.DICOM_UNREADABLE, NOT_DICOM)
        if not text.endswith("END"):
            raise Refused(ReasonCode.DICOM_UNREADABLE, "This DICOM file is cut short.")
        words = text.split()[1:-1]
        digest = hashlib.sha256(text.encode()).hexdigest()
        study = next((word.removeprefix("STUDY=") for word in words if word.startswith("STUDY=")), "1")
        if text.startswith("CT"):
            series, number = words[:2]
            return (replace(image(path, digest, series, number), study_instance_uid=study),)
        uid, series, needed, *flags = words
        references = tuple(f"{series}.{n}" for n in needed.split(","))
        listed = () if {"unlisted", "unnamed"} & {*flags} else ((series, references),)
        also = [flag.removeprefix("ALSO=") for flag in flags if flag.startswith("ALSO=")]
        listed += tuple((other, (f"{other}.0",)) for other in also)
        references += tuple(f"{other}.0" for other in also)
        references = () if "unnamed" in flags else references
        known: dict[str, Any] = {
            "path": path, "digest": digest, "kind": "RTSTRUCT", "sop_class_uid": "1.2", "sop_instance_uid": uid,
            "series_instance_uid": "1.9", "study_instance_uid": study, "patient_key": "patient",
            "frames_of_reference": tuple(flags), "listed": listed, "image_references": references,
        }  # fmt: skip
        return (RoiHeader(**{field.name: None for field in fields(RoiHeader)} | known),)

    def prepare(
        self, case: Case, *, settled: bool, waited: bool, choice: RegionChoice | None = None, **_: object
    ) -> FakePlan:
        self.calls["prepare"] += 1
        self.settled_calls.append(settled)
        self.during_prepare()
        if not case.rois:
            raise Held(ReasonCode.NO_ROI, "There is no region of interest yet.")
        if case.candidates:
            raise Refused(ReasonCode.AMBIGUOUS_INPUT, "The region of interest could belong to several series.")
        roi = case.rois[-1]
        flags = frozenset(roi.frames_of_reference)
        if "refuse" in flags:
            raise Refused(ReasonCode.ROI_EMPTY, "The region of interest is empty.")
        if "ambiguous" in flags and choice is None:
            raise Refused(ReasonCode.ROI_AMBIGUOUS, "2 regions could be the primary tumour.")
        own = set(roi.image_references)
        if len(roi.listed) > 1:
            if case.series_instance_uid != roi.listed[0][0]:
                raise Held(ReasonCode.NO_ROI, "The region of interest was drawn on another series.")
            own = set(roi.listed[0][1])
        missing = own - {i.sop_instance_uid for i in case.images}
        if missing:
            raise Held(ReasonCode.SLICES_MISSING, f"{len(missing)} slices are missing.")
        if "margin" in flags and not settled:
            raise Held(ReasonCode.SLICES_MISSING, "A margin slice may still come.")
        around = (-1, len(roi.image_references)) if "neighbours" in flags else ()
        beside = {f"{roi.listed[0][0]}.{n}" for n in around}
        if not waited and beside - {i.sop_instance_uid for i in case.images}:
            raise Held(ReasonCode.MORE_MAY_COME, "The slices next to the region of interest may still come.")
        if "broken-prepare" in flags:
            raise ValueError(f"cannot prepare {SECRET}")
        wanted = {*roi.image_references, *beside}
        needed = [roi, *(image for image in case.images if image.sop_instance_uid in wanted)]
        chosen = "" if choice is None else str(choice.number)
        fingerprint = hashlib.sha256("".join([*(header.digest for header in needed), chosen]).encode()).hexdigest()
        instances = tuple({"uid": header.sop_instance_uid, "digest": header.digest} for header in needed)
        return FakePlan(case, fingerprint, flags, instances)

    def stage(
        self, plan: FakePlan, *, created: datetime, site: Site, predecessor: object, beyond: tuple[str, ...]
    ) -> FakeAnswer:
        self.calls["stage"] += 1
        self.sites.append(site)
        self.predecessors.append(predecessor)
        for header in plan.case.images:
            header.path.read_bytes()
        self.during_stage()
        if "stage-refuse" in plan.flags:
            raise Refused(ReasonCode.OUTSIDE_INTENDED_USE, "The model is not meant for this.")
        if "broken" in plan.flags:
            raise ValueError(f"cannot stage {SECRET}")
        if "away" in plan.flags:
            raise Unavailable("A disk is away.")
        number = int(plan.fingerprint[:16], 16)
        documents = (document("SEG", f"2.25.{number}1", created), document("SR", f"2.25.{number}2", created))
        outcome: dict[str, Any] = {"status": "staged", "stage": "early", "probability_advanced": 0.25}
        if "unnamed" in plan.flags:
            outcome["warnings"] = [POSITION_ALONE]
        return FakeAnswer(outcome, tuple(encode(dataset) for dataset in documents))


def image(path: Path, digest: str, series: str, number: str) -> ImageHeader:
    known: dict[str, Any] = {
        "path": path, "digest": digest, "pixel_digest": digest, "sop_class_uid": CTImageStorage,
        "sop_instance_uid": f"{series}.{number}",
        "series_instance_uid": series, "study_instance_uid": "1", "patient_key": "patient",
        "frame_of_reference_uid": "1.7", "modality": "CT", "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"), "frames": 1,
    }  # fmt: skip
    return ImageHeader(**{field.name: None for field in fields(ImageHeader)} | known)


def document(modality: str, uid: str, created: datetime) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = ComprehensiveSRStorage
    dataset.SOPInstanceUID = uid
    dataset.SeriesInstanceUID = "2.25.5"
    dataset.Modality = modality
    dataset.ContentDate = f"{created:%Y%m%d}"
    dataset.ContentTime = f"{created:%H%M%S.%f}"
    return dataset


def as_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def put_slice(folder: Path, series: str, number: int, name: str | None = None, extra: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{series}-{number}.dcm")
    path.write_text(f"CT {series} {number} {extra} END")
    return path


def put_roi(folder: Path, uid: str, series: str, needed: range, *flags: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"roi-{uid}.dcm"
    path.write_text(f"ROI {uid} {series} {','.join(str(n) for n in needed)} {' '.join(flags)} END")
    return path
