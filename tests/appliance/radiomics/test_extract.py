"""lungstage gives the same 106 numbers as stock PyRadiomics, with less work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from radiomics import featureextractor

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, Engine, ExtractionSpec
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics import grid, parameters
from lungstage.appliance.radiomics.extract import extract
from lungstage.appliance.staging.one_shot import Options, measure_paths

LINEAR = {"binWidth": 25.0, "resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"}
ALL = parameters.read("all")
ENGINES: tuple[Engine, ...] = ("compiled", "reference")


def stock(image: sitk.Image | str, label: sitk.Image | str, spec: ExtractionSpec) -> dict[str, float]:
    extractor = featureextractor.RadiomicsFeatureExtractor(**dict(spec.settings), additionalInfo=False)
    return {name: float(value) for name, value in extractor.execute(image, label).items()}


# For voxels in one plane or line the least axes are 0; PyRadiomics gives the square root of a rounding error.
AXES = {"LeastAxisLength", "MinorAxisLength", "Flatness", "Elongation"}


def assert_equal(ours: dict[str, Any], theirs: dict[str, float], relative: float = 1e-9) -> None:
    longest = theirs.get("original_shape_MajorAxisLength", 0.0)

    def same(name: str, value: float) -> bool:
        if name.removeprefix("original_shape_") in AXES:
            unit = longest if name.endswith("Length") else 1.0
            if max(value, theirs[name]) < 1e-6 * unit:
                return True
        return bool(value == pytest.approx(theirs[name], rel=relative, abs=1e-12, nan_ok=True))

    different = {name: (value, theirs[name]) for name, value in ours.items() if not same(name, value)}
    assert not different


def volume_of(hu: np.ndarray, spacing: tuple[float, float, float]) -> hd.Volume:
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing
    affine[:3, 3] = (-33.25, 12.5, -410.0)
    return hd.Volume(hu, affine, coordinate_system="PATIENT")


@st.composite
def cases(draw: st.DrawFn) -> tuple[hd.Volume, np.ndarray, dict[str, Any]]:
    shape = tuple(draw(st.integers(low, 9)) for low in (2, 3, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # One level, a few levels or noise; whole HU as int16 and fractions as float64, as series are read.
    hu = random.integers(-150, draw(st.sampled_from([-149, -120, 150])), size=shape).astype(np.int16)
    if draw(st.booleans()):
        hu = hu + random.random(shape)
    mask = random.random(shape) < draw(st.sampled_from([0.05, 0.2, 0.6, 1.0]))
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 1, 0] = True  # at least two dimensions, and at the border
    mask[-1, -1, -1] = False  # PyRadiomics treats a mask without background as empty
    spacing = tuple(draw(st.sampled_from([0.5, 0.9765625, 1.0, 2.5, 5.0])) for _ in range(3))
    options: dict[str, Any] = draw(
        st.sampled_from(
            [
                *({"binWidth": width} for width in (25.0, 25, 7.0, 0.5, 1000)),
                {"binCount": 8},
                LINEAR,
                LINEAR | {"resampledPixelSpacing": [0, 2, 1.5], "padDistance": 1},
                LINEAR | {"interpolator": "sitkNearestNeighbor"},
                LINEAR | {"interpolator": "sitkBSpline"},
                {"force2D": True},
                {"force2D": True, "force2Ddimension": 2},
                {"symmetricalGLCM": False},
                {"distances": [1, 2]},
                {"distances": [2]},
                {"gldm_a": 2, "binWidth": 5},
                {"voxelArrayShift": 300},
                *({"weightingNorm": norm} for norm in ("manhattan", "euclidean", "infinity", "no_weighting")),
            ]
        )
    )
    return volume_of(hu, spacing), mask, options  # type: ignore[arg-type]


def test_a_spline_through_two_slices_is_refused_and_through_three_is_repeatable() -> None:
    """For two voxels, ITK's filter gives another plausible and wrong number each time."""
    random = np.random.default_rng(45)
    spec = ExtractionSpec(ALL_FEATURES, LINEAR | {"interpolator": "sitkBSpline"})
    hu = random.integers(-150, 150, size=(3, 6, 5)) + random.random((3, 6, 5))
    mask = random.random((3, 6, 5)) < 0.6
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 1, 0] = True
    volume = volume_of(hu, (5.0, 1.0, 1.0))
    answers = {extract(volume, mask, spec).values.tobytes() for _ in range(20)}
    assert len(answers) == 1
    with pytest.raises(Refused, match="only 2 voxels along an axis") as refusal:
        extract(volume[:2], mask[:2], spec)
    assert refusal.value.reason.code == ReasonCode.ROI_TOO_SMALL
    extract(volume[:2], mask[:2], ExtractionSpec(ALL_FEATURES, LINEAR))
    extract(volume_of(hu[:2], (1.0, 1.0, 1.0)), mask[:2], spec)  # nothing to interpolate


@given(cases())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_all_features_equal_stock_pyradiomics_by_both_engines(
    case: tuple[hd.Volume, np.ndarray, dict[str, Any]],
) -> None:
    volume, mask, options = case
    spec = ExtractionSpec(ALL_FEATURES, options)
    measurable = grid.to_images(volume, mask)
    if options.get("interpolator") == "sitkBSpline" and min(mask.shape) < 3 and not np.allclose(volume.spacing, 1.0):
        for engine in ENGINES:  # ITK's own answer changes from call to call
            with pytest.raises(Refused) as refusal:
                extract(volume, mask, replace(spec, engine=engine))
            assert refusal.value.reason.code == ReasonCode.ROI_TOO_SMALL
        return
    try:
        theirs = stock(*measurable, spec)
    except (ValueError, RuntimeError):  # PyRadiomics refuses the case
        with pytest.raises(Refused) as refusal:
            extract(volume, mask, spec)
        assert refusal.value.reason.code in {ReasonCode.ROI_TOO_SMALL, ReasonCode.ROI_EMPTY}
        return
    for engine in ENGINES:
        ours = extract(volume, mask, replace(spec, engine=engine))
        assert_equal(dict(zip(ours.names, ours.values.tolist(), strict=True)), theirs)


@pytest.mark.parametrize("spec", [ALL, ExtractionSpec(ALL_FEATURES, LINEAR)], ids=["native", "1 mm"])
def test_a_subset_has_the_values_of_the_whole(spec: ExtractionSpec) -> None:
    random = np.random.default_rng(3)
    volume = volume_of(random.integers(-100, 100, size=(6, 20, 20)).astype(np.int16), (3.0, 1.0, 1.0))
    mask = np.zeros((6, 20, 20), dtype=bool)
    mask[1:5, 4:15, 3:16] = True
    whole = extract(volume, mask, spec).as_dict()
    for names in (ALL_FEATURES[::7], ALL_FEATURES[60:61]):
        part = extract(volume, mask, ExtractionSpec(names, spec.settings)).as_dict()
        assert part == {name: whole[name] for name in names}


def test_margin_of_the_b_spline_is_enough() -> None:
    random = np.random.default_rng(4)
    hu = random.integers(-900, 300, size=(60, 24, 24)).astype(np.int16)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[28:32, 6:18, 6:18] = True
    spec = ExtractionSpec(ALL_FEATURES, LINEAR | {"interpolator": "sitkBSpline"})
    values = []
    for margin in (spec.margin_slices, 28):
        kept = slice(28 - margin, 32 + margin)
        # The grids must have the same origin: 2 mm slices are whole steps of the 1 mm grid.
        volume = volume_of(hu[kept], (2.0, 1.5, 1.5))
        values.append(extract(volume, mask[kept], spec).as_dict())
    assert values[0] == pytest.approx(values[1], rel=1e-9)


@pytest.mark.parametrize(
    ("mask_of", "code"),
    [
        (lambda m: m, ReasonCode.ROI_EMPTY),
        (lambda m: m.__setitem__((2, 5, 5), True), ReasonCode.ROI_TOO_SMALL),
        (lambda m: m.__setitem__((2, 5), True), ReasonCode.ROI_TOO_SMALL),
    ],
    ids=["empty", "one voxel", "one line"],
)
def test_masks_that_cannot_be_measured(mask_of: Any, code: ReasonCode) -> None:
    mask = np.zeros((4, 10, 10), dtype=bool)
    mask_of(mask)
    with pytest.raises(Refused) as refusal:
        extract(volume_of(np.zeros((4, 10, 10), dtype=np.int16), (2.0, 1.0, 1.0)), mask, ALL)
    assert refusal.value.reason.code == code


# --- real patients -----------------------------------------------------------------------------------------------

PATIENTS = {
    "ibsi": ("ibsi/ct_phantom/dicom", Options()),
    "lung1-001": ("dicom/lung1-001-slab", Options()),
    "sts-002": ("dicom/STS_002", Options(roi_name="GTV_Mass_CT", match_by_geometry=True)),
    "sts-008": ("dicom/STS_008", Options(roi_name="GTV_Mass_CT", match_by_geometry=True)),
}
REFERENCE_MASKS = {
    "ibsi": "ibsi/ct_phantom/nifti/mask/mask.nii.gz",
    "sts-002": "dicom/STS_002/CT_mask.nii.gz",
    "sts-008": "dicom/STS_008/CT_mask.nii.gz",
}


def _whole_series(folder: Path) -> sitk.Image:
    """The whole series as SimpleITK reads it."""
    reader = sitk.ImageSeriesReader()
    folders = sorted({path.parent for path in folder.rglob("*") if path.is_file()})
    names = max((reader.GetGDCMSeriesFileNames(str(f), "", False) for f in folders), key=len)
    reader.SetFileNames(names)
    return reader.Execute()


def _on_whole_series(image: sitk.Image, saved_mask: sitk.Image) -> sitk.Image:
    """Put the mask of a reference volume at its place in the whole series."""
    whole = np.zeros(image.GetSize()[::-1], dtype=np.uint8)
    first = round(image.TransformPhysicalPointToContinuousIndex(saved_mask.GetOrigin())[2])
    array = sitk.GetArrayFromImage(saved_mask)
    whole[first : first + len(array)] = array
    label = sitk.GetImageFromArray(whole)
    label.CopyInformation(image)
    return label


@pytest.fixture(scope="module")
def native(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], Path]]:
    """Gives a patient's features without resampling, and the folder with the saved volume and mask."""

    @cache
    def measured(patient: str) -> tuple[dict[str, Any], Path]:
        folder, options = PATIENTS[patient]
        saved = tmp_path_factory.mktemp(patient)
        saving = Options(options.roi_name, options.match_by_geometry, saved, describes=False)
        return measure_paths([shared_data / folder], ROI_RULE, ALL, saving), saved

    return measured


@pytest.mark.slow
@pytest.mark.parametrize("patient", PATIENTS)
def test_native_equals_stock_on_the_whole_series(
    patient: str, native: Callable[[str], tuple[dict[str, Any], Path]], shared_data: Path
) -> None:
    ours, saved = native(patient)
    assert ours["status"] == "measured", ours["reason"]
    image = _whole_series(shared_data / PATIENTS[patient][0])
    label = _on_whole_series(image, sitk.ReadImage(str(saved / "mask.nii.gz")))
    assert_equal(ours["features"], stock(image, label, ALL))


@pytest.mark.slow
@pytest.mark.parametrize("patient", PATIENTS)
def test_resampled_equals_stock_on_the_saved_volume(patient: str, shared_data: Path, tmp_path: Path) -> None:
    folder, options = PATIENTS[patient]
    saving = Options(options.roi_name, options.match_by_geometry, tmp_path, describes=False)
    spec = ExtractionSpec(ALL_FEATURES, LINEAR)
    ours = measure_paths([shared_data / folder], ROI_RULE, spec, saving)
    saved = (str(tmp_path / name) for name in ("image.nii.gz", "mask.nii.gz"))
    assert_equal(ours["features"], stock(*saved, spec))


@pytest.mark.slow
@pytest.mark.parametrize("patient", REFERENCE_MASKS)
def test_contours_give_the_reference_mask(
    patient: str, native: Callable[[str], tuple[dict[str, Any], Path]], shared_data: Path
) -> None:
    _, saved = native(patient)
    reference = sitk.ReadImage(str(shared_data / REFERENCE_MASKS[patient]))
    ours = _on_whole_series(reference, sitk.ReadImage(str(saved / "mask.nii.gz")))
    assert np.array_equal(sitk.GetArrayFromImage(ours) > 0, sitk.GetArrayFromImage(reference) > 0)
