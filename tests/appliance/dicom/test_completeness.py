"""What a case waits for and how long, the message if it was not received, and which positions are evenly spaced."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import Held, Refused
from lungstage.appliance.dicom.acquisition import TELLING
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.completeness import LEFT_OUT, SERIES_ENDS
from lungstage.appliance.dicom.geometry import even_step
from lungstage.appliance.dicom.instance import OWN_MODEL_NAME
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import Plan, plan_measurement
from tests.appliance.dicom.test_bad_input import RESAMPLED, code_of, measured
from tests.support.studies import Study, list_series, listing, rtstruct_study, seg_study, square_mask, volume


def _planned(folder: Path, *, waited: bool, settled: bool = True) -> Plan:
    (case,) = assemble(scan([folder]).headers)
    return plan_measurement(case, ROI_RULE, RESAMPLED, settled=settled, waited=waited)


def _code(folder: Path, *, waited: bool) -> str:
    with pytest.raises(Held) as held:
        _planned(folder, waited=waited)
    return str(held.value.reason.code)


def _kept(study: Study, kept: Iterable[int]) -> Study:
    return Study([study.slices[k] for k in kept], study.rois)


# --- neighbours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [range(3, 9), range(2, 9), range(3, 10)])
def test_listed_neighbours_are_waited_for_and_then_said_to_be_missing(kept: range, tmp_path: Path) -> None:
    _kept(rtstruct_study(), kept).write(tmp_path)
    assert _code(tmp_path, waited=False) == "more_may_come"
    warning = f"{12 - len(kept)} listed slices were not received"
    assert any(warning in said for said in _planned(tmp_path, waited=True).warnings)
    assert any(warning in said for said in measured(tmp_path, RESAMPLED)["warnings"])


def test_a_whole_margin_needs_no_waiting_and_no_warning(tmp_path: Path) -> None:
    _kept(rtstruct_study(), range(2, 10)).write(tmp_path)
    assert _planned(tmp_path, waited=False, settled=False).warnings == ()


def test_the_end_of_a_series_that_is_all_there_is_no_missing_slice(tmp_path: Path) -> None:
    rtstruct_study(on=range(12)).write(tmp_path)  # all slices have contours, so the list does not show the end
    assert _code(tmp_path, waited=False) == "more_may_come"
    study = rtstruct_study(on=range(6))
    study.write(tmp_path / "end")
    plan = _planned(tmp_path / "end", waited=False, settled=False)
    assert [said for said in plan.warnings if "The series ends" in said]


OTHERWISE = ("OTHER", ["DERIVED", "SECONDARY", "AXIAL"], "80", "250", "2")


@pytest.mark.parametrize(("told", "value"), list(zip(TELLING, OTHERWISE, strict=False)))
@pytest.mark.parametrize("side", [2, 9])
def test_a_neighbour_of_another_acquisition_is_named_as_left_out(
    side: int, told: tuple[str, str], value: object, tmp_path: Path
) -> None:
    """The series does not end there, so the warning says why these voxels are not used."""
    study = rtstruct_study()
    for k, image in enumerate(study.slices):
        setattr(image, told[0], value if k == side else "1" if told[0] == "TemporalPositionIdentifier" else "100")
    study.write(tmp_path / "other")
    plan = _planned(tmp_path / "other", waited=True)
    assert plan.ending == LEFT_OUT.format(told[1]) in plan.warnings
    _kept(study, (k for k in range(12) if k != side)).write(tmp_path / "without")
    without = _planned(tmp_path / "without", waited=True)
    assert "1 listed slice was not received" in without.ending
    assert plan.fingerprint == without.fingerprint


def test_one_tube_voltage_may_be_written_in_two_ways(tmp_path: Path) -> None:
    study = rtstruct_study()
    for k, image in enumerate(study.slices):
        image.KVP = "120.0" if k == 2 else "120"
    study.write(tmp_path)
    assert _planned(tmp_path, waited=False).warnings == ()


def test_another_acquisition_further_off_is_not_mentioned(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.slices[0].ConvolutionKernel = "OTHER"
    for image in study.slices[1:]:
        image.ConvolutionKernel = "SOFT"
    study.write(tmp_path)
    assert _planned(tmp_path, waited=True).warnings == ()


def test_a_ct_is_never_taken_for_lungstages_own_document(tmp_path: Path) -> None:
    """A slice that is silently left out changes the numbers, whatever software wrote it."""
    study = rtstruct_study()
    study.slices[2].ManufacturerModelName = OWN_MODEL_NAME
    study.write(tmp_path)
    assert _planned(tmp_path, waited=False).warnings == ()


def _list_own(study: Study, extra: Iterable[int] = ()) -> None:
    slices = [study.slices[k] for k in (*range(3, 9), *extra)]
    list_series(study.rois[0], listing(study.slices[0].SeriesInstanceUID, slices))


def test_a_list_of_the_contours_own_slices_shows_no_end(tmp_path: Path) -> None:
    study = rtstruct_study()
    _list_own(study)
    _kept(study, range(3, 9)).write(tmp_path / "some")
    assert _code(tmp_path / "some", waited=False) == "more_may_come"
    plan = _planned(tmp_path / "some", waited=True)
    assert [said for said in plan.warnings if "The series ends" in said]
    study.write(tmp_path / "all")
    assert _planned(tmp_path / "all", waited=False).warnings == ()


def test_a_seg_without_a_list_waits_for_neighbours(tmp_path: Path) -> None:
    study = seg_study()
    del study.rois[0].ReferencedSeriesSequence
    _kept(study, range(3, 10)).write(tmp_path)
    assert _code(tmp_path, waited=False) == "more_may_come"
    assert _planned(tmp_path, waited=True).ending == SERIES_ENDS


@pytest.mark.parametrize("waited", [False, True])
@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("lacking", [3, 5, 8])
def test_slices_of_the_region_itself_are_never_waited_away(
    lacking: int, reference: bool, waited: bool, tmp_path: Path
) -> None:
    _kept(rtstruct_study(reference=reference), (k for k in range(12) if k != lacking)).write(tmp_path)
    assert _code(tmp_path, waited=waited) == "slices_missing"


@given(st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_whatever_the_order_nothing_but_the_whole_is_planned_before_the_wait_is_over(order: list[int]) -> None:
    headers, roi = _headers_of_a_study()
    whole = plan_measurement(assemble([roi, *headers])[0], ROI_RULE, RESAMPLED, settled=True, waited=True)
    for count in range(1, 13):
        (case,) = assemble([roi, *(headers[k] for k in order[:count])])
        try:
            plan = plan_measurement(case, ROI_RULE, RESAMPLED, settled=True, waited=False)
        except Held:
            assert not set(range(2, 10)) <= set(order[:count])
        else:
            assert (plan.fingerprint, plan.warnings) == (whole.fingerprint, whole.warnings)


_STUDY: dict[str, tuple[list, object]] = {}


def _headers_of_a_study() -> tuple[list, object]:
    if not _STUDY:
        import tempfile

        folder = Path(tempfile.mkdtemp())
        roi, *slices = sorted(scan([rtstruct_study().write(folder)]).headers, key=lambda h: h.path)
        _STUDY["it"] = (list(slices), roi)
    return _STUDY["it"]


# --- positions ---------------------------------------------------------------------------------------------------


def _rounded(study: Study, digits: int) -> Study:
    for dataset in study.slices:
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y, round(z, digits)]
    return study


@pytest.mark.parametrize("spacing", [3.27, 1.25, 0.625, 2.37])
@pytest.mark.parametrize("on", [range(3, 9), range(2, 5), range(4, 11)])
def test_rounded_positions_have_the_declared_spacing(spacing: float, on: range, tmp_path: Path) -> None:
    study = rtstruct_study(source=volume(spacing=(spacing, 1.0, 1.25)), on=on)
    exact = measured(study.write(tmp_path / "exact"))
    _rounded(study, 1)
    for dataset in study.slices:
        dataset.SpacingBetweenSlices = f"{spacing:g}"
    rounded = measured(study.write(tmp_path / "rounded"))
    assert rounded["features"] == pytest.approx(exact["features"], rel=1e-9)


class _Declared:
    def __init__(self, spacing: float | None, thickness: float | None) -> None:
        self.spacing_between_slices, self.slice_thickness = spacing, thickness


@given(
    step=st.integers(40, 600).map(lambda hundredths: hundredths / 100),
    start=st.integers(-5000, 5000).map(lambda tenths: tenths / 10),
    count=st.integers(2, 40),
    lie=st.floats(-0.04, 0.04),
)
@settings(max_examples=200, deadline=None)
def test_a_near_thickness_does_not_outweigh_exact_positions(step: float, start: float, count: int, lie: float) -> None:
    step = round(step, 1)
    depths = np.round(start + step * np.arange(count), 6)
    images = [_Declared(None, step + lie)] * count
    found = even_step(depths, np.arange(count), images)  # type: ignore[arg-type]
    assert found == pytest.approx(step, rel=2e-4)


def test_positions_that_no_rounding_explains_are_uneven() -> None:
    depths = np.array([0.0, 3.0, 6.2, 9.0, 12.0])
    with pytest.raises(Refused):
        even_step(depths, np.arange(5), [_Declared(3.0, 3.0)] * 5)  # type: ignore[arg-type,list-item]


@given(
    step=st.integers(64, 300).map(lambda hundredths: hundredths / 100),
    phase=st.floats(0, 1),
    on=st.tuples(st.integers(0, 25), st.integers(2, 8)),
)
@settings(max_examples=200, deadline=None)
def test_any_even_step_is_found_under_its_rounding(step: float, phase: float, on: tuple[int, int]) -> None:
    exact = phase + step * np.arange(40)
    # All ties are rounded up. Mixed rounding of ties cannot be distinguished from a slice at a wrong place.
    series, (first, count) = np.floor(exact * 10 + 0.5 + 1e-6) / 10, on
    found = even_step(series[first : first + count], np.arange(count), [_Declared(None, None)] * count, series)  # type: ignore[arg-type,list-item]
    assert found == pytest.approx(step, abs=0.1 / (count - 1) + 1e-6)


@given(odd=st.integers(1, 10), by=st.sampled_from((-0.2, -0.1, 0.1, 0.2)), start=st.integers(-300, 300))
def test_one_slice_beside_its_place_is_not_taken_for_rounding(odd: int, by: float, start: int) -> None:
    series = start + 3.0 * np.arange(12)
    series[odd] += by
    first = min(max(odd - 7, 0), 4)
    images = [_Declared(None, 3.0)] * 8
    with pytest.raises(Refused, match="not evenly spaced"):
        even_step(series[first : first + 8], np.arange(8), images, series)  # type: ignore[arg-type]


def test_segment_frames_on_an_even_grid_over_rounded_positions(tmp_path: Path) -> None:
    study = seg_study(source=volume(spacing=(3.27, 1.0, 1.25)))
    exact = [float(dataset.ImagePositionPatient[2]) for dataset in study.slices]
    _rounded(study, 1)
    assert any(abs(float(d.ImagePositionPatient[2]) - z) > 0.02 for d, z in zip(study.slices, exact, strict=True))
    assert measured(study.write(tmp_path))["roi"]["voxels"] == square_mask().sum()


# --- directions --------------------------------------------------------------------------------------------------


def test_noise_in_the_cosines_does_not_move_a_feature(tmp_path: Path) -> None:
    source = volume(spacing=(3.0, 0.75, 0.75))
    exact = measured(rtstruct_study(source=source).write(tmp_path / "exact"), RESAMPLED)
    study = rtstruct_study(source=source)
    for dataset in study.slices:
        dataset.ImageOrientationPatient = ["1", "2e-10", "0", "-2e-10", "1", "0"]
    noisy = measured(study.write(tmp_path / "noisy"), RESAMPLED)
    assert noisy["features"] == exact["features"]


def test_a_gap_between_two_parts_of_a_seg_is_read(tmp_path: Path) -> None:
    outcome = measured(seg_study(square_mask(on=[3, 4, 7, 8])).write(tmp_path))
    assert outcome["roi"]["voxels"] == square_mask(on=[3, 4, 7, 8]).sum()


def test_two_frames_in_one_place_are_refused(tmp_path: Path) -> None:
    study = seg_study()
    groups: list[Dataset] = study.rois[0].PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
    groups[1].DerivationImageSequence = groups[0].DerivationImageSequence
    pixels = study.rois[0].pixel_array
    pixels[1] = np.roll(pixels[1], 1, axis=0)
    study.rois[0].PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    assert code_of(study, tmp_path) == ("refused", "roi_unreadable")
