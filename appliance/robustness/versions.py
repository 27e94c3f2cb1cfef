"""The perturbed versions of one case, measured in one pass.

Each version is drawn anew, and every other one of them is also scanned anew: with noise, on a shifted grid, or on a
turned one. What does not change is made once: the distance map, the noise level, the box that all versions lie in.
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
"""Voxels that all versions together may have, so that a huge tumour does not take for ever: fewer are made of it."""

FEWEST: Final = 10
"""Versions that are made of any tumour, however large."""

_NOISE_REACH: Final = 60.0  # mm around the region in which noise is measured
_SPLINE_MARGIN: Final = 12  # voxels; what lies further adds less than 1e-6 to a coefficient


class Scan(Enum):
    """What is new about a version's image."""

    SAME = auto()
    NOISE = auto()
    SHIFT = auto()
    TURN = auto()


_SCANS: Final = (Scan.SAME, Scan.NOISE, Scan.SAME, Scan.SHIFT, Scan.SAME, Scan.TURN)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A region with all of the image that is there around it.

    Attributes
    ----------
    image
        (slices, rows, columns) in HU: the reference volume, and slices before and behind it where there are any.
    mask
        The region, likewise.
    spacing
        (z, y, x) in mm.
    before
        Slices before the reference volume, in which the measuring grid starts.
    unmeasured
        Pixels that the scanner filled in; None where there are none.
    """

    image: npt.NDArray[Any]
    mask: Mask
    spacing: Spacing
    before: int = 0
    unmeasured: Mask | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """What was measured of the perturbed versions.

    Attributes
    ----------
    values
        (n, k) features in the spec's order, one row a version; NaN where one could not be computed.
    dice
        (n,) overlap of each version's contour with the region.
    left_out
        Versions that were not measured, by the reason.
    fewer
        Versions that were not made because the region is so large.
    contour_mm, noise_hu
        By how much contours were moved (standard deviation), and the noise; None where it could not be measured.
    unknown
        Why there is none, where that was known beforehand.
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
        The case and what is around it.
    roi
        The region as it was measured, unperturbed, which says on which spacing.
    spec, options
        What is measured; how many versions, and how far contours lie apart.
    scans
        What is new about the images of successive versions, over and over. Grids are moved only where the spec
        resamples: elsewhere to interpolate would smooth the image, which no other scan does.
    drawn_anew
        Whether contours are perturbed, too.
    move_grids
        Move grids all the same where the spec does not resample: what that smooths is then a part of what is found.
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
        chance = of_all.branch(number.to_bytes(4, "big"))  # its own, whatever became of those before
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
    """Say why nothing can be learnt of perturbed versions; None where something can."""
    if np.count_nonzero(around.mask.any(axis=(1, 2))) == 1:
        return Unknown.ONE_SLICE
    inside = roi.image[roi.mask]
    if (inside == inside[0]).all():
        return Unknown.FLAT
    return Unknown.TOO_SMALL if surface.voxels < contours.FEWEST_VOXELS else None


def _chance(
    around: Surroundings, surface: contours.Surface, spec: ExtractionSpec, options: RobustnessOptions
) -> Chance:
    """Begin a case's random numbers: the same region in the same voxels always has the same ones.

    Without slices that the region does not lie on, which may have come or not.
    """
    own = around.mask.any(axis=(1, 2))
    rows, columns = (
        slice(max(start, 0), start + n) for start, n in zip(surface.start[1:], surface.distance.shape[1:], strict=True)
    )
    image, mask = around.image[own, rows, columns], around.mask[own, rows, columns]
    asked = (image.shape, around.spacing, sorted(spec.settings.items()), options.contour_mm)
    return Chance(image.tobytes(), np.packbits(mask).tobytes(), repr(asked).encode())


def _noise_level(around: Surroundings, surface: contours.Surface) -> float | None:
    """Measure the noise of the slices that the region lies on, around it."""
    reach = [0, *(int(_NOISE_REACH / step) for step in around.spacing[1:])]
    rows, columns = (
        slice(max(start - far, 0), start + n + far)
        for start, n, far in zip(surface.start[1:], surface.distance.shape[1:], reach[1:], strict=True)
    )
    return images.noise_level(around.image[around.mask.any(axis=(1, 2)), rows, columns])


class _Maker:
    """Measures a mask on one image after another, all of them cropped to the box that any version may need."""

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
        # Of the slices next to the region resampling takes a part, so that they have to be there.
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
        """Measure one version, or say why it is left out."""
        placed = self._place(drawn)
        if isinstance(placed, LeftOut):
            return placed
        image, move = self._image, moved.STILL
        if scan is Scan.NOISE and self._noise:
            # Drawn for all of the box, whether or not its outermost slices are there.
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
        """Put a mask of the distance map's voxels on those of the cropped image."""
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
