"""Compute the features of a region on its verified slices, and time each step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.spec import ExtractionSpec, FeatureVector
from lungstage.appliance.dicom.completeness import ReferenceSlices
from lungstage.appliance.dicom.header import ImageHeader, RoiHeader
from lungstage.appliance.dicom.names import the_region
from lungstage.appliance.dicom.raster import rasterise
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.series import ReferenceVolume, lost_by_compression, of_unspecified_unit, read_volume
from lungstage.appliance.radiomics import compiled, extract, grid

Mask = npt.NDArray[np.bool_]
PlacedRegion = tuple[Region, ReferenceSlices]


class Stopwatch:
    """Seconds spent in each named step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside to step `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Measurement:
    """The features of one region, with the voxels that they were measured on.

    Attributes
    ----------
    region, slices, voxels, mask
        The measured region, its slices, their voxels in HU and the mask, (slices, rows, columns).
    features
        The selected features.
    roi
        The region on the grid on which the features were computed.
    hu_range
        Lowest and highest HU inside the region, before and after resampling.
    before, behind
        Slices beyond the reference volume, if any can be read.
    warnings
        Plain sentences for the report.
    """

    region: Region
    slices: ReferenceSlices
    voxels: ReferenceVolume
    mask: Mask
    features: FeatureVector
    roi: grid.MeasurableRoi
    hu_range: tuple[float, float]
    warnings: tuple[str, ...]
    before: ReferenceVolume | None = None
    behind: ReferenceVolume | None = None


def _within_reach(mask: Mask, reach: int) -> Mask:
    """Return the mask grown by `reach` voxels along every axis: interpolation uses these voxels, too."""
    grown = mask
    for axis in range(3):
        line = grown
        for shift in range(1, reach + 1):
            moved = [slice(None)] * 3, [slice(None)] * 3
            moved[0][axis], moved[1][axis] = slice(shift, None), slice(None, -shift)
            grown = grown.copy()
            grown[tuple(moved[0])] |= line[tuple(moved[1])]
            grown[tuple(moved[1])] |= line[tuple(moved[0])]
    return grown


def measure(
    regions: Sequence[PlacedRegion], spec: ExtractionSpec, watch: Stopwatch, *, save_volume: Path | None = None
) -> Measurement:
    """Read the reference volume and compute the features.

    Parameters
    ----------
    regions
        The region to measure with its slices; any others must agree with it.
    spec
        What to measure.
    watch
        Collects the seconds of each step.
    save_volume
        A folder to write the reference volume and its mask to.

    Raises
    ------
    Refused
        ``roi_disagree``, ``padding_in_roi``, or a refusal while reading and rasterising.
    """
    region, slices = regions[0]
    with watch.step("read"):
        voxels = read_volume(slices)
    with watch.step("roi"):
        mask = rasterise(slices)
        for other, other_slices in regions[1:]:
            names = [image.name for image in slices.images]
            if names != [image.name for image in other_slices.images] or (rasterise(other_slices) != mask).any():
                raise _disagreement(region.source, other.source)
        if voxels.padding is not None and (voxels.padding & _within_reach(mask, spec.margin_slices)).any():
            raise Refused(
                ReasonCode.PADDING_IN_ROI,
                f"{the_region(region.name)} contains or touches padding, that is pixels that the scanner did not "
                "measure. Resampling would mix them in. Keep the contour away from the edge of the measured field, "
                "or send a reconstruction with a larger field, with the region drawn on it.",
                (region.name,),
            )
    volume = voxels.volume if spec.resampled_spacing is None else grid.single_precision(voxels.volume)
    roi, features, told = measure_volume(volume, mask, spec, watch, save_volume=save_volume)
    warnings: list[str] = []
    if any(lost_by_compression(dataset) for dataset in voxels.datasets):
        warnings.append("Slices were compressed with loss. Their values differ from those of the scanner.")
    if any(of_unspecified_unit(dataset) for dataset in voxels.datasets):
        warnings.append(
            "The slices give no unit for their values (Rescale Type, 0028,1054). The values were taken as HU."
        )
    warnings += told
    with watch.step("read"):
        before, behind = (_beyond(slices, images) for images in (slices.before, slices.behind))
    hu_range = _hu_range(voxels, mask, roi)
    return Measurement(region, slices, voxels, mask, features, roi, hu_range, tuple(warnings), before, behind)


def _beyond(slices: ReferenceSlices, images: tuple[ImageHeader, ...]) -> ReferenceVolume | None:
    """Read slices that the measurement does not depend on. If one cannot be read, the case is not affected."""
    try:
        return read_volume(replace(slices, images=images)) if images else None
    except (Refused, Unavailable, OSError):
        return None


def measure_volume(
    volume: hd.Volume, mask: Mask, spec: ExtractionSpec, watch: Stopwatch, *, save_volume: Path | None = None
) -> tuple[grid.MeasurableRoi, FeatureVector, tuple[str, ...]]:
    """Compute the features of a volume and its mask, from DICOM or NIfTI.

    Parameters
    ----------
    volume, mask
        (slices, rows, columns).
    spec, watch, save_volume
        As for :func:`measure`.

    Returns
    -------
    tuple
        The region as it was measured, its features, and warnings.

    Raises
    ------
    Refused
        See :mod:`radiomics.extract`.
    """
    with watch.step("roi"):
        pieces = compiled.components(mask)
    with watch.step("resample"):
        roi = extract.place_on_grid(volume, mask, spec)
    with watch.step("radiomics"):
        features = extract.compute(roi, spec)
    if save_volume is not None:
        grid.save(volume, mask, save_volume)
    warnings: list[str] = []
    if pieces > 1:
        warnings.append(f"The region of interest consists of {pieces} separate parts.")
    failed = [name for name, value in features.as_dict().items() if value is None]
    if failed:
        warnings.append(f"These features could not be computed: {', '.join(failed)}.")
    return roi, features, tuple(warnings)


def _disagreement(one: RoiHeader, other: RoiHeader) -> Refused:
    if one.sop_instance_uid == other.sop_instance_uid:
        code = ReasonCode.CONFLICTING_INSTANCES
        which = f"Two files with the same SOP Instance UID, {one.sop_instance_uid},"
    else:
        code = ReasonCode.ROI_DISAGREE if other.kind != one.kind else ReasonCode.ROI_AMBIGUOUS
        which = f"{one.kind} {one.sop_instance_uid} and {other.kind} {other.sop_instance_uid}"
    return Refused(
        code,
        f"{which} contain different contours of the tumour. Look at both over the CT, and keep only the right one.",
    )


def _hu_range(voxels: ReferenceVolume, mask: Mask, roi: grid.MeasurableRoi) -> tuple[float, float]:
    inside = voxels.volume.array[mask]
    resampled = roi.image[roi.mask]
    return float(min(inside.min(), resampled.min())), float(max(inside.max(), resampled.max()))
