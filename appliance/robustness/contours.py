"""Redraw a contour as another person might: grown, shrunk and changed locally within given distances.

A region's surface is moved along its signed distance map by a smooth random displacement. One part of it is constant (a
person who draws generously or tightly). The other part varies from place to place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.radiomics.grid import bounds
from lungstage.appliance.robustness.chance import Chance, Floats

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]

SMOOTHNESS: Final = (5.0, 15.0)
"""Smallest and largest distance (mm) of the knots between which a displacement changes smoothly.

No publication gives the length over which contours of two persons differ along the surface. So the length is varied."""

LEAST_DICE: Final = 0.8
"""Smallest overlap with the region. A contour with less overlap is another opinion, not another drawing of the same."""

_DAMPED: Final = 0.85
_BOTH: Final = math.sqrt(0.5)  # the constant and the varying part have equal variances


FEWEST_VOXELS: Final = 100
"""Fewest voxels of a region. With fewer, more than half are at the surface, and rounding hides all other changes."""


@dataclass(frozen=True, slots=True)
class Surface:
    """A region's surface as a map of distances.

    Attributes
    ----------
    start
        Index (z, y, x) of the map's first voxel in the volume; negative if the map extends beyond the volume.
    distance
        (z, y, x) distance in mm from each voxel's centre to the surface, negative inside, limited to ± `furthest`.
    spacing
        (z, y, x) in mm.
    furthest
        Largest movement of the surface in mm, inwards or outwards.
    voxels
        Number of the region's voxels.
    """

    start: tuple[int, int, int]
    distance: Floats
    spacing: Spacing
    furthest: float
    voxels: int


def surface_of(mask: Mask, spacing: Spacing, furthest: float) -> Surface:
    """Compute the distances to a region's surface.

    Parameters
    ----------
    mask
        (z, y, x).
    spacing
        (z, y, x) in mm.
    furthest
        Largest movement of the surface in mm.
    """
    voxels, box = bounds(mask)
    reach = [math.ceil(furthest / step) + 1 for step in spacing]
    z, y, x = (inside.start - far for inside, far in zip(box, reach, strict=True))
    part = np.pad(mask[box], [(far, far) for far in reach])
    return Surface((z, y, x), signed_distances(part, spacing, furthest), spacing, furthest, voxels)


def signed_distances(mask: Mask, spacing: Spacing, furthest: float) -> Floats:
    """Return the distance in mm from each voxel's centre to the mask's surface, negative inside.

    A squared distance to a box is a sum over the axes. So each axis is searched separately, up to `furthest`, and
    larger distances are set to it. The surface runs along the faces of voxels. Averaging over neighbours within the
    slices brings the distances closer to the drawn line; no voxel changes its side.
    """
    distance = np.where(mask, -_to_nearest(~mask, spacing, furthest), _to_nearest(mask, spacing, furthest))
    for axis in (1, 2):
        line = np.moveaxis(distance, axis, 0)
        line[1:-1] = (line[:-2] + 2 * line[1:-1] + line[2:]) / 4
    return distance


def _to_nearest(mask: Mask, spacing: Spacing, furthest: float) -> Floats:
    square = np.where(mask, 0.0, furthest**2)
    for axis, step in enumerate(spacing):
        line = np.moveaxis(square, axis, 0)
        before = line.copy()
        for far in range(1, min(math.ceil(furthest / step + 0.5), len(before) - 1) + 1):
            added = before + ((far - 0.5) * step) ** 2  # to the near face of a voxel, not to its centre
            np.minimum(line[far:], added[:-far], out=line[far:])
            np.minimum(line[:-far], added[far:], out=line[:-far])
    return np.sqrt(square)


def displacement(chance: Chance, shape: tuple[int, ...], spacing: Spacing, smoothness: float) -> Floats:
    """Return a smooth random field of mean 0 and standard deviation 1: a cubic B-spline over random knots.

    It sums in a fixed order and uses no library's matrix product, so the result is the same on every machine.
    """
    axes = [_knots(n, step / smoothness) for n, step in zip(shape, spacing, strict=True)]
    field = chance.normal(*(int(first.max()) + 4 for first, _ in axes))
    for axis in (2, 1, 0):  # the longest axis last, so that the arrays before it are small
        first, weights = axes[axis]
        field = sum(
            np.take(field, first + knot, axis=axis) * weights[knot].reshape([-1 if d == axis else 1 for d in range(3)])
            for knot in range(4)
        )
    return field


def _knots(count: int, step: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the first of four knots of each place along an axis, and their weights; the squared weights sum to 1."""
    places = np.arange(count) * step
    first = places.astype(np.int64)
    t = places - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3])
    return first, weights / np.sqrt((weights**2).sum(axis=0))


def redrawn(surface: Surface, chance: Chance, generous: float, smoothness: float) -> Mask:
    """Redraw the region as another person might.

    Parameters
    ----------
    surface
        Of the original region.
    chance
        Random numbers for the part that varies from place to place.
    generous
        The constant part: standard normal, positive values move outwards.
    smoothness
        Distance in mm of the knots of the varying part.

    Returns
    -------
    numpy.ndarray
        (z, y, x) bool on the map's voxels; its Dice coefficient with the region is at least :data:`LEAST_DICE`.
    """
    field = displacement(chance, surface.distance.shape, surface.spacing, smoothness)
    most = surface.furthest * (1 - 1e-6)  # stays below the largest distance of the map
    moved = np.clip((field + generous) * (_BOTH * surface.furthest / 2), -most, most)
    original = surface.distance < 0
    while True:
        mask: Mask = surface.distance < moved
        if dice(mask, original, surface.voxels) >= LEAST_DICE:
            return mask
        moved *= _DAMPED


def dice(mask: Mask, other: Mask, voxels: int) -> float:
    """Return the Dice coefficient of two masks; `voxels` is the number of voxels of the second."""
    return 2 * int(np.count_nonzero(mask & other)) / (int(np.count_nonzero(mask)) + voxels)
