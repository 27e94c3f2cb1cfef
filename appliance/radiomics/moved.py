"""Sample a region on a shifted grid, or on a grid turned within the slices, as another scan might do.

A case itself is measured on the grid that PyRadiomics would use, with the same arithmetic as ITK to the last bit
(:mod:`radiomics.grid`). Here the grid is another one with the same spacing, and the arithmetic is simple.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lungstage.appliance.radiomics import _kernels
from lungstage.appliance.radiomics.grid import Floats, Mask, MeasurableRoi, bounds, crop

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Move:
    """Movement of a grid.

    Attributes
    ----------
    shift
        (z, y, x) in voxels of the grid.
    turn
        Angle in radians within the slices, about the middle of the region's box.
    """

    shift: Triple = (0.0, 0.0, 0.0)
    turn: float = 0.0


STILL = Move()


def resample(
    image: npt.NDArray[Any],
    mask: Mask,
    old: Triple,
    new: Triple,
    origin: Triple,
    interpolator: str,
    move: Move = STILL,
) -> MeasurableRoi:
    """Sample image and mask on a grid, and crop them to the region.

    Parameters
    ----------
    image, mask
        (z, y, x); the mask has at least one voxel.
    old, new
        Spacing (z, y, x) of the image and of the grid, in mm.
    origin
        Index (z, y, x) of the voxel at whose outer corner the unmoved grid starts.
    interpolator
        PyRadiomics' name. With ``sitkBSpline`` the grid is not turned.
    move
        Movement of the grid.

    Returns
    -------
    MeasurableRoi
        With the image's pixel type. The mask is taken from the nearest voxels and may be empty.
    """
    box = bounds(mask)[1]
    middle = [(inside.start + inside.stop - 1) / 2 for inside in box]
    half = [(inside.stop - inside.start) / 2 * step for inside, step in zip(box, old, strict=True)]  # mm
    slack = math.hypot(half[1], half[2]) * abs(math.sin(move.turn))
    places: list[Floats] = []
    for axis, inside in enumerate(box):
        ratio = new[axis] / old[axis]
        start = origin[axis] - 0.5 + ratio * (0.5 + move.shift[axis])
        beyond = 1 + slack / old[axis] if axis else 1
        first = math.floor((inside.start - 0.5 - beyond - start) / ratio)
        last = math.ceil((inside.stop - 0.5 + beyond - start) / ratio)
        places.append(start + ratio * np.arange(first, last + 1))
    z, y, x = places
    if move.turn and interpolator != "sitkBSpline":
        return _turned(image, mask, (z, *_turn(y, x, middle, old, move.turn)), new, interpolator)
    indices = [_nearest(place) for place in places]
    kept = [(index >= 0) & (index < n) for index, n in zip(indices, mask.shape, strict=True)]
    zs, ys, xs = (index[inside] for index, inside in zip(indices, kept, strict=True))
    label = np.ascontiguousarray(mask[np.ix_(zs, ys, xs)])
    if interpolator == "sitkNearestNeighbor":
        return _cropped(image[np.ix_(zs, ys, xs)], label, new)
    z, y, x = (place[inside] for place, inside in zip(places, kept, strict=True))
    kernel = _kernels.resample_bspline if interpolator == "sitkBSpline" else _kernels.resample_linear
    return _cropped(_interpolated(kernel, image, (z, y, x), label), label, new)


def _nearest(places: Floats) -> npt.NDArray[np.int64]:
    return np.floor(places + 0.5).astype(np.int64)


def _turn(y: Floats, x: Floats, middle: list[float], spacing: Triple, angle: float) -> tuple[Floats, Floats]:
    """Turn a grid with places (y) and (x); return the places (y, x) of its points."""
    down, across = (y - middle[1])[:, None] * spacing[1], (x - middle[2])[None, :] * spacing[2]
    cosine, sine = math.cos(angle), math.sin(angle)
    return (
        middle[1] + (cosine * down - sine * across) / spacing[1],
        middle[2] + (sine * down + cosine * across) / spacing[2],
    )


def _turned(
    image: npt.NDArray[Any], mask: Mask, places: tuple[Floats, Floats, Floats], new: Triple, interpolator: str
) -> MeasurableRoi:
    z, y, x = places
    zs, ys, xs = map(_nearest, places)
    above = (zs >= 0) & (zs < mask.shape[0])
    z, zs = z[above], zs[above]
    beside = (ys >= 0) & (ys < mask.shape[1]) & (xs >= 0) & (xs < mask.shape[2])
    ys, xs = np.where(beside, ys, 0), np.where(beside, xs, 0)
    label = np.ascontiguousarray(mask[zs[:, None, None], ys, xs] & beside)
    if interpolator == "sitkNearestNeighbor":
        return _cropped(image[zs[:, None, None], ys, xs], label, new)
    return _cropped(_interpolated(_kernels.resample_turned, image, (z, y, x), label), label, new)


def _interpolated(
    kernel: Callable[..., None], image: npt.NDArray[Any], places: tuple[Floats, Floats, Floats], label: Mask
) -> npt.NDArray[Any]:
    """Interpolate in the image's pixel type; integers are cut towards zero, as ITK casts them."""
    known = image.dtype in (np.int16, np.float64)
    source = np.ascontiguousarray(image if known else image.astype(np.float64))
    found = np.zeros(label.shape, dtype=source.dtype)
    kernel(source, *map(np.ascontiguousarray, places), label, found)
    return found if known else found.astype(image.dtype)


def _cropped(image: npt.NDArray[Any], mask: Mask, spacing: Triple) -> MeasurableRoi:
    roi = MeasurableRoi(image, mask, spacing)
    return crop(roi, bounds(mask)[1]) if mask.any() else roi
