"""Compute the selected features from reference volume, mask and spec, with the engine that the spec names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ExtractionSpec, FeatureVector
from lungstage.appliance.radiomics import compiled, grid, ibsi
from lungstage.appliance.radiomics.grid import MeasurableRoi


def _prove_measurable(voxels: int, box: grid.Box, spec: ExtractionSpec, when: str) -> None:
    """Refuse the masks that PyRadiomics would refuse, with a plainer message."""
    if voxels == 0:
        raise Refused(ReasonCode.ROI_EMPTY, f"The region contains no voxel{when}. Draw it larger, and export again.")
    extents = sum(index.stop - index.start > 1 for index in box)
    if extents == 0 or extents < spec.settings.get("minimumROIDimensions", 2):
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"The region is too small to be measured{when}: its number of voxels is {voxels}, and it extends along "
            f"{extents} of 3 axes. Check that it is the whole tumour. If it is, it cannot be measured.",
        )
    minimum = spec.settings.get("minimumROISize")
    if minimum is not None and voxels <= minimum:
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"The region's number of voxels is {voxels}{when}, but the extraction spec (minimumROISize) requires more "
            f"than {minimum}. Check that it is the whole tumour. If it is, it cannot be measured.",
        )


def prove_measurable(roi: MeasurableRoi, spec: ExtractionSpec) -> None:
    """Refuse a region that is empty or too small on its grid, as :func:`place_on_grid` does."""
    voxels, box = grid.bounds(roi.mask)
    _prove_measurable(voxels, box, spec, " after resampling")


def place_on_grid(volume: hd.Volume, mask: npt.NDArray[np.bool_], spec: ExtractionSpec) -> MeasurableRoi:
    """Resample and crop a reference volume.

    Parameters
    ----------
    volume
        (slices, rows, columns) in HU. The resampling grid starts at its first voxel; IBSI's grid has its centre.
    mask
        (slices, rows, columns).
    spec
        What to measure, and how.

    Raises
    ------
    Refused
        ``roi_empty`` or ``roi_too_small``, before or after resampling.
    """
    voxels, box = grid.bounds(mask)
    _prove_measurable(voxels, box, spec, "")
    if spec.resampled_spacing is None:
        z, y, x = volume.spacing
        roi = MeasurableRoi(volume.array, mask, (float(z), float(y), float(x)))
    else:
        if spec.grid == "ibsi":
            roi = ibsi.resample(volume, mask, box, spec.resampled_spacing)
        else:
            roi = grid.resample(volume, mask, box, spec.settings)
        voxels, box = grid.bounds(roi.mask)
        _prove_measurable(voxels, box, spec, " after resampling")
    return grid.crop(roi, box)


def _by_mask(roi: MeasurableRoi, spec: ExtractionSpec) -> Iterator[tuple[MeasurableRoi, ExtractionSpec]]:
    """Split the features by mask: with re-segmentation, shape features and all others have different masks."""
    if spec.resegmentation is None:
        yield roi, spec
        return
    shape = tuple(name for name in spec.features if name.startswith("original_shape_"))
    others = tuple(name for name in spec.features if name not in shape)
    if shape:
        yield roi, replace(spec, features=shape)
    if others:
        inner = ibsi.resegment(roi, spec.resegmentation)
        voxels, box = grid.bounds(inner.mask)
        _prove_measurable(voxels, box, spec, " after re-segmentation")
        yield grid.crop(inner, box), replace(spec, features=others)


def _reference() -> ModuleType:
    """Load the reference engine, the only part that needs PyRadiomics."""
    try:
        from lungstage.appliance.radiomics import reference
    except ModuleNotFoundError as error:
        if error.name != "radiomics":
            raise
        raise Refused(
            ReasonCode.SPEC_UNSUPPORTED,
            "The reference engine needs PyRadiomics, which is not installed. Run: pip install 'lungstage[reference]'.",
        ) from error
    return reference


def compute(roi: MeasurableRoi, spec: ExtractionSpec) -> FeatureVector:
    """Compute the features that `spec` names, and only the intermediate results that they need.

    Returns
    -------
    FeatureVector
        In the spec's order; NaN if PyRadiomics' formula fails.

    Raises
    ------
    Refused
        ``roi_too_small`` if the voxels have no neighbours for a selected texture. ``roi_too_small`` or ``roi_empty`` if
        too little is left after re-segmentation. ``spec_unsupported`` for the reference engine without PyRadiomics.

    Notes
    -----
    Definitions are those of PyRadiomics 3.0.1. ``tests/appliance/radiomics`` lists the differences from IBSI.
    """
    values: dict[str, float] = {}
    for part, asked in _by_mask(roi, spec):
        compiled.prove_directions(part, asked)
        engine = _reference() if spec.engine == "reference" else compiled
        values |= engine.compute(part, asked)
    return FeatureVector(spec.features, np.array([values[name] for name in spec.features]))


def extract(volume: hd.Volume, mask: npt.NDArray[np.bool_], spec: ExtractionSpec) -> FeatureVector:
    """Measure a reference volume: :func:`place_on_grid`, then :func:`compute`."""
    return compute(place_on_grid(volume, mask, spec), spec)
