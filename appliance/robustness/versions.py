"""Make and measure the perturbed versions of one case in one pass.

Each version has a redrawn contour. Every second version also has a perturbed image: with noise, on a shifted grid, or
on a turned grid. The parts that do not change are made once: the distance map, the noise level and the box that
contains all versions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.robustness import LeftOut, RobustnessOptions, Unknown
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics import extract, moved
from lungstage.appliance.radiomics.grid import Box, Mask, MeasurableRoi, crop
from lungstage.appliance.robustness import contours, images
from lungstage.appliance.robustness.chance import Chance, Floats
from lungstage.appliance.robustness.contours import Spacing

MOST_VOXELS: Final = 20_000_000
"""Limit for the voxels of all versions together. Fewer versions are made of a very large tumour, to limit the time."""

FEWEST: Final = 10
"""Fewest versions that are made, even of a very large tumour."""

_NOISE_REACH: Final = 60.0  # mm around the region in which noise is measured
_SPLINE_MARGIN: Final = 12  # voxels; voxels further away add less than 1e-6 to a coefficient


class Scan(Enum):
    """How a version's image is perturbed."""

    SAME = auto()
    NOISE = auto()
    SHIFT = auto()
    TURN = auto()


_SCANS: Final = (Scan.SAME, Scan.NOISE, Scan.SAME, Scan.SHIFT, Scan.SAME, Scan.TURN)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A region with all of the available image around it.

    Attributes
    ----------
    image
        (slices, rows, columns) in HU: the reference volume, and the slices before and behind it, if any.
    mask
        The region, with the same shape.
    spacing
        (z, y, x) in mm.
    before
        Number of slices before the reference volume. The measuring grid starts at the reference volume.
    unmeasured
        Pixels that the scanner did not measure (padding); None if there are none.
    """

    image: npt.NDArray[Any]
    mask: Mask
    spacing: Spacing
    before: int = 0
    unmeasured: Mask | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """The measured values of the perturbed versions.

    Attributes
    ----------
    values
        (n, k) features in the spec's order, one row per version; NaN if one could not be computed.
    dice
        (n,) overlap of each version's contour with the region.
    left_out
        Number of versions that were not measured, by reason.
    fewer
        Number of versions that were not made because the region is too large.
    contour_mm, noise_hu
        Standard deviation of the contours' movement, and the noise; None if the noise could not be measured.
    unknown
        Why no versions were made, if they are of no use for this case.
    """

    values: Floats
    dice: Floats
    left_out: dict[LeftOut, int]
    fewer: int = 0
    contour_mm: float = 0.0
    noise_hu: float | None = None
    unknown: Unknown | None = None


def perturb(
    around: Surroundings,
    roi: MeasurableRoi,
    spec: ExtractionSpec,
    options: RobustnessOptions,
    scans: Sequence[Scan] = _SCANS,
    *,
    drawn_anew: bool = True,
    move_grids: bool = False,
) -> Versions:
    """Measure perturbed versions of a case.

    Parameters
    ----------
    around
        The case and the image around it.
    roi
        The unperturbed region as it was measured; its spacing is used for all versions.
    spec, options
        What to measure; number of versions, and distance between contours.
    scans
        How the images of successive versions are perturbed, repeated as needed. Grids are moved only if the spec
        resamples. Otherwise interpolation would smooth the image, and another scan does not do that.
    drawn_anew
        Whether contours are perturbed, too.
    move_grids
        Move grids even if the spec does not resample. The result then includes the effect of smoothing.
    """
    surface = contours.surface_of(around.mask, around.spacing, options.reach_mm)
    unknown = _unknown(around, roi, surface)
    if unknown is not None:
        return Versions(np.empty((0, len(spec.features))), np.empty(0), {}, unknown=unknown)
    made = max(min(options.perturbations, MOST_VOXELS // max(int(roi.mask.sum()), surface.voxels)), FEWEST)
    made = min(made, options.perturbations)
    noise = _noise_level(around, surface)
    of_all = _chance(around, surface, spec, options)
    maker = _Maker(around, roi, spec, surface, noise, move_grids=move_grids)
    values, overlaps, left_out = [], [], Counter[LeftOut]()
    smooth = of_all.shuffled(np.linspace(*contours.SMOOTHNESS, made)).tolist()
    for number, generous in enumerate(of_all.evenly_normal(made).tolist()):
        chance = of_all.branch(number.to_bytes(4, "big"))  # independent of the versions before
        mask = contours.redrawn(surface, chance, generous, smooth[number]) if drawn_anew else surface.distance < 0
        found = maker.measured(mask, scans[number % len(scans)], chance)
        if isinstance(found, LeftOut):
            left_out[found] += 1
        else:
            values.append(found)
            overlaps.append(contours.dice(mask, surface.distance < 0, surface.voxels))
    return Versions(
        np.array(values).reshape(-1, len(spec.features)),
        np.array(overlaps),
        dict(left_out),
        options.perturbations - made,
        options.contour_mm,
        noise,
    )


def _unknown(around: Surroundings, roi: MeasurableRoi, surface: contours.Surface) -> Unknown | None:
    """Return why perturbed versions are of no use for this case; None if they are of use."""
    if np.count_nonzero(around.mask.any(axis=(1, 2))) == 1:
        return Unknown.ONE_SLICE
    inside = roi.image[roi.mask]
    if (inside == inside[0]).all():
        return Unknown.FLAT
    return Unknown.TOO_SMALL if surface.voxels < contours.FEWEST_VOXELS else None


def _chance(
    around: Surroundings, surface: contours.Surface, spec: ExtractionSpec, options: RobustnessOptions
) -> Chance:
    """Start a case's random numbers: the same region in the same voxels always has the same ones.

    Only slices of the region are used, because it is not certain that other slices have arrived.
    """
    own = around.mask.any(axis=(1, 2))
    rows, columns = (
        slice(max(start, 0), start + n) for start, n in zip(surface.start[1:], surface.distance.shape[1:], strict=True)
    )
    image, mask = around.image[own, rows, columns], around.mask[own, rows, columns]
    asked = (image.shape, around.spacing, sorted(spec.settings.items()), options.contour_mm)
    return Chance(image.tobytes(), np.packbits(mask).tobytes(), repr(asked).encode())


def _noise_level(around: Surroundings, surface: contours.Surface) -> float | None:
    """Measure the noise around the region, on the slices of the region."""
    reach = [0, *(int(_NOISE_REACH / step) for step in around.spacing[1:])]
    rows, columns = (
        slice(max(start - far, 0), start + n + far)
        for start, n, far in zip(surface.start[1:], surface.distance.shape[1:], reach[1:], strict=True)
    )
    return images.noise_level(around.image[around.mask.any(axis=(1, 2)), rows, columns])


class _Maker:
    """Measures masks on perturbed images, all cropped to the box that contains every version."""

    def __init__(
        self,
        around: Surroundings,
        roi: MeasurableRoi,
        spec: ExtractionSpec,
        surface: contours.Surface,
        noise: float | None,
        *,
        move_grids: bool,
    ) -> None:
        self._spec, self._new, self._noise = spec, roi.spacing, noise
        self._old = around.spacing
        self._interpolator = str(spec.settings.get("interpolator", "sitkBSpline"))
        self._resamples = not np.allclose(self._old, self._new)
        self._moves = self._resamples or move_grids
        # Resampling also uses the slices next to the region, so they must be available.
        edge = 1 if self._resamples and self._interpolator != "sitkNearestNeighbor" else 0
        occupied = np.flatnonzero(around.mask.any(axis=(1, 2)))
        slices = len(around.image)
        self._slices = min(int(occupied[0]), edge), max(int(occupied[-1]), slices - 1 - edge)
        margin = _SPLINE_MARGIN if self._interpolator == "sitkBSpline" else 2
        self._start = surface.start
        sizes = surface.distance.shape
        crop_ = [
            (max(start - margin, 0), min(start + n + margin, whole))
            for start, n, whole in zip(surface.start, sizes, around.image.shape, strict=True)
        ]
        self._box: Box = (slice(*crop_[0]), slice(*crop_[1]), slice(*crop_[2]))
        self._image = np.ascontiguousarray(around.image[self._box])
        self._whole = tuple(n + 2 * margin for n in sizes)
        self._there = tuple(
            slice(low - start + margin, high - start + margin)
            for (low, high), start in zip(crop_, surface.start, strict=True)
        )
        self._unmeasured = None if around.unmeasured is None else around.unmeasured[self._box]
        self._origin = (float(around.before - crop_[0][0]), float(-crop_[1][0]), float(-crop_[2][0]))
        self._shape = around.image.shape

    def measured(self, drawn: Mask, scan: Scan, chance: Chance) -> Floats | LeftOut:
        """Measure one version, or return why it is left out."""
        placed = self._place(drawn)
        if isinstance(placed, LeftOut):
            return placed
        image, move = self._image, moved.STILL
        if scan is Scan.NOISE and self._noise:
            # Noise is made for the whole box, even if its outermost slices are not available.
            image = images.with_noise(image, self._noise * chance.normal(*self._whole)[self._there])
        elif scan in (Scan.SHIFT, Scan.TURN) and self._moves:
            z, y, x, turn = np.clip(chance.normal(4) / 2, -1, 1).tolist()
            if scan is Scan.TURN and self._interpolator != "sitkBSpline":
                move = moved.Move(turn=float(np.deg2rad(images.TURN * turn)))
            else:
                move = moved.Move((images.SHIFT * z, images.SHIFT * y, images.SHIFT * x))
        roi = self._on_grid(image, placed, move)
        try:
            extract.prove_measurable(roi, self._spec)
            return extract.compute(roi, self._spec).values
        except Refused:
            return LeftOut.TOO_SMALL

    def _on_grid(self, image: npt.NDArray[Any], mask: Mask, move: moved.Move) -> MeasurableRoi:
        if self._resamples or move is not moved.STILL:
            return moved.resample(image, mask, self._old, self._new, self._origin, self._interpolator, move)
        (z, y, x) = (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
        box = (slice(z[0], z[-1] + 1), slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1))
        return crop(MeasurableRoi(image, mask, self._new), box)

    def _place(self, drawn: Mask) -> Mask | LeftOut:
        """Transfer a mask from the voxels of the distance map to those of the cropped image."""
        if not drawn.any():
            return LeftOut.TOO_SMALL
        edges = [np.flatnonzero(drawn.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        first = [start + int(edge[0]) for start, edge in zip(self._start, edges, strict=True)]
        last = [start + int(edge[-1]) for start, edge in zip(self._start, edges, strict=True)]
        if first[0] < self._slices[0] or last[0] > self._slices[1]:
            return LeftOut.SLICES
        if any(first[axis] < 0 or last[axis] >= self._shape[axis] for axis in (1, 2)):
            return LeftOut.EDGE
        mask = np.zeros(self._image.shape, dtype=bool)
        here = tuple(slice(a - box.start, b + 1 - box.start) for a, b, box in zip(first, last, self._box, strict=True))
        there = tuple(slice(int(edge[0]), int(edge[-1]) + 1) for edge in edges)
        mask[here] = drawn[there]
        if self._unmeasured is not None and (mask & self._unmeasured).any():
            return LeftOut.UNMEASURED
        return mask
