"""A NIfTI pair gives PyRadiomics' values in the usual form, with warnings about what the files do not say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import lungstage
from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.nifti_pair import NOT_AS_DICOM
from tests.support.nifti import AXIAL, stock, write_image, write_pair

COS, SIN = math.cos(0.3), math.sin(0.3)
DIRECTIONS = {
    "axial": AXIAL,
    "as converters write it": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "coronal": (1, 0, 0, 0, 0, 1, 0, -1, 0),
    "turned": (COS, -SIN, 0, SIN, COS, 0, 0, 0, 1),
}
SETTINGS: list[dict[str, Any]] = [
    {"binWidth": 25.0},
    {"binCount": 16},
    {"binWidth": 10.3, "resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"},
    {"binWidth": 25, "resampledPixelSpacing": [1.2, 1.2, 1.5]},
    {"binWidth": 25, "resampledPixelSpacing": [0, 0, 1], "interpolator": "sitkNearestNeighbor"},
]


def command(*arguments: object, status: int) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["measure", *map(str, arguments), "--spec", "all", "--json"])
    assert done.exit_code == status, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@example(kind="uint8", direction="turned", spacing=(1.0, 0.7, 1.0), setting=SETTINGS[2], seed=0)  # a last bit matters
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kind=st.sampled_from(["int16", "float32", "float64", "uint16", "int32", "uint8"]),
    direction=st.sampled_from(sorted(DIRECTIONS)),
    spacing=st.tuples(*[st.sampled_from([0.7, 0.9765625, 1.0, 1.7])] * 2, st.sampled_from([1.0, 2.5, 3.0])),
    setting=st.sampled_from(SETTINGS),
    seed=st.integers(0, 99),
)
def test_every_feature_is_pyradiomics_own(
    kind: str, direction: str, spacing: tuple[float, ...], setting: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    """For any pixel type, direction of axes and spec, the same files give the same numbers."""
    if kind == "uint8":  # PyRadiomics adds integer bin widths in 8 bits, so they overflow
        setting = {key: float(value) if key == "binWidth" else value for key, value in setting.items()}
    pair = write_pair(tmp_path, kind, seed=seed, label=3, spacing=spacing, direction=DIRECTIONS[direction])
    spec = ExtractionSpec(ALL_FEATURES, setting)
    ours, theirs = lungstage.measure(pair, spec, label=3).features, stock(*pair, spec, 3)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12, nan_ok=True)


def test_bins_of_single_precision_start_where_pyradiomics_starts_them(tmp_path: Path) -> None:
    """Values in steps of 0.1 and bins of the same width: the eighth digit decides the bin of a voxel."""
    image, mask = write_pair(tmp_path)
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(image)))
    write_image(image, hu.astype(np.float32) / np.float32(10))
    spec = ExtractionSpec(ALL_FEATURES, {"binWidth": 0.1})
    ours, theirs = lungstage.measure([image, mask], spec).features, stock(image, mask, spec)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_the_outcome_has_the_keys_of_every_outcome(tmp_path: Path) -> None:
    phantom.write_study(tmp_path / "study")
    saved = tmp_path / "saved"
    of_dicom = command(tmp_path / "study", "--save-volume", saved, status=0)
    answer = command(saved / "image.nii.gz", saved / "mask.nii.gz", "--label", 1, status=0)
    assert list(answer) == list(of_dicom)
    assert answer["status"] == "measured"
    assert list(answer["seconds"]) == list(of_dicom["seconds"])
    assert min(answer["seconds"][step] for step in ("read", "resample", "radiomics", "total")) >= 0
    assert answer["features"] == pytest.approx(of_dicom["features"], rel=1e-9)
    assert answer["warnings"] == []
    assert {**answer["roi"], "name": None} == {**of_dicom["roi"], "name": None}
    assert answer["roi"]["name"] == "label 1"
    unknown = {key for key, value in answer.items() if value is None}
    assert unknown == {key for key, value in of_dicom.items() if value is None}


def test_a_label_is_chosen_and_the_others_are_told(tmp_path: Path) -> None:
    image, mask = write_pair(tmp_path, label=2)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
    labels[0, 0, :4] = 7
    write_image(mask, labels)
    measured = lungstage.measure([image, mask], "all", label=2)
    assert (measured.roi, measured.others, measured.voxels) == ("label 2", ("label 7",), int((labels == 2).sum()))
    assert measured.volume_mm3 == pytest.approx(measured.voxels * 0.75 * 0.75 * 2.5)
    answer = command(image, mask, status=3)
    assert (answer["status"], answer["reason"]["code"]) == ("refused", "roi_not_found")
    assert "has no label 1. It has: 2, 7." in answer["reason"]["message"]
    with pytest.raises(lungstage.Refused, match="has no label 1"):
        lungstage.measure([image, mask], "all")


def test_what_is_saved_measures_as_what_was_read(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, "float32", label=9, direction=DIRECTIONS["coronal"])
    spec = ExtractionSpec(ALL_FEATURES, SETTINGS[2])
    read = lungstage.measure(pair, spec, label=9, save_volume=tmp_path / "saved")
    saved = [tmp_path / "saved" / name for name in ("image.nii.gz", "mask.nii.gz")]
    assert lungstage.measure(saved, spec).features == read.features


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("--roi", "GTV-1"), "are for DICOM"),
        (("--match-by-geometry",), "are for DICOM"),
        (("image.nii.gz",), "two files"),
        (("study",), "two files"),
    ],
)
def test_what_does_not_go_with_a_pair_is_wrong_usage(extra: tuple[str, ...], told: str, tmp_path: Path) -> None:
    image, mask = write_pair(tmp_path)
    more = [tmp_path / word if word.endswith((".gz", "study")) else word for word in extra]
    done = CliRunner().invoke(app, ["measure", str(image), str(mask), *map(str, more), "--spec", "all", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in " ".join(done.stderr.replace("│", " ").split())


def test_one_file_alone_or_a_label_without_a_mask_is_wrong_usage(tmp_path: Path) -> None:
    image, mask = write_pair(tmp_path)
    phantom.write_study(tmp_path / "study")
    for arguments in ([image], [tmp_path / "study", "--label", 1]):
        done = CliRunner().invoke(app, ["measure", *map(str, arguments), "--spec", "all"])
        assert done.exit_code == 2
    with pytest.raises(ValueError, match="two files"):
        lungstage.measure(image, "all")
    with pytest.raises(ValueError, match="for NIfTI masks only"):
        lungstage.measure(tmp_path / "study", "all", label=1)
    with pytest.raises(lungstage.Unavailable, match="no file or folder"):
        lungstage.measure([image, f"{mask}.nii"], "all")


def test_a_model_gives_no_answer_for_nifti(tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    asked = ["stage", *map(str, pair), "--bundle", "lung1-stage", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "measure NIfTI files with lungstage measure" in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def warnings_of(pair: tuple[Path, Path], **setting: Any) -> str:
    return " ".join(lungstage.measure(pair, ExtractionSpec(ALL_FEATURES, {"binWidth": 25.0, **setting})).warnings)


RESAMPLED = {"resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkBSpline"}


def test_an_axial_ct_in_whole_hu_is_measured_without_a_word(tmp_path: Path) -> None:
    assert warnings_of(write_pair(tmp_path)) == ""
    assert warnings_of(write_pair(tmp_path), **RESAMPLED) == ""


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_values_that_are_no_hu_are_doubted(kind: str, tmp_path: Path) -> None:
    assert "may have another unit" in warnings_of(write_pair(tmp_path, kind))


def test_values_that_no_ct_has_are_doubted(tmp_path: Path) -> None:
    image, mask = write_pair(tmp_path)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(image))) * np.int16(20)
    assert "The region contains values from " in warnings_of((write_image(image, array), mask))


def test_other_axes_than_axial_are_told(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, direction=DIRECTIONS["coronal"])
    assert "is not stored in axial slices" in warnings_of(pair)
    texture = ExtractionSpec(ALL_FEATURES[20:], {"binWidth": 25.0})
    assert lungstage.measure(pair, texture).warnings == (), "these features do not depend on the axes"


def test_it_is_told_where_dicom_would_give_other_values(tmp_path: Path) -> None:
    assert NOT_AS_DICOM in warnings_of(
        write_pair(tmp_path, direction=DIRECTIONS["as converters write it"]), **RESAMPLED
    )
    assert NOT_AS_DICOM in warnings_of(write_pair(tmp_path, "float32"), **RESAMPLED)
    linear = RESAMPLED | {"interpolator": "sitkLinear"}
    assert NOT_AS_DICOM in warnings_of(write_pair(tmp_path), **linear), "more slices before the region than its margin"
    assert NOT_AS_DICOM not in warnings_of(write_pair(tmp_path, "float32"))
