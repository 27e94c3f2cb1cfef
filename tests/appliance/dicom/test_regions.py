"""What is read from RTSTRUCT and SEG, and what is left out, refused or named."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.segment_pixels import are_bits_reversed
from tests.appliance.dicom.test_bad_input import measured
from tests.support.studies import (
    AROUND,
    ROI_SLICES,
    SQUARE,
    Study,
    contour,
    rtstruct_study,
    seg_study,
    square_mask,
    structure_set,
)

WHOLE = int(square_mask().sum())


def study_of(*rois: tuple[str, list[Dataset]]) -> Study:
    """An RTSTRUCT with ROIs of these names and contours, without types; names may be equal."""
    study = rtstruct_study()
    named = {f"{k}": contours for k, (_, contours) in enumerate(rois)}
    study.rois = [structure_set(study.slices, named, study.slices)]
    for (name, _), roi, item in zip(
        rois, study.rois[0].StructureSetROISequence, study.rois[0].RTROIObservationsSequence, strict=True
    ):
        roi.ROIName, item.RTROIInterpretedType = name, ""
    return study


def _drawn(polygon: object = SQUARE) -> list[Dataset]:
    return [contour(rtstruct_study().slices[k], polygon) for k in ROI_SLICES]  # type: ignore[arg-type]


def _contours(study: Study) -> list[Dataset]:
    return study.rois[0].ROIContourSequence[0].ContourSequence  # type: ignore[no-any-return]


def reason(study: Study, folder: Path, **options: object) -> tuple[str, str]:
    found = measured(study.write(folder), **options)["reason"]  # type: ignore[arg-type]
    return found["code"], found["message"]


# --- what encloses nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "corners",
    [[(5, 5)], [(5, 5), (9, 9)], [(5, 5), (7, 7), (9, 9)], [(5, 5), (5, 5), (5, 5)], [(5, 5), (9, 5), (7, 5), (5, 5)]],
    ids=["point", "two points", "line", "thrice a point", "there and back"],
)
@pytest.mark.parametrize("at", [5, 10], ids=["within", "beyond"])
def test_contours_that_enclose_nothing_are_passed_over(corners: list, at: int, tmp_path: Path) -> None:
    """Beyond the tumour, they must also not add slices."""
    once = measured(rtstruct_study().write(tmp_path / "once"))
    study = rtstruct_study()
    _contours(study).append(contour(study.slices[at], corners))
    assert measured(study.write(tmp_path / "more"))["features"] == once["features"]


def test_a_figure_of_eight_encloses_something(tmp_path: Path) -> None:
    """Its signed area is 0."""
    eight = ((12.5, 14.5), (27.5, 30.5), (27.5, 14.5), (12.5, 30.5))
    assert measured(rtstruct_study(lambda _: [eight]).write(tmp_path))["roi"]["voxels"] > 0


@pytest.mark.parametrize("stated", ["4", "4.0", "4E0", "", None])
def test_numbers_of_points_however_they_are_written(stated: str | None, tmp_path: Path) -> None:
    study = rtstruct_study()
    for item in _contours(study):
        del item.NumberOfContourPoints
        if stated is not None:
            item.add(DataElement("NumberOfContourPoints", "IS", stated, already_converted=True))
    assert measured(study.write(tmp_path))["roi"]["voxels"] == WHOLE


@pytest.mark.parametrize("stated", ["5", "4.5"])
def test_another_number_of_points_is_a_contradiction(stated: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    _contours(study)[0].add(DataElement("NumberOfContourPoints", "IS", stated, already_converted=True))
    assert reason(study, tmp_path)[0] == "roi_unreadable"


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("INTERPOLATED_PLANAR", "marked as interpolated (INTERPOLATED_PLANAR)"),
        ("OPEN_PLANAR", "marked as open (OPEN_PLANAR)"), ("OPEN_NONPLANAR", "marked as open (OPEN_NONPLANAR)"),
        ("POINT", "marked as points (POINT)"), ("JANE_DOE", "of another type"), ("", "of no type"),
    ],
)  # fmt: skip
def test_another_type_of_contour_is_named(kind: str, named: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    _contours(study)[1].ContourGeometricType = kind
    code, message = reason(study, tmp_path)
    assert code == "contour_not_closed"
    assert f"'GTV-1' has 1 contour {named} instead of closed (Contour Geometric Type, 3006,0042)." in message
    assert "JANE" not in message


# --- empty ones --------------------------------------------------------------------------------------------------


def _no_item(study: Study) -> None:
    del study.rois[0].ROIContourSequence[0]


def _no_sequence(study: Study) -> None:
    del study.rois[0].ROIContourSequence[0].ContourSequence


def _a_point(study: Study) -> None:
    study.rois[0].ROIContourSequence[0].ContourSequence = [contour(study.slices[5], [(3, 3)])]


def _nothing(_: Study) -> None: ...


@pytest.mark.parametrize("name", ["GTVp", "GTV-1", "gtv-1"])
@pytest.mark.parametrize("edit", [_nothing, _no_item, _no_sequence, _a_point])
@pytest.mark.parametrize("roi_name", [None, "GTV-1"])
def test_templates_are_passed_over(name: str, edit: Callable[[Study], None], roi_name: str, tmp_path: Path) -> None:
    study = study_of((name, []), ("GTV-1", _drawn()))
    edit(study)
    answer = measured(study.write(tmp_path), roi_name=roi_name)
    assert (answer["roi"]["name"], answer["roi"]["voxels"], answer["roi"]["others"]) == ("GTV-1", WHOLE, [])


def test_an_empty_segment_is_passed_over(tmp_path: Path) -> None:
    study = seg_study()
    empty = deepcopy(study.rois[0].SegmentSequence[0])
    empty.SegmentNumber = 2
    study.rois[0].SegmentSequence.append(empty)
    assert measured(study.write(tmp_path))["roi"]["voxels"] == WHOLE


@pytest.mark.parametrize("roi_name", [None, "GTV-1"])
def test_an_empty_tumour_is_said_to_be_empty(roi_name: str | None, tmp_path: Path) -> None:
    code, message = reason(study_of(("GTV-1", []), ("Heart", _drawn())), tmp_path, roi_name=roi_name)
    assert code == "roi_empty"
    assert "'GTV-1' is empty" in message
    assert "--roi NAME (daemon: roi_name in the settings). These regions are drawn: 'Heart'." in message


def test_an_empty_object_does_not_stand_in_the_way_of_another(tmp_path: Path) -> None:
    study = seg_study()
    study.rois.append(study_of(("GTV-1", [])).rois[0])
    assert measured(study.write(tmp_path))["roi"]["voxels"] == WHOLE


def test_whoever_names_a_region_measures_it(tmp_path: Path) -> None:
    study = study_of(("GTVn 4R old", _drawn()), ("GTV-1", _drawn(AROUND)))
    study.rois[0].RTROIObservationsSequence[0].RTROIInterpretedType = "AVOIDANCE"
    assert measured(study.write(tmp_path), roi_name="gtvn 4r OLD")["roi"]["voxels"] == WHOLE


@pytest.mark.parametrize("kind", ["AVOIDANCE", "ORGAN", "PTV"])
def test_the_interpreted_type_is_read(kind: str, tmp_path: Path) -> None:
    study = study_of(("Tumour", _drawn()), ("Heart", _drawn()))
    assert measured(study.write(tmp_path / "none"))["status"] == "measured"
    study.rois[0].RTROIObservationsSequence[0].RTROIInterpretedType = kind
    assert reason(study, tmp_path / kind)[0] == "roi_not_found"


# --- Contour Offset Vector ----------------------------------------------------------------------------------------


def _offset(study: Study, vector: object, roi: int = 0) -> Study:
    for item in study.rois[0].ROIContourSequence[roi].ContourSequence:
        item.add(DataElement("ContourOffsetVector", "DS", vector, already_converted=isinstance(vector, str)))
    return study


@pytest.mark.parametrize("vector", [["0", "0", "3"], ["0.5", "0", "0"], ["3"], "somewhere"])
def test_contours_that_lie_elsewhere_than_they_say_are_refused(vector: object, tmp_path: Path) -> None:
    assert reason(_offset(rtstruct_study(), vector), tmp_path)[0] == "roi_unreadable"


@pytest.mark.parametrize("vector", [["0", "0", "0"], ["0.0", "-0", "0E1"], []])
def test_an_offset_of_nothing_is_none(vector: object, tmp_path: Path) -> None:
    assert measured(_offset(rtstruct_study(), vector).write(tmp_path))["roi"]["voxels"] == WHOLE


def test_an_organ_s_offset_is_no_matter(tmp_path: Path) -> None:
    study = study_of(("GTV-1", _drawn()), ("Heart", _drawn()))
    assert measured(_offset(study, ["0", "0", "3"], roi=1).write(tmp_path))["roi"]["voxels"] == WHOLE


def _digests(study: Study, folder: Path) -> set[str]:
    return {header.digest for path in study.write(folder).iterdir() for header in read_headers(path)}


@pytest.mark.parametrize(
    "change",
    [
        lambda study: _offset(study, ["0", "0", "3"]),
        lambda study: setattr(study.rois[0].RTROIObservationsSequence[0], "RTROIInterpretedType", "AVOIDANCE"),
        lambda study: setattr(study.rois[0], "ApprovalStatus", "REJECTED"),
    ],
    ids=["offset", "type", "approval"],
)
def test_what_the_choice_depends_on_is_content(change: Callable[[Study], object], tmp_path: Path) -> None:
    """Otherwise one of two such files would count as a copy of the other."""
    study = rtstruct_study()
    before = _digests(study, tmp_path / "before")
    change(study)
    assert len(_digests(study, tmp_path / "after") - before) == 1


# --- segments -----------------------------------------------------------------------------------------------------


def _second_segment(study: Study, number: int) -> None:
    second = deepcopy(study.rois[0].SegmentSequence[0])
    second.SegmentNumber, second.SegmentLabel = number, "Heart"
    study.rois[0].SegmentSequence.append(second)


def test_two_segments_of_one_number_are_refused(tmp_path: Path) -> None:
    study = seg_study()
    _second_segment(study, 1)
    code, message = reason(study, tmp_path)
    assert code == "roi_unreadable"
    assert "have the number 1" in message


def test_frames_of_a_segment_that_is_not_described_are_refused(tmp_path: Path) -> None:
    study = seg_study()
    study.rois[0].SegmentSequence[0].SegmentNumber = 2
    code, message = reason(study, tmp_path)
    assert code == "roi_unreadable"
    assert "segment number 1, but its Segment Sequence (0062,0002) does not describe" in message


def test_a_frame_of_two_segments_is_refused(tmp_path: Path) -> None:
    study = seg_study()
    _second_segment(study, 2)
    shared = study.rois[0].SharedFunctionalGroupsSequence[0]
    identification = shared.SegmentIdentificationSequence
    both = [identification[0], deepcopy(identification[0])]
    both[1].ReferencedSegmentNumber = 2
    shared.SegmentIdentificationSequence = both
    assert "refers to several segments" in reason(study, tmp_path)[1]


@pytest.mark.parametrize("alike", [True, False])
def test_two_frames_at_one_place_must_be_alike(alike: bool, tmp_path: Path) -> None:
    mask = square_mask()
    if not alike:
        mask[7, 13, :] = False
    study = seg_study(mask)
    groups = study.rois[0].PerFrameFunctionalGroupsSequence
    groups[0].PlanePositionSequence = deepcopy(groups[1].PlanePositionSequence)
    groups[0].DerivationImageSequence = deepcopy(groups[1].DerivationImageSequence)
    answer = measured(study.write(tmp_path))
    if alike:
        assert answer["roi"]["voxels"] == WHOLE * 5 / 6
    else:
        assert "Two of its frames lie at the same position, but differ" in answer["reason"]["message"]


@pytest.mark.parametrize(
    ("category", "kind", "label", "is_chosen"),
    [
        (("85756007", "SCT"), ("85756007", "SCT"), "Tumour", True),  # Tissue: Slicer's code for everything
        (("123037004", "SCT"), ("80891009", "SCT"), "Tumour", False),  # Anatomical Structure, Heart
        (("T-D000A", "SRT"), ("T-32000", "SRT"), "Tumour", False),
        (("123037004", "SCT"), ("39607008", "SCT"), "GTV-1", True),
        (("49755003", "SCT"), ("14799000", "SCT"), "GTV-1", False),  # Neoplasm, Secondary
        (("M-01000", "SRT"), ("M-80006", "SRT"), "GTV-1", False),
        (("49755003", "SCT"), ("59441001", "SCT"), "Tumour", False),  # Lymph node
        (("49755003", "SCT"), ("108369006", "SCT"), "Segment_1", True),
        (("49755003", "SCT"), ("M-80003", "SRT"), "lesion 7", True),
        (("49755003", "SCT"), ("372087000", "SCT"), "Heart", False),
        (("49755003", "SCT"), ("372087000", "SCT"), "LN 4R", False),
        (("49755003", "SCT"), ("372087000", "SCT"), "tumour (old)", False),
    ],
)
def test_a_segment_s_codes_and_label_must_not_contradict_each_other(
    category: tuple[str, str], kind: tuple[str, str], label: str, is_chosen: bool, tmp_path: Path
) -> None:
    study = seg_study()
    (segment,) = study.rois[0].SegmentSequence
    segment.SegmentLabel = label
    for keyword, code in (("Category", category), ("Type", kind)):
        (item,) = segment[f"SegmentedProperty{keyword}CodeSequence"].value
        item.CodeValue, item.CodingSchemeDesignator = code
    answer = measured(study.write(tmp_path))
    assert (answer["reason"] or {"code": "chosen"})["code"] == ("chosen" if is_chosen else "roi_not_found")


# --- Approval Status, and the others ------------------------------------------------------------------------------


def _second(study: Study, uid: str, polygon: object = SQUARE) -> Dataset:
    other = structure_set(study.slices, {"GTV-1": _drawn(polygon)}, study.slices)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = uid
    other.SeriesInstanceUID = f"{uid}.1"
    return other


@pytest.mark.parametrize("make", [rtstruct_study, seg_study])
@pytest.mark.parametrize("roi_name", [None, "GTV-1"])
def test_what_was_rejected_is_refused(make: Callable[[], Study], roi_name: str | None, tmp_path: Path) -> None:
    study = make()
    study.rois[0].ApprovalStatus = "REJECTED"
    code, message = reason(study, tmp_path, roi_name=roi_name)
    assert code == "roi_rejected"
    assert "Approval Status REJECTED" in message


def test_what_was_rejected_has_no_say(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois.append(_second(study, "1.2.826.0.1.5", AROUND))
    study.rois[1].ApprovalStatus = "REJECTED"
    answer = measured(study.write(tmp_path))
    assert answer["roi"]["voxels"] == WHOLE
    assert any("rejected" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("statuses", "warned"),
    [(("UNAPPROVED", "APPROVED"), True), (("UNAPPROVED", "UNAPPROVED"), False), (("UNAPPROVED", ""), False),
     (("APPROVED", "APPROVED"), False)],
)  # fmt: skip
def test_unapproved_beside_approved_is_warned_of(statuses: tuple[str, str], warned: bool, tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois.append(_second(study, "1.2.826.0.1.5"))
    for dataset, status in zip(study.rois, statuses, strict=True):
        dataset.ApprovalStatus = status
    warnings = measured(study.write(tmp_path))["warnings"]
    assert any("is not approved" in warning for warning in warnings) == warned


def test_other_tumours_are_named_beside_the_one_measured(tmp_path: Path) -> None:
    study = study_of(
        ("GTV-1", _drawn()), ("GTV-2", _drawn()), ("GTVn 4R", _drawn()), ("Heart", _drawn()), ("PTV", _drawn()),
        ("GTV-3", []), ("Lesion of Doe", _drawn()), ("X", _drawn()),
    )  # fmt: skip
    study.rois[0].RTROIObservationsSequence[7].RTROIInterpretedType = "GTV"
    assert measured(study.write(tmp_path))["roi"]["others"] == [
        {"number": 2, "name": "GTV-2"}, {"number": 3, "name": "GTVn 4R"}, {"number": 7, "name": "Lesion of Doe"},
        {"number": 8, "name": "X"},
    ]  # fmt: skip


# --- bits ---------------------------------------------------------------------------------------------------------


def _disc(shape: tuple[int, int], centre: tuple[float, float], radius: float, hole: float) -> np.ndarray:
    row, column = np.indices(shape)
    distance = np.hypot(row - centre[0], column - centre[1])
    return (distance <= radius) & (distance >= hole)


@given(
    st.tuples(st.integers(16, 40), st.integers(16, 40)),
    st.tuples(st.floats(0, 40), st.floats(0, 40)),
    st.floats(0, 20),
    st.floats(0, 10),
    st.integers(1, 8),
)
@settings(max_examples=300, deadline=None)
def test_no_sound_outline_is_taken_for_one_whose_bits_are_reversed(
    shape: tuple[int, int], centre: tuple[float, float], radius: float, hole: float, larger: int
) -> None:
    """Also with enlarged pixels, whose outlines lie at the borders of bytes."""
    frame = np.kron(_disc(shape, centre, radius, hole), np.ones((larger, larger), dtype=np.uint8))
    frames = np.stack([frame, frame, frame])
    assert not are_bits_reversed(np.packbits(frames, bitorder="little").tobytes())


@given(st.integers(24, 40), st.floats(10, 14), st.floats(10, 14), st.floats(8, 11))
@settings(max_examples=100, deadline=None)
def test_reversed_bits_are_found(columns: int, row: float, column: float, radius: float) -> None:
    frames = np.stack([_disc((24, columns), (row, column), radius * share, 0) for share in (0.8, 1, 0.9)])
    assert are_bits_reversed(np.packbits(frames, bitorder="big").tobytes())


def test_a_segmentation_whose_bits_are_reversed_is_refused(tmp_path: Path) -> None:
    study = seg_study(square_mask(on=ROI_SLICES))
    frames = study.rois[0].pixel_array
    study.rois[0].PixelData = np.packbits(frames, bitorder="big").tobytes()
    code, sentence = reason(study, tmp_path)
    assert code == "roi_unreadable"
    assert "in the wrong order within each byte" in sentence


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_bits_in_words_of_big_endian_are_refused_and_in_bytes_read(vr: str, tmp_path: Path) -> None:
    study = seg_study()
    (segment,) = study.rois
    study.rois = []
    folder = study.write(tmp_path)
    segment.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    if vr == "OW":
        segment.PixelData = np.frombuffer(segment.PixelData, "<u2").byteswap().tobytes()
    segment["PixelData"].VR = vr
    dcmwrite(folder / "seg", segment, implicit_vr=False, little_endian=False, enforce_file_format=True)
    found = measured(folder)
    if vr == "OB":
        assert found["roi"]["voxels"] == WHOLE
    else:
        assert found["reason"]["code"] == "roi_unreadable"
        assert "Explicit VR Big Endian" in found["reason"]["message"]


def test_a_label_map_s_stray_labels_are_refused(tmp_path: Path) -> None:
    from tests.appliance.dicom.test_bad_input import _segments

    study = seg_study()
    study.rois = [_segments(study, {"Tumour": square_mask()}, "LABELMAP")]
    assert measured(study.write(tmp_path / "sound"))["roi"]["voxels"] == WHOLE
    pixels = study.rois[0].pixel_array.copy()
    pixels[2, 0, 0] = 5
    study.rois[0].PixelData = pixels.astype(np.uint8).tobytes()
    assert "segment number 5" in reason(study, tmp_path / "stray")[1]
