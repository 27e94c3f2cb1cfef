"""Contours that another hand might have drawn: the region grown, shrunk and re-drawn within given distances.

A region's surface is moved along its signed distance map by a smooth random displacement, one part of which is the same
all over (a hand that draws generously or tightly) and the other varies from place to place.
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
"""Least and greatest distance (mm) of the knots between which a displacement changes smoothly.

How far a difference between two hands extends along the surface nobody has published; so it is varied."""

LEAST_DICE: Final = 0.8
"""Overlap with the region below which a contour is taken for another opinion, and no longer for another hand."""

_DAMPED: Final = 0.85
_BOTH: Final = math.sqrt(0.5)  # the part that is the same all over and the one that varies have equal variances


FEWEST_VOXELS: Final = 100
"""Of fewer voxels more than half lie at the surface, and contours of different hands cannot be told from rounding."""


@dataclass(frozen=True, slots=True)
class Surface:
    """A region's surface as a map of distances.

    Attributes
    ----------
    start
        Index (z, y, x) in the volume of the map's first voxel; below 0 where the map reaches beyond the volume.
    distance
        (z, y, x) mm from each voxel's centre to the surface, negative inside, and ± `furthest` where it is further.
    spacing
        (z, y, x) in mm.
    furthest
        mm that the surface is moved at most, inwards or outwards.
    voxels
        Of the region.
    """

    start: tuple[int, int, int]
    distance: Floats
    spacing: Spacing
    furthest: float
    voxels: int


def surface_of(mask: Mask, spacing: Spacing, furthest: float) -> Surface:
    """Map the distances to a region's surface.

    Parameters
    ----------
    mask
        (z, y, x).
    spacing
        (z, y, x) in mm.
    furthest
        mm that the surface may be moved at most.
    """
    voxels, box = bounds(mask)
    reach = [math.ceil(furthest / step) + 1 for step in spacing]
    z, y, x = (inside.start - far for inside, far in zip(box, reach, strict=True))
    part = np.pad(mask[box], [(far, far) for far in reach])
    return Surface((z, y, x), signed_distances(part, spacing, furthest), spacing, furthest, voxels)


def signed_distances(mask: Mask, spacing: Spacing, furthest: float) -> Floats:
    """Distance in mm of each voxel's centre to the surface between voxels of the mask and others, negative inside.

    A squared distance to a box is a sum over the axes, so that each axis is searched by itself, and no further than
    `furthest`, which stands for everything beyond. The surface itself runs along the faces of voxels; averaged within
    the slices over neighbours the distances follow the line that somebody drew, and no voxel changes its side.
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
    """Random field of mean 0 and standard deviation 1 that changes smoothly: a cubic B-spline over random knots.

    Sums in a given order, and no library's matrix product, so that it is the same everywhere.
    """
    axes = [_knots(n, step / smoothness) for n, step in zip(shape, spacing, strict=True)]
    field = chance.normal(*(int(first.max()) + 4 for first, _ in axes))
    for axis in (2, 1, 0):  # the longest last: what comes before is small
        first, weights = axes[axis]
        field = sum(
            np.take(field, first + knot, axis=axis) * weights[knot].reshape([-1 if d == axis else 1 for d in range(3)])
            for knot in range(4)
        )
    return field


def _knots(count: int, step: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """First of four knots of each place along an axis, and their weights, whose squares add up to 1."""
    places = np.arange(count) * step
    first = places.astype(np.int64)
    t = places - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3])
    return first, weights / np.sqrt((weights**2).sum(axis=0))


def redrawn(surface: Surface, chance: Chance, generous: float, smoothness: float) -> Mask:
    """Draw the region as another hand might.

    Parameters
    ----------
    surface
        Of the region as it was drawn.
    chance
        Decides on the part that varies from place to place.
    generous
        The part that is the same all over: standard normal, above 0 outwards.

    Returns
    -------
    numpy.ndarray
        (z, y, x) bool on the map's voxels; its Dice coefficient with the region is at least :data:`LEAST_DICE`.
    """
    field = displacement(chance, surface.distance.shape, surface.spacing, smoothness)
    most = surface.furthest * (1 - 1e-6)  # what is further than the map tells is never reached
    moved = np.clip((field + generous) * (_BOTH * surface.furthest / 2), -most, most)
    original = surface.distance < 0
    while True:
        mask: Mask = surface.distance < moved
        if dice(mask, original, surface.voxels) >= LEAST_DICE:
            return mask
        moved *= _DAMPED


def dice(mask: Mask, other: Mask, voxels: int) -> float:
    """Dice coefficient of two masks, the other one of so many voxels."""
    return 2 * int(np.count_nonzero(mask & other)) / (int(np.count_nonzero(mask)) + voxels)
