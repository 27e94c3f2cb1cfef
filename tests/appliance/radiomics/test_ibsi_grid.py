"""IBSI's grid, mask and bins follow the definitions of the reference manual on any volume; and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from radiomics import featureextractor, imageoperations
from scipy import ndimage
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.radiomics import grid, ibsi, parameters
from lungstage.appliance.radiomics.compiled import bin_edges
from lungstage.appliance.radiomics.extract import extract, place_on_grid
from lungstage.appliance.radiomics.grid import MeasurableRoi
from tests.appliance.radiomics.test_extract import assert_equal, volume_of

SPACINGS = [0.5, 0.7, 0.9765625, 1.0, 1.1, 2.0, 2.5, 3.0, 5.0]
NO_SHAPE = tuple(name for name in ALL_FEATURES if "_shape_" not in name)


def resampled(hu: np.ndarray, mask: np.ndarray, old: Any, new: Any) -> MeasurableRoi:
    """Resample; `old` is (z, y, x), `new` is (x, y, z) as in a parameter file."""
    return ibsi.resample(volume_of(hu, old), mask, grid.bounds(mask)[1], new)


def cut(roi: MeasurableRoi) -> MeasurableRoi:
    return grid.crop(roi, grid.bounds(roi.mask)[1])


def assert_same(one: MeasurableRoi, other: MeasurableRoi) -> None:
    """Require the same region with the same HU; the surroundings may differ."""
    one, other = cut(one), cut(other)
    assert one.spacing == other.spacing
    assert np.array_equal(one.mask, other.mask)
    assert np.array_equal(one.image[one.mask], other.image[other.mask])


@st.composite
def volumes(draw: st.DrawFn, fractions: bool = True) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """HU, a mask that is not empty, and a spacing (z, y, x)."""
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hu = random.integers(-1024, 3072, size=shape).astype(np.int16)
    if fractions and draw(st.booleans()):
        hu = hu + random.random(shape)
    mask = random.random(shape) < draw(st.sampled_from([0.2, 0.6, 1.0]))
    mask[tuple(n // 2 for n in shape)] = True
    return hu, mask, tuple(draw(st.sampled_from(SPACINGS)) for _ in range(3))


spacings = st.tuples(*[st.sampled_from([0, *SPACINGS])] * 3)
lines = st.tuples(st.integers(1, 512), st.sampled_from(SPACINGS), st.sampled_from(SPACINGS))


# --- the grid -----------------------------------------------------------------------------------------------------


def test_the_manual_s_own_example() -> None:
    """QCY4: four voxels of 3 mm become six of 2 mm, which begin half a millimetre before the first."""
    assert ibsi.centred(4, 3.0, 2.0) * 3.0 == pytest.approx([-0.5, 1.5, 3.5, 5.5, 7.5, 9.5])


@given(lines)
@settings(deadline=None)
def test_a_line_is_symmetric_about_its_centre_and_as_long_as_the_manual_has_it(line: tuple[int, float, float]) -> None:
    size, old, new = line
    places = ibsi.centred(size, old, new)
    extent = size * Fraction(str(old)) / Fraction(str(new))
    assert len(places) == max(1, math.ceil(extent - Fraction(1, 1000)))
    assert places + places[::-1] == pytest.approx(np.full(len(places), size - 1), abs=1e-9)
    assert np.diff(places) == pytest.approx(np.full(len(places) - 1, new / old))
    assert -0.5 < places[0] <= places[-1] < size - 0.5, "all places lie within the faces of the outermost voxels"


@pytest.mark.parametrize(("size", "old", "new"), [(10, 0.3, 0.1), (512, 1.1, 0.1), (512, 0.7, 0.35), (300, 0.9, 0.3)])
def test_what_rounding_adds_is_no_voxel(size: int, old: float, new: float) -> None:
    exact = size * Fraction(str(old)) / Fraction(str(new))
    assert exact.denominator == 1
    for spacing in (old, float(np.float32(old))):
        assert len(ibsi.centred(size, spacing, new)) == exact


@given(volumes(), st.lists(st.booleans(), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_same_spacing_is_the_identity(case: Any, kept: list[bool]) -> None:
    """The same spacing is given as 0 or in mm; fractions of an HU stay, because nothing is interpolated."""
    hu, mask, spacing = case
    new = tuple(0 if zero else v for zero, v in zip(kept, spacing[::-1], strict=True))
    roi = resampled(hu, mask, spacing, new)
    assert roi.spacing == spacing
    assert np.array_equal(roi.image, hu)
    assert np.array_equal(roi.mask, mask)


@given(volumes(), spacings)
@settings(max_examples=150, deadline=None)
def test_linear_interpolation_by_another_hand(case: Any, new: tuple[float, float, float]) -> None:
    """SciPy on the whole grid: rounded HU, boundary values beyond the outermost centres, mask from 0.5 on."""
    hu, mask, spacing = case
    target = tuple(was if v == 0 else float(v) for v, was in zip(new[::-1], spacing, strict=True))
    assume(target != spacing)
    places = [ibsi.centred(n, old, now) for n, old, now in zip(hu.shape, spacing, target, strict=True)]
    points = np.meshgrid(*places, indexing="ij")
    inside = ndimage.map_coordinates(mask.astype(float), points, order=1, mode="nearest").round(6) >= 0.5
    values = ndimage.map_coordinates(hu.astype(float), points, order=1, mode="nearest").round(6)
    roi = resampled(hu, mask, spacing, new)
    assert roi.spacing == target
    assert roi.image.dtype == hu.dtype
    assert roi.mask.sum() == inside.sum()
    if inside.any():
        assert_same(roi, MeasurableRoi(np.rint(values).astype(hu.dtype), inside, target))


@given(volumes(), spacings, st.sets(st.integers(0, 2)))
@settings(max_examples=100, deadline=None)
def test_a_mirrored_image_gives_the_mirrored_answer(case: Any, new: Any, axes: set[int]) -> None:
    hu, mask, spacing = case
    flip = tuple(axes)
    roi = resampled(hu, mask, spacing, new)
    assume(roi.mask.any())
    mirrored = resampled(np.flip(hu, flip), np.flip(mask, flip), spacing, new)
    assert_same(MeasurableRoi(np.flip(mirrored.image, flip), np.flip(mirrored.mask, flip), mirrored.spacing), roi)


@given(volumes(), spacings)
@settings(max_examples=60, deadline=None)
def test_every_slice_is_interpolated_by_itself_where_slices_are_kept(case: Any, new: Any) -> None:
    """Bilinear, as in configuration B."""
    hu, mask, spacing = case
    new = (*new[:2], 0)
    whole = resampled(hu, mask, spacing, new)
    first = grid.bounds(mask)[1][0].start if whole.image.shape != hu.shape else 0
    for k, (image, inside) in enumerate(zip(whole.image, whole.mask, strict=True), start=first):
        if not mask[k].any():
            assert not inside.any()
            continue
        alone = resampled(hu[k : k + 1], mask[k : k + 1], spacing, new)
        assert alone.mask.sum() == inside.sum()
        if inside.any():
            assert_same(MeasurableRoi(image[None], inside[None], whole.spacing), alone)


@given(volumes(), spacings, st.integers(0, 6), st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_a_crop_alike_at_both_ends_changes_nothing_but_the_parity(case: Any, new: Any, more: int, axis: int) -> None:
    """By the manual's formula, a grid with one voxel more or less is moved by half a voxel."""
    hu, mask, spacing = case
    target = spacing[axis] if new[2 - axis] == 0 else float(new[2 - axis])
    # At least the voxel around the region that interpolation uses.
    widths = [(1, 1)] * 3
    hu, mask = np.pad(hu, widths, mode="edge"), np.pad(mask, widths)
    widths[axis] = (1 + more, 1 + more)
    larger_hu, larger_mask = np.pad(hu, widths, mode="edge"), np.pad(mask, widths)
    for k in (k for k in range(3) if k != axis):  # the same along the other axes
        keep = [slice(None)] * 3
        keep[k] = slice(1, -1)
        larger_hu, larger_mask = larger_hu[tuple(keep)], larger_mask[tuple(keep)]
    few, many = (ibsi.centred(n, spacing[axis], target) for n in (mask.shape[axis], larger_mask.shape[axis]))
    shift = few[0] + 1 + more - many
    step = target / spacing[axis]
    assert np.abs(shift / step - np.round(2 * shift / step) / 2).max() < 1e-6
    if (len(many) - len(few)) % 2:
        assert np.abs(shift / step).min() == pytest.approx(0.5)
        return
    roi = resampled(hu, mask, spacing, new)
    assume(roi.mask.any())
    assert_same(roi, resampled(larger_hu, larger_mask, spacing, new))


@given(volumes(), spacings)
@settings(max_examples=30, deadline=None)
def test_how_the_patient_lies_does_not_matter(case: Any, new: Any) -> None:
    hu, mask, spacing = case
    volume = volume_of(hu, spacing)
    angle = 0.3
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    affine = volume.affine
    affine[:3] = turn @ affine[:3]
    oblique = hd.Volume(hu, affine, coordinate_system="PATIENT")
    box = grid.bounds(mask)[1]
    here, there = ibsi.resample(volume, mask, box, new), ibsi.resample(oblique, mask, box, new)
    assert np.array_equal(here.mask, there.mask)
    assert np.array_equal(here.image, there.image)


def test_half_a_voxel_is_in_and_half_an_hu_is_rounded_to_even() -> None:
    hu = np.array([[[0, 1, 4, 5]]], dtype=np.int16)
    mask = np.array([[[False, True, False, False]]])
    roi = resampled(hu, mask, (1.0, 1.0, 1.0), (1.5, 0, 0))  # the places are 0, 1.5 and 3
    assert roi.mask.ravel().tolist() == [True]
    assert roi.image.ravel().tolist() == [2]  # rounded from 2.5
    assert resampled(hu, np.roll(mask, 2), (1.0, 1.0, 1.0), (1.5, 0, 0)).mask.sum() == 1  # the outermost centre itself


def test_a_region_that_no_voxel_of_the_grid_holds_half_of_is_refused() -> None:
    mask = np.zeros((4, 9, 9), dtype=bool)
    mask[1:3, 0, 0:2] = True
    spec = parameters.parse("setting: {resampledPixelSpacing: [9, 9, 0], interpolator: sitkLinear}", grid="ibsi")
    with pytest.raises(Refused, match="after resampling") as refusal:
        extract(volume_of(np.zeros(mask.shape, np.int16), (1.0, 1.0, 1.0)), mask, spec)
    assert refusal.value.reason.code == ReasonCode.ROI_EMPTY


# --- the two masks ------------------------------------------------------------------------------------------------


def values_of(volume: hd.Volume, mask: np.ndarray, spec: ExtractionSpec) -> dict[str, float]:
    vector = extract(volume, mask, spec)
    return dict(zip(vector.names, vector.values.tolist(), strict=True))


def stock(volume: hd.Volume, mask: np.ndarray, options: dict[str, Any]) -> dict[str, float]:
    extractor = featureextractor.RadiomicsFeatureExtractor(**options, additionalInfo=False)
    return {name: float(value) for name, value in extractor.execute(*grid.to_images(volume, mask)).items()}


@given(st.integers(0, 2**32 - 1), st.integers(-80, -10), st.integers(10, 80), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_resegmented_features_are_stock_pyradiomics_own(seed: int, low: int, high: int, one_plane: bool) -> None:
    """All but shape, which PyRadiomics measures differently (next test)."""
    random = np.random.default_rng(seed)
    hu = random.integers(-100, 100, size=(5, 9, 8)).astype(np.int16)
    mask = random.random(hu.shape) < 0.7
    mask[-1, -1, -1] = False  # PyRadiomics treats a mask without background as empty
    if one_plane:
        hu[[0, 1, 3, 4]] = -1000
    low -= low % 5
    mask[2, :2, :2] = True
    hu[2, :2, :2] = low  # a voxel in the lowest bin, because PyRadiomics starts to count there
    volume = volume_of(hu, (3.0, 1.0, 1.0))
    for bins in ({"binWidth": 5}, {"binCount": 8}):
        options = bins | {"resegmentRange": [low, high]}
        spec = ExtractionSpec(NO_SHAPE, options, grid="ibsi")
        theirs = stock(volume, mask, options)
        assert_equal(values_of(volume, mask, spec), theirs)
    assert_equal(values_of(volume, mask, replace(spec, engine="reference")), theirs)


def test_shape_is_the_whole_region_s_where_pyradiomics_cuts_it_to_the_box_of_what_is_left() -> None:
    """`resegmentRange` is refused on PyRadiomics' grid, because its shape would belong to neither mask."""
    hu = np.random.default_rng(8).integers(-100, 100, size=(8, 8, 8)).astype(np.int16)
    hu[:3] = hu[5, 5, 5] = -1000
    mask = np.zeros(hu.shape, dtype=bool)
    mask[1:7, 1:7, 1:7] = True
    volume, bins = volume_of(hu, (2.0, 1.0, 1.0)), {"binCount": 8}
    options = bins | {"resegmentRange": [-500, 400]}
    boxed, kept = mask.copy(), mask & (hu >= -500)
    boxed[:3] = False
    whole, cut_to_box, left = (stock(volume, part, bins) for part in (mask, boxed, kept))
    size = "original_shape_MeshVolume"
    assert left[size] < cut_to_box[size] < whole[size]
    assert stock(volume, mask, options)[size] == cut_to_box[size]
    spec = ExtractionSpec(ALL_FEATURES, options, grid="ibsi")
    ours = values_of(volume, mask, spec)
    assert_equal(ours, {name: (whole if "_shape_" in name else left)[name] for name in ours})
    # The order of the features is the spec's, although they are measured by mask.
    turned = replace(spec, features=ALL_FEATURES[::-1])
    assert list(values_of(volume, mask, turned).items()) == list(ours.items())[::-1]


@pytest.mark.parametrize(
    ("limits", "code"), [([100, 400], ReasonCode.ROI_EMPTY), ([-20, 20], ReasonCode.ROI_TOO_SMALL)]
)
def test_too_little_left_is_refused(limits: list[int], code: ReasonCode) -> None:
    hu = np.full((5, 6, 6), -400, dtype=np.int16)
    hu[2, 3, 3] = 0
    volume, mask = volume_of(hu, (2.0, 1.0, 1.0)), np.ones(hu.shape, dtype=bool)
    spec = ExtractionSpec(ALL_FEATURES, {"binWidth": 20, "resegmentRange": limits}, grid="ibsi")
    with pytest.raises(Refused, match="after re-segmentation") as refusal:
        extract(volume, mask, spec)
    assert refusal.value.reason.code == code
    shape = tuple(name for name in ALL_FEATURES if "_shape_" in name)
    assert np.isfinite(extract(volume, mask, replace(spec, features=shape)).values).all()


# --- bins ---------------------------------------------------------------------------------------------------------


@given(st.integers(-1000, 0), st.integers(0, 60), st.integers(1, 1000), st.sampled_from([1, 5, 25, 0.5, 12.5]))
def test_bins_of_fixed_size_start_at_the_range(low: int, above: int, extent: int, width: float) -> None:
    """Q3RU, also if the lowest bins are empty."""
    hu = np.arange(low + above, low + above + extent + 1, dtype=np.int16)
    edges = bin_edges(hu[0], hu[-1], {"binWidth": width, "resegmentRange": [low, 4000]})
    assert np.digitize(hu, edges).tolist() == [math.floor((int(v) - low) / width) + 1 for v in hu]


def fixed_number(hu: np.ndarray, count: int) -> list[int]:
    """K15C in whole numbers."""
    low, high = int(hu[0]), int(hu[-1])
    return [min(count * (int(v) - low) // (high - low) + 1, count) for v in hu]


@given(st.integers(-1000, 1000), st.integers(1, 2000), st.sampled_from([2, 8, 16, 32, 64, 128]))
def test_a_power_of_two_of_bins_is_ibsi_s_to_the_last_voxel(low: int, extent: int, count: int) -> None:
    hu = np.arange(low, low + extent + 1, dtype=np.int16)
    assert np.digitize(hu, bin_edges(hu[0], hu[-1], {"binCount": count})).tolist() == fixed_number(hu, count)


def test_other_numbers_of_bins_may_round_an_edge_as_pyradiomics_does() -> None:
    hu = np.arange(0, 59, dtype=np.int16)
    ours = np.digitize(hu, bin_edges(hu[0], hu[-1], {"binCount": 14}))
    off = np.array(fixed_number(hu, 14)) - ours
    assert off.max() == 1
    assert off.min() == 0
    assert ours.tolist() == np.digitize(hu, imageoperations.getBinEdges(hu, binCount=14)).tolist()


# --- what is refused, and where the grid cannot go ----------------------------------------------------------------

LINEAR = "resampledPixelSpacing: [1, 1, 1], interpolator: sitkLinear"


@pytest.mark.parametrize(
    ("setting", "options", "named"),
    [
        ("resampledPixelSpacing: [1, 1, 1]", ["--grid", "ibsi"], "sitkBSpline"),
        ("resampledPixelSpacing: [1, 1, 1], interpolator: sitkBSpline", ["--grid", "ibsi"], "sitkBSpline"),
        ("resampledPixelSpacing: [1, 1, 1], interpolator: sitkNearestNeighbor", ["--grid", "ibsi"], "NearestNeighbor"),
        (f"{LINEAR}, resegmentRange: [-500, 400]", [], "resegmentRange"),
        (f"{LINEAR}, resegmentRange: [400, -500]", ["--grid", "ibsi"], "resegmentRange"),
        (f"{LINEAR}, resegmentRange: [-500]", ["--grid", "ibsi"], "resegmentRange"),
        (f"{LINEAR}, resegmentRange: [-500, .inf]", ["--grid", "ibsi"], "resegmentRange"),
        (f"{LINEAR}, resegmentRange: [-3, 3], resegmentMode: sigma", ["--grid", "ibsi"], "resegmentMode"),
        (f"{LINEAR}, resegmentRange: [-500, 400], resegmentShape: true", ["--grid", "ibsi"], "resegmentShape"),
        (f"{LINEAR}, resegmentRange: [-500, 400]", ["--grid", "ibsi", "--engine", "reference"], "reference engine"),
    ],
)
def test_the_command_refuses_by_name(setting: str, options: list[str], named: str, tmp_path: Path) -> None:
    """The spec is refused when it is loaded, before any study is read."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"setting: {{{setting}}}")
    result = CliRunner().invoke(app, ["measure", str(tmp_path / "nowhere"), "--spec", str(spec), *options])
    assert result.exit_code == 3
    assert "spec_unsupported" in result.output
    assert named in result.output


def test_settings_that_say_what_holds_anyway_are_taken() -> None:
    text = f"setting: {{{LINEAR}, resegmentRange: [-500, 400], resegmentMode: absolute, resegmentShape: false}}"
    assert parameters.parse(text, grid="ibsi").resegmentation == (-500.0, 400.0)
    assert parameters.parse("setting: {resegmentRange: null}").resegmentation is None


def test_the_grid_is_in_no_parameter_file_and_so_in_no_bundle(shipped_bundle: Path) -> None:
    spec = parameters.parse(f"setting: {{{LINEAR}}}", grid="ibsi")
    with pytest.raises(Refused, match="cannot be written") as refusal:
        parameters.render(spec)
    assert refusal.value.reason.code == ReasonCode.SPEC_UNSUPPORTED
    assert parameters.parse(parameters.render(replace(spec, grid="pyradiomics"))).grid == "pyradiomics"
    assert load_bundle(shipped_bundle, self_test=False).spec.grid == "pyradiomics"
    for text in ("grid: ibsi", "setting: {grid: ibsi}"):
        with pytest.raises(Refused, match="grid"):
            parameters.parse(text, grid="ibsi")


def test_the_default_grid_is_pyradiomics_own() -> None:
    random = np.random.default_rng(6)
    volume = volume_of(random.integers(-100, 100, size=(6, 9, 8)).astype(np.int16), (3.0, 1.0, 1.0))
    mask = np.zeros((6, 9, 8), dtype=bool)
    mask[1:5, 2:7, 1:7] = True
    spec = parameters.parse("setting: {resampledPixelSpacing: [0.8, 0.8, 2], interpolator: sitkLinear}")
    ours, centred = (place_on_grid(volume, mask, replace(spec, grid=name)) for name in ("pyradiomics", "ibsi"))
    assert ours.mask.shape != centred.mask.shape or not np.array_equal(ours.image, centred.image)
    assert_equal(values_of(volume, mask, spec), stock(volume, mask, dict(spec.settings)))
