"""Axes agree with brute force, classes are right at their limits, growth agrees with hand-made figures."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.descriptors.outline import area, hull, length, outlines
from lungstage.appliance.descriptors.size import axes, growth, t_size_class
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics.parameters import read
from lungstage.appliance.staging.one_shot import Options, measure_paths
from tests.appliance.descriptors.shapes import volume_of

masks = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((2, 7, 9)) < 0.55)
DAY = datetime.date(2024, 3, 1)


@settings(max_examples=60, deadline=None)
@given(masks, st.floats(0.4, 1.2), st.floats(0.4, 1.2))
def test_outlines_enclose_the_mask_and_nothing_else(mask: np.ndarray, row: float, column: float) -> None:
    found = outlines(mask, (1.0, row, column))
    inside = np.zeros(mask.shape, dtype=int)
    for one in found:
        start, end = one.points, np.roll(one.points, -1, axis=0)
        for place in np.ndindex(mask.shape[1:]):
            y, x = place[0] * row, place[1] * column
            crosses = (start[:, 0] > y) != (end[:, 0] > y)
            with np.errstate(divide="ignore", invalid="ignore"):
                at = start[:, 1] + (y - start[:, 0]) / (end[:, 0] - start[:, 0]) * (end[:, 1] - start[:, 1])
            winding = np.sign(end[:, 0] - start[:, 0])[crosses & (at > x)].sum()
            inside[one.slice][place] += int(winding)
    assert set(np.unique(inside[mask])) <= {1, -1}
    assert not inside[~mask].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_hull_is_that_of_qhull(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count, 2))
    other = ConvexHull(points)
    assert length(hull(points)) == pytest.approx(other.area, rel=1e-12)
    assert abs(area(hull(points))) == pytest.approx(other.volume, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(masks)
def test_axes_are_those_of_brute_force(mask: np.ndarray) -> None:
    mask[0, 3, 4] = True
    lines = outlines(mask, (2.0, 0.7, 0.7))
    found = axes(lines)
    longest = max(pdist(one.smooth).max() for one in lines if not one.is_hole)
    assert found.long == pytest.approx(longest, rel=1e-12)
    assert found.short <= found.long * (1 + 1e-12)


def test_short_axis_is_a_line_within_the_outline_and_no_shadow() -> None:
    """A parallelogram: its projection across the long axis is longer than any line inside it at right angles."""
    y, x = np.mgrid[0:120, 0:160] * 0.5
    mask = ((y > 10) & (y < 40) & (x - 0.5 * y > 10) & (x - 0.5 * y < 50))[None]
    found = axes(outlines(mask, (1.0, 0.5, 0.5)))
    corners = np.array([[10, 15], [10, 55], [40, 70], [40, 30]], dtype=float)
    long = corners[2] - corners[0]
    assert found.long == pytest.approx(np.hypot(*long), abs=1.2)  # voxels make sharp corners round
    # The longest line across starts at a corner that is not on the long axis, and ends on the long axis' other side.
    unit = long / np.hypot(*long)
    across = np.array([-unit[1], unit[0]])
    reach = []
    for corner in corners:
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            run = (b - a) @ unit
            if abs(run) > 1e-9 and 0 <= (t := (corner - a) @ unit / run) <= 1:
                reach.append(abs((a + t * (b - a) - corner) @ across))
    assert found.short == pytest.approx(max(reach), abs=1.2)
    assert found.short < np.ptp(corners @ across) - 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (3, "T1a"), (10.49, "T1a"), (10.5, "T1b"), (20, "T1b"), (21, "T1c"), (30.4, "T1c"), (30.6, "T2a"), (40, "T2a"),
        (41, "T2b"), (50, "T2b"), (51, "T3"), (70, "T3"), (70.5, "T4"), (150, "T4"),
    ],
)  # fmt: skip
def test_class_of_t_by_size_alone(size: float, expected: str) -> None:
    assert t_size_class(size) == expected


class TestGrowth:
    def test_twice_the_volume_doubles_in_the_time_between(self) -> None:
        found = growth(500, DAY, 1000, DAY + datetime.timedelta(days=90))
        assert found.doubling_time_days == pytest.approx(90)
        assert found.reason is None

    def test_three_doublings(self) -> None:
        assert growth(100, DAY, 800, DAY + datetime.timedelta(300)).doubling_time_days == pytest.approx(100)

    def test_shrinking_is_negative(self) -> None:
        assert growth(1000, DAY, 500, DAY + datetime.timedelta(60)).doubling_time_days == pytest.approx(-60)

    @pytest.mark.parametrize("later", [1000, 1249, 751])
    def test_within_the_error_of_measurement_nothing_is_said(self, later: float) -> None:
        found = growth(1000, DAY, later, DAY + datetime.timedelta(60))
        assert found.doubling_time_days is None
        assert "within the error of measurement" in str(found.reason)

    def test_of_one_day(self) -> None:
        assert growth(1000, DAY, 2000, DAY).reason == "Both examinations are of the same day."

    @pytest.mark.parametrize("volumes", [(0, 5), (5, -1), (5, float("inf")), (float("nan"), 5)])
    def test_of_no_volume(self, volumes: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="positive"):
            growth(volumes[0], DAY, volumes[1], DAY)

    def test_backwards(self) -> None:
        with pytest.raises(ValueError, match="after"):
            growth(5, DAY, 6, DAY - datetime.timedelta(1))


# --- real lungs ------------------------------------------------------------------------------------------------------

LUNGS = {"ibsi": "ibsi/ct_phantom/dicom", "lung1-001": "dicom/lung1-001-slab"}


@pytest.mark.parametrize("patient", LUNGS)
def test_real_tumours_against_itk(patient: str, shared_data: Path, tmp_path: Path) -> None:
    """Sizes and densities agree with SimpleITK's label statistics, axes with all pairs of border voxels."""
    answer = measure_paths([shared_data / LUNGS[patient]], ROI_RULE, read("all"), Options(save_volume=tmp_path))
    assert answer["status"] == "measured", answer["reason"]
    image, label = (sitk.ReadImage(str(tmp_path / name)) for name in ("image.nii.gz", "mask.nii.gz"))
    hu, mask = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label).astype(bool)
    x, y, z = image.GetSpacing()
    found = describe(volume_of(hu, (z, y, x)), mask)

    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputeFeretDiameterOn()
    shape.Execute(label)
    assert found["volume_mm3"].value == pytest.approx(shape.GetPhysicalSize(1), rel=1e-6)
    assert found["effective_diameter_mm"].value == pytest.approx(2 * shape.GetEquivalentSphericalRadius(1), rel=1e-6)
    assert found["diameter_3d_mm"].value == pytest.approx(shape.GetFeretDiameter(1), abs=max(x, z))
    by_slice = [pdist(np.argwhere(plane) * (y, x)).max() for plane in _borders(mask) if plane.sum() > 1]
    assert found["long_axis_mm"].value == pytest.approx(max(by_slice), abs=1.5 * x)
    assert found["components"].value == sitk.GetArrayViewFromImage(sitk.ConnectedComponent(label, True)).max()
    statistics = sitk.LabelIntensityStatisticsImageFilter()
    statistics.Execute(label, image)
    if not found["cavity_share"].value and not any("bone" in caveat for caveat in found["mean_hu"].caveats):
        assert found["mean_hu"].value == pytest.approx(statistics.GetMean(1), abs=1e-3)
    assert answer["features"]["original_shape_Maximum3DDiameter"] == pytest.approx(found["diameter_3d_mm"].value)
    for one in found.found:
        assert (one.value is not None) or one.reason


def _borders(mask: np.ndarray) -> np.ndarray:
    inner = mask.copy()
    for axis in (1, 2):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask & ~inner
