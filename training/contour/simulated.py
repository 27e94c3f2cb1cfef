"""Prompts as a person would give them, simulated from an expert's mask; all masks are (z, y, x) on 1 mm."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from lungstage.appliance.contour.prompts import Kind, Prompt
from lungstage.appliance.contour.windows import Point

Mask = npt.NDArray[np.bool_]

ENDS_MM: Final = 1.5
"""Standard deviation of the ends of a person's line, along each axis within the slice."""

CORRECTED_MM: Final = 10.0
"""Radius within which a simulated correction is taken to have done its work."""

LONG_ENOUGH: Final = 0.75
"""A person does not find the slice with the longest diameter; any with this share of it may be taken."""


def diameters(mask: Mask) -> dict[int, tuple[Point, Point]]:
    """Longest line within each slice of a mask, as its two ends in voxels (x, y, z)."""
    found = {}
    for z in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        points = np.argwhere(mask[z] & ~ndimage.binary_erosion(mask[z]))
        with contextlib.suppress(QhullError):  # it has no area
            points = points[ConvexHull(points).vertices]
        if len(points) < 2:
            continue
        apart = squareform(pdist(points))
        a, b = np.unravel_index(np.argmax(apart), apart.shape)
        (ya, xa), (yb, xb) = points[a].tolist(), points[b].tolist()
        found[z] = ((float(xa), float(ya), float(z)), (float(xb), float(yb), float(z)))
    return found


def prompt(mask: Mask, lines: dict[int, tuple[Point, Point]], kind: Kind, rng: np.random.Generator) -> Prompt:
    """Simulate a person's prompt for a tumour.

    Parameters
    ----------
    mask
        The expert's contour.
    lines
        Its :func:`diameters`.
    """
    if kind == "diameter":
        longest = max(_length(line) for line in lines.values())
        slices = [z for z, line in lines.items() if _length(line) >= LONG_ENOUGH * longest]
        first, second = lines[slices[int(rng.integers(len(slices)))]]
        return Prompt("diameter", (_moved(first, rng), _moved(second, rng)))
    where = np.argwhere(mask)
    if kind == "box":
        low, high = where.min(axis=0) - 0.5, where.max(axis=0) + 0.5
        low, high = low + rng.normal(0, 2.0, 3), high + rng.normal(0, 2.0, 3)
        return Prompt("box", (_point(low), _point(high)))
    # A person points at the middle rather than at the edge.
    depth = ndimage.distance_transform_edt(mask)[mask]
    return Prompt("point", (_point(where[int(rng.choice(len(where), p=depth / depth.sum()))]),))


def correction(mask: Mask, drawn: Mask, rng: np.random.Generator) -> tuple[Point, bool] | None:
    """Simulate a person's next correction: in the middle of one of the largest mistakes.

    Returns
    -------
    tuple or None
        The point, and whether it belongs to the tumour. None if there is nothing worth a correction.
    """
    best: list[tuple[float, Point, bool]] = []
    for wrong, belongs in ((mask & ~drawn, True), (drawn & ~mask, False)):
        depth = ndimage.distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1, 1:-1]
        if depth.max() >= 2:
            at = np.unravel_index(int(np.argmax(depth * rng.uniform(0.9, 1.0, depth.shape))), depth.shape)
            best.append((float(depth[at]), _point(np.array(at)), belongs))
    if not best:
        return None
    _, point, belongs = max(best, key=lambda one: one[0])
    return point, belongs


def with_correction(prompt: Prompt, drawn: Mask, point: Point, belongs: bool) -> tuple[Prompt, Mask]:
    """Add a correction to a prompt, and make the mask right within :data:`CORRECTED_MM`, so that the next differs."""
    if belongs:
        prompt = replace(prompt, include=(*prompt.include, point))
    else:
        prompt = replace(prompt, exclude=(*prompt.exclude, point))
    away = [(axis - at) ** 2 for axis, at in zip(np.ogrid[tuple(map(slice, drawn.shape))], point[::-1], strict=True)]
    near = away[0] + away[1] + away[2] <= CORRECTED_MM**2
    return prompt, np.where(near, belongs, drawn)


def _length(line: tuple[Point, Point]) -> float:
    return float(np.linalg.norm(np.subtract(*line)))


def _moved(point: Point, rng: np.random.Generator) -> Point:
    x, y = rng.normal(0, ENDS_MM, 2)
    return point[0] + x, point[1] + y, point[2]


def _point(zyx: npt.NDArray[np.generic]) -> Point:
    z, y, x = (float(v) for v in zyx)
    return x, y, z
