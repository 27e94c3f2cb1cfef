"""Data between daemon and workers arrive unchanged, and no other bytes are accepted."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.uid import CTImageStorage

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import DefectError, Held, ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.plain import Bits, Floats, Form
from lungstage.appliance.descriptors.definitions import BY_NAME
from lungstage.appliance.dicom.cases import Case, assemble
from lungstage.appliance.dicom.completeness import ReferenceSlices
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import ImageHeader, RoiHeader
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame
from lungstage.appliance.model.bundle import Bundle, open_bundle
from lungstage.appliance.model.bundle_files import read_files
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers.confinement import Confinement
from lungstage.appliance.workers.messages import (
    Answer,
    Prepare,
    ReadHeaders,
    Request,
    SealedPlan,
    Setting,
    Stage,
    WritePhantom,
    read_request,
    write_request,
)
from lungstage.appliance.workers.worker import seal, unseal
from tests.support.enhanced import enhanced_rtstruct_study, enhanced_seg_study
from tests.support.studies import Polygon, Study, rtstruct_study, seg_study

# A file name may contain all bytes but these two; a header may contain any text of a character set.
NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, ord("/")} & set(name))
PATHS = NAMES.map(lambda name: Path("/in", os.fsdecode(name)))
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.floats(width=64)
VECTORS = st.lists(FLOATS, max_size=6).map(tuple)
TUPLES = st.lists(WORDS, max_size=3).map(tuple)
IMAGES = st.builds(
    ImageHeader, PATHS, WORDS, WORDS, WORDS, st.integers(), WORDS, WORDS, WORDS, WORDS, WORDS, TUPLES, WORDS,
    st.integers(), st.integers(), st.integers(), VECTORS, VECTORS, VECTORS, st.none() | FLOATS, st.none() | FLOATS,
    st.none() | FLOATS, VECTORS, WORDS, st.lists(st.integers(), max_size=2).map(tuple),
)  # fmt: skip
ROIS = st.builds(
    RoiHeader, PATHS, WORDS, st.sampled_from(["RTSTRUCT", "SEG"]), WORDS, WORDS, WORDS, WORDS, WORDS, TUPLES,
    st.lists(st.tuples(WORDS, TUPLES), max_size=2).map(tuple), TUPLES, WORDS,
)  # fmt: skip
REFERENCES = st.tuples(WORDS, st.integers())
NAMED = st.lists(REFERENCES, max_size=2).map(tuple)
OUTLINES = st.builds(
    Outline, hnp.arrays(np.float64, st.tuples(st.integers(0, 5), st.just(3)), elements=FLOATS), WORDS, NAMED
)
FRAMES = st.builds(
    SegmentFrame, hnp.arrays(np.float64, 3, elements=FLOATS), NAMED,
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0))
    | hnp.arrays(np.bool_, (5, 3)).map(np.transpose),
)  # fmt: skip


def some(of: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=most).map(tuple)


CASES = st.builds(Case, WORDS, WORDS, st.none() | WORDS, some(IMAGES), some(ROIS), TUPLES)
REGIONS = st.builds(
    Region, ROIS, st.integers(), WORDS, TUPLES, WORDS, some(OUTLINES), some(FRAMES), WORDS, VECTORS, VECTORS
)
SLICES = st.builds(
    ReferenceSlices, some(IMAGES), st.tuples(FLOATS, FLOATS, FLOATS), some(some(OUTLINES | FRAMES)), WORDS
)
PLANS = st.builds(pipeline.Plan, CASES, some(st.tuples(REGIONS, SLICES), 2), WORDS, TUPLES)


def bare(value: Any) -> Any:
    """Split a value into its parts, down to the bits of numbers, so that equal means identical."""
    if dataclasses.is_dataclass(value):
        return type(value).__name__, [bare(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    return [bare(item) for item in value] if isinstance(value, tuple) else (type(value).__name__, value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(plan=PLANS)
def test_any_plan_comes_through_to_the_bit(plan: pipeline.Plan) -> None:
    assert bare(PLAN_FORM.decode(PLAN_FORM.encode(plan))) == bare(plan)


def test_what_two_places_share_is_written_once() -> None:
    outline = Outline(np.arange(300_000.0).reshape(-1, 3), "CLOSED_PLANAR")
    form: Form[tuple[Outline, ...]] = Form(tuple[Outline, ...])
    written = form.encode((outline, outline))
    assert len(written) < 1.1 * outline.points.nbytes
    one, other = form.decode(written)
    assert bare(one) == bare(other) == bare(outline)


@pytest.mark.parametrize("shape", [
    [], [5, 7], [6, 4], [5, -5], [-1], [25, 1, 2**31], [0, 2**70], [5.0, 5], ["5", 5], [None],
])  # fmt: skip
@pytest.mark.parametrize("array", [np.eye(5), np.eye(5, dtype=np.bool_)])
def test_an_array_of_another_shape_is_none(array: np.ndarray[Any, Any], shape: list[Any]) -> None:
    form: Form[Any] = Form(Floats if array.dtype == np.float64 else Bits)
    written = b"+" + form.encode(array)
    assert bare(form.decode(spoilt(written, (0,), [0, 25])[1:])) == bare(array.ravel())
    with pytest.raises(ValueError):  # noqa: PT011  (whatever is wrong with it)
        form.decode(spoilt(written, (0,), [0, *shape])[1:])


HOLED: list[Polygon] = [
    ((10.5, 10.5), (10.5, 34.5), (29.5, 34.5), (29.5, 10.5)), ((15.5, 15.5), (15.5, 25.5), (24.5, 25.5), (24.5, 15.5))
]  # fmt: skip


STUDIES: dict[str, Callable[[], Study]] = {
    "contours": rtstruct_study,
    "contours with holes": lambda: rtstruct_study(lambda _: HOLED),
    "segment": seg_study,
    "contours on frames": enhanced_rtstruct_study,
    "segment on frames": enhanced_seg_study,
    "both": lambda: Study(rtstruct_study().slices, [*rtstruct_study().rois, *seg_study().rois]),
}


FAR = [f"{kind}_distance_{grade}" for kind in ("domain", "neighbour") for grade in ("warn", "max")]


@pytest.fixture(scope="module")
def bundle(shipped_bundle: Path) -> Bundle:
    return open_bundle(read_files(shipped_bundle), engine="compiled")


def plan_of(folder: Path, bundle: Bundle) -> pipeline.Plan:
    paths = sorted(folder.iterdir())
    (case,) = assemble(header for path in paths for header in read_headers(path))
    return pipeline.plan_measurement(case, bundle.manifest.roi_rule, bundle.spec, settled=True)


@pytest.mark.parametrize("name", STUDIES)
def test_a_sealed_plan_makes_the_same_report_to_the_byte(name: str, tmp_path: Path, bundle: Bundle) -> None:
    plan = plan_of(STUDIES[name]().write(tmp_path), bundle)
    sealed = seal(plan)
    assert (sealed.fingerprint, sealed.instances) == (plan.fingerprint, plan.instances)
    opened = unseal(sealed)
    assert bare(opened) == bare(plan)
    # These studies are outside the intended use, which does not matter here.
    use = bundle.manifest.intended_use.model_copy(update=dict.fromkeys(FAR, 1e9))
    tolerant = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"intended_use": use}))
    made = [
        pipeline.stage(
            each, tolerant, created=datetime(2026, 3, 4, tzinfo=UTC), site=Site(), documents=DocumentOptions(("sr",))
        )
        for each in (plan, opened)
    ]
    documents = [[document.content for document in one.documents] for one in made]
    assert documents[0] == documents[1]


# Requests, answers and errors

CREATED = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
PLAN = SealedPlan("a" * 64, b"\0\1", ({"kind": "CT", "uid": "1.2 frame 3", "digest": "d", "pixels": "p"},))
IMAGE = ImageHeader(
    Path("/in/ct"), "d", CTImageStorage, "1.2", 0, "1.3", "1.4", "key", "1.5", "CT", ("ORIGINAL",), "CHEST", 512, 512,
    1, (0.1, -2.0, 3.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.8, 0.8), 2.5, None, 0.0, (1.0, -1024.0), "p", (1, 2),
)  # fmt: skip
ROI = RoiHeader(Path("/in/ct"), "d", "SEG", "1", "2", "3", "4", "key", ("1.5",), (("1.3", ("1.2",)),), ("1.2",), "2026")
READ, PREPARE = ReadHeaders(Path("/in/ct")), Prepare(Case("1.3", "1.4", "1.3", (IMAGE,), (ROI,)), True, None, False)
STAGE = Stage(PLAN, CREATED, Site(0.3, {"1.4": {"age": 63.0, "sex": "F"}}), Predecessor("1", "2", "3"))
SETTING, PHANTOM = (
    Setting({"model.onnx": b"\0\xff"}, "compiled", Path("/state")),
    WritePhantom(Path("/state/c"), "name"),
)
OUTCOME: Any = {
    "status": "staged", "reason": None, "stage": "early", "probability_advanced": 0.25, "endpoint": None,
    "answer": "early", "probability": 0.25,
    "contributions": {"a": -0.5}, "features": {"a": 1.5, "b": None}, "domain": {"distance": 1.0, "outside": ["a"]},
    "decision": {
        "prevalence": 0.3, "prevalence_of": "site", "negative_up_to": 0.5, "positive_from": None, "withheld": False,
    },
    "predictive_value": {
        "value": 0.9, "low": 0.8, "high": 0.95, "prevalence": 0.3, "patients": 160, "positives": 98, "negatives": 62,
        "positive": "advanced", "negative": "early", "cohort": "c",
    },
    "robustness": {
        "range": [0.5, 0.75], "agreement": 0.75, "robust": False, "code": "answer_not_robust", "withheld": False,
        "perturbations": 28, "asked": 30, "fewer": 0, "left_out": {"slices": 2}, "unknown": None, "contour_mm": 2.1,
        "noise_hu": None, "features": {"a": 0.5, "b": None},
    },
    "descriptors": {
        **dict.fromkeys(BY_NAME, 1.5), "t_size_class": "T1a", "mean_hu": None, "components": 1,
        "words": {"mean_hu": None, "irregularity": "smooth"}, "percentiles": {"irregularity": 7},
        "badges": dict.fromkeys(BY_NAME, "b"), "reasons": {"mean_hu": "r"}, "caveats": {"volume_mm3": ["c", "d"]},
        "agreement": {"irregularity": {"auroc": 0.8, "low": 0.7, "high": 0.9, "lesions": 3}}, "outline_unfit": [],
        "source": "s",
    },
    "worth": {
        "shown": False, "sentence": "s", "auc": {"value": 0.7, "low": 0.6, "high": 0.8}, "beats_chance": True,
        "rival": None, "rival_auc": None, "beats_rival": False,
    },
    "roi": {"name": "GTV", "voxels": 5, "volume_mm3": 2.5, "others": [{"number": 2, "name": "GTVn"}]},
    "sr": None, "documents": None, "warnings": ["w"], "seconds": {"total": 1.0},
}  # fmt: skip
ANSWER = Answer(OUTCOME, (Document("SEG-1.2.dcm", "1.2", "1.9", b"\0"), Document("SR-1.3.dcm", "1.3", "1.9", b"\xff")))
SURVIVAL: Any = {"name": "death", "positive": "high risk", "answer": "low risk", "probability": 0.25}
OF_SURVIVAL = Answer(
    {**OUTCOME, "stage": None, "probability_advanced": None, "endpoint": SURVIVAL}, ANSWER.documents[1:]
)
ANSWERED: list[tuple[Request[Any], object]] = [
    (SETTING, Confinement(True, 6, True)), (READ, (IMAGE, ROI)), (PREPARE, PLAN), (STAGE, ANSWER), (STAGE, OF_SURVIVAL),
    (PHANTOM, "1.2.3"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "answer"), ANSWERED)
def test_requests_and_answers_come_through(request_: Request[Any], answer: object) -> None:
    again = read_request(write_request(request_))
    assert again == request_
    assert type(again) is type(request_)
    assert request_.read(request_.answered(answer)) == answer


@pytest.mark.parametrize("error", [
    Refused(ReasonCode.ROI_EMPTY, "It is empty.", ("DOE",)), Held(ReasonCode.NO_ROI, "None yet."), Unavailable("Away."),
    FileNotFoundError(2, "No such file or directory"), PermissionError(13, "Permission denied"), OSError(),
    MemoryError(),
])  # fmt: skip
def test_errors_come_through(error: Exception) -> None:
    again = READ.read(READ.failed(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name in ("reason", "regions", "errno"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_of_a_defect_its_type_and_frames_come_through() -> None:
    try:
        raise KeyError("DOE^JANE")
    except KeyError as error:
        failed = READ.failed(error)
    assert b"DOE" not in failed
    again = READ.read(failed)
    assert isinstance(again, DefectError)
    assert again.defect["error"] == "KeyError"
    assert "test_of_a_defect" in again.defect["frames"]


def test_the_longest_message_is_cut_and_not_lost() -> None:
    again = READ.read(READ.failed(Refused(ReasonCode.ROI_NOT_FOUND, "x" * 10**6, ("y" * 10**6,))))
    assert isinstance(again, Refused)
    assert (len(again.reason.message), len(again.regions[0])) == (100_000, 100_000)


def spoilt(written: bytes, where: tuple[Any, ...], value: object) -> bytes:
    """Put another value into the JSON of an answer; `...` removes it."""
    length = int.from_bytes(written[1:9], "big")
    text, parts = json.loads(written[9 : 9 + length]), written[9 + length :]
    at = text
    for key in where[:-1]:
        at = at[key]
    if value is ...:
        del at[where[-1]]
    else:
        at[where[-1]] = value
    new = json.dumps(text).encode()
    return written[:1] + len(new).to_bytes(8, "big") + new + parts


REFUSAL = READ.failed(Refused(ReasonCode.ROI_EMPTY, "It is empty."))
SYSTEM, DEFECT = READ.failed(OSError(2, "")), READ.failed(ValueError())
HEADERS, PLANNED, STAGED = READ.answered((IMAGE, ROI)), PREPARE.answered(PLAN), STAGE.answered(ANSWER)
SPOILT: dict[str, tuple[Request[Any], bytes, tuple[Any, ...], object]] = {
    "another file's header": (READ, HEADERS, (0, 0, "path"), "/etc/passwd"),
    "a text for a number": (READ, HEADERS, (0, 0, "rows"), "512"),
    "a fraction for a count": (READ, HEADERS, (0, 0, "rows"), 512.0),
    "a truth for a count": (READ, HEADERS, (0, 0, "rows"), True),
    "a number for a text": (READ, HEADERS, (0, 0, "digest"), 5),
    "an object for a vector": (READ, HEADERS, (0, 0, "position"), {"0": 1.0}),
    "an unknown key": (READ, HEADERS, (0, 0, "is_ct_slice"), True),
    "a key that lacks": (READ, HEADERS, (0, 0, "sop_instance_uid"), ...),
    "an unknown kind of ROI": (READ, HEADERS, (0, 1, "kind"), "SR"),
    "a path that is a number": (READ, HEADERS, (0, 0, "path"), 5),
    "a path with characters that no byte is": (READ, HEADERS, (0, 0, "path"), "\u1234"),
    "no headers": (READ, HEADERS, (0,), None),
    "an unknown reason code": (READ, REFUSAL, (0, "code"), "because"),
    "a refusal without a code": (READ, REFUSAL, (0, "code"), None),
    "an unknown kind of error": (READ, REFUSAL, (0, "kind"), "SystemExit"),
    "a message that is too long": (READ, REFUSAL, (0, "message"), "x" * 100_001),
    "a message that is none": (READ, REFUSAL, (0, "message"), ["x"]),
    "a name that is too long": (READ, REFUSAL, (0, "regions"), ["x" * 100_001]),
    "a number that the system has not": (READ, SYSTEM, (0, "errno"), -2),
    "a defect of many lines": (READ, DEFECT, (0, "defect", "frames"), "x\ny"),
    "a defect without frames": (READ, DEFECT, (0, "defect", "frames"), ...),
    "a fingerprint that is none": (PREPARE, PLANNED, (0, "fingerprint"), "A" * 64),
    "a fingerprint and more": (PREPARE, PLANNED, (0, "fingerprint"), "a" * 64 + "\n"),
    "an instance that says more": (PREPARE, PLANNED, (0, "instances", 0, "patient"), "DOE"),
    "bytes that are not there": (PREPARE, PLANNED, (0, "content"), 1),
    "bytes before the first": (PREPARE, PLANNED, (0, "content"), -1),
    "bytes by no number": (PREPARE, PLANNED, (0, "content"), False),
    "a document elsewhere": (STAGE, STAGED, (0, "documents", 1, "name"), "../SR-1.3.dcm"),
    "a document of a name that is none": (STAGE, STAGED, (0, "documents", 1, "name"), "SR-1.3.dcm\n"),
    "a document of another kind": (STAGE, STAGED, (0, "documents", 0, "name"), "CT-1.2.dcm"),
    "a document under another's name": (STAGE, STAGED, (0, "documents", 1, "name"), "SR-1.4.dcm"),
    "a document of a series that is none": (STAGE, STAGED, (0, "documents", 1, "series_instance_uid"), "DOE"),
    "a document twice": (STAGE, STAGED, (0, "documents", 0), {
        "name": "SR-1.3.dcm", "sop_instance_uid": "1.3", "series_instance_uid": "1.9", "content": 0,
    }),
    "documents without a report": (STAGE, STAGED, (0, "documents", 1), ...),
    "no documents": (STAGE, STAGED, (0, "documents"), []),
    "a digest of its own": (STAGE, STAGED, (0, "documents", 1, "sha256"), "0" * 64),
    "another status": (STAGE, STAGED, (0, "outcome", "status"), "refused"),
    "a share beyond one": (STAGE, STAGED, (0, "outcome", "probability_advanced"), 1.5),
    "a feature that is no number": (STAGE, STAGED, (0, "outcome", "features", "a"), float("nan")),
    "a feature that is infinite": (STAGE, STAGED, (0, "outcome", "features", "a"), float("inf")),
    "a time that is a text": (STAGE, STAGED, (0, "outcome", "seconds", "total"), "1.0"),
    "an outcome that says more": (STAGE, STAGED, (0, "outcome", "patient"), "DOE"),
    "an outcome that says less": (STAGE, STAGED, (0, "outcome", "warnings"), ...),
    "a UID that is none": (PHANTOM, PHANTOM.answered("1.2.3"), (0,), "1.2/3"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_answer_is_none(name: str) -> None:
    request, written, where, value = SPOILT[name]
    request.read(written)  # the unchanged bytes are an answer
    with pytest.raises(ValueError):  # noqa: PT011  (whatever is wrong with it)
        request.read(spoilt(written, where, value))


def test_a_document_is_known_by_the_digest_of_its_bytes() -> None:
    other = dataclasses.replace(ANSWER.documents[1], content=b"another report")
    answer = STAGE.read(STAGE.answered(Answer(OUTCOME, (other,))))
    assert isinstance(answer, Answer)
    assert answer.documents[0].sha256 == hashlib.sha256(b"another report").hexdigest()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_bytes_are_an_answer_or_none(data: st.DataObject) -> None:
    """For any bytes, only ValueError is raised, or the value has the requested type."""
    request, answer = data.draw(st.sampled_from(ANSWERED))
    content = bytearray(data.draw(st.sampled_from([request.answered(answer), REFUSAL, DEFECT])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not content:
            return
    with contextlib.suppress(ValueError):
        became = request.read(bytes(content))
        if not isinstance(became, Exception):
            assert request.read(request.answered(became)) == became


def written_plan() -> bytes:
    frame = SegmentFrame(np.zeros(3), (("1.2", 0),), np.eye(5, dtype=np.bool_))
    outline = Outline(np.zeros((3, 3)), "CLOSED_PLANAR", (("1.2", 0),))
    region = Region(ROI, 1, "GTV", (), "1.5", (outline,), (frame,))
    slices = ReferenceSlices((IMAGE,), (1.0, 1.0, 1.0), ((outline, frame),), "The series ends here.")
    return PLAN_FORM.encode(pipeline.Plan(PREPARE.case, ((region, slices),), "f", ()))


PLAN_FORM: Form[pipeline.Plan] = Form(pipeline.Plan)
WRITTEN_PLAN = written_plan()


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10**9), byte=st.integers(0, 255), cut=st.booleans())
def test_a_spoilt_plan_is_one_or_none(at: int, byte: int, cut: bool) -> None:
    content = bytearray(WRITTEN_PLAN)
    content[at % len(content)] = byte
    with contextlib.suppress(ValueError):
        plan = PLAN_FORM.decode(bytes(content[: at % len(content)] if cut else content))
        assert isinstance(plan.regions[0][0].frames[0].pixels, np.ndarray)
