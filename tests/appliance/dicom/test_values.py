"""The value of an element is read, or a sentence names the element."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.values import ElementError, directions, number, whole
from tests.appliance.dicom.test_bad_input import measured
from tests.support.studies import Study, rtstruct_study, seg_study, volume

NOISE = st.floats(-1e-5, 1e-5)


def _oriented(values: np.ndarray) -> Dataset:
    dataset = Dataset()
    dataset.add(DataElement("ImageOrientationPatient", "DS", [float(v) for v in values], already_converted=True))
    return dataset


@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 2), st.lists(NOISE, min_size=6, max_size=6))
def test_directions_close_to_axes_are_axes(order: list[int], signs: tuple[int, int], noise: list[float]) -> None:
    axes = np.zeros((2, 3))
    axes[0, order[0]], axes[1, order[1]] = signs
    assert directions(_oriented(axes.ravel() + noise)) == tuple(axes.ravel())


@given(st.floats(0.01, 0.7), st.floats(0.01, 0.7), st.lists(NOISE, min_size=6, max_size=6))
def test_other_directions_are_of_unit_length_and_at_right_angles(a: float, b: float, noise: list[float]) -> None:
    along = np.array([np.cos(a), np.sin(a), 0])
    down = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    given = np.concatenate([along, down])
    axes = np.reshape(directions(_oriented(given + noise)), (2, 3))
    assert np.abs(axes @ axes.T - np.eye(2)).max() < 1e-15
    assert np.abs(axes.ravel() - given).max() < 5e-5


@pytest.mark.parametrize("values", [(1, 0, 0, 0, 2, 0), (1, 0, 0, 0.5, 0.5, 0), (0, 0, 0, 0, 0, 0)])
def test_what_is_no_pair_of_directions_stays_so(values: tuple[float, ...]) -> None:
    assert directions(_oriented(np.array(values, dtype=float))) == values


def _drawn() -> Study:
    diamond = [[(11.2, 22.3), (20.1, 33.4), (29.3, 22.4), (20.2, 12.1)]]
    return rtstruct_study(lambda _: diamond, source=volume(spacing=(0.75, 0.75, 0.75)))


def _segmented() -> Study:
    z, y, x = np.indices((12, 40, 48))
    mask = np.abs(z - 6) / 4 + np.abs(y - 20) / 9 + np.abs(x - 22) / 10 < 1
    return seg_study(mask, source=volume(spacing=(0.75, 0.75, 0.75)))


@pytest.mark.parametrize("make", [_drawn, _segmented])
def test_noise_in_the_directions_moves_no_feature(make: Callable[[], Study], tmp_path: Path) -> None:
    """At 0.75 mm a third of the mask's voxels tie on the 1 mm grid; noise of 2e-10 changed features by over half."""
    spec = ExtractionSpec(ALL_FEATURES, {"binWidth": 25.0, "resampledPixelSpacing": [1.0, 1.0, 1.0]})
    noise = np.random.default_rng(5).uniform(-2e-10, 2e-10, 6)

    def outcome(folder: str, noise: np.ndarray) -> dict:
        study = make()
        for dataset in (*study.slices, *_planes(study.rois[0])):
            given = [f"{v:.12f}" for v in np.array([1, 0, 0, 0, 1, 0]) + noise]
            dataset.add(DataElement("ImageOrientationPatient", "DS", given))
        return measured(study.write(tmp_path / folder), spec)

    clean, noisy = outcome("clean", np.zeros(6)), outcome("noisy", noise)
    assert clean["status"] == "measured"
    assert noisy["features"] == clean["features"]


def _planes(seg: Dataset) -> list[Dataset]:
    groups = [*seg.get("SharedFunctionalGroupsSequence", ()), *seg.get("PerFrameFunctionalGroupsSequence", ())]
    return [plane for group in groups for plane in group.get("PlaneOrientationSequence") or ()]


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "read", "sentence"),
    [
        (
            "SliceThickness",
            "OB",
            b"\1\2",
            number,
            r"Slice Thickness \(0018,0050\) of this file has Value Representation OB, .* DS",
        ),
        ("SliceThickness", "DS", "1_0", number, r"Slice Thickness \(0018,0050\) of this file does not contain decimal"),
        ("SliceThickness", "DS", "1e", number, r"Slice Thickness \(0018,0050\) of this file does not contain decimal"),
        ("NumberOfFrames", "IS", [1, 2], whole, r"Number of Frames \(0028,0008\) of this file is not one whole number"),
        (
            "Rows",
            "OW",
            b"\1\2",
            whole,
            r"Rows \(0028,0010\) of this file has Value Representation OW, but must have US",
        ),
    ],
)
def test_the_sentence_names_the_element(keyword: str, vr: str, value: object, read: object, sentence: str) -> None:
    dataset = Dataset()
    dataset.add(DataElement(keyword, vr, value, already_converted=True))
    with pytest.raises(ElementError, match=sentence):
        read(dataset, keyword)  # type: ignore[operator]


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize(("value", "why"), [("ANON.1.2.3", "is not a UID"), ("", "is missing")])
def test_a_uid_that_is_none_is_named_and_not_quoted(keyword: str, value: str, why: str, tmp_path: Path) -> None:
    dataset = rtstruct_study().slices[4]
    dataset.add(DataElement(keyword, "UI", value, already_converted=True))
    dataset.save_as(tmp_path / "file", enforce_file_format=False)
    with pytest.raises(Refused) as caught:
        read_headers(tmp_path / "file")
    sentence = str(caught.value)
    assert why in sentence
    assert dataset[keyword].name in sentence
    assert "ANON" not in sentence


@pytest.mark.slow
@pytest.mark.parametrize(("count", "is_read"), [(19_900, True), (20_001, False)])
def test_an_object_that_names_more_than_any_study_holds_is_refused(count: int, is_read: bool, tmp_path: Path) -> None:
    dataset = rtstruct_study().rois[0]
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    for k in range(count):
        image = Dataset()
        image.ReferencedSOPInstanceUID = f"1.2.3.{k}"
        series.ContourImageSequence.append(image)
    dataset.save_as(tmp_path / "file", enforce_file_format=True)
    if is_read:
        assert len(read_headers(tmp_path / "file")) == 1
        return
    with pytest.raises(Refused, match="refers to") as caught:
        read_headers(tmp_path / "file")
    assert caught.value.reason.code == "limits_exceeded"
