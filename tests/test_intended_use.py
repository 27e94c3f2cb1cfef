"""The shipped model answers inside its limits only, and a correction of the patient makes a new report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from appliance import phantom
from appliance.bundle import Bundle, load_bundle
from appliance.oneshot import Options, stage_paths
from tests.studies import Study, seg_study, square_mask, volume


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    from tests.conftest import ROOT

    return load_bundle(ROOT / "models" / "lung1-stage", self_test=False)


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


def test_a_tumour_unlike_any_other(bundle: Bundle, tmp_path: Path) -> None:
    mask = square_mask()
    checkered = mask & (np.indices(mask.shape).sum(axis=0) % 2 == 0)
    answer = staged(seg_study(checkered).write(tmp_path / "study"), bundle, tmp_path / "out")
    assert answer["reason"]["code"] == "outside_intended_use"
    assert "training cohort" in answer["reason"]["message"]


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
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert pydicom.dcmread(second["sr"]).StudyDescription == "corrected"
