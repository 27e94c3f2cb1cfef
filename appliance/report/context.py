"""Input of the structured report and its segmentation, and the UIDs derived from it."""

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
        UIDs of the Segmentation.
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
    """What a report says about the model bundle.

    Attributes
    ----------
    name, version
        Name and version of the bundle.
    digest
        Hex SHA-256 of the manifest, which contains the SHA-256 of every file.
    cohort
        Name of the training cohort.
    rows
        Number of training patients.
    prevalence_advanced
        Fraction of advanced stage, or of the endpoint's positive class, among them, in [0, 1].
    stages_absent
        Stage groups that are not in the cohort, for example ``("IV",)``.
    licence
        Licence note of the model.
    intended_use
        Statement of the intended use.
    settings
        Algorithm parameters as ``key=value``: settings of the measurement, prevalence of the site, and covariates.
    alpha
        Error rate of the conformal decision, in each class.
    endpoint
        What the model predicts.
    worth
        Whether the model is shown to be better than chance and than the best simple model; None if the bundle does not
        say.
    coverage
        Lowest and highest coverage of the negative and positive class in new patients like the training cohort's (95 %
        interval, over both classes); None if the bundle does not say.
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
    """Input that all derived objects share: documents of a model, and contours."""

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
    """Input of objects on slices, which may be frames of an Enhanced CT."""

    @property
    def frames(self) -> tuple[int, ...]:
        """For each source its frame number in an Enhanced CT; () if all are separate images."""


class Made(Derived, Protocol):
    """Input that reports and refusal pages share: the model and the software version."""

    @property
    def bundle(self) -> BundleIdentity:
        """The model."""

    @property
    def software_version(self) -> str:
        """Version of lungstage."""


@dataclass(frozen=True, slots=True)
class ReportContext:
    """Input of a report; the report depends on nothing else, neither clock nor disk.

    Attributes
    ----------
    sources
        Headers of the reference volume's CT slices, in slice order; pixel data may be missing.
    mask
        (slices, rows, columns) bool, on exactly these slices.
    roi_name
        Name of the region of interest.
    segmentation
        The segment of the ROI; None if the ROI came from an RTSTRUCT.
    roi_source
        The object that contains the ROI.
    features
        Measured features, in the order of the report.
    result
        The model's answer.
    bundle
        The model.
    identity
        Hex SHA-256 that all UIDs derive from.
    created
        Content date and time.
    warnings
        Sentences for the reader, without the patient's identity.
    software_version
        Version of lungstage.
    cohort
        The training cohort, with which the measurements are compared.
    covariates
        Known clinical inputs, if the model uses any.
    predecessor
        The report that this one replaces, if any.
    frames
        For each source its frame number in an Enhanced CT, or 0; () if all are separate images.
    finding
        Code of the region, from its source or the bundle; None if they do not give one.
    sites
        Codes of its location, in the same way.
    others
        (ROI or Segment Number, name) of other regions that may be a tumour.
    before, behind
        Headers of slices beyond the reference volume that perturbed versions could use, each with its frame number in
        an Enhanced CT, or 0.
    descriptors
        Descriptors of the tumour; None if they were not computed.
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
        """Words and codes for the answer."""
        return wording(self.bundle.endpoint, self.bundle.stages_absent)


def derive_uid(identity: str, role: str) -> UID:
    """Derive the UID of `role` for `identity`: ``2.25.`` and a name-based UUID (DICOM PS3.5 B.2), from SHA-256.

    Parameters
    ----------
    identity
        Hex digest of everything that the object depends on.
    role
        ``"sr"``, ``"sr-series"``, ``"seg"``, ``"seg-series"``, ``"tracking"``, ``"device-…"`` and so on.
    """
    digest = hashlib.sha256(f"{identity}|{role}".encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")


def device_uid(context: Made) -> UID:
    """Return the device UID of this software with its bundle; another bundle or version is another device."""
    return derive_uid(context.bundle.digest, f"device-{context.software_version}")


def roi_label(context: ReportContext) -> str:
    """Return the name of the region, fitted by :func:`label`."""
    return label(context.roi_name)


def label(name: str) -> str:
    """Fit a name for a Long String: no backslash, no control character, at most 64 characters."""
    return " ".join(re.sub(r"[\\\x00-\x1f\x7f]", " ", name).split())[:64] or "ROI"


def tracking_identifier(context: ReportContext) -> str:
    """Return the label that viewers show for the region: its name, the predicted class and the research-use notice."""
    answer = context.words.classes[context.result.stage].meaning
    return f"{roi_label(context)}: predicted {context.words.endpoint} {answer}, research use only"
