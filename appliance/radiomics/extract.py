"""Reference volume, mask and spec in; the selected features out, by the engine that the spec names."""

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
    """Refuse masks that PyRadiomics would refuse, in plainer words."""
    if voxels == 0:
        raise Refused(ReasonCode.ROI_EMPTY, f"The region holds no voxel{when}. Draw it larger, and export again.")
    extents = sum(index.stop - index.start > 1 for index in box)
    if extents == 0 or extents < spec.settings.get("minimumROIDimensions", 2):
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"The region is too small to be measured{when}: its number of voxels is {voxels}, and it extends along "
            f"{extents} of 3 axes. Look whether it is the whole tumour; if it is, it cannot be measured.",
        )
    minimum = spec.settings.get("minimumROISize")
    if minimum is not None and voxels <= minimum:
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"The region's number of voxels is {voxels}{when}, and the extraction spec (minimumROISize) asks for more "
            f"than {minimum}. Look whether it is the whole tumour; if it is, it cannot be measured.",
        )


def prove_measurable(roi: MeasurableRoi, spec: ExtractionSpec) -> None:
    """Refuse a region on its grid that is empty or too small, as :func:`place_on_grid` does."""
    voxels, box = grid.bounds(roi.mask)
    _prove_measurable(voxels, box, spec, " after resampling")


def place_on_grid(volume: hd.Volume, mask: npt.NDArray[np.bool_], spec: ExtractionSpec) -> MeasurableRoi:
    """Resample and crop a reference volume.

    Parameters
    ----------
    volume
        (slices, rows, columns) in HU; its first voxel is the origin of the resampling grid, or its centre is the centre
        where the spec's grid is IBSI's.
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
    """Part the features by the mask that they are measured on, where re-segmentation makes two of the one."""
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
    """Load the engine that PyRadiomics is needed for, and nothing else."""
    try:
        from lungstage.appliance.radiomics import reference
    except ModuleNotFoundError as error:
        if error.name != "radiomics":
            raise
        raise Refused(
            ReasonCode.SPEC_UNSUPPORTED,
            "The reference engine is PyRadiomics, which is not installed: pip install 'lungstage[reference]'.",
        ) from error
    return reference


def compute(roi: MeasurableRoi, spec: ExtractionSpec) -> FeatureVector:
    """Compute the features that `spec` names, and nothing that they do not need.

    Returns
    -------
    FeatureVector
        In the spec's order; NaN where PyRadiomics' formula fails.

    Raises
    ------
    Refused
        ``roi_too_small`` where a selected texture has no neighbours to look at; that or ``roi_empty`` where too little
        is left after re-segmentation; ``spec_unsupported`` for the reference engine without PyRadiomics.

    Notes
    -----
    Definitions are those of PyRadiomics 3.0.1; where they differ from IBSI is listed in ``tests/appliance/radiomics``.
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
