"""The parts of the compiled engine: exact integers, degenerate regions, limits of memory, refusal of bad buffers."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from radiomics import cMatrices, imageoperations

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.radiomics import _kernels, compiled, extract, grid, reference
from lungstage.appliance.radiomics.grid import MeasurableRoi
from tests.appliance.radiomics.test_extract import ALL, assert_equal, volume_of
from tests.conftest import ROOT

SPACINGS = [0.5, 0.7, 0.75, 0.976562, 0.9765625, 1.0, 1.5, 2.5, 5.0]


@st.composite
def regions(draw: st.DrawFn) -> MeasurableRoi:
    """Random regions of few or many levels, cropped."""
    shape = tuple(draw(st.integers(1, 7)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hu = random.integers(0, draw(st.sampled_from([1, 40, 120, 900])), size=shape).astype(np.int16)
    mask = random.random(shape) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    mask[0, 0, 0] = mask[-1, -1, -1] = True
    return MeasurableRoi(hu, mask, (2.0, 1.0, 1.0))


flat_planes = st.sampled_from([None, 0, 1, 2])


@given(regions(), flat_planes)
@settings(max_examples=150, deadline=None)
def test_matrices_are_pyradiomics_own_to_the_last_count(roi: MeasurableRoi, flat: int | None) -> None:
    options = {"binWidth": 25} | ({} if flat is None else {"force2D": True, "force2Ddimension": flat})
    steps = compiled.directions(roi.mask.shape, (1,), flat)
    if not len(steps):
        return
    voxels = compiled._discretise(roi, options, [int(n) for n in np.abs(steps).max(axis=0)])
    binned, _ = imageoperations.binImage(roi.image, roi.mask, **options)
    here = np.unique(binned[roi.mask])
    k, top, one = len(here), int(here[-1]), np.array([1])
    where = (flat is not None, flat or 0)
    assert voxels.grey[1:].tolist() == here.tolist()

    ours = np.zeros((k, k, len(steps)), dtype=np.int32)
    _kernels.glcm(voxels.levels, steps, k, ours)
    theirs, angles = cMatrices.calculate_glcm(binned, roi.mask, one, top, *where)
    assert steps.tolist() == angles.tolist()
    assert np.array_equal(ours, theirs[0][np.ix_(here - 1, here - 1)])

    same = compiled._alike(voxels, steps)
    longest = max(voxels.levels.shape)
    runs = np.zeros((k, longest, len(steps)), dtype=np.int32)
    _kernels.glrlm(voxels.levels, steps, k, same, runs)
    theirs, _ = cMatrices.calculate_glrlm(binned, roi.mask, top, longest, *where)
    assert np.array_equal(runs, theirs[0][here - 1])

    zones = compiled._glszm(voxels, steps, same)
    theirs = cMatrices.calculate_glszm(binned, roi.mask, top, int(roi.mask.sum()), *where)[0][here - 1]
    assert zones.sizes.tolist() == (np.flatnonzero(theirs.any(axis=0)) + 1).tolist()
    assert np.array_equal(zones.p[..., 0], theirs[:, zones.sizes - 1])

    for tolerance in (0, 2):
        alike = np.zeros((k, 2 * len(steps) + 1), dtype=np.int32)
        _kernels.gldm(voxels.levels, steps, voxels.grey, tolerance, alike)
        theirs = cMatrices.calculate_gldm(binned, roi.mask, one, top, tolerance, *where)[0][here - 1]
        assert np.array_equal(alike, theirs[:, : alike.shape[1]])
        assert not theirs[:, alike.shape[1] :].any()

    tones = compiled._ngtdm(voxels, steps)
    theirs = cMatrices.calculate_ngtdm(binned, roi.mask, one, top, *where)[0][here - 1]
    assert np.array_equal(np.stack([tones.counts, tones.s, tones.i], axis=1), theirs)


def test_runs_of_more_voxels_of_a_level_than_a_short_counter_holds_are_pyradiomics_own() -> None:
    smooth = np.random.default_rng(0).integers(0, 2, size=(40, 26, 50)).repeat(4, axis=2)
    roi = MeasurableRoi((25 * smooth).astype(np.int16), np.ones(smooth.shape, dtype=bool), (1.0, 1.0, 1.0))
    steps = compiled.directions(smooth.shape, (1,), None)
    voxels = compiled._discretise(roi, {"binWidth": 25}, [1, 1, 1])
    assert voxels.grey_counts.min() > 65535
    longest = max(voxels.levels.shape)
    runs = np.zeros((2, longest, len(steps)), dtype=np.int32)
    _kernels.glrlm(voxels.levels, steps, 2, compiled._alike(voxels, steps), runs)
    theirs, _ = cMatrices.calculate_glrlm((smooth + 1).astype(np.int32), roi.mask, 2, longest, False, 0)
    assert np.array_equal(runs, theirs[0])


def test_a_short_counter_is_read_before_it_overflows() -> None:
    levels = np.pad(np.ones((1, 1, 140_000), dtype=np.uint16), 1)
    steps, same = np.array([[0, 0, 1]]), np.zeros(levels.shape, dtype=np.uint16)
    runs = np.zeros((1, 140_002, 1), dtype=np.int32)
    _kernels.alike(levels, steps, 1, same)
    _kernels.glrlm(levels, steps, 1, same, runs)
    assert np.argwhere(runs).tolist() == [[0, 139_999, 0]]


def test_more_grey_levels_than_a_volume_of_them_holds_are_refused() -> None:
    hu = np.arange(65536).reshape(64, 32, 32) - 32768
    roi = MeasurableRoi(hu.astype(np.int16), np.ones(hu.shape, dtype=bool), (1.0, 1.0, 1.0))
    with pytest.raises(Refused, match="65536 grey levels") as caught:
        compiled.compute(roi, ExtractionSpec(("original_glszm_ZonePercentage",), {"binWidth": 1}))
    assert caught.value.reason.code is ReasonCode.LIMITS_EXCEEDED
    entropy = ExtractionSpec(("original_firstorder_Entropy",), {"binWidth": 1})
    assert compiled.compute(roi, entropy)["original_firstorder_Entropy"] == pytest.approx(16)


@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True).map(tuple),
    flat_planes,
)
def test_directions_are_pyradiomics_own(size: Any, distances: tuple[int, ...], flat: int | None) -> None:
    ours = compiled.directions(size, distances, flat)
    try:
        theirs = cMatrices.generate_angles(np.array(size), np.array(distances), False, flat is not None, flat or 0)
    except RuntimeError:  # PyRadiomics finds no direction
        theirs = np.zeros((0, 3), dtype=int)
    assert ours.tolist() == theirs.tolist()


@given(
    st.tuples(st.integers(-2000, 3000), st.integers(-2000, 3000)).map(sorted),
    st.sampled_from([np.int16, np.float64]),
    st.sampled_from([{"binWidth": 25}, {"binWidth": 25.0}, {"binWidth": 0.3}, {"binWidth": 1000}, {"binCount": 16}]),
)
def test_bins_are_pyradiomics_own(extremes: list[int], kind: type, options: dict[str, Any]) -> None:
    low, high = np.array(extremes, dtype=kind)
    assert np.array_equal(
        compiled.bin_edges(low, high, options), imageoperations.getBinEdges(np.array([low, high]), **options)
    )


def test_bins_do_not_wrap_around_where_those_of_pyradiomics_do() -> None:
    edges = compiled.bin_edges(np.int16(-1024), np.int16(32760), {"binWidth": 25})
    assert edges[0] <= -1024
    assert edges[-1] > 32760


@st.composite
def reference_volumes(draw: st.DrawFn) -> tuple[hd.Volume, np.ndarray]:
    """Volumes with a region anywhere, with any spacing, position and orientation along the patient's axes."""
    shape = tuple(draw(st.integers(low, 14)) for low in (2, 3, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hu = random.integers(-1000, 1000, size=shape).astype(np.int16)
    if draw(st.booleans()):
        hu = hu + random.random(shape)
    low = [int(random.integers(0, n)) for n in shape]
    mask = np.zeros(shape, dtype=bool)
    mask[low[0] :, low[1] :, low[2] :] = random.random([n - i for n, i in zip(shape, low, strict=True)]) < 0.6
    mask[tuple(low)] = True
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    flips = draw(st.sampled_from([(1, 1, 1), (1, -1, -1), (-1, -1, 1)]))
    spacing = [draw(st.sampled_from(SPACINGS)) * flip for flip in flips]
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return hd.Volume(hu, affine, coordinate_system="PATIENT"), mask


def resampled_by_pyradiomics(volume: hd.Volume, mask: np.ndarray, options: dict[str, Any]) -> MeasurableRoi:
    image, label = imageoperations.resampleImage(*grid.to_images(volume, mask), **options)
    x, y, z = image.GetSpacing()
    return MeasurableRoi(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label) == 1, (z, y, x))


def assert_resampled_alike(volume: hd.Volume, mask: np.ndarray, options: dict[str, Any]) -> None:
    """Require the same bits in every voxel of the region."""
    ours = grid.resample(volume, mask, grid.bounds(mask)[1], options)
    theirs = resampled_by_pyradiomics(volume, mask, options)
    assert ours.image.dtype == theirs.image.dtype
    voxels, box = grid.bounds(ours.mask)
    their_voxels, their_box = grid.bounds(theirs.mask)
    assert voxels == their_voxels
    if voxels:
        ours, theirs = grid.crop(ours, box), grid.crop(theirs, their_box)
        assert np.array_equal(ours.mask, theirs.mask)
        assert np.array_equal(ours.image[ours.mask], theirs.image[theirs.mask])
        assert ours.spacing == theirs.spacing


@pytest.mark.slow
@given(
    reference_volumes(),
    st.one_of(st.just([1, 1, 1]), st.lists(st.sampled_from([0, 0.5, 1.1, 2, 3.0]), min_size=3, max_size=3)),
    st.sampled_from(["sitkLinear", "sitkNearestNeighbor", "sitkBSpline"]),
    st.sampled_from([5, 0]),
)
@settings(max_examples=200, deadline=None)
def test_resampled_voxels_are_itks_to_the_last_bit(
    given_volume: tuple[hd.Volume, np.ndarray], spacing: list[float], interpolator: str, pad: int
) -> None:
    volume, mask = given_volume
    assume(interpolator != "sitkBSpline" or min(mask.shape) >= 3)
    options = {"resampledPixelSpacing": spacing, "interpolator": interpolator, "padDistance": pad}
    assert_resampled_alike(volume, mask, options)


@pytest.mark.parametrize("kind", [np.int16, np.float64])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 20, 70, 139])
def test_a_b_spline_of_the_box_and_its_margin_is_that_of_the_whole_volume(kind: type, axis: int, at: int) -> None:
    """ITK filters a whole line of 140 voxels; lungstage filters a part of it and must get the same values."""
    random = np.random.default_rng(at + axis)
    shape = np.roll((140, 9, 7), axis)
    hu = random.integers(-1000, 1000, size=shape).astype(kind)
    hu[random.random(shape) < 0.3] = -1000
    if kind is np.float64:
        hu += random.random(shape)
    mask = np.zeros(shape, dtype=bool)
    box: list[Any] = [slice(2, 6)] * 3
    box[axis] = slice(max(at - 2, 0), at + 3)
    mask[tuple(box)] = True
    for spacing in ([1.5, 1.5, 1.5], [0.8, 0.8, 0.8], [0, 0, 1.1]):
        options = {"resampledPixelSpacing": spacing, "interpolator": "sitkBSpline"}
        assert_resampled_alike(volume_of(hu, (0.5, 0.5, 0.5)), mask, options)


def test_a_b_spline_stops_at_the_ends_of_the_pixel_type() -> None:
    hu = np.full((8, 8, 8), -32768, dtype=np.int16)
    hu[:, :, 4:] = 32767
    options = {"resampledPixelSpacing": [0.7, 0.7, 0.7], "interpolator": "sitkBSpline"}
    mask = np.ones(hu.shape, dtype=bool)
    mask[0] = False
    assert_resampled_alike(volume_of(hu, (1.0, 1.0, 1.0)), mask, options)


@given(
    st.sampled_from([np.int16, np.float64, np.float32, np.int32]),
    st.sampled_from(["sitkLinear", "sitkNearestNeighbor", "sitkBSpline"]),
    st.booleans(),
    st.lists(st.sampled_from([0, 0.5, 1, 1.1]), min_size=3, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_oblique_volumes_and_other_pixel_types_are_resampled_as_by_pyradiomics(
    kind: type, interpolator: str, oblique: bool, spacing: list[float]
) -> None:
    random = np.random.default_rng(8)
    hu = random.integers(-100, 100, size=(6, 12, 12)).astype(kind)
    volume = volume_of(hu, (2.0, 0.8, 0.8))
    if oblique:
        turn = np.eye(4)
        turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
        volume = hd.Volume(hu, turn @ volume.affine, coordinate_system="PATIENT")
    mask = np.zeros(hu.shape, dtype=bool)
    mask[2:4, 3:9, 3:9] = True
    assert_resampled_alike(volume, mask, {"resampledPixelSpacing": spacing, "interpolator": interpolator})


def _ball(size: int) -> np.ndarray:
    at = np.arange(size) - (size - 1) / 2
    return at[:, None, None] ** 2 + at[None, :, None] ** 2 + at[None, None, :] ** 2 < (size / 2) ** 2


def _line(*voxels: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((5, 5, 5), dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


DEGENERATE: dict[str, tuple[np.ndarray, tuple[float, float, float], int]] = {
    "one slice": (np.pad(_ball(9)[4:5], ((1, 1), (0, 0), (0, 0))), (3.0, 0.7, 0.7), 200),
    "touching every border": (np.ones((4, 5, 6), dtype=bool), (1.0, 1.0, 1.0), 200),
    "flat grey level": (_ball(7), (1.0, 1.0, 1.0), 1),
    "anisotropic": (_ball(9), (5.0, 0.5, 0.5), 200),
    "two voxels on a diagonal": (_line((0, 0, 0), (1, 1, 1)), (2.0, 1.0, 1.0), 200),
    "two voxels far apart": (_line((0, 0, 0), (4, 3, 1)), (2.0, 1.0, 1.0), 200),
    "on one line with a gap": (_line((2, 0, 0), (2, 2, 2), (2, 3, 3)), (1.0, 1.0, 1.0), 30),
    "two parts": (_line((0, 0, 0), (0, 0, 1), (4, 4, 3), (4, 4, 4)), (1.0, 1.0, 1.0), 200),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("options", [{"binWidth": 25}, {"binWidth": 25, "weightingNorm": "euclidean"}], ids=str)
def test_degenerate_regions_follow_pyradiomics(name: str, options: dict[str, Any]) -> None:
    mask, spacing, spread = DEGENERATE[name]
    hu = np.random.default_rng(6).integers(0, spread, size=mask.shape).astype(np.int16)
    spec = ExtractionSpec(ALL_FEATURES, options | {"minimumROIDimensions": 1})
    roi = extract.place_on_grid(volume_of(hu, spacing), mask, spec)
    values = extract.compute(roi, spec)
    assert_equal(dict(zip(values.names, values.values.tolist(), strict=True)), reference.compute(roi, spec))


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_region_without_neighbours_is_refused_by_both_engines(engine: Any) -> None:
    mask = _line((0, 2, 2), (1, 2, 2), (2, 2, 2))
    options = {"minimumROIDimensions": 1, "force2D": True}
    spec = ExtractionSpec(ALL_FEATURES, options, engine)
    with pytest.raises(Refused) as refusal:
        extract.extract(volume_of(np.zeros(mask.shape, dtype=np.int16), (1.0, 1.0, 1.0)), mask, spec)
    assert refusal.value.reason.code == ReasonCode.ROI_TOO_SMALL
    # What needs no neighbours can still be measured.
    shape = replace(spec, features=("original_shape_MeshVolume", "original_firstorder_Mean"))
    assert np.isfinite(
        extract.extract(volume_of(np.zeros(mask.shape, np.int16), (1.0, 1.0, 1.0)), mask, shape).values
    ).all()


def test_only_what_a_feature_needs_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in dir(_kernels):
        function = getattr(_kernels, name)
        if not name.startswith("_"):
            monkeypatch.setattr(_kernels, name, lambda *a, _f=function, _n=name: (called.append(_n), _f(*a))[1])
    mask = _ball(6)
    volume = volume_of(np.arange(216, dtype=np.int16).reshape(6, 6, 6), (1.0, 1.0, 1.0))
    for features, needed in {
        ("shape_Sphericity",): ["mesh_counts"],
        ("shape_Flatness",): ["moments"],
        ("shape_Maximum3DDiameter",): ["diameters"],
        ("firstorder_Entropy",): ["histogram"],
        ("glcm_Contrast", "glcm_Idm"): ["histogram", "levels", "glcm"],
        ("glszm_ZoneEntropy", "glrlm_RunEntropy"): ["histogram", "levels", "alike", "glrlm", "zones"],
    }.items():
        called.clear()
        extract.extract(volume, mask, ExtractionSpec(tuple(f"original_{f}" for f in features), {"binWidth": 25}))
        assert called == ["bounds", *needed]


def test_memory_grows_by_a_bounded_number_of_bytes_per_voxel() -> None:
    # One dense box and one ball. 20 million voxels need at most 400 MB, without image and mask.
    for mask in (np.ones((60, 100, 100), dtype=bool), _ball(90)):
        hu = np.random.default_rng(1).integers(-500, 500, size=mask.shape).astype(np.int16)
        roi = MeasurableRoi(hu, mask, (1.0, 1.0, 1.0))
        compiled.compute(roi, ALL)
        tracemalloc.start()
        try:
            compiled.compute(roi, ALL)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 20 * mask.size + 8e6


def test_the_engine_is_chosen_by_the_spec_and_by_the_bundles_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    for module in (compiled, reference):
        compute = module.compute
        monkeypatch.setattr(module, "compute", lambda *a, _f=compute, _n=module.__name__: (used.append(_n), _f(*a))[1])
    for engine in ("compiled", "reference"):
        used.clear()
        bundle = load_bundle(ROOT / "models" / "lung1-stage", engine=engine)  # type: ignore[arg-type]
        assert bundle.spec.engine == engine
        assert used == [f"lungstage.appliance.radiomics.{engine}"]  # the golden case uses the same engine as patients


@pytest.mark.slow
@pytest.mark.parametrize("interpolator", ["sitkLinear", "sitkBSpline"])
def test_the_compiled_engine_needs_neither_pyradiomics_nor_simpleitk(interpolator: str) -> None:
    """All features of the phantom, in a separate process."""
    code = (
        "import sys; from lungstage.appliance.radiomics import extract, phantom;"
        "from lungstage.appliance.contract.spec import *;"
        f"options = {{'binWidth': 25, 'resampledPixelSpacing': [1, 1, 1], 'interpolator': '{interpolator}'}};"
        "measured = extract.extract(*phantom.make(), ExtractionSpec(ALL_FEATURES, options));"
        "assert all(value == value for value in measured.values);"
        "sys.exit(', '.join({'radiomics', 'SimpleITK'} & sys.modules.keys()) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_reference_engine_without_pyradiomics_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radiomics", None)
    monkeypatch.delitem(sys.modules, "lungstage.appliance.radiomics.reference", raising=False)
    monkeypatch.delattr("lungstage.appliance.radiomics.reference", raising=False)
    volume = volume_of(np.arange(216, dtype=np.int16).reshape(6, 6, 6), (1.0, 1.0, 1.0))
    with pytest.raises(Refused, match=r"pip install 'lungstage\[reference\]'") as refusal:
        extract.extract(volume, _ball(6), replace(ALL, engine="reference"))
    assert refusal.value.reason.code == ReasonCode.SPEC_UNSUPPORTED
    extract.extract(volume, _ball(6), ALL)


def test_kernels_refuse_buffers_that_do_not_fit() -> None:
    levels = np.zeros((4, 5, 6), dtype=np.uint16)
    levels[1:-1, 1:-1, 1:-1] = 2
    steps = compiled.directions((2, 3, 4), (1,), None)
    out = np.zeros((2, 2, 13), dtype=np.int32)
    _kernels.glcm(levels, steps, 2, out)
    assert out.sum() > 0
    for arguments, error in (
        ((levels.astype(np.int64), steps, 2, out), TypeError),
        ((levels[:, :, ::2], steps, 2, out), BufferError),
        ((levels, steps, 1, out), ValueError),  # a level that is too large would be written outside the matrix
        ((levels, steps, 2, out[:, :, :12].copy()), ValueError),
        ((levels, steps * 9, 2, out), ValueError),  # further than the volume is wide
        ((levels, steps * 2, 2, out), ValueError),  # further than it is padded
        ((levels, np.full_like(steps, -(2**63)), 2, out), ValueError),
        ((levels, steps[:, :2].copy(), 2, out), ValueError),
    ):
        with pytest.raises((error, ValueError) if error is BufferError else error):
            _kernels.glcm(*arguments)
    inner = np.pad(np.ones((2, 3, 4), dtype=bool), 1)
    for voxel in np.ndindex(levels.shape):  # each bit would lead to another voxel
        same = np.zeros(levels.shape, dtype=np.uint16)
        same[voxel] = 1 << len(steps) if inner[voxel] else 1
        with pytest.raises(ValueError, match="alike"):
            _kernels.zones(levels, steps, 2, same)
    astray = np.zeros(levels.shape, dtype=np.uint16)
    astray[2, 2, 2] = 1
    alone = np.zeros_like(levels)
    alone[2, 2, 2] = 1
    _kernels.zones(alone, steps, 2, astray)  # "alike" names a voxel outside: wrong values, but no crash
    bare, same = np.ones((6, 7, 8), dtype=np.uint16), np.zeros((6, 7, 8), dtype=np.uint16)  # not padded
    _kernels.alike(bare, steps, 2, same)
    _kernels.zones(bare, steps, 2, same)
    with pytest.raises(ValueError, match="offsets"):
        _kernels.glrlm(levels, steps[:0], 2, np.zeros_like(levels), np.zeros((2, 6, 0), dtype=np.int32))
    with pytest.raises(ValueError, match="forwards"):
        _kernels.zones(levels, -steps, 2, np.zeros(levels.shape, dtype=np.uint16))
    read_only = out.copy()
    read_only.setflags(write=False)
    with pytest.raises((ValueError, BufferError)):
        _kernels.glcm(levels, steps, 2, read_only)


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6)).filter(np.any))
def test_components_are_those_of_itk(mask: np.ndarray) -> None:
    labels = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    assert compiled.components(mask) == sitk.GetArrayFromImage(labels).max()


@pytest.mark.parametrize("interpolate", [_kernels.resample_linear, _kernels.resample_bspline])
def test_interpolation_refuses_what_does_not_fit(interpolate: Any) -> None:
    image, inside = np.zeros((4, 5, 6), dtype=np.int16), np.ones((1, 1, 1), dtype=bool)
    out, middle = np.zeros((1, 1, 1), dtype=np.int16), np.array([1.5])
    interpolate(image, middle, middle, middle, inside, out)
    for beyond in (-0.51, 3.5, np.nan, np.inf, 1e300):
        with pytest.raises(ValueError, match="inside the image"):
            interpolate(image, np.array([beyond]), middle, middle, inside, out)
    with pytest.raises(ValueError, match="one voxel for each place"):
        interpolate(image, np.array([1.0, 2.0]), middle, middle, inside, out)
    for wrong in ((image.astype(np.int32), out), (image, out.astype(np.float64)), (image.astype(np.float64), out)):
        with pytest.raises(TypeError):
            interpolate(wrong[0], middle, middle, middle, inside, wrong[1])
    nothing = np.zeros((0, 1, 1))
    interpolate(image, nothing[:, 0, 0], middle, middle, nothing.astype(bool), nothing.astype(np.int16))


def test_a_b_spline_of_two_voxels_along_an_axis_is_refused_by_the_kernel() -> None:
    place, inside, out = np.array([0.5]), np.ones((1, 1, 1), dtype=bool), np.zeros((1, 1, 1))
    with pytest.raises(ValueError, match="3 voxels"):
        _kernels.resample_bspline(np.zeros((2, 5, 5)), place, place, place, inside, out)
