"""Perturbed versions: what they depend on, what is left out and counted, and what they never change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest

from lungstage.appliance.contract.robustness import LeftOut, RobustnessOptions, Unknown
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics import extract
from lungstage.appliance.robustness import images, versions
from lungstage.appliance.robustness.chance import Chance
from lungstage.appliance.robustness.summary import summarise, variation
from lungstage.appliance.robustness.versions import Scan, Surroundings, Versions, perturb

FEATURES = (
    "original_shape_MeshVolume",
    "original_shape_Sphericity",
    "original_firstorder_Mean",
    "original_glcm_Contrast",
)
NATIVE = ExtractionSpec(FEATURES, {"binWidth": 25.0})
RESAMPLED = ExtractionSpec(
    FEATURES, {"binWidth": 25.0, "resampledPixelSpacing": [1.0, 1.0, 1.0], "interpolator": "sitkLinear"}
)
SPACING = (2.5, 0.8, 0.8)
FEW = RobustnessOptions(perturbations=12)
NOISE = 20.0


def tumour(radius: float = 11.0, slices: int = 18, rows: int = 64, at: float | None = None) -> Surroundings:
    """A ball of soft tissue with noise in lung; `at` is its middle slice."""
    shape = (slices, rows, rows)
    middle = (slices - 1) / 2 if at is None else at
    z, y, x = np.ogrid[tuple(map(slice, shape))]
    way = np.sqrt(
        ((z - middle) * SPACING[0]) ** 2 + ((y - rows / 2) * SPACING[1]) ** 2 + ((x - rows / 2) * SPACING[2]) ** 2
    )
    hu = np.where(way <= radius + 1, 30.0, -800.0) + NOISE * np.random.default_rng(3).standard_normal(shape)
    return Surroundings(hu.astype(np.int16), way <= radius, SPACING)


def measured(
    around: Surroundings,
    spec: ExtractionSpec = RESAMPLED,
    options: RobustnessOptions = FEW,
    scans: Sequence[Scan] | None = None,
    own: slice = slice(None),
    **more: Any,
) -> tuple[Versions, npt.NDArray[np.float64]]:
    """The versions and the features of the case itself; the slices `own` are its reference volume."""
    affine = np.diag([0.8, 0.8, 2.5, 1.0])[:, [2, 1, 0, 3]]
    volume = hd.Volume(around.image[own], affine, coordinate_system="PATIENT")
    roi = extract.place_on_grid(volume, around.mask[own], spec)
    found = perturb(around, roi, spec, options, *([] if scans is None else [scans]), **more)
    return found, extract.compute(roi, spec).values


@pytest.mark.parametrize("spec", [NATIVE, RESAMPLED])
def test_versions_lie_around_the_case_and_repeat_themselves(spec: ExtractionSpec) -> None:
    found, values = measured(tumour(), spec)
    again, _ = measured(tumour(), spec)
    assert found.values.shape == (12, 4)
    assert found.values.tobytes() == again.values.tobytes()
    volume, roundness = found.values[:, 0] / values[0], found.values[:, 1]
    assert volume.min() < 0.95 < 1.05 < volume.max()
    assert (roundness < values[1]).mean() > 0.8  # no other contour of a ball is rounder
    assert ((found.dice >= 0.8) & (found.dice < 1)).all()
    assert (found.unknown, found.fewer, found.left_out) == (None, 0, {})
    assert found.noise_hu == pytest.approx(NOISE, rel=0.15)


def test_they_follow_from_pixels_region_and_distance() -> None:
    around = tumour()
    first, _ = measured(around)
    pixels = around.image.copy()
    pixels[9, 32, 32] += 1
    for other in (
        measured(replace(around, image=pixels))[0],
        measured(around, options=replace(FEW, contour_mm=2.0))[0],
        measured(tumour(10.9))[0],
    ):
        assert not np.array_equal(other.values[:, 0], first.values[:, 0])


@pytest.mark.parametrize("spec", [NATIVE, RESAMPLED])
def test_slices_beyond_change_no_version_that_is_measured_without_them(spec: ExtractionSpec) -> None:
    """Such a version keeps its random numbers and its grid."""
    whole = tumour(slices=18)
    own = slice(3, 15)  # the region lies within these slices
    assert np.flatnonzero(whole.mask.any(axis=(1, 2)))[[0, -1]].tolist() == [5, 12]
    cut = replace(whole, image=whole.image[own], mask=whole.mask[own])
    short = slice(5 - spec.margin_slices, 13 + spec.margin_slices)
    bare = replace(whole, image=whole.image[short], mask=whole.mask[short])
    with_all, _ = measured(replace(whole, before=short.start), spec, own=short)
    with_some, _ = measured(
        replace(cut, before=short.start - own.start), spec, own=slice(short.start - 3, short.stop - 3)
    )
    without, _ = measured(bare, spec)
    assert np.allclose(with_all.values, with_some.values, rtol=1e-3)  # an HU may be rounded differently
    assert np.array_equal(with_all.values[:, :2], with_some.values[:, :2])
    assert with_all.left_out == {}
    assert 0 < without.left_out[LeftOut.SLICES] == len(with_all.values) - len(without.values)
    assert set(without.values[:, 0].tolist()) <= set(with_all.values[:, 0].tolist())


def test_what_reaches_beyond_image_or_measured_pixels_is_left_out_and_counted() -> None:
    around = tumour(rows=64)
    edge = 32 - int(11 / 0.8)
    cropped = replace(around, image=around.image[:, edge:], mask=around.mask[:, edge:])
    found, _ = measured(cropped)
    assert found.left_out[LeftOut.EDGE] > 0
    assert len(found.values) + found.left_out[LeftOut.EDGE] == 12
    unmeasured = np.zeros(around.mask.shape, dtype=bool)
    unmeasured[:, :edge] = True
    found, _ = measured(replace(around, unmeasured=unmeasured))
    assert found.left_out[LeftOut.UNMEASURED] > 0


def test_at_the_end_of_a_series_versions_go_as_far_as_the_region_itself() -> None:
    around = tumour(at=3.0)
    assert around.mask[0].any()
    found, _ = measured(around)
    assert 0 < found.left_out[LeftOut.SLICES] < 12


def test_a_plain_word_where_nothing_can_be_said() -> None:
    around = tumour()
    only = np.zeros_like(around.mask)
    only[9] = around.mask[9]
    assert measured(replace(around, mask=only))[0].unknown is Unknown.ONE_SLICE
    flat = np.where(around.mask, 30, around.image).astype(np.int16)
    assert measured(replace(around, image=flat), NATIVE)[0].unknown is Unknown.FLAT
    small = np.zeros_like(around.mask)
    small[8:10, 30:34, 30:34] = True
    assert small.sum() == 32
    found, _ = measured(replace(around, mask=small))
    assert (found.unknown, found.values.shape) == (Unknown.TOO_SMALL, (0, 4))


def test_of_a_huge_region_fewer_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    around = tumour()
    monkeypatch.setattr(versions, "MOST_VOXELS", 1000)
    found, _ = measured(around, options=RobustnessOptions(perturbations=12))
    assert (len(found.values), found.fewer) == (versions.FEWEST, 12 - versions.FEWEST)


class TestScans:
    around = tumour()

    def rows(self, scan: Scan, spec: ExtractionSpec = RESAMPLED) -> tuple[Any, Any]:
        found, values = measured(self.around, spec, scans=[scan], drawn_anew=False)
        return found.values, values

    def test_noise_alone_changes_texture_and_not_the_shape(self) -> None:
        found, values = self.rows(Scan.NOISE)
        assert np.allclose(found[:, :2], values[:2])
        assert (found[:, 3] > 1.03 * values[3]).all()
        assert np.abs(found[:, 2] - values[2]).max() < 1

    @pytest.mark.parametrize("scan", [Scan.SHIFT, Scan.TURN])
    def test_another_grid_changes_all_of_it_a_little(self, scan: Scan) -> None:
        found, values = self.rows(scan)
        assert (found.std(axis=0) > 0).all()
        assert np.allclose(found[:, :2], values[:2], rtol=0.06)
        assert np.abs(found[:, 2] - values[2]).max() < 10

    def test_where_nothing_is_resampled_the_grid_stays(self) -> None:
        found, values = self.rows(Scan.SHIFT, NATIVE)
        assert np.allclose(found, values)

        moved, _ = measured(self.around, NATIVE, scans=[Scan.SHIFT], drawn_anew=False, move_grids=True)
        assert (moved.values[:, 3] != values[3]).all()

    def test_with_a_spline_a_turn_is_a_shift(self) -> None:
        spline = replace(RESAMPLED, settings={**RESAMPLED.settings, "interpolator": "sitkBSpline"})
        assert np.array_equal(self.rows(Scan.TURN, spline)[0], self.rows(Scan.SHIFT, spline)[0])


class TestNoise:
    def test_is_measured_where_it_is_homogeneous(self) -> None:
        random = np.random.default_rng(5)
        image = 40 + 25 * random.standard_normal((6, 120, 120))
        image[:, :, 40:] -= 850 * (np.arange(80) % 20 < 3)  # inverted vessels
        assert images.noise_level(image.astype(np.int16)) == pytest.approx(25, rel=0.12)

    def test_is_not_known_of_lung_alone(self) -> None:
        assert images.noise_level(np.full((6, 60, 60), -800, dtype=np.int16)) is None

    def test_keeps_the_pixel_type_and_its_ends(self) -> None:
        image = np.full((2, 50, 50), 32760, dtype=np.int16)
        noisy = images.with_noise(image, 30 * Chance(b"").normal(2, 50, 50))
        assert noisy.dtype == np.int16
        assert noisy.max() == 32767
        assert images.with_noise(image.astype(np.float64), np.full(image.shape, 0.5))[0, 0, 0] == 32760.5


class TestSummary:
    versions = Versions(np.array([[1.0, 0.0], [2.0, 1e-3], [3.0, -1e-3]]), np.ones(3), {LeftOut.EDGE: 1})

    def of(self, unperturbed: float, alike: list[bool], asked: int = 4, **more: Any) -> Any:
        found = replace(self.versions, **more)
        return summarise(found, ["a", "b"], unperturbed, np.array([0.4, 0.5, 0.6]), alike, asked, (1, 2))

    def test_range_is_widened_to_hold_the_case_itself(self) -> None:
        low, high = self.of(0.5, [True] * 3).range
        assert (low, high) == (pytest.approx(0.405), pytest.approx(0.595))
        assert self.of(0.3, [True] * 3).range == (0.3, pytest.approx(0.595))
        assert self.of(0.9, [True] * 3).range == (pytest.approx(0.405), 0.9)

    def test_agreement_and_its_limit(self) -> None:
        assert self.of(0.5, [True, False, True]).agreement == pytest.approx(2 / 3)
        assert self.of(0.5, [True, False, True]).is_robust is False
        assert self.of(0.5, [True] * 3).is_robust is True

    def test_nothing_is_made_up(self) -> None:
        found = self.of(0.5, [True] * 3, asked=7)
        assert (found.range, found.agreement, found.unknown, found.is_robust) == (None, None, Unknown.TOO_FEW, None)
        known = self.of(0.5, [], unknown=Unknown.FLAT).as_dict()
        assert (known["range"], known["agreement"], known["unknown"], known["code"]) == (None, None, "flat", None)

    def test_variation(self) -> None:
        assert variation(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.5)
        assert variation(np.array([-1.0, -2.0, -3.0])) == pytest.approx(0.5)
        assert variation(np.array([5.0, 5.0])) == 0.0
        assert variation(np.array([0.0, 0.0])) == 0.0
        assert variation(np.array([-1.0, 1.0, 0.1])) is None  # not defined for values around zero
        assert variation(np.array([np.nan, np.nan, 1.0])) is None
        assert variation(np.array([np.nan, 1.0, 2.0, 3.0])) == pytest.approx(0.5)
