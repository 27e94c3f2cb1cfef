"""A good study with one fault, for every kind of fault: it gives a reason code and a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pydicom.encaps
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.one_shot import Options, measure_paths
from tests.support.studies import (
    AROUND,
    ROI_SLICES,
    SQUARE,
    Study,
    contour,
    contours_of,
    list_series,
    listing,
    rtstruct_study,
    seg_study,
    square_mask,
    structure_set,
    volume,
)

SPEC = ExtractionSpec(("original_shape_MeshVolume", "original_firstorder_Mean"), {"binWidth": 25.0})
RESAMPLED = ExtractionSpec(
    SPEC.features, {"binWidth": 25.0, "resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"}
)


_REMEDY = re.compile(
    r"[.:;,] (Send|Export|Draw|Look|Check|Turn|Choose|Keep|Make sure|Name|Find out|Do not use|Give|To export)\b",
    re.IGNORECASE,
)
_UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")


def measured(folder: Path, spec: ExtractionSpec = SPEC, **options: object) -> dict:
    return measure_paths([folder], ROI_RULE, spec, Options(describes=False, **options))  # type: ignore[arg-type]


def code_of(study: Study, folder: Path, spec: ExtractionSpec = SPEC, **options: object) -> tuple[str, str]:
    outcome = measured(study.write(folder), spec, **options)
    assert outcome["reason"] is not None, f"was measured: {outcome['roi']}"
    sentence = outcome["reason"]["message"]
    assert sentence.endswith(".")
    assert _REMEDY.search(sentence), f"the sentence does not say what to do: {sentence}"
    there = {str(dataset.get("SOPInstanceUID")) for dataset in (*study.rois, *study.slices)}
    told = {found[0] for found in _UID.finditer(sentence)}
    assert not told & there, f"the sentence names a present file by its UID: {sentence}"
    assert "Phantom" not in sentence
    assert "LUNGSTAGE-PHANTOM" not in sentence
    assert outcome["features"] is None
    return outcome["status"], outcome["reason"]["code"]


def _each(slices: list[Dataset], keyword: str, value: object) -> None:
    for dataset in slices:
        setattr(dataset, keyword, value)


def _unchecked(dataset: Dataset, keyword: str, vr: str, value: str | bytes) -> None:
    dataset.add(DataElement(keyword, vr, value, already_converted=True))


# --- changes to the CT -------------------------------------------------------------------------------------------


def _drop(*indices: int) -> Callable[[Study], None]:
    def change(study: Study) -> None:
        for k in sorted(indices, reverse=True):
            del study.slices[k]

    return change


def _duplicate_position(study: Study) -> None:
    twin = deepcopy(study.slices[5])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    twin.PixelData = bytes(len(twin.PixelData))
    study.slices.append(twin)
    for one in contours_of(study.rois[0]):  # no reference says which of the two is meant
        del one.ContourImageSequence
    list_series(study.rois[0], listing(study.slices[0].SeriesInstanceUID, study.slices))


def _conflicting_copy(study: Study) -> None:
    twin = deepcopy(study.slices[5])
    twin.PixelData = bytes(len(twin.PixelData))
    study.slices.append(twin)


def _two_frames(study: Study) -> None:
    study.slices[5].FrameOfReferenceUID = generate_uid()


def _other_frame_of_roi(study: Study) -> None:
    study.rois[0].StructureSetROISequence[0].ReferencedFrameOfReferenceUID = generate_uid()


def _sheared(study: Study) -> None:
    for k, dataset in enumerate(study.slices):
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + 0.5 * k, z]
    contours = [contour(study.slices[k], SQUARE) for k in ROI_SLICES]
    study.rois[0] = structure_set(study.slices, {"GTV-1": contours}, study.slices)


def _declared_tilt(study: Study) -> None:
    _each(study.slices, "GantryDetectorTilt", "12.5")


def _shifted_slice(study: Study) -> None:
    x, y, z = (float(v) for v in study.slices[6].ImagePositionPatient)
    study.slices[6].ImagePositionPatient = [x, y, z + 0.6]
    contours = [contour(study.slices[k], SQUARE) for k in ROI_SLICES]
    study.rois[0] = structure_set(study.slices, {"GTV-1": contours}, study.slices)


def _turned_slice(study: Study) -> None:
    study.slices[5].ImageOrientationPatient = [0, 1, 0, -1, 0, 0]


def _other_rescale(study: Study) -> None:
    study.slices[5].RescaleIntercept = -1000


def _no_rescale(study: Study) -> None:
    for dataset in study.slices:
        del dataset.RescaleSlope


def _no_positions(study: Study) -> None:
    for dataset in study.slices:
        del dataset.ImagePositionPatient


def _other_pixel_spacing(study: Study) -> None:
    study.slices[5].PixelSpacing = [1.0, 1.5]


def _padding(study: Study) -> None:
    pixels = study.slices[5].pixel_array.copy()
    pixels[20, 20] = -2000
    study.slices[5].PixelData = pixels.tobytes()
    study.slices[5].PixelPaddingValue = -2000


def _other_modality(study: Study) -> None:
    for dataset in study.slices:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        dataset.Modality = "PT"


def _modality_that_contradicts_the_class(study: Study) -> None:
    _each(study.slices, "Modality", "MR")


def _secondary_capture_called_ct(study: Study) -> None:
    for dataset in study.slices:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"


def _scout(study: Study) -> None:
    _each(study.slices, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])


def _other_patient(study: Study) -> None:
    study.rois[0].PatientID = "SOMEONE-ELSE"


def _other_study(study: Study) -> None:
    """The region is in another study, and names a study that its images are not in."""
    study.rois[0].StudyInstanceUID = generate_uid()
    study.rois[0].ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[
        0
    ].ReferencedSOPInstanceUID = generate_uid()


def _short_pixels(study: Study) -> None:
    study.slices[5].PixelData = study.slices[5].PixelData[:1000]


def _fewer_columns(study: Study) -> None:
    """All slices say too few columns, so that every row would begin too early."""
    _each(study.slices, "Columns", 44)


def _bits_elsewhere(study: Study) -> None:
    study.slices[5].HighBit = 14


def _more_bits_stored_than_there_are(study: Study) -> None:
    study.slices[5].BitsStored, study.slices[5].HighBit = 20, 19


def _rescale_of_other_characters(study: Study) -> None:
    for dataset in study.slices:
        _unchecked(dataset, "RescaleIntercept", "DS", "-1_024")


def _neighbour_without_position(study: Study) -> None:
    del study.slices[2].ImagePositionPatient


def _uid_of_another_representation(study: Study) -> None:
    """A UID that cannot be copied to the report; highdicom fails if it is absent."""
    for dataset in study.slices:
        _unchecked(dataset, "SeriesInstanceUID", "OB", dataset.SeriesInstanceUID.encode())


def _no_frame_of_reference(study: Study) -> None:
    for dataset in study.slices:
        del dataset.FrameOfReferenceUID
    del study.rois[0].StructureSetROISequence[0].ReferencedFrameOfReferenceUID


def _two_frames_of_reference_each(study: Study) -> None:
    for dataset in study.slices:
        dataset.FrameOfReferenceUID = ["1.2.3", "1.2.4"]
    del study.rois[0].StructureSetROISequence[0].ReferencedFrameOfReferenceUID


def _columns_of_another_representation(study: Study) -> None:
    """A lenient reader reads this number; it would not be copied to the report."""
    for dataset in study.slices:
        _unchecked(dataset, "Columns", "OB", bytes([dataset.Columns, 0]))


def _no_frames(study: Study) -> None:
    """Not the same as an absent number of frames."""
    for dataset in study.slices:
        dataset.NumberOfFrames = 0


def _rows_in_words(study: Study) -> None:
    _each(study.slices, "Rows", None)
    for dataset in study.slices:
        _unchecked(dataset, "Rows", "LO", "forty")


def _too_far_apart(study: Study) -> None:
    _each(study.slices, "SliceThickness", "1")


def _recentred_midway(study: Study) -> None:
    for dataset in study.slices[6:]:
        x, y, z = (float(value) for value in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x + 20, y, z]


def _mirrored_in_turns(study: Study) -> None:
    for dataset in study.slices[::2]:
        x, y, z = (float(value) for value in dataset.ImagePositionPatient)
        dataset.PixelData = dataset.pixel_array[::-1].tobytes()
        dataset.ImagePositionPatient = [x, y + (dataset.Rows - 1) * float(dataset.PixelSpacing[0]), z]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]


def _undescribed_pixels(study: Study) -> None:
    for dataset in study.slices:
        del dataset.SamplesPerPixel, dataset.PhotometricInterpretation


CT_FAULTS = {
    "recentred midway": (_recentred_midway, "refused", "gantry_tilt"),
    "mirrored in turns": (_mirrored_in_turns, "refused", "orientation_varies"),
    "pixels that nothing describes": (_undescribed_pixels, "refused", "pixel_data_unreadable"),
    "missing interior slice": (_drop(5), "held", "slices_missing"),
    "missing first needed slice": (_drop(3), "held", "slices_missing"),
    "missing last needed slice": (_drop(8), "held", "slices_missing"),
    "several missing": (_drop(3, 5, 6), "held", "slices_missing"),
    "no CT": (_drop(*range(12)), "held", "ct_missing"),
    "duplicate position": (_duplicate_position, "refused", "duplicate_position"),
    "conflicting copy": (_conflicting_copy, "refused", "conflicting_instances"),
    "two frames of reference": (_two_frames, "refused", "frame_of_reference_mismatch"),
    "ROI in another frame of reference": (_other_frame_of_roi, "refused", "frame_of_reference_mismatch"),
    "sheared by a tilted gantry": (_sheared, "refused", "gantry_tilt"),
    "declared gantry tilt": (_declared_tilt, "refused", "gantry_tilt"),
    "uneven spacing": (_shifted_slice, "refused", "spacing_not_uniform"),
    "rescale varies": (_other_rescale, "refused", "rescale_varies"),
    "no rescale": (_no_rescale, "refused", "rescale_varies"),
    "no positions": (_no_positions, "refused", "geometry_missing"),
    "pixel spacing varies": (_other_pixel_spacing, "refused", "grid_varies"),
    "padding in the ROI": (_padding, "refused", "padding_in_roi"),
    "PET": (_other_modality, "refused", "not_ct"),
    "MR that is called CT": (_modality_that_contradicts_the_class, "refused", "not_ct"),
    "secondary capture that is called CT": (_secondary_capture_called_ct, "refused", "not_ct"),
    "scout": (_scout, "refused", "not_ct"),
    "other patient": (_other_patient, "refused", "patient_mismatch"),
    "other study": (_other_study, "refused", "study_mismatch"),
    "short pixel data": (_short_pixels, "refused", "pixel_data_unreadable"),
    "pixels of more columns": (_fewer_columns, "refused", "pixel_data_unreadable"),
    "bits that are not the lowest": (_bits_elsewhere, "refused", "pixel_data_unreadable"),
    "more bits stored than allocated": (_more_bits_stored_than_there_are, "refused", "pixel_data_unreadable"),
    "rescale of other characters": (_rescale_of_other_characters, "refused", "dicom_unreadable"),
    "UID of another Value Representation": (_uid_of_another_representation, "refused", "dicom_unreadable"),
    "no Frame of Reference": (_no_frame_of_reference, "refused", "frame_of_reference_mismatch"),
    "slices in two Frames of Reference each": (
        _two_frames_of_reference_each,
        "refused",
        "frame_of_reference_mismatch",
    ),
    "columns of another Value Representation": (_columns_of_another_representation, "refused", "dicom_unreadable"),
    "no frames": (_no_frames, "refused", "not_ct"),
    "rows as text": (_rows_in_words, "refused", "dicom_unreadable"),
    "thin slices far apart": (_too_far_apart, "held", "slices_missing"),
}


@pytest.mark.parametrize("fault", CT_FAULTS)
def test_spoilt_ct(fault: str, tmp_path: Path) -> None:
    change, status, code = CT_FAULTS[fault]
    study = rtstruct_study()
    change(study)
    assert code_of(study, tmp_path) == (status, code)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("recentred midway", "shifted sideways by up to 20 mm"),
        ("mirrored in turns", "or are stored mirrored"),
        (
            "pixels that nothing describes",
            "the header has no Samples per Pixel (0028,0002), Photometric Interpretation (0028,0004).",
        ),
    ],
)
def test_what_is_wrong_with_the_ct_is_told_in_its_own_words(fault: str, told: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    CT_FAULTS[fault][0](study)
    assert told in measured(study.write(tmp_path))["reason"]["message"]


def test_a_neighbour_that_does_not_say_where_it_lies_is_not_passed_over(tmp_path: Path) -> None:
    study = rtstruct_study()
    _neighbour_without_position(study)
    assert code_of(study, tmp_path, RESAMPLED) == ("refused", "geometry_missing")
    assert measured(tmp_path)["status"] == "measured", "the slice is not needed without resampling"


def test_turned_slice(tmp_path: Path) -> None:
    study = seg_study()
    _turned_slice(study)
    assert code_of(study, tmp_path)[1] in {"orientation_varies", "seg_grid_mismatch", "slices_missing"}


# --- changes to the RTSTRUCT -------------------------------------------------------------------------------------


def _ring(_: int) -> list:
    return [SQUARE, ((15.5, 18.5), (15.5, 22.5), (20.5, 22.5), (20.5, 18.5))]


def _crossing(_: int) -> list:
    return [SQUARE, ((20.5, 20.5), (20.5, 35.5), (33.5, 35.5), (33.5, 20.5))]


def _outside(_: int) -> list:
    return [((12.5, 14.5), (12.5, 60.5), (27.5, 60.5), (27.5, 14.5))]


def _speck(_: int) -> list:
    return [((12.2, 14.2), (12.2, 14.4), (12.4, 14.4), (12.4, 14.2))]


def _one_voxel(_: int) -> list:
    return [((11.5, 13.5), (11.5, 14.4), (12.4, 14.4), (12.4, 13.5))]


def _edit_contour(edit: Callable[[Dataset], None]) -> Callable[[], Study]:
    def make() -> Study:
        study = rtstruct_study()
        edit(study.rois[0].ROIContourSequence[0].ContourSequence[2])
        return study

    return make


def _open(item: Dataset) -> None:
    item.ContourGeometricType = "OPEN_PLANAR"


def _point(item: Dataset) -> None:
    item.ContourGeometricType, item.ContourData, item.NumberOfContourPoints = "POINT", item.ContourData[:3], 1


def _off_plane(item: Dataset) -> None:
    x, y, z = (float(v) for v in item.ContourData[:3])
    item.ContourData = [x, y, z + 1.0, *item.ContourData[3:]]


def _not_a_number(item: Dataset) -> None:
    item.ContourData = item.ContourData[:-1]


def _more_points_than_stated(item: Dataset) -> None:
    item.ContourData = item.ContourData[:-3]


def _digits_with_an_underscore(item: Dataset) -> None:
    """Python and NumPy read 1_6.875 as 16.875."""
    data = "\\".join(str(value) for value in item.ContourData)
    _unchecked(item, "ContourData", "DS", data.replace("16.", "1_6.", 1))


def _contours_of_another_under_its_number() -> Study:
    """One wrong digit: with the organ's contours around it, the tumour would become a ring."""
    study = rtstruct_study()
    rois = {name: [contour(study.slices[k], polygon) for k in ROI_SLICES]
            for name, polygon in (("GTV-1", SQUARE), ("Heart", AROUND))}  # fmt: skip
    study.rois = [structure_set(study.slices, rois, study.slices)]
    study.rois[0].ROIContourSequence[1].ReferencedROINumber = 1
    return study


def _off_slices() -> Study:
    study = rtstruct_study(reference=False)
    contours = [contour(study.slices[k], SQUARE, reference=False, shift=1.4) for k in ROI_SLICES]
    study.rois[0] = structure_set(study.slices, {"GTV-1": contours}, study.slices)
    return study


def _beyond_the_end() -> Study:
    study = rtstruct_study(on=range(8, 12), reference=False)
    beyond = [contour(study.slices[11], SQUARE, reference=False, shift=3.0 * n) for n in (1, 2)]
    study.rois[0].ROIContourSequence[0].ContourSequence.extend(beyond)
    return study


def _without_contours() -> Study:
    study = rtstruct_study()
    study.rois[0].ROIContourSequence[0].ContourSequence = []
    return study


def _foreign_references() -> Study:
    study = rtstruct_study()
    for item in study.rois[0].ROIContourSequence[0].ContourSequence:
        item.ContourImageSequence[0].ReferencedSOPInstanceUID = generate_uid()
    return study


ROI_FAULTS = {
    "two names fit": (lambda: rtstruct_study(names=("GTV-1", "GTVp")), "refused", "roi_ambiguous"),
    "no tumour among the names": (lambda: rtstruct_study(names=("Lung-Left", "Heart")), "refused", "roi_not_found"),
    "no contour": (_without_contours, "refused", "roi_empty"),
    "no voxel centre inside": (lambda: rtstruct_study(_speck), "refused", "roi_empty"),
    "one voxel": (lambda: rtstruct_study(_one_voxel, on=[5]), "refused", "roi_too_small"),
    "contours cross": (lambda: rtstruct_study(_crossing), "refused", "contours_overlap"),
    "contour twice": (lambda: rtstruct_study(lambda _: [SQUARE, SQUARE]), "refused", "contours_overlap"),
    "outside in the plane": (lambda: rtstruct_study(_outside), "refused", "roi_outside_series"),
    "beyond the last slice": (_beyond_the_end, "refused", "roi_outside_series"),
    "skips a slice": (lambda: rtstruct_study(on=(3, 4, 6, 7)), "refused", "contours_skip_slices"),
    "every other slice": (lambda: rtstruct_study(on=(2, 4, 6, 8)), "refused", "contours_skip_slices"),
    "open contour": (_edit_contour(_open), "refused", "contour_not_closed"),
    "no contour but a point on one slice": (_edit_contour(_point), "refused", "contours_skip_slices"),
    "contour leaves its plane": (_edit_contour(_off_plane), "refused", "contour_off_slice"),
    "more points than stated": (_edit_contour(_more_points_than_stated), "refused", "roi_unreadable"),
    "coordinates of other characters": (_edit_contour(_digits_with_an_underscore), "refused", "roi_unreadable"),
    "contours of another region under its number": (_contours_of_another_under_its_number, "refused", "roi_unreadable"),
    "coordinates not in threes": (_edit_contour(_not_a_number), "refused", "roi_unreadable"),
    "between the slices": (_off_slices, "refused", "contour_off_slice"),
    "references resolve to nothing": (_foreign_references, "held", "references_unresolved"),
}


@pytest.mark.parametrize("fault", ROI_FAULTS)
def test_spoilt_structure_set(fault: str, tmp_path: Path) -> None:
    make, status, code = ROI_FAULTS[fault]
    assert code_of(make(), tmp_path) == (status, code)


def test_a_hole_is_not_a_fault(tmp_path: Path) -> None:
    ring = measured(rtstruct_study(_ring).write(tmp_path / "ring"))
    whole = measured(rtstruct_study().write(tmp_path / "whole"))
    assert whole["roi"]["voxels"] - ring["roi"]["voxels"] == 5 * 4 * len(ROI_SLICES)


def test_every_other_slice_is_not_taken_for_thick_slices(tmp_path: Path) -> None:
    """Only slices with a contour arrived. The declared thickness shows that there are slices between them."""
    study = rtstruct_study(on=(2, 4, 6, 8))
    study.slices = [study.slices[k] for k in (2, 4, 6, 8)]
    assert code_of(study, tmp_path) == ("held", "slices_missing")


def test_unresolved_references_can_be_overridden(tmp_path: Path) -> None:
    study = _foreign_references()
    outcome = measured(study.write(tmp_path), match_by_geometry=True)
    assert outcome["roi"]["voxels"] == square_mask().sum()
    assert any("by position" in warning for warning in outcome["warnings"])


# --- changes to the SEG ------------------------------------------------------------------------------------------


def _moved_frames(study: Study) -> None:
    for item in study.rois[0].PerFrameFunctionalGroupsSequence:
        x, y, z = (float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient)
        item.PlanePositionSequence[0].ImagePositionPatient = [x + 0.6, y, z]


def _other_seg_spacing(study: Study) -> None:
    shared = study.rois[0].SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence[0].PixelSpacing = [1.0, 1.0]


def _fractional(study: Study) -> None:
    segmentation = study.rois[0]
    frames = segmentation.pixel_array.astype(np.uint8)
    frames[frames > 0] = 120
    frames[0, 13, 15] = 255
    segmentation.SegmentationType, segmentation.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
    segmentation.MaximumFractionalValue = 255
    segmentation.BitsAllocated = segmentation.BitsStored = 8
    segmentation.HighBit = 7
    segmentation.PixelData = frames.tobytes()


def _lost_frames(study: Study) -> None:
    del study.rois[0].PerFrameFunctionalGroupsSequence[-1]


def _fewer_frames_than_there_are(study: Study) -> None:
    """pydicom returns all frames anyway."""
    study.rois[0].NumberOfFrames = 1


def _position_of_other_characters(study: Study) -> None:
    place = study.rois[0].PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    x, y, z = (str(v) for v in place.ImagePositionPatient)
    _unchecked(place, "ImagePositionPatient", "DS", f"{x}\\{y}\\{z[:2]}_{z[2:]}")


def _position_far_away(study: Study) -> None:
    place = study.rois[0].PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    _unchecked(place, "ImagePositionPatient", "DS", "0\\0\\1e400")


def _position_of_two_numbers(study: Study) -> None:
    place = study.rois[0].PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    _unchecked(place, "ImagePositionPatient", "DS", "0\\0")


SEG_FAULTS = {
    "position of other characters": (_position_of_other_characters, "refused", "roi_unreadable"),
    "position beyond all numbers": (_position_far_away, "refused", "roi_unreadable"),
    "position of two numbers": (_position_of_two_numbers, "refused", "roi_unreadable"),
    "frames moved in the plane": (_moved_frames, "refused", "seg_grid_mismatch"),
    "other pixel spacing": (_other_seg_spacing, "refused", "seg_grid_mismatch"),
    "fractional": (_fractional, "refused", "seg_fractional"),
    "fewer frames stated than there are": (_fewer_frames_than_there_are, "refused", "roi_unreadable"),
    "frames without description": (_lost_frames, "refused", "roi_unreadable"),
    "missing slice": (_drop(5), "held", "slices_missing"),
    "padding in the ROI": (_padding, "refused", "padding_in_roi"),
}


@pytest.mark.parametrize("fault", SEG_FAULTS)
def test_spoilt_segmentation(fault: str, tmp_path: Path) -> None:
    change, status, code = SEG_FAULTS[fault]
    study = seg_study()
    change(study)
    assert code_of(study, tmp_path) == (status, code)


def test_seg_and_rtstruct_of_the_same_tumour_give_the_same_numbers(tmp_path: Path) -> None:
    by_contours = measured(rtstruct_study().write(tmp_path / "rtstruct"), RESAMPLED)
    by_segment = measured(seg_study().write(tmp_path / "seg"), RESAMPLED)
    assert by_contours["features"] == by_segment["features"]


def test_seg_and_rtstruct_together_must_agree(tmp_path: Path) -> None:
    both = rtstruct_study()
    both.rois += seg_study().rois
    assert measured(both.write(tmp_path / "agree"))["status"] == "measured"
    mask = square_mask()
    mask[5, 13, 15] = False
    both.rois[1:] = seg_study(mask).rois
    assert code_of(both, tmp_path / "disagree") == ("refused", "roi_disagree")


def test_separate_parts_are_a_warning(tmp_path: Path) -> None:
    mask = square_mask()
    mask[3:9, 2:6, 2:6] = True
    outcome = measured(seg_study(mask).write(tmp_path))
    assert outcome["status"] == "measured"
    assert any("2 separate parts" in warning for warning in outcome["warnings"])


# --- the input as a whole ----------------------------------------------------------------------------------------


def test_no_roi_waits(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois.clear()
    assert code_of(study, tmp_path) == ("held", "no_roi")


def test_two_patients_are_ambiguous(tmp_path: Path) -> None:
    study, other = rtstruct_study(), rtstruct_study()
    study.write(tmp_path / "a")
    for dataset in [*other.slices, *other.rois]:
        dataset.PatientID = "SECOND"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID = f"1.2.3.{len(dataset.SeriesInstanceUID)}"
    other.write(tmp_path / "b")
    outcome = measured(tmp_path)
    assert outcome["reason"]["code"] == "ambiguous_input"


def test_junk_is_counted_and_ignored(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path)
    (folder / "report.pdf").write_bytes(b"%PDF-1.4 not DICOM")
    (folder / "empty").touch()
    outcome = measured(folder)
    assert outcome["status"] == "measured"
    assert "2 files are not DICOM and were ignored." in outcome["warnings"]


def test_no_dicom_at_all(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    assert measured(tmp_path)["reason"]["code"] == "no_dicom"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_truncated_slice(share: float, tmp_path: Path) -> None:
    study = rtstruct_study()
    folder = study.write(tmp_path)
    victim = folder / "0006"  # the ROI is 0000, so this is slice 5
    content = victim.read_bytes()
    victim.write_bytes(content[: int(len(content) * share)])
    outcome = measured(folder)
    assert outcome["features"] is None
    # A file cut within its preamble is not recognised as DICOM, so the slice counts as missing.
    assert outcome["reason"]["code"] in {"dicom_unreadable", "slices_missing"}
    assert outcome["reason"]["code"] == "dicom_unreadable" or share < 0.1


def test_truncated_roi(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path)
    content = (folder / "0000").read_bytes()
    (folder / "0000").write_bytes(content[: len(content) // 2])
    assert measured(folder)["reason"]["code"] == "dicom_unreadable"


# --- what must not matter ----------------------------------------------------------------------------------------


def test_oblique_study_measures_the_same(tmp_path: Path) -> None:
    angle = np.deg2rad(23)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turn = np.array([[np.cos(1), -np.sin(1), 0], [np.sin(1), np.cos(1), 0], [0, 0, 1]])
    straight = measured(rtstruct_study().write(tmp_path / "straight"))
    oblique = measured(rtstruct_study(source=volume(rotation=turn @ tilt)).write(tmp_path / "oblique"))
    assert oblique["roi"]["voxels"] == straight["roi"]["voxels"]
    for name, value in straight["features"].items():
        assert oblique["features"][name] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("spec", [SPEC, RESAMPLED], ids=["native", "1 mm"])
@pytest.mark.parametrize("kept", [range(3, 9), range(2, 10), range(10), range(2, 12)])
def test_other_slices_and_their_order_do_not_matter(kept: range, spec: ExtractionSpec, tmp_path: Path) -> None:
    whole = measured(rtstruct_study().write(tmp_path / "whole"), spec)
    study = rtstruct_study()
    study.slices = [study.slices[k] for k in reversed(kept)]
    part = measured(study.write(tmp_path / "part"), spec)
    if spec is RESAMPLED and kept == range(3, 9):  # without the margin the reference volume is really another one
        assert any("6 listed slices were not received" in warning for warning in part["warnings"])
        return
    assert part["features"] == whole["features"]


def test_copies_do_not_matter(tmp_path: Path) -> None:
    once = measured(rtstruct_study().write(tmp_path / "once"))
    rtstruct_study().write(tmp_path / "twice" / "a")
    rtstruct_study().write(tmp_path / "twice" / "b")
    assert measured(tmp_path / "twice")["features"] == once["features"]


def test_contours_without_references_are_matched_by_position(tmp_path: Path) -> None:
    referenced = measured(rtstruct_study().write(tmp_path / "referenced"))
    bare = measured(rtstruct_study(reference=False).write(tmp_path / "bare"))
    assert bare["features"] == referenced["features"]


def test_implicit_and_explicit_files_measure_the_same(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path / "explicit")
    implicit = tmp_path / "implicit"
    implicit.mkdir()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.save_as(implicit / path.name, implicit_vr=True, little_endian=True)
    assert measured(implicit)["features"] == measured(folder)["features"]


def test_a_transfer_syntax_without_a_decoder_is_refused(tmp_path: Path) -> None:
    study = rtstruct_study()
    for dataset in study.slices:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
    assert code_of(study, tmp_path) == ("refused", "pixel_data_unreadable")


def _segments(study: Study, masks: dict[str, np.ndarray], kind: str) -> Dataset:
    """A SEG with one named segment for each mask; primary tumour and nodes also have different codes."""
    types = {"Tumour": codes.SCT.NeoplasmPrimary, "Nodes": codes.SCT.NeoplasmSecondary}
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=types[name],
            algorithm_type="MANUAL",
        )
        for number, name in enumerate(masks, start=1)
    ]
    stacked = np.stack(list(masks.values()), axis=-1).astype(np.uint8)
    return hd.seg.Segmentation(
        source_images=study.slices, pixel_array=stacked, segmentation_type=kind, segment_descriptions=descriptions,
        series_instance_uid=generate_uid(), series_number=2, sop_instance_uid=generate_uid(), instance_number=1,
        manufacturer="test", manufacturer_model_name="test", software_versions="1", device_serial_number="1",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("order", [("Tumour", "Nodes"), ("Nodes", "Tumour")])
def test_one_of_several_segments_is_chosen_by_its_code(kind: str, order: tuple[str, ...], tmp_path: Path) -> None:
    nodes = np.zeros((12, 40, 48), dtype=bool)
    nodes[4:7, 2:6, 2:6] = True
    masks = {"Tumour": square_mask(), "Nodes": nodes}
    study = seg_study()
    alone = measured(study.write(tmp_path / "alone"))
    study.rois = [_segments(study, {name: masks[name] for name in order}, kind)]
    assert measured(study.write(tmp_path / "both"))["features"] == alone["features"]
    named = measured(tmp_path / "both", roi_name="nodes")
    assert (named["roi"]["name"], named["roi"]["voxels"]) == ("Nodes", 48)
    assert named["roi"]["volume_mm3"] == pytest.approx(48 * 3.75)
    assert named["roi"]["others"] == [{"number": order.index("Tumour") + 1, "name": "Tumour"}]


def test_fractional_with_nothing_but_whole_voxels_is_read(tmp_path: Path) -> None:
    study = seg_study()
    alone = measured(study.write(tmp_path / "binary"))
    _fractional(study)
    frames = study.rois[0].pixel_array
    study.rois[0].PixelData = (np.where(frames > 0, 255, 0).astype(np.uint8)).tobytes()
    assert measured(study.write(tmp_path / "fractional"))["features"] == alone["features"]


def test_frames_without_a_source_image_are_matched_by_position(tmp_path: Path) -> None:
    study = seg_study()
    alone = measured(study.write(tmp_path / "with"))
    for item in study.rois[0].PerFrameFunctionalGroupsSequence:
        del item.DerivationImageSequence
    assert measured(study.write(tmp_path / "without"))["features"] == alone["features"]


def test_a_gap_between_the_parts_of_a_segment_is_no_fault(tmp_path: Path) -> None:
    mask = square_mask(on=(3, 4, 7, 8))
    outcome = measured(seg_study(mask).write(tmp_path))
    assert outcome["roi"]["voxels"] == mask.sum()


def test_links_are_followed_where_the_user_names_them(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path / "store")
    (tmp_path / "study").mkdir()
    for path in folder.iterdir():
        (tmp_path / "study" / path.name).symlink_to(path)
    assert measured(tmp_path / "study")["status"] == "measured"
