"""Pictures of the tumour have the right direction and size, and the outline is around the region."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.report.key_views import EMPTY, LUNG, PIXELS, SOFT_TISSUE, KeyView, key_views
from lungstage.appliance.report.segmentation import enclosed_area, key_slice

SPACING = (3.0, 0.8, 0.8)


def patient(shape: tuple[int, int, int] = (20, 90, 100)) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64]]:
    """Voxels get brighter to the left, less to the back and least to the head; slices go from feet to head."""
    z, y, x = np.indices(shape)
    hu = (-1000 + 8 * x + 2 * y + 1 * z).astype(np.int16)
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING
    return hu, affine


def ball(shape: tuple[int, int, int] = (20, 90, 100)) -> npt.NDArray[np.bool_]:
    z, y, x = np.indices(shape)
    mask: npt.NDArray[np.bool_] = ((z - 9) * 3.0) ** 2 + ((y - 40) * 0.8) ** 2 + ((x - 55) * 0.8) ** 2 < 15**2
    return mask


def reoriented(
    hu: npt.NDArray[np.int16], affine: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_], flips: tuple[bool, ...]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The same patient, stored with some axes reversed."""
    turned = affine.copy()
    for axis, flip in enumerate(flips):
        if flip:
            turned[:3, 3] += turned[:3, axis] * (hu.shape[axis] - 1)
            turned[:3, axis] *= -1
            hu, mask = np.flip(hu, axis), np.flip(mask, axis)
    return hu, turned, mask


@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_however_the_slices_are_stored_the_picture_is_the_same(flips: tuple[bool, ...]) -> None:
    hu, affine = patient()
    usual, turned = key_views(hu, affine, ball()), key_views(*reoriented(hu, affine, ball(), flips))
    for one, other in zip(usual.views, turned.views, strict=True):
        assert one.letters == other.letters
        # If planes have equally many voxels, the first in the file is used. So a picture may be of a plane nearby;
        # a mirrored picture would differ by a hundred.
        assert np.abs(one.pictures[0].astype(int) - other.pictures[0]).max() <= 8


def slopes(view: KeyView) -> tuple[float, float]:
    """How much brighter the picture gets to the right, and downwards."""
    inner = view.pictures[0][100:150, 100:150].astype(float)
    return float(np.diff(inner, axis=1).mean()), float(np.diff(inner, axis=0).mean())


def test_right_is_on_the_left_and_the_head_is_up() -> None:
    hu, affine = patient()
    axial, coronal, sagittal = key_views(hu, affine, ball()).views
    assert (axial.letters, coronal.letters, sagittal.letters) == (
        ("R", "L", "A", "P"), ("R", "L", "H", "F"), ("A", "P", "H", "F"),
    )  # fmt: skip
    assert slopes(axial)[0] > 0  # the brighter left side is on the right
    assert slopes(axial)[1] > 0  # the back is below
    assert slopes(coronal)[1] < 0  # the head is up
    assert slopes(sagittal)[0] > 0  # the back is on the right
    assert slopes(sagittal)[1] < 0


def test_the_axial_picture_is_the_report_s_key_slice() -> None:
    hu, affine = patient()
    marked = np.full_like(hu, -1000)
    marked[key_slice(ball())] = 400
    axial = key_views(marked, affine, ball()).views[0]
    assert axial.pictures[0][PIXELS // 2, PIXELS // 2] == 255


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.4, 1.6), st.floats(0.5, 5.0))
def test_outlines_enclose_the_region_in_its_own_plane(seed: int, pixel: float, step: float) -> None:
    """Signed areas of outlines and holes, as shares of the picture, add up to the area of the region."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((9, 24, 22), dtype=bool)
    mask[2:7, 5:18, 4:16] = rng.random((5, 13, 12)) < 0.8
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[2, 0], affine[1, 1], affine[0, 2] = step, pixel, pixel
    found = key_views(np.zeros(mask.shape, dtype=np.int16), affine, mask)
    axial = found.views[0]
    area = sum(enclosed_area(np.array(outline)) for outline in axial.outlines) * found.side**2
    assert area == pytest.approx(np.count_nonzero(mask[key_slice(mask)]) * pixel**2, rel=1e-6)


def test_the_scale_bar_fits_and_the_whole_tumour_is_seen() -> None:
    hu, affine = patient()
    found = key_views(hu, affine, ball())
    assert 0 < found.scale < found.side / 2
    for view in found.views:
        corners = np.array([corner for outline in view.outlines for corner in outline])
        assert corners.min() > 0.05
        assert corners.max() < 0.95


def test_what_was_not_measured_stays_empty_and_what_was_is_not_mistaken_for_it() -> None:
    hu, affine = patient((9, 90, 100))
    coronal = key_views(hu, affine, ball()[5:14]).views[1]
    assert (coronal.pictures[0][:10] == EMPTY).all()
    assert (coronal.pictures[1][:10] == EMPTY).all()
    assert not (coronal.pictures[1][120:136] == EMPTY).any()


@pytest.mark.parametrize("where", [(0, 0, 0), (0, 45, 99), (4, 89, 0)])
def test_a_tumour_of_one_voxel_in_a_corner_is_drawn(where: tuple[int, int, int]) -> None:
    mask = np.zeros((5, 90, 100), dtype=bool)
    mask[where] = True
    hu, affine = patient((5, 90, 100))
    for view in key_views(hu, affine, mask).views:
        assert len(view.outlines) == 1
        assert all(picture.shape == (PIXELS, PIXELS) for picture in view.pictures)


def test_one_slice_alone_is_a_volume_too() -> None:
    hu, affine = patient((1, 90, 100))
    mask = np.zeros((1, 90, 100), dtype=bool)
    mask[0, 30:50, 40:70] = True
    assert len(key_views(hu, affine, mask).views) == 3


def test_values_that_are_no_whole_hu_and_such_far_beyond_a_window_are_drawn() -> None:
    _, affine = patient()
    hu = np.full((20, 90, 100), 1e30)
    hu[:, :, :50] = -1e30
    picture = key_views(hu, affine, ball()).views[0].pictures[0]
    assert {0, 255} <= set(np.unique(picture).tolist())


def test_windows_have_the_level_in_the_middle() -> None:
    for window in (LUNG, SOFT_TISSUE):
        edges = np.array([window.level - window.width, window.level, window.level + window.width], dtype=np.float32)
        assert window.apply(edges).tolist() == [0, 128, 255]
