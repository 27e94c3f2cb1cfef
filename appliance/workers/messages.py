"""The messages between the daemon and its worker processes: requests, answers and errors.

All messages are plain data (:mod:`contract.plain`). An answer comes from a process that may have read hostile files.
So only the types and checks in this module decide what the daemon accepts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from lungstage.appliance.config import logs
from lungstage.appliance.contract.case import Predecessor, RegionChoice
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import DefectError, Held, ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.plain import Content, FilePath, Form
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS, RobustnessOptions
from lungstage.appliance.contract.spec import Engine
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.sketching import Draft, Sketched
from lungstage.appliance.staging.viewing import Packed, Patient, Picture, Scene
from lungstage.appliance.workers.confinement import Confinement

SCRATCH = "scratch"
"""Folder in the state folder for phantom studies; the only folder that a worker process may write to."""

AnswerT = TypeVar("AnswerT")

_LONGEST = 100_000  # characters; a text may quote an element of a file, which has at most 65,534
_UID = "[0-9.]{1,64}"
_DOCUMENT = re.compile(rf"(?:(?:SR|SEG|PDF|SC)-({_UID})\.dcm|HTML-({_UID})\.html)")

Text = Annotated[str, Field(max_length=_LONGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Uid = Annotated[str, Field(pattern=f"^{_UID}$")]
_Headers = tuple[Annotated[Header, Field(union_mode="left_to_right")], ...]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _named(documents: tuple[Document, ...]) -> tuple[Document, ...]:
    """Check that documents use only their own file names in the outbox."""
    for document in documents:
        found = _DOCUMENT.fullmatch(document.name)
        if (
            found is None
            or (found[1] or found[2]) != document.sop_instance_uid
            or not re.fullmatch(_UID, document.series_instance_uid or "0" * (found[2] is not None))
        ):
            raise ValueError("a document has the name of another one")
    if len({document.name for document in documents}) < len(documents):
        raise ValueError("two documents have the same name")
    return documents


def _proven(documents: tuple[Document, ...]) -> tuple[Document, ...]:
    """Check that the SR is the last document."""
    names = [document.name for document in documents]
    if not names or not names[-1].startswith("SR-"):
        raise ValueError("the last document is not a report")
    return documents


class _Domain(TypedDict):
    distance: Finite
    outside: list[Text]


class _OtherRoi(TypedDict):
    number: int
    name: Text


class _Roi(TypedDict):
    name: Text
    voxels: Count
    volume_mm3: Finite
    others: list[_OtherRoi]


class _Endpoint(TypedDict):
    name: Text
    positive: Text
    answer: Text
    probability: Share


class _Decision(TypedDict):
    prevalence: Share
    prevalence_of: Literal["site", "training"]
    negative_up_to: Share | None
    positive_from: Share | None
    withheld: bool


class _Estimate(TypedDict):
    value: Share
    low: Share
    high: Share


class _PredictiveValue(_Estimate):
    prevalence: Share
    patients: Count
    positives: Count
    negatives: Count
    positive: Text
    negative: Text
    cohort: Text


class _Robustness(TypedDict):
    range: list[Share] | None
    agreement: Share | None
    robust: bool | None
    code: Text | None
    withheld: bool
    perturbations: Count
    asked: Count
    fewer: Count
    left_out: dict[Text, Count]
    unknown: Text | None
    contour_mm: Finite
    noise_hu: Finite | None
    features: dict[Text, Finite | None]


class _Agreement(TypedDict):
    auroc: Share
    low: Share
    high: Share
    lesions: Count


class _Descriptors(TypedDict):
    long_axis_mm: Finite | None
    short_axis_mm: Finite | None
    diameter_3d_mm: Finite | None
    volume_mm3: Finite | None
    effective_diameter_mm: Finite | None
    t_size_class: Text | None
    solid_long_axis_mm: Finite | None
    mean_hu: Finite | None
    solid_share: Finite | None
    radial_spread: Finite | None
    irregularity: Finite | None
    margin_sharpness: Finite | None
    edge_slope_hu_per_mm: Finite | None
    edge_width_mm: Finite | None
    edge_offset_mm: Finite | None
    contact_share: Finite | None
    cavity_share: Finite | None
    dense_share: Finite | None
    air_share: Finite | None
    components: Count | None
    words: dict[Text, Text | None]
    percentiles: dict[Text, Count]
    badges: dict[Text, Text]
    agreement: dict[Text, _Agreement]
    reasons: dict[Text, Text]
    caveats: dict[Text, list[Text]]
    outline_unfit: list[Text]
    source: Text


class _Worth(TypedDict):
    shown: bool | None
    sentence: Text | None
    auc: _Estimate | None
    beats_chance: bool | None
    rival: Text | None
    rival_auc: _Estimate | None
    beats_rival: bool | None


class Outcome(TypedDict):
    """The outcome of :func:`staging.outcome.outcome` for a case with an answer."""

    status: Literal["staged"]
    reason: None
    stage: Text | None
    probability_advanced: Share | None
    endpoint: _Endpoint | None
    answer: Text
    probability: Share
    contributions: dict[Text, Finite]
    features: dict[Text, Finite | None]
    domain: _Domain
    decision: _Decision | None
    predictive_value: _PredictiveValue | None
    robustness: _Robustness | None
    descriptors: _Descriptors | None
    worth: _Worth | None
    roi: _Roi
    sr: None
    documents: None
    warnings: list[Text]
    seconds: dict[Text, Finite | None]


@dataclass(frozen=True, slots=True)
class SealedPlan:
    """A plan in the small, encoded form in which the daemon keeps it until it is staged. The daemon does not open it.

    Attributes
    ----------
    fingerprint
        As in :class:`staging.pipeline.Plan`.
    content
        The plan, encoded and compressed.
    instances
        The needed instances, for the audit log; as in :class:`staging.pipeline.Plan`.
    beyond
        Names of further slices; as in :class:`staging.pipeline.Plan`.
    """

    fingerprint: Digest
    content: Content
    instances: tuple[Mapping[Annotated[str, Field(pattern="^(kind|uid|digest|pixels)$")], Text], ...]
    beyond: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a staged plan.

    Attributes
    ----------
    outcome
        The result, with the keys of the command contract.
    documents
        In order of delivery, the SR last.
    """

    outcome: Outcome
    documents: Annotated[tuple[Document, ...], AfterValidator(_named), AfterValidator(_proven)]


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception of a worker process, encoded for the daemon.

    Attributes
    ----------
    kind
        Kind of exception.
    message, code, regions
        Parts of a reason; or the message of :class:`Unavailable`.
    errno
        The system's number of an ``OSError``; nothing else of it may be passed on.
    defect
        The output of :func:`config.logs.defect` for any other exception.
    """

    kind: Literal["refused", "held", "unavailable", "system", "memory", "defect"]
    message: Text = ""
    code: ReasonCode | None = None
    regions: tuple[Text, ...] = ()
    errno: Annotated[int, Field(ge=1, le=4095)] | None = None
    defect: Mapping[str, Annotated[Text, Field(pattern="^[ -~]*$")]] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Encode the parts of an exception that may be passed on."""
        if isinstance(error, (Refused, Held)):
            kind: Literal["refused", "held"] = "refused" if isinstance(error, Refused) else "held"
            message, regions = error.reason.message[:_LONGEST], tuple(name[:_LONGEST] for name in error.regions)
            return cls(kind, message, error.reason.code, regions)
        if isinstance(error, Unavailable):
            return cls("unavailable", str(error)[:_LONGEST])
        if isinstance(error, OSError):
            return cls("system", errno=error.errno or None)
        if isinstance(error, MemoryError):
            return cls("memory")
        told = logs.defect(error)
        ascii_only = {key: told[key].encode("ascii", "replace").decode()[-_LONGEST:] for key in ("error", "frames")}
        return cls("defect", defect=ascii_only)

    def error(self) -> Exception:
        """Return the exception.

        Raises
        ------
        ValueError
            The content is no valid exception.
        """
        match self:
            case Failure("refused", message, ReasonCode() as code, regions):
                return Refused(code, message, regions)
            case Failure("held", message, ReasonCode() as code, regions):
                return Held(code, message, regions)
            case Failure("unavailable", message):
                return Unavailable(message)
            case Failure("system", errno=number):
                return OSError() if number is None else OSError(number, os.strerror(number))
            case Failure("memory"):
                return MemoryError()
            case Failure("defect", defect={"error": error, "frames": frames}):
                return DefectError({"error": error, "frames": frames})
        raise ValueError("a failure is incomplete")


_DONE, _FAILED = b"+", b"-"  # what an answer begins with
_FAILURES: Form[Failure] = Form(Failure)


class Request(Generic[AnswerT]):
    """A request to a process; its type gives the type of the answer."""

    __slots__ = ()
    _answers: ClassVar[Form[Any]]

    def answered(self, answer: AnswerT) -> bytes:
        """Encode an answer."""
        return _DONE + self._answers.encode(answer)

    @staticmethod
    def failed(error: Exception) -> bytes:
        """Encode the error that occurred instead of an answer."""
        return _FAILED + _FAILURES.encode(Failure.of(error))

    def read(self, content: bytes) -> AnswerT | Exception:
        """Decode an answer, or the error that occurred instead.

        Raises
        ------
        ValueError
            The content is no answer to this request.
        """
        if content[:1] == _FAILED:
            return _FAILURES.decode(content[1:]).error()
        if content[:1] != _DONE:
            raise ValueError("an answer has no valid first byte")
        answer: AnswerT = self._answers.decode(content[1:])
        self._prove(answer)
        return answer

    def _prove(self, answer: AnswerT) -> None:
        """Raise ValueError if the answer cannot belong to this request."""


@dataclass(frozen=True, slots=True)
class Setting(Request[Confinement]):
    """The first request to a process: its set-up.

    Attributes
    ----------
    files
        The bundle's files, each read once.
    engine
        The engine that computes the features.
    scratch
        The only folder that the process may write to.
    identity_key
        Key of the hashes of a patient's identity (:mod:`dicom.identity`).
    documents
        The documents to make for an answer.
    robustness
        Whether and how to test how much an answer depends on contour and scan.
    describes
        Whether to describe the tumour as a radiologist would.
    rehearses
        Whether to process the phantom study first; not needed by a process that makes no report.
    """

    files: Mapping[str, Content]
    engine: Engine
    scratch: FilePath
    identity_key: Content = b""
    documents: DocumentOptions = field(default_factory=DocumentOptions)
    robustness: RobustnessOptions = NO_ROBUSTNESS
    describes: bool = True
    rehearses: bool = True

    _answers = Form(Confinement)


@dataclass(frozen=True, slots=True)
class ReadHeaders(Request[tuple[Header, ...]]):
    """:func:`dicom.files.read_headers`."""

    path: FilePath

    _answers = Form(_Headers)

    def _prove(self, answer: tuple[Header, ...]) -> None:
        if any(header.path != self.path for header in answer):
            raise ValueError("a header belongs to another file")


@dataclass(frozen=True, slots=True)
class Prepare(Request[SealedPlan]):
    """:func:`staging.pipeline.prepare`; the answer is the sealed plan."""

    case: Case
    settled: bool
    roi_name: str | None
    match_by_geometry: bool
    waited: bool | None = None
    strict_frame_of_reference: bool = False
    choice: RegionChoice | None = None

    _answers = Form(SealedPlan)


@dataclass(frozen=True, slots=True)
class Stage(Request[Answer]):
    """:func:`staging.pipeline.stage`, with encoded documents; `beyond` names the only further slices that are used."""

    plan: SealedPlan
    created: datetime
    site: Site
    predecessor: Predecessor | None = None
    beyond: tuple[Text, ...] = ()

    _answers = Form(Answer)


@dataclass(frozen=True, slots=True)
class Explain(Request[tuple[Document, ...]]):
    """:func:`staging.refusal.explain`."""

    case: Case
    code: ReasonCode
    message: Text
    created: datetime

    _answers = Form(Annotated[tuple[Document, ...], AfterValidator(_named)])


@dataclass(frozen=True, slots=True)
class WritePhantom(Request[str]):
    """:func:`staging.phantom.write_study`; the answer is its Study Instance UID."""

    folder: FilePath
    study: str

    _answers = Form(Uid)


@dataclass(frozen=True, slots=True)
class ViewerSetting(Request[Confinement]):
    """The set-up of a process that only shows studies: it has no bundle."""

    scratch: FilePath
    contour: Mapping[str, Content] | None = None  # of the network that draws contours
    shows: Literal["studies"] = "studies"

    _answers = Form(Confinement)


@dataclass(frozen=True, slots=True)
class ReadPatients(Request[tuple[Patient, ...]]):
    """:func:`staging.viewing.read_patients`."""

    paths: tuple[FilePath, ...]

    _answers = Form(tuple[Patient, ...])

    def _prove(self, answer: tuple[Patient, ...]) -> None:
        if len(answer) != len(self.paths):
            raise ValueError("a patient is missing")


@dataclass(frozen=True, slots=True)
class Look(Request[Scene]):
    """:func:`staging.viewing.look`."""

    headers: _Headers
    key: str
    region: RegionChoice | None

    _answers = Form(Scene)


@dataclass(frozen=True, slots=True)
class Draw(Request[Picture]):
    """:func:`staging.viewing.draw`."""

    headers: _Headers
    key: str
    plane: Literal["axial", "coronal", "sagittal"]
    index: int | None
    window: str
    region: RegionChoice | None
    draft: Draft | None = None

    _answers = Form(Picture)


@dataclass(frozen=True, slots=True)
class Pack(Request[Packed]):
    """:func:`staging.viewing.pack`."""

    headers: _Headers
    key: str
    layer: Literal["image", "region"]
    region: RegionChoice | None
    draft: Draft | None = None

    _answers = Form(Packed)


@dataclass(frozen=True, slots=True)
class Sketch(Request[Sketched]):
    """:func:`staging.sketching.sketch`."""

    headers: _Headers
    key: str
    draft: Draft

    _answers = Form(Sketched)


@dataclass(frozen=True, slots=True)
class Confirm(Request[Document]):
    """:func:`staging.sketching.confirm`."""

    headers: _Headers
    key: str
    draft: Draft
    confirmed_by: str
    created: datetime
    images: str

    _answers = Form(Annotated[Document, AfterValidator(lambda made: _named((made,))[0])])


AnyRequest = (
    Setting
    | ReadHeaders
    | Prepare
    | Stage
    | Explain
    | WritePhantom
    | ViewerSetting
    | ReadPatients
    | Look
    | Draw
    | Pack
    | Sketch
    | Confirm
)  # no two of them have the same fields
_REQUESTS: Form[Any] = Form(Annotated[AnyRequest, Field(union_mode="left_to_right")])


def write_request(request: Request[Any]) -> bytes:
    """Encode a request."""
    return _REQUESTS.encode(request)


def read_request(content: bytes) -> AnyRequest:
    """Decode a request.

    Raises
    ------
    ValueError
        The content is no request.
    """
    request: AnyRequest = _REQUESTS.decode(content)
    return request
