"""Which region belongs to which series. A region of another series is not used and blocks no other region."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, generate_uid

from lungstage.appliance.contract.errors import Refused, Unavailable
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.files import read_headers, read_unchanged
from lungstage.appliance.dicom.linking import POSITION_ALONE
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.appliance.dicom.test_bad_input import RESAMPLED, SPEC, code_of, measured
from tests.support.studies import (
    ROI_SLICES,
    SQUARE,
    Polygon,
    Study,
    contour,
    contours_of,
    rtstruct_study,
    seg_study,
    square_mask,
    structure_set,
    volume,
)

SMALLER: Polygon = ((14.5, 16.5), (14.5, 28.5), (25.5, 28.5), (25.5, 16.5))


def smaller_mask() -> np.ndarray:
    """The voxels with centres in SMALLER."""
    mask = np.zeros_like(square_mask())
    mask[3:9, 15:26, 17:29] = True
    return mask


def _another_series(study: Study) -> list[Dataset]:
    """The same slices under other UIDs, in the same study and Frame of Reference."""
    series = generate_uid()
    twins = []
    for dataset in study.slices:
        twin = deepcopy(dataset)
        twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        twin.SeriesInstanceUID = series
        twins.append(twin)
    return twins


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_a_region_that_lists_another_series_is_held(kind: str, tmp_path: Path) -> None:
    study = rtstruct_study(reference=False) if kind == "RTSTRUCT" else seg_study()
    if kind == "SEG":
        for item in study.rois[0].PerFrameFunctionalGroupsSequence:
            del item.DerivationImageSequence
    study.slices = _another_series(study)
    assert code_of(study, tmp_path) == ("held", "references_unresolved")
    assert measured(tmp_path, match_by_geometry=True)["status"] == "measured"


def test_one_contour_without_a_reference_does_not_set_the_others_free(tmp_path: Path) -> None:
    study = rtstruct_study()
    contours = study.rois[0].ROIContourSequence[0].ContourSequence
    for item in contours[1:]:
        item.ContourImageSequence[0].ReferencedSOPInstanceUID = generate_uid()
    del contours[0].ContourImageSequence
    assert code_of(study, tmp_path) == ("held", "references_unresolved")


def test_one_contour_without_a_reference_is_placed_by_position(tmp_path: Path) -> None:
    study = rtstruct_study()
    del study.rois[0].ROIContourSequence[0].ContourSequence[2].ContourImageSequence
    assert measured(study.write(tmp_path))["roi"]["voxels"] == square_mask().sum()


def test_a_region_of_an_absent_series_does_not_stand_in_the_way(tmp_path: Path) -> None:
    study = rtstruct_study()
    absent = Study(_another_series(study))
    foreign = structure_set(absent.slices, {"GTV-1": [contour(s, SQUARE) for s in absent.slices[3:6]]}, absent.slices)
    foreign.PatientID = "SOMEONE-ELSE"
    study.rois.append(foreign)
    study.write(tmp_path)
    mine, waiting = sorted(assemble(scan([tmp_path]).headers), key=lambda case: not case.images)
    assert [roi.sop_instance_uid for roi in mine.rois] == [study.rois[0].SOPInstanceUID]
    assert waiting.series_instance_uid == absent.slices[0].SeriesInstanceUID
    assert measured(tmp_path)["status"] == "measured"


def test_a_region_written_again_by_another_system_is_the_same(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path)
    again = pydicom.dcmread(folder / "0000")
    again.file_meta.ImplementationVersionName = "ANOTHER_1"
    again.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    again.save_as(folder / "again", implicit_vr=True, little_endian=True)
    (case,) = assemble(scan([tmp_path]).headers)
    assert len(case.rois) == 1


def test_true_ambiguity_in_one_object_is_not_passed_over_for_another(tmp_path: Path) -> None:
    study = rtstruct_study(names=("GTVp1", "GTVp2"))
    study.rois += rtstruct_study(names=("gtv",)).rois
    assert code_of(study, tmp_path) == ("refused", "roi_ambiguous")


def test_organs_in_an_object_of_their_own_do_not_matter(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois += rtstruct_study(names=("Heart", "Lung-Left")).rois
    assert measured(study.write(tmp_path))["status"] == "measured"


@pytest.mark.parametrize("uid", ["1.1", "9.9"])
def test_a_stray_slice_of_another_orientation_does_not_matter(uid: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    stray = deepcopy(study.slices[0])
    stray.SOPInstanceUID = stray.file_meta.MediaStorageSOPInstanceUID = uid
    stray.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    study.slices.append(stray)
    assert measured(study.write(tmp_path))["roi"]["voxels"] == square_mask().sum()


def test_two_stray_slices_close_together_do_not_change_the_step(tmp_path: Path) -> None:
    study = rtstruct_study(reference=False)
    for offset in (60.0, 60.1):
        stray = deepcopy(study.slices[-1])
        stray.SOPInstanceUID = stray.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        x, y, z = (float(v) for v in stray.ImagePositionPatient)
        stray.ImagePositionPatient = [x, y, z + offset]
        study.slices.append(stray)
    assert measured(study.write(tmp_path))["roi"]["voxels"] == square_mask().sum()


def test_duplicate_region_numbers_are_refused(tmp_path: Path) -> None:
    study = rtstruct_study(names=("GTV-1", "Heart"))
    for sequence, keyword in (
        (study.rois[0].StructureSetROISequence, "ROINumber"),
        (study.rois[0].ROIContourSequence, "ReferencedROINumber"),
    ):
        setattr(sequence[1], keyword, 1)
    assert code_of(study, tmp_path) == ("refused", "roi_unreadable")


def test_contours_of_one_region_in_two_items_are_one_region(tmp_path: Path) -> None:
    study = rtstruct_study()
    item = study.rois[0].ROIContourSequence[0]
    second = deepcopy(item)
    item.ContourSequence, second.ContourSequence = item.ContourSequence[:2], second.ContourSequence[2:]
    study.rois[0].ROIContourSequence.append(second)
    assert measured(study.write(tmp_path))["roi"]["voxels"] == square_mask().sum()


def test_a_faulty_organ_does_not_refuse_the_tumour(tmp_path: Path) -> None:
    study = rtstruct_study(names=("GTV-1", "Heart"))
    heart = deepcopy(study.rois[0].ROIContourSequence[1])
    heart.ContourSequence[0].ContourData = heart.ContourSequence[0].ContourData[:-1]
    study.rois[0].ROIContourSequence[1] = heart
    assert measured(study.write(tmp_path))["status"] == "measured"


def test_contours_that_change_their_region_are_another_content(tmp_path: Path) -> None:
    """The same contours in the same order, with one of them in another region, are another content."""
    digests = set()
    for place in (0, 1):
        study = rtstruct_study(names=("GTV-1", "Heart"))
        first, second = study.rois[0].ROIContourSequence
        second.ContourSequence = deepcopy(second.ContourSequence)
        if place:
            second.ContourSequence.insert(0, first.ContourSequence.pop())
        study.rois[0].save_as(tmp_path / "rs", enforce_file_format=True)
        digests |= {header.digest for header in read_headers(tmp_path / "rs")}
    assert len(digests) == 2


def test_another_spacing_is_another_content(tmp_path: Path) -> None:
    """The declared thickness affects how positions are rounded, and so it affects the numbers."""
    fingerprints = set()
    for thickness in ("3", "3.0002"):
        study = rtstruct_study()
        for dataset in study.slices:
            dataset.SliceThickness = thickness
        (case,) = assemble(scan([study.write(tmp_path / thickness)]).headers)
        fingerprints.add(plan_measurement(case, ROI_RULE, SPEC, settled=True).fingerprint)
    assert len(fingerprints) == 2


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "ReferencedSOPInstanceUID"])
def test_a_reference_that_is_no_uid_names_something_else_and_tells_nothing(keyword: str, tmp_path: Path) -> None:
    study = rtstruct_study(reference=False)
    (series,) = (
        study.rois[0].ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    )
    for item in [series] if keyword == "SeriesInstanceUID" else series.ContourImageSequence:
        setattr(item, keyword, "DOE^JANE 1950")
    if keyword == "SeriesInstanceUID":
        del series.ContourImageSequence
    (header,) = read_headers(study.write(tmp_path) / "0000")
    assert "DOE" not in str(header)
    ((uid, instances),) = header.listed
    assert (uid if keyword == "SeriesInstanceUID" else instances[0]).startswith("2.25.")
    if keyword == "SeriesInstanceUID":  # it names another series, so it was not drawn on this one
        assert code_of(study, tmp_path) == ("held", "references_unresolved")


# --- several images, and images named elsewhere ------------------------------------------------------------------


def _references(study: Study) -> list[list[Dataset]]:
    """The list of images that each contour or frame names; a test can add to it."""
    roi = study.rois[0]
    if "ROIContourSequence" in roi:
        return [item.ContourImageSequence for item in contours_of(roi)]
    return [item.DerivationImageSequence[0].SourceImageSequence for item in roi.PerFrameFunctionalGroupsSequence]


def _list_nothing(study: Study) -> None:
    """Remove all references of the region's file but those of contours or frames."""
    roi = study.rois[0]
    for keyword in ("ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", "SourceImageSequence"):
        if keyword in roi:
            del roi[keyword]


def _image(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid
    return item


STUDIES = {"RTSTRUCT": rtstruct_study, "SEG": seg_study}


@pytest.mark.parametrize("kind", STUDIES)
def test_what_names_two_absent_images_each_is_not_taken_for_what_names_none(kind: str, tmp_path: Path) -> None:
    study = STUDIES[kind]()
    for images in _references(study):
        images.append(_image(generate_uid()))
    _list_nothing(study)
    study.slices = _another_series(study)
    assert code_of(study, tmp_path) == ("held", "references_unresolved")


@pytest.mark.parametrize("kind", STUDIES)
def test_what_names_the_slices_of_two_series_is_ambiguous_whatever_is_listed(kind: str, tmp_path: Path) -> None:
    study = STUDIES[kind]()
    twins = _another_series(study)
    twin_of = {one.SOPInstanceUID: twin.SOPInstanceUID for one, twin in zip(study.slices, twins, strict=True)}
    for images in _references(study):
        images.append(_image(twin_of[images[0].ReferencedSOPInstanceUID]))
    study.slices += twins
    assert code_of(study, tmp_path) == ("refused", "ambiguous_input")


@pytest.mark.parametrize("kind", STUDIES)
@pytest.mark.parametrize("beside", ["the same image", "an image of another modality"])
def test_what_names_an_image_of_another_modality_too_is_of_its_ct(kind: str, beside: str, tmp_path: Path) -> None:
    study = STUDIES[kind]()
    for images in _references(study):
        images.append(_image(images[0].ReferencedSOPInstanceUID if beside == "the same image" else generate_uid()))
    _list_nothing(study)
    twins = _another_series(study)
    for twin in twins:  # so that the numbers show which of the two is measured
        twin.RescaleIntercept = int(twin.RescaleIntercept) + 100
    alone = measured(study.write(tmp_path / "alone"))
    study.slices += twins
    both = measured(study.write(tmp_path / "both"))
    assert both["roi"]["voxels"] == square_mask().sum()
    assert both["features"] == alone["features"]


def _only_at_the_top(segment: Dataset) -> None:
    """Like the SEGs of some collections: OHIF/Viewers#2017."""
    images = [images[0] for item in segment.PerFrameFunctionalGroupsSequence for images in _sources(item)]
    segment.SourceImageSequence = images


def _in_the_frames_item(segment: Dataset) -> None:
    """Like early pydicom-seg: razorx89/pydicom-seg#20."""
    for item in segment.PerFrameFunctionalGroupsSequence:
        item.SourceImageSequence = _sources(item)[0]


def _sources(item: Dataset) -> list[list[Dataset]]:
    return [derivation.SourceImageSequence for derivation in item.DerivationImageSequence]


@pytest.mark.parametrize("move", [_only_at_the_top, _in_the_frames_item], ids=lambda move: move.__name__[1:])
def test_images_that_a_segmentation_names_elsewhere_are_its_images(
    move: Callable[[Dataset], None], tmp_path: Path
) -> None:
    study = seg_study()
    _list_nothing(study)
    move(study.rois[0])
    for item in study.rois[0].PerFrameFunctionalGroupsSequence:
        del item.DerivationImageSequence
    alone = measured(study.write(tmp_path / "alone"))
    assert POSITION_ALONE not in alone["warnings"]
    own, twins = study.slices, _another_series(study)
    for twin in twins:
        twin.RescaleIntercept = int(twin.RescaleIntercept) + 100
    study.slices = own + twins
    assert measured(study.write(tmp_path / "both"))["features"] == alone["features"]
    study.slices = twins
    assert code_of(study, tmp_path / "other") == ("held", "references_unresolved")


def _renamed(study: Study) -> None:
    """Give the slices other UIDs than the region's file lists and keep the series, as some anonymisers do."""
    for dataset in study.slices:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()


def test_listed_slices_that_were_renamed_can_be_matched_by_position(tmp_path: Path) -> None:
    study = rtstruct_study(reference=False)
    _renamed(study)
    assert code_of(study, tmp_path) == ("held", "slices_missing")
    assert "--match-by-geometry" in measured(tmp_path)["reason"]["message"]
    assert measured(tmp_path, match_by_geometry=True)["roi"]["voxels"] == square_mask().sum()


def test_position_is_not_offered_where_another_series_lies_in_the_same_places(tmp_path: Path) -> None:
    study = rtstruct_study(reference=False)
    _renamed(study)
    study.slices += _another_series(study)
    assert code_of(study, tmp_path)[0] == "held"
    assert "--match-by-geometry" not in measured(tmp_path)["reason"]["message"]


def test_a_series_that_was_split_into_its_slices_is_said_to_be(tmp_path: Path) -> None:
    study = rtstruct_study()
    for dataset in study.slices:
        dataset.SeriesInstanceUID = generate_uid()
    assert code_of(study, tmp_path) == ("refused", "ambiguous_input")
    assert f"refers to {len(ROI_SLICES)} CT series of one slice each" in measured(tmp_path)["reason"]["message"]


def test_two_contents_of_one_structure_set_are_named_as_what_they_are(tmp_path: Path) -> None:
    study = rtstruct_study()
    edited = rtstruct_study(lambda _: [SMALLER]).rois[0]
    edited.SOPInstanceUID = edited.file_meta.MediaStorageSOPInstanceUID = study.rois[0].SOPInstanceUID
    study.rois.append(edited)
    assert code_of(study, tmp_path) == ("refused", "conflicting_instances")
    assert (
        "Two files with the same SOP Instance UID, '0000' and '0001', contain"
        in measured(tmp_path)["reason"]["message"]
    )


@pytest.mark.parametrize("under_one_uid", [True, False])
def test_a_copy_that_draws_nothing(under_one_uid: bool, tmp_path: Path) -> None:
    study = seg_study()
    emptied = deepcopy(study.rois[0])
    emptied.PixelData = bytes(len(emptied.PixelData))
    if not under_one_uid:
        emptied.SOPInstanceUID = emptied.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    study.rois.append(emptied)
    if under_one_uid:
        assert code_of(study, tmp_path) == ("refused", "conflicting_instances")
    else:
        assert measured(study.write(tmp_path))["roi"]["voxels"] == square_mask().sum()


# --- versions of a region ----------------------------------------------------------------------------------------


def _versions(kind: str, *, same_series: bool = True, dated: bool = True) -> Study:
    """A study with a region, and a smaller one of the same name that may replace it."""
    first, second = (
        (rtstruct_study(), rtstruct_study(lambda _: [SMALLER]))
        if kind == "RTSTRUCT"
        else (seg_study(), seg_study(square_mask() & smaller_mask()))
    )
    old, new = first.rois[0], second.rois[0]
    new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    if not same_series:
        new.SeriesInstanceUID = generate_uid()
    date, time = ("StructureSetDate", "StructureSetTime") if kind == "RTSTRUCT" else ("ContentDate", "ContentTime")
    for roi, moment in ((old, "101500"), (new, "101500.5")):
        setattr(roi, date, "20260301" if dated else "")
        setattr(roi, time, moment if dated else "")
    first.rois = [old, new]
    return first


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_a_corrected_region_takes_the_place_of_the_older(kind: str, tmp_path: Path) -> None:
    outcome = measured(_versions(kind).write(tmp_path))
    assert outcome["roi"]["voxels"] == smaller_mask().sum()
    assert any("older version" in warning for warning in outcome["warnings"])


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
@pytest.mark.parametrize("fault", [{"same_series": False}, {"dated": False}], ids=["another series", "no date"])
def test_what_does_not_say_that_it_corrects_is_another_opinion(
    kind: str, fault: dict[str, bool], tmp_path: Path
) -> None:
    assert code_of(_versions(kind, **fault), tmp_path) == ("refused", "roi_ambiguous")


# --- files that are not what they were ---------------------------------------------------------------------------


def test_a_disk_that_fails_for_a_moment_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = rtstruct_study().write(tmp_path)

    def failing(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("lungstage.appliance.dicom.files.read_elements", failing)
    with pytest.raises(OSError, match="Input/output"):
        read_headers(folder / "0003")
    with pytest.raises(OSError, match="No such file"):
        read_headers(folder / "nowhere")


def test_a_slice_that_changed_after_it_was_looked_at_is_not_measured(tmp_path: Path) -> None:
    study = rtstruct_study()
    folder = study.write(tmp_path)
    (header,) = read_headers(folder / "0004")
    study.slices[3].PixelData = bytes(len(study.slices[3].PixelData))
    study.slices[3].save_as(folder / "0004", enforce_file_format=True)
    with pytest.raises(Unavailable):
        read_unchanged(header)


def test_a_truncated_compressed_slice_is_damaged(tmp_path: Path) -> None:
    study = rtstruct_study()
    for dataset in study.slices:
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    folder = study.write(tmp_path)
    content = (folder / "0006").read_bytes()
    (folder / "0006").write_bytes(content[:-40])
    with pytest.raises(Refused):
        read_headers(folder / "0006")
    assert measured(folder)["reason"]["code"] == "dicom_unreadable"


# --- voxels ------------------------------------------------------------------------------------------------------


def test_padding_next_to_the_region_spoils_a_resampled_measurement_only(tmp_path: Path) -> None:
    study = rtstruct_study()
    for dataset in study.slices:
        pixels = dataset.pixel_array.copy()
        pixels[:, 31:] = -2000  # the region ends in column 30
        dataset.PixelData, dataset.PixelPaddingValue = pixels.tobytes(), -2000
    assert code_of(study, tmp_path, RESAMPLED) == ("refused", "padding_in_roi")
    assert measured(tmp_path, SPEC)["status"] == "measured"


def test_padding_of_the_wrong_sign_is_seen(tmp_path: Path) -> None:
    study = rtstruct_study()
    pixels = study.slices[5].pixel_array.copy()
    pixels[20, 20] = -2000
    study.slices[5].PixelData = pixels.tobytes()
    study.slices[5].add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert code_of(study, tmp_path) == ("refused", "padding_in_roi")


@pytest.mark.parametrize("spec", [SPEC, RESAMPLED], ids=["native", "1 mm"])
def test_a_series_of_one_slice(spec: object, tmp_path: Path) -> None:
    study = rtstruct_study(source=volume(shape=(1, 40, 48)), on=[0])
    outcome = measured(study.write(tmp_path), spec)  # type: ignore[arg-type]
    assert outcome["roi"]["voxels"] == 15 * 16


def test_a_rescale_that_is_none_is_refused(tmp_path: Path) -> None:
    study = rtstruct_study()
    for dataset in study.slices:
        dataset.RescaleSlope = 0
    assert code_of(study, tmp_path) == ("refused", "rescale_varies")


@pytest.mark.parametrize(
    ("slope", "intercept", "pixel_type"),
    [(1, -1024, "16-bit signed integer"), (1, -60000, "32-bit signed integer"), (1.5, -1024, "64-bit float")],
)
def test_pixel_type_follows_the_rescale(slope: float, intercept: float, pixel_type: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    stored = study.slices[5].pixel_array
    for dataset in study.slices:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    outcome = measured(study.write(tmp_path / "study"), save_volume=tmp_path / "volume")
    assert outcome["status"] == "measured"
    saved = sitk.ReadImage(str(tmp_path / "volume" / "image.nii.gz"))
    assert saved.GetPixelIDTypeAsString() == pixel_type
    expected = int(stored[20, 20]) * slope + intercept
    assert saved[20, 20, 5 - 3] == expected  # the volume begins with the region's first slice


@pytest.mark.parametrize(
    ("unit", "status"),
    [
        ("HU", "measured"),
        (" HU ", "measured"),
        ("hu", "measured"),
        ("", "measured"),
        ("US", "measured"),
        ("MGML", "refused"),
        ("HU_MOD", "refused"),
    ],
)
def test_values_that_are_no_hounsfield_units_are_refused(unit: str, status: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    for dataset in study.slices:
        dataset.RescaleType = unit
    outcome = measured(study.write(tmp_path))
    assert outcome["status"] == status
    assert any("unit" in warning for warning in outcome["warnings"]) is (unit == "US")
    assert status == "measured" or outcome["reason"]["code"] == "rescale_varies"
