"""Frames and contours in the pixels of an image: the order of a frame's voxels does not change the mask."""

from __future__ import annotations

import itertools
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.pixel_grid import laid_on
from lungstage.appliance.dicom.region import Region, SegmentFrame
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.appliance.dicom.test_bad_input import SPEC, code_of, measured
from tests.support.studies import Study, contour, contours_of, rtstruct_study, seg_study, square_mask

ROWS, COLUMNS = 11, 14
SPACING = (0.8, 1.25)  # (row, column)
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0]])  # two directions at right angles, oblique
POSITION = np.array([-12.5, 40.25, -310.0])

signed_permutations = [
    (swapped, flip_row, flip_column) for swapped, flip_row, flip_column in itertools.product((False, True), repeat=3)
]
"""Whether a frame's axes are swapped, and which of them are reversed."""


def _image(orientation: np.ndarray) -> Any:
    return SimpleNamespace(
        rows=ROWS, columns=COLUMNS, position=tuple(POSITION), orientation=tuple(orientation.ravel()),
        pixel_spacing=SPACING,
    )  # fmt: skip


def _stored(
    mask: np.ndarray, axes: np.ndarray, order: tuple[bool, bool, bool], crop: tuple[slice, slice]
) -> tuple[Region, SegmentFrame]:
    """Write a part of a mask as a frame in another order, with the place of its first pixel."""
    swapped, flip_row, flip_column = order
    row, column = np.indices(mask.shape)
    places = POSITION + (column * SPACING[1])[..., None] * axes[0] + (row * SPACING[0])[..., None] * axes[1]
    pixels, places = mask[crop], places[crop]
    directions, spacing = [axes[0], axes[1]], [SPACING[1], SPACING[0]]  # along a row, along a column
    if swapped:
        pixels, places = pixels.T, places.swapaxes(0, 1)
        directions, spacing = directions[::-1], spacing[::-1]
    if flip_row:
        pixels, places, directions[0] = pixels[:, ::-1], places[:, ::-1], -directions[0]
    if flip_column:
        pixels, places, directions[1] = pixels[::-1], places[::-1], -directions[1]
    region = Region(
        None,
        1,
        "",
        (),
        "",
        orientation=tuple(np.ravel(directions)),
        pixel_spacing=(spacing[1], spacing[0]),  # type: ignore[arg-type]
    )
    return region, SegmentFrame(places[0, 0], (), np.ascontiguousarray(pixels))


masks = st.lists(st.tuples(st.integers(2, ROWS - 3), st.integers(3, COLUMNS - 4)), min_size=1, max_size=20)


@given(
    cells=masks,
    order=st.sampled_from(signed_permutations),
    oblique=st.booleans(),
    edges=st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)),
    noise=st.floats(-0.004, 0.004),
    depth=st.floats(-0.09, 0.09),
)
@settings(max_examples=300, deadline=None)
def test_any_order_and_any_crop_is_the_same_mask(
    cells: list[tuple[int, int]],
    order: tuple[bool, bool, bool],
    oblique: bool,
    edges: tuple[int, int, int, int],
    noise: float,
    depth: float,
) -> None:
    axes = TURN if oblique else np.eye(3)[:2]
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[tuple(np.transpose(cells))] = True
    top, bottom, left, right = edges
    region, frame = _stored(mask, axes, order, (slice(top, ROWS - bottom), slice(left, COLUMNS - right)))
    moved = SegmentFrame(frame.position + noise * axes[0] + depth * np.cross(*axes), frame.images, frame.pixels)
    laid = laid_on(_image(axes), region, moved, tolerance=0.1)
    assert laid is not None
    assert np.array_equal(laid.pixels, mask)


@given(
    order=st.sampled_from(signed_permutations),
    shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-3, 3)).filter(
        lambda s: (
            max(abs(s[0] - round(s[0])) * SPACING[1], abs(s[1] - round(s[1])) * SPACING[0]) > 0.011 or abs(s[2]) > 0.11
        )
    ),
)
@settings(max_examples=200, deadline=None)
def test_what_is_not_on_the_grid_is_laid_nowhere(
    order: tuple[bool, bool, bool], shift: tuple[float, float, float]
) -> None:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[4:7, 5:9] = True
    region, frame = _stored(mask, TURN, order, (slice(None), slice(None)))
    column, row, depth = shift
    moved = frame.position + column * SPACING[1] * TURN[0] + row * SPACING[0] * TURN[1] + depth * np.cross(*TURN)
    assert laid_on(_image(TURN), region, SegmentFrame(moved, (), frame.pixels), tolerance=0.1) is None


def test_a_frame_may_reach_beyond_the_image_only_where_it_is_empty() -> None:
    mask = np.ones((ROWS, COLUMNS), dtype=bool)
    axes = np.eye(3)[:2]
    region, frame = _stored(mask, axes, (False, False, False), (slice(None), slice(None)))
    wider = np.pad(frame.pixels, ((1, 1), (2, 2)))
    start = frame.position - np.array([2 * SPACING[1], SPACING[0], 0])
    laid = laid_on(_image(axes), region, SegmentFrame(start, (), wider), tolerance=0.1)
    assert laid is not None
    assert laid.pixels.all()
    wider[0, 5] = True
    assert laid_on(_image(axes), region, SegmentFrame(start, (), wider), tolerance=0.1) is None


# --- through the files -------------------------------------------------------------------------------------------


def _frames(study: Study) -> list[Dataset]:
    return list(study.rois[0].PerFrameFunctionalGroupsSequence)


def _forget_sources(study: Study) -> None:
    for group in _frames(study):
        del group.DerivationImageSequence


def _other_frame_of_reference(study: Study) -> None:
    study.rois[0] = deepcopy(study.rois[0])
    study.rois[0].FrameOfReferenceUID = generate_uid()


def test_a_seg_of_a_made_up_frame_of_reference_is_read_by_its_references(tmp_path: Path) -> None:
    study = seg_study()
    _other_frame_of_reference(study)
    outcome = measured(study.write(tmp_path))
    assert outcome["roi"]["voxels"] == square_mask().sum()
    assert any("Frame of Reference" in warning for warning in outcome["warnings"])


def test_a_frame_without_a_reference_leaves_another_frame_of_reference_refused(tmp_path: Path) -> None:
    study = seg_study()
    _other_frame_of_reference(study)
    del _frames(study)[2].DerivationImageSequence
    assert code_of(study, tmp_path) == ("refused", "frame_of_reference_mismatch")


@pytest.mark.parametrize("taken", [range(3, 9, 2), range(3, 9, 3)])
@pytest.mark.parametrize("referenced", [True, False])
def test_a_seg_that_leaves_out_slices_regularly_is_refused(taken: range, referenced: bool, tmp_path: Path) -> None:
    study = seg_study(square_mask(on=taken))
    if not referenced:
        _forget_sources(study)
    assert code_of(study, tmp_path) == ("refused", "contours_skip_slices")


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [("SpacingBetweenSlices", 5, "contours_skip_slices"), ("SpacingBetweenSlices", -3.02, None),
     ("SliceThickness", 5, "contours_skip_slices"), ("SliceThickness", 3, None), ("SliceThickness", 1, None)],
)  # fmt: skip
def test_what_a_seg_says_of_its_own_slices_counts(keyword: str, value: float, code: str | None, tmp_path: Path) -> None:
    study = seg_study()
    (measures,) = study.rois[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        if name in measures:
            delattr(measures, name)
    setattr(measures, keyword, value)
    outcome = measured(study.write(tmp_path))
    assert (outcome["reason"] and outcome["reason"]["code"]) == code


@pytest.mark.parametrize(("corners", "warned"), [(0.0, True), (0.5, False), (0.25, False)])
def test_contours_through_pixel_centres_are_warned_of(corners: float, warned: bool, tmp_path: Path) -> None:
    square = [(13 + corners, 15 + corners), (13 + corners, 30 + corners), (27 + corners, 30 + corners),
              (27 + corners, 15 + corners)]  # fmt: skip
    outcome = measured(rtstruct_study(lambda _: [square]).write(tmp_path))
    assert any("pixel centre" in warning for warning in outcome["warnings"]) is warned


def test_references_and_coordinates_that_disagree_are_said_to(tmp_path: Path) -> None:
    study = rtstruct_study()
    for item, k in zip(contours_of(study.rois[0]), range(3, 9), strict=True):
        item.ContourImageSequence = contour(study.slices[k + 1], [(0, 0), (0, 1), (1, 1)]).ContourImageSequence
    assert code_of(study, tmp_path) == ("refused", "contour_off_slice")
    message = measured(tmp_path)["reason"]["message"]
    for part in ("6 contours", "3 mm", "--match-by-geometry"):
        assert part in message
    assert measured(tmp_path, match_by_geometry=True)["roi"]["voxels"] == square_mask().sum()


def test_a_made_up_frame_of_reference_can_be_forbidden(tmp_path: Path) -> None:
    study = seg_study()
    _other_frame_of_reference(study)
    (case,) = assemble(scan([study.write(tmp_path)]).headers)
    with pytest.raises(Refused) as refused:
        plan_measurement(case, ROI_RULE, SPEC, settled=True, strict_frame_of_reference=True)
    assert refused.value.reason.code == "frame_of_reference_mismatch"
    assert "strict_frame_of_reference" in refused.value.reason.message
