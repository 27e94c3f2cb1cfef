"""The subjects of the benchmarks: generated tumours, the grids, and the ways to pass a region to an engine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import featureextractor

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.model.manifest import parse as parse_manifest
from lungstage.appliance.radiomics import grid
from tests.conftest import ROOT
from tests.long.benchmarks.bare import milliseconds

Mask = npt.NDArray[np.bool_]
Placed = tuple[hd.Volume, Mask]

BUNDLE = ROOT / "models" / "lung1-stage"
# Slices of 2.5 mm and pixels of 0.8 mm: five pixels, or two slices, are whole steps of a 1 mm grid. So a crop by whole
# periods does not change PyRadiomics' grid.
SHAPE, SPACING, PERIOD = (80, 512, 512), (2.5, 0.8, 0.8), 5
DIAMETERS = (10, 40, 90)  # mm

ONE_MM = {"binWidth": 25, "resampledPixelSpacing": [1, 1, 1]}
GRIDS: Mapping[str, Mapping[str, Any]] = {
    "native": {"binWidth": 25},
    "1 mm linear": ONE_MM | {"interpolator": "sitkLinear"},
    "1 mm B-spline": ONE_MM | {"interpolator": "sitkBSpline"},
}
FAST_GRIDS = ("native", "1 mm linear")  # the other libraries are measured on these grids, too


@dataclass(frozen=True)
class Subject:
    """A region in a whole CT series, and the reference volume that the appliance would read for it.

    Attributes
    ----------
    name
        For the tables.
    whole
        Every slice, and the mask.
    reference
        The ROI's slices and the margin that a spec needs, uncropped.
    period
        Number of voxels in a row or column after which the resampling grid coincides with the voxels again; 1 if it
        never does.
    """

    name: str
    whole: Placed
    reference: Callable[[ExtractionSpec], Placed]
    period: int


def one_core() -> None:
    """Keep this process and its child processes on one core."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def bundle_features() -> tuple[str, ...]:
    """Return the features of the shipped bundle."""
    return parse_manifest((BUNDLE / "manifest.json").read_bytes()).feature_names


def noise(shape: tuple[int, ...] = SHAPE, spacing: tuple[float, ...] = SPACING) -> hd.Volume:
    """Make a CT of random HU, the worst case for branches."""
    hu = np.random.default_rng(5).integers(-150, 150, size=shape, dtype=np.int16)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing
    affine[3, 3] = 1
    return hd.Volume(hu, affine, coordinate_system="PATIENT")


def rough_ball(volume: hd.Volume, millimetres: float) -> Mask:
    """Make a ball of about this diameter in the middle of a volume, with an uneven surface like a tumour's."""
    z, y, x = np.meshgrid(
        *((np.arange(n) - n / 2) * s for n, s in zip(volume.spatial_shape, volume.spacing, strict=True)),
        indexing="ij",
        sparse=True,
    )
    radius = millimetres / 2 * (1 + 0.1 * np.sin(x / 3) * np.cos(y / 4))
    inside: Mask = x * x + y * y + z * z <= radius * radius
    return inside


def tumours() -> Iterator[Subject]:
    """Yield rough balls of three sizes in a CT of 512 × 512 × 80."""
    volume = noise()
    for diameter in DIAMETERS:
        mask = rough_ball(volume, diameter)
        yield Subject(
            f"{diameter} mm", (volume, mask), lambda spec, m=mask: slices_of(volume, m, spec.margin_slices), PERIOD
        )


def slices_of(volume: hd.Volume, mask: Mask, margin: int) -> Placed:
    """Return the slices of the ROI and a margin, as the appliance reads them."""
    inside = np.flatnonzero(mask.any(axis=(1, 2)))
    kept = slice(max(0, inside[0] - margin), inside[-1] + margin + 1)
    return volume[kept], mask[kept]


def cropped(volume: hd.Volume, mask: Mask, margin: int, period: int = 1) -> Placed:
    """Crop to the rows and columns of the ROI and at least the margin, starting at a whole number of periods."""
    _, (_, *plane) = grid.bounds(mask)
    rows, columns = (slice(max(0, (index.start - margin) // period * period), index.stop + margin) for index in plane)
    return volume[:, rows, columns], np.ascontiguousarray(mask[:, rows, columns])


def stock(features: tuple[str, ...], settings: Mapping[str, Any], info: bool) -> Any:
    """Return PyRadiomics' own extractor for these features."""
    extractor = featureextractor.RadiomicsFeatureExtractor(**settings, additionalInfo=info)
    extractor.disableAllFeatures()
    wanted: dict[str, list[str]] = {}
    for feature in features:
        _, group, name = feature.split("_", 2)
        wanted.setdefault(group, []).append(name)
    extractor.enableFeaturesByName(**wanted)
    return extractor


def median_milliseconds(work: Callable[[], object], seconds: float = 1.0) -> float:
    """Return the median time of at least three calls, after one untimed call."""
    work()
    return statistics.median(milliseconds(work, seconds))


def once(work: Callable[[], object]) -> float:
    """Return the time of one call; calls that take seconds need no median."""
    return milliseconds(work, fewest=1, most=1)[0]
