"""Only the region's own references say on which series it was drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from lungstage.appliance.contract.errors import Held, Refused
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.appliance.dicom.test_bad_input import RESAMPLED, SPEC, code_of, measured
from tests.support.studies import (
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
)


def twin_of(slices: Sequence[Dataset], *, brighter: int = 100, **elements: object) -> list[Dataset]:
    """Another reconstruction: the same places with other voxels and UIDs, in another series."""
    series = generate_uid()
    twins = []
    for dataset in slices:
        twin = deepcopy(dataset)
        twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        twin.SeriesInstanceUID = series
        twin.PixelData = (dataset.pixel_array + brighter).astype(dataset.pixel_array.dtype).tobytes()
        for keyword, value in elements.items():
            setattr(twin, keyword, value)
        twins.append(twin)
    return twins


def _two_series(
    organ_on: str = "B", tumour_on: str | None = "A", listed: str = "AB", there: str = "AB", swapped: bool = False
) -> tuple[Study, dict[str, list[Dataset]]]:
    """A tumour with few contours and an organ with many. The arguments say which series are named and listed."""
    own = rtstruct_study().slices
    series = {"A": own, "B": twin_of(own)}
    if swapped != (series["A"][0].SeriesInstanceUID > series["B"][0].SeriesInstanceUID):
        for one, other in zip(series["A"], series["B"], strict=True):
            one.SeriesInstanceUID, other.SeriesInstanceUID = other.SeriesInstanceUID, one.SeriesInstanceUID
    tumour = [contour(series[tumour_on or "A"][k], SQUARE, reference=tumour_on is not None) for k in ROI_SLICES]
    organ = [contour(dataset, ((2, 2), (2, 9), (9, 9), (9, 2))) for dataset in series[organ_on]]
    roi = structure_set(series["A"], {"GTV-1": tumour, "Heart": organ}, [])
    list_series(roi, *(listing(series[name][0].SeriesInstanceUID, series[name]) for name in listed))
    return Study([dataset for name in there for dataset in series[name]], [roi]), series


def _mean_of(slices: Sequence[Dataset]) -> float:
    study = rtstruct_study()
    for dataset, other in zip(study.slices, slices, strict=True):
        dataset.PixelData = other.PixelData
    hu = [study.slices[k].pixel_array[13:28, 15:31].mean() for k in ROI_SLICES]
    return float(sum(hu) / len(hu) * study.slices[0].RescaleSlope + study.slices[0].RescaleIntercept)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("tumour_on", ["A", "B"])
@pytest.mark.parametrize("organ_on", ["A", "B"])
def test_the_tumours_own_contours_decide(organ_on: str, tumour_on: str, swapped: bool, tmp_path: Path) -> None:
    study, series = _two_series(organ_on, tumour_on, swapped=swapped)
    outcome = measured(study.write(tmp_path))
    assert outcome["features"]["original_firstorder_Mean"] == pytest.approx(_mean_of(series[tumour_on]))
    assert outcome["warnings"] == []


@pytest.mark.parametrize("organ_on", ["A", "B"])
@pytest.mark.parametrize("there", ["AB", "A", "B"])
def test_contours_that_name_none_of_two_listed_series_are_ambiguous(organ_on: str, there: str, tmp_path: Path) -> None:
    study, _ = _two_series(organ_on, None, there=there)
    assert code_of(study, tmp_path) == ("refused", "ambiguous_input")
    assert measured(tmp_path, match_by_geometry=True)["reason"]["code"] == "ambiguous_input"


def test_contours_of_one_region_on_two_series_are_ambiguous(tmp_path: Path) -> None:
    study, series = _two_series()
    contours_of(study.rois[0])[0].ContourImageSequence[0].ReferencedSOPInstanceUID = series["B"][3].SOPInstanceUID
    assert code_of(study, tmp_path) == ("refused", "ambiguous_input")


@pytest.mark.parametrize("tumour_on", ["A", "B", None, "both"])
def test_each_series_case_says_for_itself_whose_the_region_is(tumour_on: str | None, tmp_path: Path) -> None:
    """The daemon examines the case of every series."""
    study, series = _two_series(tumour_on="A" if tumour_on == "both" else tumour_on, organ_on="B")
    if tumour_on == "both":
        contours_of(study.rois[0])[0].ContourImageSequence[0].ReferencedSOPInstanceUID = series["B"][3].SOPInstanceUID
    codes = {}
    for case in assemble(scan([study.write(tmp_path)]).headers):
        name = "AB"[case.key == series["B"][0].SeriesInstanceUID]
        try:
            plan_measurement(case, ROI_RULE, SPEC, settled=True)
        except (Held, Refused) as error:
            codes[name] = str(error.reason.code)
    assert codes == _expected(tumour_on)


def _expected(tumour_on: str | None) -> dict[str, str]:
    if tumour_on is None:  # only the organ links the file, and with B
        return {"A": "no_roi", "B": "ambiguous_input"}
    return {"A": {"B": "no_roi"}, "B": {"A": "no_roi"}}.get(tumour_on, dict.fromkeys("AB", "ambiguous_input"))


@pytest.mark.parametrize("match_by_geometry", [False, True])
def test_a_region_drawn_on_the_absent_one_of_two_series_is_never_put_on_the_other(
    match_by_geometry: bool, tmp_path: Path
) -> None:
    study, _ = _two_series(organ_on="A", tumour_on="B", there="A")
    outcome = measured(study.write(tmp_path), match_by_geometry=match_by_geometry)
    assert (outcome["status"], outcome["reason"]["code"]) == ("held", "references_unresolved")
    assert "--match-by-geometry" not in outcome["reason"]["message"]


def _unresolved(study: Study) -> None:
    """The region names a series that is not present."""
    absent = twin_of(study.slices)
    for item, k in zip(contours_of(study.rois[0]), ROI_SLICES, strict=True):
        item.ContourImageSequence[0].ReferencedSOPInstanceUID = absent[k].SOPInstanceUID
    list_series(study.rois[0], listing(absent[0].SeriesInstanceUID, absent))


def test_matching_by_position_never_chooses_between_series(tmp_path: Path) -> None:
    study = rtstruct_study()
    _unresolved(study)
    outcome = measured(study.write(tmp_path))
    assert outcome["reason"]["code"] == "references_unresolved"
    assert "--match-by-geometry" in outcome["reason"]["message"]
    matched = measured(tmp_path, match_by_geometry=True)
    assert matched["roi"]["voxels"] == square_mask().sum()
    assert any("by position" in warning for warning in matched["warnings"])
    study.slices += twin_of(study.slices)
    for options in ({}, {"match_by_geometry": True}):
        outcome = measured(study.write(tmp_path), **options)
        assert outcome["features"] is None
        assert "--match-by-geometry" not in outcome["reason"]["message"]


def test_matching_by_position_is_refused_beside_another_series_although_one_is_listed(tmp_path: Path) -> None:
    study = rtstruct_study()
    _unresolved(study)
    list_series(study.rois[0], listing(study.slices[0].SeriesInstanceUID, study.slices))
    assert measured(study.write(tmp_path), match_by_geometry=True)["roi"]["voxels"] == square_mask().sum()
    study.slices += twin_of(study.slices)
    assert code_of(study, tmp_path, match_by_geometry=True) == ("refused", "ambiguous_input")


def test_renamed_instances_of_a_listed_series_are_matched_by_position_where_asked(tmp_path: Path) -> None:
    study = rtstruct_study()
    for dataset in study.slices:  # like some anonymisers: the series keeps its UID, the RTSTRUCT names the old slices
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    assert code_of(study, tmp_path) == ("held", "slices_missing")
    assert measured(tmp_path, match_by_geometry=True)["roi"]["voxels"] == square_mask().sum()


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_a_region_that_names_nothing_says_so_and_waits(kind: str, tmp_path: Path) -> None:
    study = rtstruct_study(reference=False) if kind == "RTSTRUCT" else seg_study()
    if kind == "RTSTRUCT":
        list_series(study.rois[0])
    else:
        del study.rois[0].ReferencedSeriesSequence, study.rois[0].SourceImageSequence
        for group in study.rois[0].PerFrameFunctionalGroupsSequence:
            del group.DerivationImageSequence
    outcome = measured(study.write(tmp_path))
    assert any("by its position alone" in warning for warning in outcome["warnings"])
    (case,) = assemble(scan([tmp_path]).headers)
    with pytest.raises(Held) as held:
        plan_measurement(case, ROI_RULE, SPEC, settled=True, waited=False)
    assert held.value.reason.code == "more_may_come"
    study.slices += twin_of(study.slices)
    assert code_of(study, tmp_path) == ("refused", "ambiguous_input")


def test_segment_frames_decide_for_a_seg_that_lists_two_series(tmp_path: Path) -> None:
    study = seg_study()
    other = twin_of(study.slices)
    second = deepcopy(study.rois[0].ReferencedSeriesSequence[0])
    second.SeriesInstanceUID = other[0].SeriesInstanceUID
    for item, dataset in zip(second.ReferencedInstanceSequence, other, strict=True):
        item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    study.rois[0].ReferencedSeriesSequence.append(second)
    study.slices += other
    outcome = measured(study.write(tmp_path))
    assert outcome["features"]["original_firstorder_Mean"] == pytest.approx(_mean_of(study.slices[:12]))
    for group in study.rois[0].PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    assert code_of(study, tmp_path) == ("refused", "ambiguous_input")


# --- several acquisitions in one series --------------------------------------------------------------------------


def _second_acquisition(study: Study, **elements: object) -> list[Dataset]:
    twins = twin_of(study.slices, **(elements or {"AcquisitionNumber": 2}))
    for dataset, twin in zip(study.slices, twins, strict=True):
        twin.SeriesInstanceUID = dataset.SeriesInstanceUID
    return twins


TELLING = {
    "acquisition": ({"AcquisitionNumber": 2}, "Acquisition Number (0020,0012)"),
    "kernel": ({"ConvolutionKernel": "B70f"}, "Convolution Kernel (0018,1210)"),
    "nothing": ({"InstanceNumber": 99}, "Their headers do not show"),
}


@pytest.mark.parametrize("elements", [elements for elements, _ in TELLING.values()], ids=TELLING)
@pytest.mark.parametrize("part", [slice(0, 12), slice(2, 3), slice(5, 8)], ids=["all", "margin", "within"])
def test_references_tell_two_acquisitions_of_one_series_apart(
    elements: dict[str, object], part: slice, tmp_path: Path
) -> None:
    study = rtstruct_study()
    whole = measured(study.write(tmp_path / "one"), match_by_geometry=False)
    study.slices += _second_acquisition(study, **elements)[part]
    both = measured(study.write(tmp_path / "two"))
    assert both["features"] == whole["features"]
    assert both["warnings"] == whole["warnings"]


@pytest.mark.parametrize(("spec", "elements"), [(RESAMPLED, {"AcquisitionNumber": 2}), (SPEC, {"InstanceNumber": 99})])
def test_the_named_ones_are_taken_where_both_are_listed(
    spec: ExtractionSpec, elements: dict[str, object], tmp_path: Path
) -> None:
    """In the margin, slices like the named ones are used; if nothing distinguishes them, only the named ones are."""
    study = rtstruct_study()
    whole = measured(study.write(tmp_path / "one"), spec)
    study.slices += _second_acquisition(study, **elements)
    list_series(study.rois[0], listing(study.slices[0].SeriesInstanceUID, study.slices))
    assert measured(study.write(tmp_path / "two"), spec)["features"] == whole["features"]


@pytest.mark.parametrize(("elements", "said"), TELLING.values(), ids=TELLING)
def test_what_tells_two_acquisitions_apart_is_named(elements: dict[str, object], said: str, tmp_path: Path) -> None:
    study = rtstruct_study(reference=False)
    study.slices += _second_acquisition(study, **elements)
    list_series(study.rois[0], listing(study.slices[0].SeriesInstanceUID, study.slices))
    assert code_of(study, tmp_path) == ("refused", "duplicate_position")
    assert said in measured(tmp_path)["reason"]["message"]


def test_the_margin_is_not_taken_from_another_reconstruction(tmp_path: Path) -> None:
    """The slice next to the tumour is missing, and a slice of another reconstruction lies at its place."""
    study = rtstruct_study()
    other = _second_acquisition(study, ConvolutionKernel="B70f")
    study.slices[2] = other[2]
    (case,) = assemble(scan([study.write(tmp_path)]).headers)
    with pytest.raises(Held) as held:
        plan_measurement(case, ROI_RULE, RESAMPLED, settled=True, waited=False)
    assert held.value.reason.code == "more_may_come"


@pytest.mark.parametrize("lists", [True, False], ids=["both listed", "neither listed"])
@pytest.mark.parametrize("is_like", [True, False], ids=["the same pixels", "other pixels"])
def test_a_neighbour_that_may_be_of_another_image_set_is_refused(lists: bool, is_like: bool, tmp_path: Path) -> None:
    """The slices beside the tumour are missing, and those of a second, indistinguishable set are present."""
    study = seg_study()
    whole = measured(study.write(tmp_path / "one"), RESAMPLED)
    twins = _second_acquisition(study, InstanceNumber=99)
    for dataset, twin in zip(study.slices, twins, strict=True):
        pixels = np.frombuffer(dataset.PixelData, np.int16)
        twin.PixelData = (pixels if is_like else pixels + np.int16(9)).tobytes()
    named = [dataset for dataset in study.slices if _is_named(study.rois[0], dataset)]
    study.slices[:] = [*named, *twins]
    series = Dataset()
    series.SeriesInstanceUID = study.slices[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = []
    for dataset in study.slices if lists else named:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        series.ReferencedInstanceSequence.append(item)
    study.rois[0].ReferencedSeriesSequence = [series]
    found = measured(study.write(tmp_path / "two"), RESAMPLED)
    if is_like:
        assert found["features"] == whole["features"]
    else:
        assert found["reason"]["code"] == "duplicate_position"


def _is_named(segmentation: Dataset, dataset: Dataset) -> bool:
    frames = segmentation.PerFrameFunctionalGroupsSequence
    named = (i for f in frames for d in f.DerivationImageSequence for i in d.SourceImageSequence)
    return dataset.SOPInstanceUID in {image.ReferencedSOPInstanceUID for image in named}


def test_interleaved_slices_of_another_reconstruction_are_left_out(tmp_path: Path) -> None:
    study = rtstruct_study()
    whole = measured(study.write(tmp_path / "one"))
    for twin in _second_acquisition(study, ConvolutionKernel="B70f"):
        x, y, z = (float(v) for v in twin.ImagePositionPatient)
        twin.ImagePositionPatient = [x, y, z + 1.1]
        study.slices.append(twin)
    assert measured(study.write(tmp_path / "two"))["features"] == whole["features"]


@pytest.mark.parametrize("reference", [True, False])
def test_identical_copies_under_other_uids_do_not_matter(reference: bool, tmp_path: Path) -> None:
    study = rtstruct_study(reference=reference)
    whole = measured(study.write(tmp_path / "one"))
    copies = [deepcopy(dataset) for dataset in study.slices]
    for copy in copies:
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    study.slices += copies
    list_series(study.rois[0], listing(study.slices[0].SeriesInstanceUID, study.slices))
    assert measured(study.write(tmp_path / "two"))["features"] == whole["features"]


# --- a region in another study -----------------------------------------------------------------------------------


def _own_study(study: Study) -> None:
    study.rois[0] = deepcopy(study.rois[0])  # highdicom shares elements with the slices
    study.rois[0].StudyInstanceUID = generate_uid()


def _named_study(study: Study) -> None:
    """A SEG names images of another study in a separate sequence."""
    _own_study(study)
    roi = study.rois[0]
    other = Dataset()
    other.StudyInstanceUID = study.slices[0].StudyInstanceUID
    other.ReferencedSeriesSequence = roi.ReferencedSeriesSequence
    del roi.ReferencedSeriesSequence
    roi.StudiesContainingOtherReferencedInstancesSequence = [other]
    for group in roi.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence


@pytest.mark.parametrize(
    ("study", "change"),
    [(rtstruct_study, _own_study), (seg_study, _own_study), (seg_study, _named_study)],
    ids=["RTSTRUCT", "SEG", "SEG that lists the other study"],
)
def test_a_region_in_a_study_of_its_own_is_read_where_its_references_agree(
    study: Callable[[], Study], change: Callable[[Study], None], tmp_path: Path
) -> None:
    made = study()
    change(made)
    outcome = measured(made.write(tmp_path))
    assert outcome["roi"]["voxels"] == square_mask().sum()
    assert any("another Study Instance UID than the CT" in warning for warning in outcome["warnings"])


def test_position_does_not_link_a_region_with_another_study(tmp_path: Path) -> None:
    study = rtstruct_study(reference=False)
    _own_study(study)
    list_series(study.rois[0])
    assert code_of(study, tmp_path) == ("refused", "study_mismatch")
