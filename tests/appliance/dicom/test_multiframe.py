"""Enhanced CT gives the numbers of single-frame slices, or is refused if frames, descriptions and bytes disagree."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from lungstage.appliance.contract.errors import Refused, Unavailable
from lungstage.appliance.dicom import files
from lungstage.appliance.dicom.files import read_headers, read_slices, with_pixel_digest
from lungstage.appliance.dicom.header import ImageHeader, headers_from_json, headers_to_json
from lungstage.appliance.dicom.multiframe import single_frames
from lungstage.appliance.staging.intended_use import prove_acquisition
from lungstage.appliance.staging.one_shot import scan
from tests.appliance.dicom.test_bad_input import RESAMPLED, code_of, measured
from tests.appliance.dicom.test_compression import EVERYTHING
from tests.support import jpeg_lossless
from tests.support.enhanced import (
    ORDER,
    enhanced,
    enhanced_rtstruct_study,
    enhanced_seg_study,
    item,
    refer_to,
)
from tests.support.studies import (
    ROI_SLICES,
    Study,
    contours_of,
    list_series,
    listing,
    rtstruct_study,
    square_mask,
)

BIG_ENOUGH = 10**6


def _groups(study: Study) -> list[Dataset]:
    return list(study.slices[0].PerFrameFunctionalGroupsSequence)


def _frame_of(slice_index: int) -> int:
    """Index of the frame of a slice."""
    return ORDER.index(slice_index)


def _fragmented(whole: Dataset, syntax: UID, frames: list[bytes], fragments: int) -> None:
    whole.file_meta.TransferSyntaxUID = syntax
    whole.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=False)
    whole["PixelData"].is_undefined_length = True


def _as(syntax: UID, whole: Dataset) -> None:
    if syntax == JPEGLossless:
        frames = [jpeg_lossless.encode(frame.view(np.uint16), 16, predictor=4) for frame in whole.pixel_array]
        _fragmented(whole, syntax, frames, 1)
    elif syntax.is_encapsulated:
        whole.compress(syntax, generate_instance_uid=False)
    else:
        if syntax == ExplicitVRBigEndian:
            whole.PixelData = whole.pixel_array.astype(">i2").tobytes()
        whole.file_meta.TransferSyntaxUID = syntax


# --- the same numbers --------------------------------------------------------------------------------------------


STUDIES = {
    "RTSTRUCT that names frames": enhanced_rtstruct_study,
    "RTSTRUCT that names nothing": lambda: enhanced_rtstruct_study(reference=False),
    "SEG that names frames": enhanced_seg_study,
    "every group for each frame": lambda: enhanced_rtstruct_study(all_per_frame=True),
    "frames in order of position": lambda: enhanced_rtstruct_study(order=range(12)),
}


@pytest.mark.parametrize("spec", [EVERYTHING, RESAMPLED], ids=["native", "1 mm"])
@pytest.mark.parametrize("name", STUDIES)
def test_features_equal_those_of_single_frames(name: str, spec: object, tmp_path: Path) -> None:
    single = measured(rtstruct_study().write(tmp_path / "single"), spec)  # type: ignore[arg-type]
    whole = measured(STUDIES[name]().write(tmp_path / "enhanced"), spec)  # type: ignore[arg-type]
    assert whole["status"] == "measured", whole["reason"]
    assert whole["features"] == single["features"]
    assert whole["roi"]["voxels"] == single["roi"]["voxels"]
    assert whole["warnings"] == single["warnings"]


SYNTAXES = [
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
    JPEGLSLossless, JPEG2000Lossless, JPEGLossless,
]  # fmt: skip


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_every_transfer_syntax(syntax: UID, tmp_path: Path) -> None:
    single = rtstruct_study()
    study = enhanced_rtstruct_study(single=single)
    _as(syntax, study.slices[0])
    folder = study.write(tmp_path)
    assert measured(folder)["status"] == "measured"
    headers = [with_pixel_digest(header) for header in scan([folder]).headers if isinstance(header, ImageHeader)]
    assert headers == list(read_headers(folder / "0001"))
    assert headers_from_json(headers_to_json(headers), folder / "0001") == tuple(headers)
    for k, dataset in zip(ORDER, read_slices(headers), strict=True):
        assert (dataset.pixel_array == single.slices[k].pixel_array).all()


def test_a_frame_s_header_is_that_of_its_slice(tmp_path: Path) -> None:
    """All but UIDs, pixels and the Image Type, for which Enhanced CT has its own terms."""
    single = rtstruct_study()
    Study([*single.slices]).write(tmp_path / "single")
    Study([enhanced(single.slices)]).write(tmp_path / "enhanced")
    slices, frames = (scan([tmp_path / name]).headers for name in ("single", "enhanced"))
    assert [frame.frame for frame in frames if isinstance(frame, ImageHeader)] == list(range(1, 13))
    for k, frame in zip(ORDER, frames, strict=True):
        for name in ("position", "orientation", "pixel_spacing", "slice_thickness", "rescale", "digest", "is_ct_slice"):
            assert getattr(frame, name) == getattr(slices[k], name), name


@pytest.mark.parametrize("has_offsets", [True, False])
@pytest.mark.parametrize("fragments", [1, 2, 5])
def test_frames_in_several_fragments(fragments: int, has_offsets: bool, tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    expected = measured(study.write(tmp_path / "plain"))["features"]
    whole = study.slices[0]
    frames = [jpeg_lossless.encode(frame.view(np.uint16), 16, predictor=1) for frame in whole.pixel_array]
    frames = [frame + bytes(len(frame) % 2) for frame in frames]
    whole.file_meta.TransferSyntaxUID = JPEGLossless
    whole.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_offsets)
    whole["PixelData"].is_undefined_length = True
    assert measured(study.write(tmp_path / "fragments"))["features"] == expected


def test_an_extended_offset_table_is_no_hindrance(tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    whole = study.slices[0]
    plain = measured(study.write(tmp_path / "plain"))["features"]
    whole.compress(JPEG2000Lossless, encapsulate_ext=True, generate_instance_uid=False)
    assert "ExtendedOffsetTable" in whole
    assert measured(study.write(tmp_path / "extended"))["features"] == plain


def test_legacy_converted_by_highdicom(tmp_path: Path) -> None:
    """A multi-frame CT of another writer, with another choice of shared functional groups."""
    single = rtstruct_study(reference=False)
    plain = measured(single.write(tmp_path / "single"), EVERYTHING)
    first = single.slices[0]
    single.slices = [
        LegacyConvertedEnhancedCTImage(
            single.slices, series_instance_uid=first.SeriesInstanceUID, series_number=1,
            sop_instance_uid=generate_uid(), instance_number=1,
        )
    ]  # fmt: skip
    single.rois[0].ReferencedFrameOfReferenceSequence = []
    legacy = measured(single.write(tmp_path / "legacy"), EVERYTHING)
    assert legacy["features"] == plain["features"]


@pytest.mark.parametrize("name", ["23x38x3", "24x38x3"])
def test_legacy_converted_by_pixelmed(name: str, shared_data: Path, tmp_path: Path) -> None:
    """A real CT in both forms, and a SEG that names the single-frame slices."""
    source = shared_data / "sr" / "dcmqi" / "data" / "segmentations" / name
    for form in ("image", "multiframe"):
        shutil.copytree(source / form, tmp_path / form)
        shutil.copy(source / "seg" / "label.seg", tmp_path / form)
    single = measured(tmp_path / "image", EVERYTHING, roi_name="Liver")
    assert measured(tmp_path / "multiframe", EVERYTHING, roi_name="Liver")["reason"]["code"] == "references_unresolved"
    whole = measured(tmp_path / "multiframe", EVERYTHING, roi_name="Liver", match_by_geometry=True)
    assert single["status"] == whole["status"] == "measured"
    assert whole["features"] == single["features"]


def test_seg_and_rtstruct_on_the_same_frames_must_agree(tmp_path: Path) -> None:
    both = enhanced_rtstruct_study()
    both.rois += enhanced_seg_study().rois
    assert measured(both.write(tmp_path / "agree"))["status"] == "measured"
    mask = square_mask()
    mask[5, 13, 15] = False
    both.rois[1:] = enhanced_seg_study(mask).rois
    assert code_of(both, tmp_path / "disagree") == ("refused", "roi_disagree")


def test_only_the_frames_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = enhanced_rtstruct_study().write(tmp_path)
    read: list[tuple[int, ...]] = []
    opened: list[Path] = []
    real, opening = files.read_span, files._opened
    monkeypatch.setattr(files, "read_span", lambda file, span: (read.append(span), real(file, span))[1])
    monkeypatch.setattr(files, "_opened", lambda path: (opened.append(path), opening(path))[1])
    assert measured(folder)["status"] == "measured"
    assert len(read) == len(set(read)) == len(ROI_SLICES)
    assert opened.count(folder / "0001") == 2  # once for the headers, once for all frames


def test_two_parts_of_a_concatenation_are_one_series(tmp_path: Path) -> None:
    single = rtstruct_study()
    plain = measured(single.write(tmp_path / "single"), EVERYTHING)
    parts = [enhanced(single.slices, order) for order in ((5, 4, 3, 2, 1, 0), (6, 8, 7, 9, 11, 10))]
    roi = deepcopy(single.rois[0])
    for contour, k in zip(contours_of(roi), ROI_SLICES, strict=True):
        part = parts[k > 5]
        frame = {3: 3, 4: 2, 5: 1, 6: 1, 7: 3, 8: 2}[k]
        refer_to(part, contour.ContourImageSequence, {single.slices[k].SOPInstanceUID: frame})
    series = roi.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.ContourImageSequence = [
        item(ReferencedSOPClassUID=part.SOPClassUID, ReferencedSOPInstanceUID=part.SOPInstanceUID) for part in parts
    ]
    both = measured(Study(parts, [roi]).write(tmp_path / "both"), EVERYTHING)
    assert both["features"] == plain["features"]
    assert code_of(Study(parts[:1], [roi]), tmp_path / "first") == ("held", "slices_missing")


# --- which frame is meant ----------------------------------------------------------------------------------------


def _without_numbers(study: Study) -> None:
    for contour in contours_of(study.rois[0]):
        del contour.ContourImageSequence[0].ReferencedFrameNumber


def _all_numbers(study: Study) -> None:
    for contour in contours_of(study.rois[0]):
        contour.ContourImageSequence[0].ReferencedFrameNumber = list(range(1, 13))


@pytest.mark.parametrize("change", [_without_numbers, _all_numbers])
def test_an_image_named_as_a_whole_is_matched_by_position(change: Callable[[Study], None], tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    plain = measured(study.write(tmp_path / "named"))
    change(study)
    assert measured(study.write(tmp_path / "whole"))["features"] == plain["features"]


def test_the_number_of_a_single_frame_is_no_hindrance(tmp_path: Path) -> None:
    study = rtstruct_study()
    plain = measured(study.write(tmp_path / "plain"))
    for contour in contours_of(study.rois[0]):
        contour.ContourImageSequence[0].ReferencedFrameNumber = 1
    assert measured(study.write(tmp_path / "numbered"))["features"] == plain["features"]


def _name_frame(number: int) -> Callable[[Study], None]:
    def change(study: Study) -> None:
        contours_of(study.rois[0])[2].ContourImageSequence[0].ReferencedFrameNumber = number

    return change


def _other_image(study: Study) -> None:
    for contour in contours_of(study.rois[0]):
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID = generate_uid()


REFERENCES = {
    "another frame": (_name_frame(1), "refused", "contour_off_slice"),
    "a frame that the image has not": (_name_frame(13), "refused", "roi_unreadable"),
    "an image that is not there": (_other_image, "held", "references_unresolved"),
}


@pytest.mark.parametrize("fault", REFERENCES)
def test_wrong_references(fault: str, tmp_path: Path) -> None:
    change, status, code = REFERENCES[fault]
    study = enhanced_rtstruct_study()
    change(study)
    assert code_of(study, tmp_path) == (status, code)


def test_other_frame_numbers_make_another_structure_set(tmp_path: Path) -> None:
    """The digest of the structure set distinguishes copies from conflicts."""
    study = enhanced_rtstruct_study()
    study.write(tmp_path / "a")
    _name_frame(1)(study)
    study.write(tmp_path / "b")
    (first,), (second,) = (read_headers(tmp_path / name / "0000") for name in "ab")
    assert first.digest != second.digest


# --- frames that are missing, or no stack ------------------------------------------------------------------------


def _lacking(*slices: int) -> Study:
    return enhanced_rtstruct_study(reference=False, order=[k for k in ORDER if k not in slices])


@pytest.mark.parametrize("k", [3, 5, 8])
def test_a_missing_frame_is_a_missing_slice(k: int, tmp_path: Path) -> None:
    study = _lacking(k)
    study.rois[0].ReferencedFrameOfReferenceSequence = []
    assert code_of(study, tmp_path) == ("held", "slices_missing")


@pytest.mark.parametrize("k", [3, 5, 8])
def test_a_frame_that_cannot_come_is_not_waited_for(k: int, tmp_path: Path) -> None:
    """The structure set lists only the one image, which is present."""
    assert code_of(_lacking(k), tmp_path) == ("refused", "roi_outside_series")


def test_frames_that_are_not_needed_may_be_missing(tmp_path: Path) -> None:
    plain = measured(enhanced_rtstruct_study().write(tmp_path / "all"))
    assert measured(_lacking(0, 11).write(tmp_path / "some"))["features"] == plain["features"]


def _turned(study: Study) -> None:
    _groups(study)[_frame_of(5)].PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, -1, 0, 0]


def _shifted(study: Study) -> None:
    group = _groups(study)[_frame_of(9)]
    x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
    group.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 0.6]


def _other_rescale(study: Study) -> None:
    _groups(study)[_frame_of(5)].PixelValueTransformationSequence[0].RescaleIntercept = -1000


def _other_spacing(study: Study) -> None:
    _groups(study)[_frame_of(5)].PixelMeasuresSequence[0].PixelSpacing = [1.0, 1.5]


def _no_position(study: Study) -> None:
    for group in _groups(study):
        del group.PlanePositionSequence


def _tilted(study: Study) -> None:
    shared = study.slices[0].SharedFunctionalGroupsSequence[0]
    shared.CTAcquisitionDetailsSequence = [item(GantryDetectorTilt=12.5)]


def _two_times(study: Study) -> None:
    """All frames twice, as in a perfusion study; nothing says on which of them the region was drawn."""
    for contour in contours_of(study.rois[0]):
        del contour.ContourImageSequence
    whole = study.slices[0]
    for time, groups in enumerate((_groups(study), deepcopy(_groups(study))), start=1):
        for group in groups:
            group.FrameContentSequence[0].TemporalPositionIndex = time
        if time == 2:
            whole.PerFrameFunctionalGroupsSequence.extend(groups)
    whole.NumberOfFrames, whole.PixelData = 24, whole.PixelData + bytes(len(whole.PixelData))


def _scouts(study: Study) -> None:
    frame_type = study.slices[0].SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0]
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]


def _padding(study: Study) -> None:
    whole = study.slices[0]
    pixels = whole.pixel_array.copy()
    pixels[_frame_of(5), 20, 20] = -2000
    whole.PixelData, whole.PixelPaddingValue = pixels.tobytes(), -2000


def _columns_of_another_representation(study: Study) -> None:
    """The value is already read when the frames are found."""
    whole = study.slices[0]
    whole.add(DataElement("Columns", "OB", bytes([whole.Columns, 0]), already_converted=True))


FAULTS = {
    "one frame turned": (_turned, "refused", "orientation_varies"),
    "one frame shifted": (_shifted, "refused", "spacing_not_uniform"),
    "rescale varies": (_other_rescale, "refused", "rescale_varies"),
    "pixel spacing varies": (_other_spacing, "refused", "grid_varies"),
    "no positions": (_no_position, "refused", "geometry_missing"),
    "declared gantry tilt": (_tilted, "refused", "gantry_tilt"),
    "two points in time": (_two_times, "refused", "duplicate_position"),
    "scouts": (_scouts, "refused", "not_ct"),
    "padding in the ROI": (_padding, "refused", "padding_in_roi"),
    "columns of another Value Representation": (_columns_of_another_representation, "refused", "dicom_unreadable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_spoilt_frames(fault: str, tmp_path: Path) -> None:
    change, status, code = FAULTS[fault]
    study = enhanced_rtstruct_study(all_per_frame=True)
    change(study)
    assert code_of(study, tmp_path) == (status, code)


def test_a_scout_among_the_frames_is_no_slice(tmp_path: Path) -> None:
    """Only the scout, the first frame, has its own Frame Type; the others share one."""
    study = enhanced_rtstruct_study(reference=False)
    plain = measured(study.write(tmp_path / "plain"))
    whole = study.slices[0]
    scout = deepcopy(_groups(study)[_frame_of(5)])
    scout.CTImageFrameTypeSequence = [item(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])]
    whole.PerFrameFunctionalGroupsSequence.insert(0, scout)
    whole.NumberOfFrames, whole.PixelData = 13, bytes(40 * 48 * 2) + whole.PixelData
    assert measured(study.write(tmp_path / "scout"))["features"] == plain["features"]


def test_what_one_frame_says_is_not_said_of_another(tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    types = [["ORIGINAL", "PRIMARY", f"VOLUME {k}"] for k in range(12)]
    for group, frame_type in zip(_groups(study)[1:], types[1:], strict=True):
        group.CTImageFrameTypeSequence = [item(FrameType=frame_type)]
    whole = pydicom.dcmread(study.write(tmp_path) / "0001")
    types[0] = list(whole.ImageType)
    assert [list(frame.ImageType) for frame in list(single_frames(whole, range(1, 13)))] == types
    assert list(whole.ImageType) == types[0]


@pytest.mark.parametrize(
    ("frame_type", "fit"),
    [
        (["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], True),
        (["ORIGINAL", "PRIMARY", "AXIAL"], True),
        (["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"], False),
        (["MIXED", "PRIMARY", "VOLUME", "MIXED"], False),
    ],
)
def test_the_frame_type_decides_on_the_intended_use(frame_type: list[str], fit: bool, tmp_path: Path) -> None:
    """The Image Type of the whole image may be true only for other frames."""
    study = enhanced_rtstruct_study()
    for number, group in enumerate(_groups(study)):
        group.CTImageFrameTypeSequence = [item(FrameType=frame_type if number == 3 else ["ORIGINAL", "PRIMARY", "X"])]
    study.slices[0].ImageType = ["MIXED", "PRIMARY", "VOLUME", "MIXED"]
    headers = read_headers(study.write(tmp_path) / "0001")
    limits = {"slice_thickness_mm": (0, BIG_ENOUGH), "pixel_spacing_mm": (0, BIG_ENOUGH), "body_parts": ["CHEST"]}
    use = SimpleNamespace(**limits)
    refused = []
    for header in headers:
        assert isinstance(header, ImageHeader)
        try:
            prove_acquisition([header], use)  # type: ignore[arg-type]
        except Refused:
            refused.append(header.frame)
    assert refused == ([] if fit else [4])


# --- bytes that contradict their description ---------------------------------------------------------------------


def _number_of_frames(number: object) -> Callable[[Dataset], None]:
    def change(whole: Dataset) -> None:
        whole.NumberOfFrames = number

    return change


def _number_as_text(whole: Dataset) -> None:
    whole.add(DataElement("NumberOfFrames", "LO", "twelve", already_converted=True))


def _one_description_less(whole: Dataset) -> None:
    del whole.PerFrameFunctionalGroupsSequence[-1]


def _no_descriptions(whole: Dataset) -> None:
    del whole.PerFrameFunctionalGroupsSequence


def _both_claim_more(whole: Dataset) -> None:
    whole.NumberOfFrames = 13
    whole.PerFrameFunctionalGroupsSequence.append(deepcopy(whole.PerFrameFunctionalGroupsSequence[0]))


def _both_claim_less(whole: Dataset) -> None:
    whole.NumberOfFrames = 11
    del whole.PerFrameFunctionalGroupsSequence[-1]


def _wider(whole: Dataset) -> None:
    whole.Columns += 1


def _no_rows(whole: Dataset) -> None:
    whole.Rows = 0


def _no_pixels(whole: Dataset) -> None:
    del whole.PixelData


LIES = {
    "one frame too many": _number_of_frames(13),
    "one too few": _number_of_frames(11),
    "no frames": _number_of_frames(0),
    "frames past counting": _number_of_frames(2**31 - 1),
    "frames below nothing": _number_of_frames(-12),
    "number of frames as text": _number_as_text,
    "one description less": _one_description_less,
    "no descriptions": _no_descriptions,
    "a frame without pixels": _both_claim_more,
    "pixels without a frame": _both_claim_less,
    "wider than the pixels": _wider,
    "no rows": _no_rows,
    "no pixels": _no_pixels,
}


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless]
)
@pytest.mark.parametrize("lie", LIES)
def test_frames_descriptions_and_bytes_must_agree(lie: str, syntax: UID, tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    _as(syntax, study.slices[0])
    LIES[lie](study.slices[0])
    folder = study.write(tmp_path)
    if syntax.is_encapsulated and lie in {"wider than the pixels", "no rows"}:  # only decoding shows the fault
        assert measured(folder)["status"] == "refused"
        return
    for hash_pixels in (True, False):
        with pytest.raises(Refused) as caught:
            read_headers(folder / "0001", hash_pixels=hash_pixels)
        assert caught.value.reason.code == "dicom_unreadable"
    assert measured(folder)["reason"]["code"] == "dicom_unreadable"


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_a_file_cut_anywhere_is_refused(syntax: UID, tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    _as(syntax, study.slices[0])
    path = study.write(tmp_path) / "0001"
    content = path.read_bytes()
    last = 2 if syntax == DeflatedExplicitVRLittleEndian else 1
    for cut in sorted({*range(140, len(content), 997), len(content) - last, len(content) - 9, len(content) - 16}):
        path.write_bytes(content[:cut])
        with pytest.raises(Refused) as caught:
            read_headers(path, hash_pixels=False)
        assert caught.value.reason.code == "dicom_unreadable", cut


def test_a_fragment_cut_short_spoils_its_frame_alone(tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    whole = study.slices[0]
    frames = [jpeg_lossless.encode(frame.view(np.uint16), 16, predictor=1) for frame in whole.pixel_array]
    for slice_index, code in ((11, None), (5, "pixel_data_unreadable")):
        broken = list(frames)
        broken[_frame_of(slice_index)] = broken[_frame_of(slice_index)][:-30]
        _fragmented(whole, JPEGLossless, broken, 1)
        outcome = measured(study.write(tmp_path / f"{slice_index}"))
        assert (outcome["reason"] and outcome["reason"]["code"]) == code


@pytest.mark.parametrize("beyond", [False, True])
def test_fragments_that_do_not_end_where_frames_do_are_refused(beyond: bool, tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    whole = study.slices[0]
    frames = [jpeg_lossless.encode(frame.view(np.uint16), 16, predictor=1) for frame in whole.pixel_array]
    frames[11:] = [*frames[11:], frames[11][:-30]] if beyond else [frames[11][:-30]]
    _fragmented(whole, JPEGLossless, frames, 2)
    with pytest.raises(Refused) as caught:
        read_headers(study.write(tmp_path) / "0001")
    assert caught.value.reason.code == "dicom_unreadable"


def test_a_description_without_a_frame_is_refused(tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    whole = study.slices[0]
    whole.NumberOfFrames, whole.PixelData = 11, whole.PixelData[: 11 * 40 * 48 * 2]
    assert code_of(study, tmp_path) == ("refused", "dicom_unreadable")


# --- copies and changes ------------------------------------------------------------------------------------------


def test_copies_do_not_matter_and_a_changed_pixel_does(tmp_path: Path) -> None:
    folder = enhanced_rtstruct_study().write(tmp_path)
    plain = measured(folder)
    content = bytearray((folder / "0001").read_bytes())
    (folder / "copy").write_bytes(content)
    assert measured(folder)["features"] == plain["features"]
    dataset = pydicom.dcmread(folder / "0001")
    start = len(content) - len(dataset.PixelData) + _frame_of(5) * 40 * 48 * 2
    content[start + 1000] ^= 1
    (folder / "copy").write_bytes(content)
    assert measured(folder)["reason"]["code"] == "conflicting_instances"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless])
def test_a_file_that_changed_after_it_was_looked_at_is_not_measured(syntax: UID, tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    whole = study.slices[0]
    pixels = whole.pixel_array.copy()
    _as(syntax, whole)
    path = study.write(tmp_path) / "0001"
    headers = [header for header in read_headers(path) if isinstance(header, ImageHeader)]
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pixels[7] += 1
    whole.PixelData = pixels.tobytes()
    whole["PixelData"].is_undefined_length = False
    _as(syntax, whole)
    whole.save_as(path, enforce_file_format=True)
    assert len(list(read_slices(headers[:7]))) == 7
    with pytest.raises(Unavailable):
        list(read_slices(headers))
    _both_claim_less(whole)
    whole.PixelData = b"".join(pixels[k].tobytes() for k in range(11))
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole.save_as(path, enforce_file_format=True)
    with pytest.raises(Unavailable):
        list(read_slices(headers[11:]))


def test_frames_and_slices_of_one_series_are_told_apart(tmp_path: Path) -> None:
    """An archive that has a series in both forms has each slice twice."""
    single = rtstruct_study(reference=False)
    whole = enhanced(single.slices)
    whole.PixelData = bytes(len(whole.PixelData))
    both = Study([*single.slices, whole], single.rois)
    assert measured(both.write(tmp_path))["roi"]["voxels"] == square_mask().sum()  # the list names the slices
    list_series(single.rois[0], listing(whole.SeriesInstanceUID, both.slices))
    assert code_of(both, tmp_path) == ("refused", "duplicate_position")


def test_mask_and_frames_are_aligned() -> None:
    assert enhanced_seg_study().rois[0].NumberOfFrames == square_mask().any(axis=(1, 2)).sum()
