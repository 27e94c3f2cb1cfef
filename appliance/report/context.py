"""What the structured report and the segmentation beside it are made of, and the UIDs that follow from it."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from lungstage.appliance.contract.case import KnownCovariates, Predecessor
from lungstage.appliance.contract.evidence import Worth
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint, FeatureVector, StagingResult
from lungstage.appliance.descriptors.values import Descriptors
from lungstage.appliance.report.cohort import Cohort
from lungstage.appliance.report.wording import Wording, wording


@dataclass(frozen=True, slots=True)
class SegmentReference:
    """One segment of a Segmentation object.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid
        Of the Segmentation.
    segment_number
        Counted from 1.
    """

    sop_class_uid: str
    sop_instance_uid: str
    segment_number: int


@dataclass(frozen=True, slots=True)
class RoiSource:
    """The RTSTRUCT or SEG that the region of interest was read from."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """What a report says of the model bundle.

    Attributes
    ----------
    name, version
        Of the bundle.
    digest
        Hex SHA-256 of the manifest, which itself holds the SHA-256 of every file.
    cohort
        Name of the training cohort.
    rows
        Patients trained on.
    prevalence_advanced
        Fraction of advanced stage, or of the endpoint's positive class, among them, in [0, 1].
    stages_absent
        Stage groups that the cohort does not hold, e.g. ``("IV",)``.
    licence
        Licence note of the model.
    intended_use
        Statement of the intended use.
    settings
        Algorithm parameters as ``key=value``: how was measured, and what the site said of prevalence and covariates.
    alpha
        Error rate of the conformal decision, in each class.
    endpoint
        What the model tells apart.
    worth
        Whether the model is shown to beat chance and the best simple model; None where the bundle does not say.
    coverage
        Between which the coverage of the negative and of the positive class lies in new patients like the training
        cohort's (95 %), lowest and highest of both; None where the bundle does not say.
    """

    name: str
    version: str
    digest: str
    cohort: str
    rows: int
    prevalence_advanced: float
    stages_absent: tuple[str, ...]
    licence: str
    intended_use: str
    settings: tuple[str, ...]
    alpha: float
    endpoint: Endpoint = STAGE_GROUP
    worth: Worth | None = None
    coverage: tuple[float, float] | None = None


class Derived(Protocol):
    """What every object of ours is derived from: a document of a model's, and a contour."""

    @property
    def sources(self) -> tuple[Dataset, ...]:
        """Headers of images of the study."""

    @property
    def identity(self) -> str:
        """Hex SHA-256 that all UIDs derive from."""

    @property
    def created(self) -> datetime:
        """Content date and time."""


class OnFrames(Derived, Protocol):
    """What is drawn on slices, which may be frames of an Enhanced CT."""

    @property
    def frames(self) -> tuple[int, ...]:
        """For each source its number among the frames of an Enhanced CT; () where all are images of their own."""


class Made(Derived, Protocol):
    """What every document of a model's says of where it comes from: of a report, and of a refusal."""

    @property
    def bundle(self) -> BundleIdentity:
        """The model."""

    @property
    def software_version(self) -> str:
        """Of lungstage."""


@dataclass(frozen=True, slots=True)
class ReportContext:
    """All that a report is made of; nothing else, no clock and no disk, has a say in it.

    Attributes
    ----------
    sources
        Headers of the reference volume's CT slices, in slice order; pixel data may be gone.
    mask
        (slices, rows, columns) bool, on exactly these slices.
    roi_name
        Name of the region of interest.
    segmentation
        The segment the ROI was read from, None where it came from an RTSTRUCT.
    roi_source
        The object the ROI was read from.
    features
        Measured features, in the order in which they are reported.
    result
        The model's answer.
    bundle
        The model.
    identity
        Hex SHA-256 that all UIDs derive from.
    created
        Content date and time.
    warnings
        Plain sentences for the reader; without the patient's identity.
    software_version
        Of lungstage.
    cohort
        What the measurements are compared with.
    covariates
        What was known of the clinical inputs, where the model takes any.
    predecessor
        The report that this one follows, if any.
    frames
        For each source its number among the frames of an Enhanced CT, or 0; () where all are images of their own.
    finding
        What the region is, as far as its source or the bundle says; None where they do not.
    sites
        Where it lies, likewise.
    others
        (ROI or Segment Number, name) of what else may be a tumour beside it.
    before, behind
        Headers of slices beyond the reference volume that perturbed versions could use, each with its number among the
        frames of an Enhanced CT, or 0.
    descriptors
        What a radiologist would say of the tumour; None where nobody asked.
    """

    sources: tuple[Dataset, ...]
    mask: npt.NDArray[np.bool_]
    roi_name: str
    segmentation: SegmentReference | None
    roi_source: RoiSource
    features: FeatureVector
    result: StagingResult
    bundle: BundleIdentity
    identity: str
    created: datetime
    warnings: tuple[str, ...]
    software_version: str
    cohort: Cohort
    covariates: KnownCovariates = field(default_factory=KnownCovariates)
    predecessor: Predecessor | None = None
    frames: tuple[int, ...] = ()
    finding: Code | None = codes.SCT.Neoplasm
    sites: tuple[Code, ...] = ()
    others: tuple[tuple[int, str], ...] = ()
    before: tuple[tuple[Dataset, int], ...] = ()
    behind: tuple[tuple[Dataset, int], ...] = ()
    descriptors: Descriptors | None = None

    @property
    def words(self) -> Wording:
        """What the answer is called."""
        return wording(self.bundle.endpoint, self.bundle.stages_absent)


def derive_uid(identity: str, role: str) -> UID:
    """UID of `role` for `identity`: ``2.25.`` and a name-based UUID (DICOM PS3.5 B.2), out of SHA-256.

    Parameters
    ----------
    identity
        Hex digest of everything the object depends on.
    role
        ``"sr"``, ``"sr-series"``, ``"seg"``, ``"seg-series"``, ``"tracking"``, ``"device-…"`` and so on.
    """
    digest = hashlib.sha256(f"{identity}|{role}".encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")


def device_uid(context: Made) -> UID:
    """UID of this software together with its bundle; another bundle or version is another device."""
    return derive_uid(context.bundle.digest, f"device-{context.software_version}")


def roi_label(context: ReportContext) -> str:
    """Name of the region, as :func:`label`."""
    return label(context.roi_name)


def label(name: str) -> str:
    """Fit a name for a Long String: no backslash, no control character, at most 64 characters."""
    return " ".join(re.sub(r"[\\\x00-\x1f\x7f]", " ", name).split())[:64] or "ROI"


def tracking_identifier(context: ReportContext) -> str:
    """Label that viewers show for the region: its name, the predicted class and the research-use notice."""
    answer = context.words.classes[context.result.stage].meaning
    return f"{roi_label(context)}: predicted {context.words.endpoint} {answer}, research use only"
