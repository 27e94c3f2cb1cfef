"""A model answers only within its limits, and a correction of the patient's data makes a new report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import STAGE_GROUP, DomainAssessment, Stage, StagingResult
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.intended_use import prove_domain
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.export.bundle import build
from lungstage.export.intended_use import intended_use
from tests.export.conftest import make_run, without_limits
from tests.support.studies import Study, seg_study, volume


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Random weights, with all limits of a packed model except the distance from the training cohort."""
    folder = tmp_path_factory.mktemp("models") / "made-up"
    build(without_limits(make_run()), folder)
    return load_bundle(folder, self_test=False)


@pytest.fixture
def shipped(shipped_bundle: Path) -> Bundle:
    return load_bundle(shipped_bundle, self_test=False)


def staged(study: Path, bundle: Bundle, out: Path) -> dict[str, Any]:
    return stage_paths([study], bundle, out, Options())


def _each(keyword: str, value: object) -> Callable[[Study], None]:
    def change(study: Study) -> None:
        for dataset in study.slices:
            setattr(dataset, keyword, value)

    return change


OUTSIDE = {
    "another body part": (_each("BodyPartExamined", "EXTREMITY"), "(EXTREMITY)"),
    "free text for a body part": (_each("BodyPartExamined", "DOE JOHN"), "not the chest."),
    "derived images": (_each("ImageType", ["DERIVED", "PRIMARY", "AXIAL"]), "original axial"),
    "reformatted images": (_each("ImageType", ["ORIGINAL", "PRIMARY", "MPR"]), "original axial"),
    "thick slices": (_each("SliceThickness", "8"), "slice thickness"),
    "coarse pixels": (_each("PixelSpacing", ["2.5", "2.5"]), "pixel spacing"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_headers_outside(case: str, bundle: Bundle, tmp_path: Path) -> None:
    change, told = OUTSIDE[case]
    study = seg_study()
    change(study)
    answer = staged(study.write(tmp_path / "study"), bundle, tmp_path / "out")
    assert answer["reason"]["code"] == "outside_intended_use"
    assert told in answer["reason"]["message"]
    assert "DOE" not in answer["reason"]["message"]
    assert not (tmp_path / "out").exists()


def test_slices_far_apart(bundle: Bundle, tmp_path: Path) -> None:
    study = seg_study(source=volume(spacing=(7.4, 1.0, 1.0)))
    _each("SliceThickness", "5")(study)
    answer = staged(study.write(tmp_path / "study"), bundle, tmp_path / "out")
    assert answer["reason"]["code"] == "outside_intended_use"
    assert "apart" in answer["reason"]["message"]


def test_slices_across_the_body(bundle: Bundle, tmp_path: Path) -> None:
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    answer = staged(seg_study(source=volume(rotation=upright)).write(tmp_path / "study"), bundle, tmp_path / "out")
    assert answer["reason"]["code"] == "outside_intended_use"
    assert "axial" in answer["reason"]["message"]


def test_values_that_no_tissue_has(bundle: Bundle, tmp_path: Path) -> None:
    study = seg_study()
    for dataset in study.slices:
        pixels = dataset.pixel_array.copy()
        pixels[20, 20] = 9000
        dataset.PixelData = pixels.tobytes()
    answer = staged(study.write(tmp_path / "study"), bundle, tmp_path / "out")
    assert answer["reason"]["code"] == "outside_intended_use"
    assert "HU" in answer["reason"]["message"]


def test_a_tumour_unlike_any_other(shipped: Bundle, tmp_path: Path) -> None:
    checkered = np.indices((12, 40, 48)).sum(axis=0) % 2 == 0
    checkered[[0, 1, -2, -1]] = False  # a margin, so that the region does not touch the ends of the series
    answer = staged(seg_study(checkered).write(tmp_path / "study"), shipped, tmp_path / "out")
    assert answer["reason"]["code"] == "outside_intended_use"
    assert "training" in answer["reason"]["message"]


USE = intended_use({"quantiles": {"0.99": 4.0, "1": 5.0}, "neighbour_quantiles": {"0.99": 1.0, "1": 1.5}}, STAGE_GROUP)


def at(distance: float, neighbours: float) -> StagingResult:
    return StagingResult(Stage.EARLY, 0.2, {}, DomainAssessment(distance, neighbours, ()))


@pytest.mark.parametrize(
    ("distance", "neighbours", "warnings"), [(4.0, 1.0, 0), (4.1, 1.0, 1), (4.0, 1.1, 1), (10.0, 3.0, 2)]
)
def test_either_distance_warns_on_its_own(distance: float, neighbours: float, warnings: int) -> None:
    assert len(prove_domain(at(distance, neighbours), USE)) == warnings


@pytest.mark.parametrize(
    ("distance", "neighbours"), [(10.1, 0.5), (1.0, 3.1), (float("nan"), 0.5), (1.0, float("nan")), (1.0, float("inf"))]
)
def test_either_distance_refuses_on_its_own(distance: float, neighbours: float) -> None:
    with pytest.raises(Refused, match="training") as caught:
        prove_domain(at(distance, neighbours), USE)
    assert caught.value.reason.code is ReasonCode.OUTSIDE_INTENDED_USE


def test_a_correction_of_the_patient_makes_a_new_report_and_a_repetition_none(bundle: Bundle, tmp_path: Path) -> None:
    files = phantom.write_study(tmp_path / "study")
    first = staged(tmp_path / "study", bundle, tmp_path / "out")
    assert first["status"] == "staged"
    assert staged(tmp_path / "study", bundle, tmp_path / "out")["sr"] == first["sr"]
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.StudyDescription = "corrected"
        dataset.save_as(path)
    second = staged(tmp_path / "study", bundle, tmp_path / "out")
    assert second["sr"] != first["sr"]
    assert len(list((tmp_path / "out").glob("SR-*.dcm"))) == 2
    assert pydicom.dcmread(second["sr"]).StudyDescription == "corrected"
