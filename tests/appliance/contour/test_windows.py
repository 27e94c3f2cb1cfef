"""The window around a prompt, and the way back to the voxels of the CT."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contour.windows import MARGIN_MM, MOST, MULTIPLE, SHORTEST, Window, bring_back, covered, sample


def volume(
    shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), turn: float = 0.0
) -> hd.Volume:
    """A CT with voxel (0, 0, 0) at 0, turned about the patient's z axis; HU = x + 2y + 4z."""
    cos, sin = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        np.array((0, 0, spacing[0])), spacing[1] * np.array((-sin, cos, 0)), spacing[2] * np.array((cos, sin, 0)),
    )  # fmt: skip
    x, y, z = places(shape, affine)
    return hd.Volume((x + 2 * y + 4 * z).astype(np.float32), affine, coordinate_system="PATIENT")


def places(shape: tuple[int, int, int], affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    moved: npt.NDArray[np.float64] = np.einsum("ij,jabc->iabc", affine[:3, :3], index) + affine[:3, 3, None, None, None]
    return moved


@pytest.mark.parametrize("turn", [0.0, 0.3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (0.5, 1.25, 1.25)])
def test_sampling_there_and_back_is_right_at_every_voxel(spacing: tuple[float, float, float], turn: float) -> None:
    ct = volume((60, 160, 160), spacing, turn)
    centre = tuple((ct.affine @ (30, 80, 80, 1))[:3])
    window = Window.around(centre, 10.0, ct.get_geometry())
    seen = sample(ct, window)
    z, y, x = np.meshgrid(*reversed(window.axes), indexing="ij")
    at = np.linalg.inv(ct.affine) @ np.stack([x.ravel(), y.ravel(), z.ravel(), np.ones(x.size)])
    known = ((at[:3] >= 0) & (at[:3] <= np.array(ct.spatial_shape)[:, None] - 1)).all(axis=0).reshape(seen.shape)
    assert known.mean() > 0.3
    np.testing.assert_allclose(seen[known], (x + 2 * y + 4 * z)[known], atol=1e-2)
    back = bring_back(seen, window, ct.get_geometry())
    away = np.linalg.norm(places(ct.spatial_shape, ct.affine) - np.array(centre)[:, None, None, None], axis=0)
    near = away < 12
    assert near.sum() > 1000
    np.testing.assert_allclose(back[near], np.asarray(ct.array)[near], atol=1e-2)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(10, 200), st.integers(64, 200), st.integers(64, 200)),
    st.sampled_from([0.5, 1.0, 2.5, 5.0]), st.floats(3, 100), st.tuples(*[st.floats(0, 1)] * 3),
)  # fmt: skip
def test_a_window_shows_the_tumour_and_nothing_outside_of_the_ct(
    shape: tuple[int, int, int], step: float, reach: float, share: tuple[float, float, float]
) -> None:
    grid = hd.VolumeGeometry(np.diag([1.0, 1.0, step, 1.0])[:, [2, 1, 0, 3]], shape, coordinate_system="PATIENT")
    ends = np.array([shape[2] - 1, shape[1] - 1, (shape[0] - 1) * step])
    centre = tuple(np.array(share) * ends)
    window = Window.around(centre, reach, grid)
    assert window.spacing >= 1
    for axis, middle, end in zip(window.axes, centre, ends, strict=True):
        assert len(axis) % MULTIPLE == 0
        assert SHORTEST <= len(axis) <= MOST
        if end >= SHORTEST * window.spacing:
            assert axis[0] >= -1e-6
            assert axis[-1] <= end + 1e-6
        assert axis[0] - window.spacing <= middle <= axis[-1] + window.spacing
        wanted = reach + MARGIN_MM
        if middle - wanted >= 0 and middle + wanted <= end - MULTIPLE * window.spacing:
            assert axis[0] <= middle - reach
            assert axis[-1] >= middle + reach
    box = covered(grid, window)
    assert all(0 <= one.start < one.stop <= size for one, size in zip(box, shape, strict=True))


def test_beyond_a_short_ct_its_last_slice_is_repeated() -> None:
    ct = volume((10, 96, 96))
    window = Window.around((48.0, 48.0, 5.0), 10.0, ct.get_geometry())
    assert window.sides[2] == SHORTEST
    seen = sample(ct, window)
    depth = window.axes[2]
    beyond = seen[depth > 9]
    assert len(beyond) > 5
    assert (beyond == beyond[0]).all()
