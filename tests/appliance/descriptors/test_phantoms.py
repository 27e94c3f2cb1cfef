"""Ball, ellipsoid, star and ring. Every expected number is derived by hand from the shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from lungstage.appliance.descriptors.describe import describe
from tests.appliance.descriptors.shapes import LUNG, TISSUE, ball, places, ramp, volume_of


class TestBall:
    """Radius 20 mm; HU fall from 40 to −850 over 2 mm."""

    found = describe(*ball(20))

    @pytest.mark.parametrize(
        ("name", "expected", "within"),
        [
            ("long_axis_mm", 40, 0.7), ("short_axis_mm", 40, 0.7), ("diameter_3d_mm", 40, 1.0),
            ("effective_diameter_mm", 40, 0.1), ("volume_mm3", 4 / 3 * np.pi * 20**3, 100),
            ("radial_spread", 0, 0.01), ("irregularity", 0, 0.02), ("components", 1, 0), ("cavity_share", 0, 0),
            ("dense_share", 0, 0), ("air_share", 0, 0), ("edge_offset_mm", 0, 0.15), ("edge_width_mm", 2.0, 0.15),
        ],
    )  # fmt: skip
    def test_size_and_shape(self, name: str, expected: float, within: float) -> None:
        assert self.found[name].value == pytest.approx(expected, abs=within)

    def test_slope(self) -> None:
        # In the plane of a slice at latitude φ the edge falls by cos φ of 890 HU / 2 mm; slices of at least half the
        # largest area reach to sin² φ = 1/2, and their outlines weigh by their length.
        latitude = np.arcsin(np.linspace(-np.sqrt(0.5), np.sqrt(0.5), 20001))
        weight, flattened = np.cos(latitude), np.cos(latitude)
        order = np.argsort(flattened)
        half = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
        expected = 445 * flattened[order][half]
        assert self.found["edge_slope_hu_per_mm"].value == pytest.approx(expected, rel=0.08)

    def test_mean_hu(self) -> None:
        # In the last millimetre HU fall to the middle of the ramp.
        inner = (quad(lambda r: r**2 * (40 - 445 * max(0, r - 19)), 0, 20, points=[19])[0]) / (20**3 / 3)
        assert self.found["mean_hu"].value == pytest.approx(inner, abs=6)

    def test_lung_all_around(self) -> None:
        assert self.found["contact_share"].value == pytest.approx(0, abs=0.01)

    def test_words(self) -> None:
        assert self.found.unfit == ()
        said = {one.definition.name: one.word for one in self.found.found if one.definition.words}
        assert said == {
            "mean_hu": "solid", "radial_spread": "round", "irregularity": "smooth", "margin_sharpness": "sharp",
        }  # fmt: skip

    def test_a_size_at_the_limit_of_a_class_says_so(self) -> None:
        said = {self.found["t_size_class"].value, self.found["t_size_class"].caveats[0].split()[-1].rstrip(".")}
        assert said == {"T2a", "T2b"}


class TestEllipsoid:
    """Half axes 8, 12 and 24 mm along slices, rows and columns, turned by 30° within the slice."""

    z, y, x = places(32)
    along, across = x * np.cos(np.pi / 6) + y * np.sin(np.pi / 6), y * np.cos(np.pi / 6) - x * np.sin(np.pi / 6)
    reach = np.sqrt((z / 8) ** 2 + (across / 12) ** 2 + (along / 24) ** 2)
    found = describe(volume_of(ramp((reach - 1) * 12)), reach <= 1)

    def test_axes(self) -> None:
        assert self.found["long_axis_mm"].value == pytest.approx(48, abs=0.5)
        assert self.found["short_axis_mm"].value == pytest.approx(24, abs=0.5)
        assert self.found["diameter_3d_mm"].value == pytest.approx(48, abs=1)
        assert self.found["volume_mm3"].value == pytest.approx(4 / 3 * np.pi * 8 * 12 * 24, rel=0.01)
        assert self.found["effective_diameter_mm"].value == pytest.approx(2 * (8 * 12 * 24) ** (1 / 3), abs=0.1)

    def test_every_slice_is_an_ellipse_of_2_to_1(self) -> None:
        angle = np.linspace(0, 2 * np.pi, 200001)
        radius = np.hypot(2 * np.cos(angle), np.sin(angle))
        arc = np.hypot(2 * np.sin(angle), np.cos(angle))
        mean = (radius * arc).sum() / arc.sum()
        spread = np.sqrt(((radius - mean) ** 2 * arc).sum() / arc.sum()) / mean
        assert spread == pytest.approx(0.23, abs=0.005)  # the value in the descriptor's docstring
        assert self.found["radial_spread"].value == pytest.approx(spread, abs=0.005)
        assert self.found["irregularity"].value == pytest.approx(0, abs=0.02)
        assert self.found["radial_spread"].word == "not round"


class TestStar:
    """A prism over a star of five points, with radii of 24 mm and 12 mm, 20 mm high."""

    corners = np.array(
        [[r * np.sin(a), r * np.cos(a)] for k in range(10) for r, a in [(24 - k % 2 * 12, k * np.pi / 5)]]
    )
    z, y, x = places(32)

    @classmethod
    def _inside(cls) -> np.ndarray:
        # In each direction from the middle, the star reaches as far as the side between two corners.
        angle = np.mod(np.arctan2(cls.y, cls.x), 2 * np.pi / 5)
        angle = np.minimum(angle, 2 * np.pi / 5 - angle)  # from a point (0) to the notch beside it (π/5)
        side = 24 * 12 * np.sin(np.pi / 5) / (24 * np.sin(angle) + 12 * np.sin(np.pi / 5 - angle))
        return (np.hypot(cls.y, cls.x) <= side) & (np.abs(cls.z) <= 10)

    def test_shape(self) -> None:
        inside = self._inside()
        found = describe(volume_of(np.where(inside, TISSUE, LUNG).astype(np.int16)), inside)
        side = np.hypot(*(self.corners[0] - self.corners[1]))
        perimeter, hull = 10 * side, 5 * 2 * 24 * np.sin(np.pi / 5)
        assert found["irregularity"].value == pytest.approx(1 - hull / perimeter, abs=0.02)
        assert found["irregularity"].word == "irregular"
        assert found["long_axis_mm"].value == pytest.approx(2 * 24 * np.cos(np.pi / 10), abs=1)
        area = 10 * 0.5 * 24 * 12 * np.sin(np.pi / 5)
        height = 1.0 * np.count_nonzero(inside.any(axis=(1, 2)))
        assert found["volume_mm3"].value == pytest.approx(area * height, rel=0.01)
        start, end = self.corners, np.roll(self.corners, -1, axis=0)
        t = np.linspace(0, 1, 2001)[:, None, None]
        radius = np.hypot(*np.moveaxis(start + t * (end - start), -1, 0)).ravel()
        assert found["radial_spread"].value == pytest.approx(radius.std() / radius.mean(), abs=0.02)


class TestRing:
    """A ball of 18 mm radius with gas up to 9 mm. The mask leaves the gas out, as when a person draws the wall."""

    @pytest.mark.parametrize("drawn", ["ring", "whole"])
    def test_the_cavity_is_found_whether_it_is_drawn_or_not(self, drawn: str) -> None:
        z, y, x = places(26)
        r = np.sqrt(z**2 + y**2 + x**2)
        hu = np.where(r < 9, -1000, ramp(r - 18))
        mask = (r <= 18) & ((r > 9) | (drawn == "whole"))
        found = describe(volume_of(hu.astype(np.int16)), mask)
        assert found["cavity_share"].value == pytest.approx((9 / 18) ** 3, abs=0.005)
        # The walls do not make it part-solid, because voxels beside the gas are left out.
        assert found["mean_hu"].word == "solid"
        assert found["solid_share"].value is not None
        assert float(found["solid_share"].value) > 0.8
        assert found["long_axis_mm"].value == pytest.approx(36, abs=0.5)
        assert found["radial_spread"].value == pytest.approx(0, abs=0.01)
        assert found["air_share"].value == 0
        assert "The cavity and the voxels next to it are left out." in found["mean_hu"].caveats
        inside = 4 / 3 * np.pi * (18**3 - (9**3 if drawn == "ring" else 0))
        assert found["volume_mm3"].value == pytest.approx(inside, rel=0.01)


def test_half_of_a_ball_in_the_chest_wall_touches_what_is_not_lung() -> None:
    z, y, x = places(24)
    r = np.sqrt(z**2 + y**2 + x**2)
    hu = np.where(y + 0 * r > 0, TISSUE, ramp(r - 16))
    found = describe(volume_of(hu.astype(np.int16)), r <= 16)
    # Within half a voxel, and the 3 mm beside the wall that also touch it.
    assert found["contact_share"].value == pytest.approx(0.5, abs=0.05)


def test_a_cube_on_a_wall_touches_it_with_a_sixth() -> None:
    hu = np.full((40, 40, 40), LUNG, np.int16)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[10:30, 10:30, 10:30] = True
    hu[mask] = TISSUE
    hu[:, 30:] = TISSUE
    found = describe(volume_of(hu, (1.0, 1.0, 1.0)), mask)
    assert found["contact_share"].value == pytest.approx(1 / 6, abs=1e-12)


def test_calcification_counts_and_a_rib_does_not() -> None:
    volume, mask = ball(15)
    hu = volume.array.copy()
    z, y, x = places(23)
    core = (z**2 + y**2 + x**2) <= 25
    hu[core] = 500
    found = describe(volume_of(hu), mask)
    assert found["dense_share"].value == pytest.approx((5 / 15) ** 3, abs=0.003)
    rib = np.broadcast_to((y > 12) & (np.abs(z) < 4) & (np.abs(x) < 30), hu.shape)
    hu[rib] = 600
    with_rib = describe(volume_of(hu), mask)
    expected = core.sum() / (mask & ~rib).sum()
    assert with_rib["dense_share"].value == pytest.approx(expected, abs=1e-12)
    assert any("is bone" in caveat for caveat in with_rib["mean_hu"].caveats)


def test_voxels_that_mix_gas_with_wall_are_left_out() -> None:
    """A cavity with a blurred edge, as in real scans: only the tissue beyond the edge is measured."""
    z, y, x = places(26)
    r = np.sqrt(z**2 + y**2 + x**2)
    hu = np.minimum(ramp(12 - r, 2.0, TISSUE, -1000), ramp(r - 16))
    found = describe(volume_of(hu), r <= 16)
    tissue = ramp(r - 16)[(r <= 16) & (r > 13)]
    assert found["solid_share"].value == pytest.approx(float((tissue >= -300).mean()), abs=0.02)
    assert found["mean_hu"].value == pytest.approx(float(tissue.mean()), abs=25)


def test_slices_weigh_by_their_area() -> None:
    """Ten slices of a cross and ten of a circle with a quarter of its area: the cross has four times the weight."""
    z, y, x = places(26)
    cross = (np.maximum(np.abs(y), np.abs(x)) <= 15) & (np.minimum(np.abs(y), np.abs(x)) <= 5)
    area = 4 * 15 * 10 - 10 * 10
    circle = np.hypot(y, x) <= np.sqrt(area / 4 / np.pi)
    mask = ((z > -10) & (z <= 0) & cross) | ((z > 0) & (z <= 10) & circle)
    found = describe(volume_of(np.where(mask, TISSUE, LUNG).astype(np.int16)), mask)
    perimeter = 4 * 30  # the cross has the perimeter of the square around it
    hull = 4 * 10 + 4 * np.hypot(10, 10)
    assert found["irregularity"].value == pytest.approx(0.8 * (1 - hull / perimeter), abs=0.02)
