"""Moved grids: the unmoved one is PyRadiomics' own, and a moved one has the interpolated values."""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics import _kernels, extract, moved

INTERPOLATORS = ["sitkNearestNeighbor", "sitkLinear", "sitkBSpline"]


def spec_of(interpolator: str, new: float) -> ExtractionSpec:
    settings_ = {"resampledPixelSpacing": [new, new, new], "interpolator": interpolator}
    return ExtractionSpec(("original_firstorder_Mean",), settings_)


def case(seed: int, oblique: bool, dtype: Any = np.int16) -> tuple[hd.Volume, Any]:
    random = np.random.default_rng(seed)
    image = (200 * random.standard_normal((9, 24, 26))).astype(dtype)
    z, y, x = np.ogrid[:9, :24, :26]
    mask = ((z - 4) / 3) ** 2 + ((y - 12) / 8) ** 2 + ((x - 12.3) / 9) ** 2 <= 1
    angle = 0.4 if oblique else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.9, 0.83, 2.5])[:, [2, 1, 0]]
    affine[:3, 3] = [-31.0, 12.5, 100.25]
    return hd.Volume(image, affine, coordinate_system="PATIENT"), mask


@given(st.integers(0, 99), st.sampled_from(INTERPOLATORS), st.sampled_from([1.0, 1.3]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_unmoved_grid_is_the_one_that_cases_are_measured_on(
    seed: int, interpolator: str, new: float, oblique: bool
) -> None:
    volume, mask = case(seed, oblique, np.float64)
    expected = extract.place_on_grid(volume, mask, spec_of(interpolator, new))
    z, y, x = (float(step) for step in volume.spacing)
    found = moved.resample(volume.array, mask, (z, y, x), expected.spacing, (0.0, 0.0, 0.0), interpolator)
    assert found.mask.shape == expected.mask.shape
    assert (found.mask != expected.mask).mean() < 2e-3  # ties between two voxels may be resolved differently
    both = found.mask & expected.mask
    close = np.isclose(found.image[both], expected.image[both], atol=1e-6)
    assert close.mean() > (0.95 if interpolator == "sitkNearestNeighbor" else 0.9999)


def test_integers_are_cut_as_the_case_is() -> None:
    for dtype in (np.int16, np.int32):
        volume, mask = case(1, False, dtype)
        expected = extract.place_on_grid(volume, mask, spec_of("sitkLinear", 1.0))
        z, y, x = (float(step) for step in volume.spacing)
        found = moved.resample(volume.array, mask, (z, y, x), expected.spacing, (0.0, 0.0, 0.0), "sitkLinear")
        assert found.image.dtype == dtype
        apart = np.abs(found.image[found.mask].astype(int) - expected.image[expected.mask])
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3


def test_more_slices_before_leave_the_grid_where_it_was() -> None:
    volume, mask = case(2, False, np.float64)
    z, y, x = (float(step) for step in volume.spacing)
    for interpolator in INTERPOLATORS[:2]:
        bare = moved.resample(volume.array, mask, (z, y, x), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), interpolator)
        more = np.concatenate([np.full((2, 24, 26), 5.0), volume.array])
        longer = np.concatenate([np.zeros((2, 24, 26), dtype=bool), mask])
        found = moved.resample(more, longer, (z, y, x), (1.0, 1.0, 1.0), (2.0, 0.0, 0.0), interpolator)
        assert np.array_equal(found.mask, bare.mask)
        assert np.allclose(found.image[found.mask], bare.image[bare.mask])


@pytest.mark.parametrize("interpolator", INTERPOLATORS)
def test_a_shift_by_one_voxel_of_the_grid_changes_nothing(interpolator: str) -> None:
    volume, mask = case(3, False, np.float64)
    z, y, x = (float(step) for step in volume.spacing)
    grids = [
        moved.resample(volume.array, mask, (z, y, x), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), interpolator, moved.Move(shift))
        for shift in ((0.0, 0.0, 0.0), (1.0, -1.0, 2.0), (0.4, 0.0, 0.0))
    ]
    assert grids[0].mask.sum() == grids[1].mask.sum()
    assert np.allclose(np.sort(grids[0].image[grids[0].mask]), np.sort(grids[1].image[grids[1].mask]))
    if interpolator != "sitkNearestNeighbor":
        assert abs(grids[0].image[grids[0].mask].std() / grids[2].image[grids[2].mask].std() - 1) > 1e-4


def test_a_turn_turns_about_the_middle_of_the_region() -> None:
    """An image that is linear in x and y must have the linear value at each turned place."""
    y, x = np.mgrid[:41, :41].astype(float)
    image = np.stack([3 * y + 5 * x] * 5)
    mask = np.zeros(image.shape, dtype=bool)
    mask[1:4, 12:29, 16:25] = True
    angle = np.deg2rad(3)
    found = moved.resample(
        image, mask, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "sitkLinear", moved.Move(turn=float(angle))
    )
    # The middle keeps its value, and the gradient is turned.
    n = found.mask.shape
    gradient = np.array([3, 5])
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    a, b = gradient @ turned
    middle = found.image[2, n[1] // 2 - 2 : n[1] // 2 + 3, n[2] // 2 - 2 : n[2] // 2 + 3]
    assert np.allclose(np.diff(middle, axis=0), a)
    assert np.allclose(np.diff(middle, axis=1), b)
    assert abs(int(found.mask.sum()) - int(mask.sum())) < 30


@given(st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_the_kernel_is_trilinear_and_holds_the_edges(seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.standard_normal((4, 5, 6))
    z, y, x = (random.uniform(-0.5, n - 0.5, size) for n, size in ((4, 3), (5, (4, 5)), (6, (4, 5))))
    mask = random.random((3, 4, 5)) < 0.8
    out = np.full(mask.shape, 7.0)
    _kernels.resample_turned(image, z, y, x, mask, out)
    places = [
        np.broadcast_to(z[:, None, None], mask.shape),
        np.broadcast_to(y, mask.shape),
        np.broadcast_to(x, mask.shape),
    ]
    expected = map_coordinates(image, places, order=1, mode="nearest")
    assert np.allclose(out[mask], expected[mask])
    assert (out[~mask] == 7).all()


@pytest.mark.parametrize("spoilt", ["z", "plane", "mask", "type", "empty"])
def test_the_kernel_refuses_what_does_not_fit(spoilt: str) -> None:
    image, z, plane = np.zeros((3, 4, 5)), np.zeros(2), np.zeros((6, 7))
    mask, out = np.ones((2, 6, 7), dtype=bool), np.zeros((2, 6, 7))
    if spoilt == "z":
        z = np.zeros(3)
    elif spoilt == "plane":
        plane = np.zeros((7, 6))
    elif spoilt == "mask":
        mask = np.ones((2, 6, 8), dtype=bool)
    elif spoilt == "type":
        out = np.zeros((2, 6, 7), dtype=np.int16)
    else:
        image = np.zeros((0, 4, 5))
    with pytest.raises((ValueError, TypeError)):
        _kernels.resample_turned(image, z, plane, plane, mask, out)


def test_the_kernel_survives_places_that_are_no_numbers() -> None:
    out = np.zeros((1, 1, 2))
    y = np.array([[np.nan, np.inf]])
    _kernels.resample_turned(np.arange(24.0).reshape(2, 3, 4), np.array([-np.inf]), y, y, np.ones((1, 1, 2), bool), out)
    assert out.tolist() == [[[0.0, 11.0]]]
