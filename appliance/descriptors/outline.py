"""Find the outlines of a mask in each axial slice, as closed polygons in mm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

# The four voxel centres of a square, in order around it, as (row, column) from the first.
_CORNERS = ((0, 0), (0, 1), (1, 1), (1, 0))


@dataclass(frozen=True, slots=True)
class Outline:
    """One closed line around a part of the mask, or around a hole in it, in one axial slice.

    Attributes
    ----------
    slice
        Index of the slice.
    points
        (n, 2) corners (row, column) in mm from the centre of the first voxel, in order; the last is joined to the
        first. Each corner is midway between the centres of a voxel inside and a voxel outside.
    area
        Area of the polygon in mm²; negative around a hole, because the mask is on the same side of every line.
    smooth
        (n, 2) points midway between neighbouring corners. They give the line without the voxel steps. These steps make
        a circle longer by a twentieth, and a smooth outline irregular.
    """

    slice: int
    points: Floats
    area: float
    smooth: Floats

    @property
    def is_hole(self) -> bool:
        """Whether the line runs around a hole."""
        return self.area < 0

    @property
    def perimeter(self) -> float:
        """Length of the smooth line in mm."""
        return length(self.smooth)


def outer(outlines: Iterable[Outline]) -> list[Outline]:
    """Leave out the lines around holes."""
    return [outline for outline in outlines if not outline.is_hole]


def length(points: Floats) -> float:
    """Length in mm of the closed line through `points` (n, 2)."""
    row, column = (points - np.roll(points, 1, axis=0)).T
    return float(np.hypot(row, column).sum())


@lru_cache(maxsize=1)
def _turns() -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each of the 16 kinds of square, return the sides at which the outline enters and leaves.

    Side k is between corners k and k + 1. Corner k is inside if bit k of the kind is set. Each run of inside corners
    has a separate line, so two runs that touch across the diagonal stay separate.
    """
    kinds = []
    for kind in range(16):
        inside = [bool(kind >> k & 1) for k in range(4)]
        lines = []
        for k in range(4):
            if inside[k] and not inside[k - 1]:
                end = next(n for n in range(k, k + 4) if not inside[(n + 1) % 4])
                lines.append(((k - 1) % 4, end % 4))
        kinds.append(tuple(lines))
    return tuple(kinds)


def outlines(mask: Mask, spacing: Spacing) -> tuple[Outline, ...]:
    """Follow the outline of a mask in every axial slice.

    Parameters
    ----------
    mask
        (slices, rows, columns).
    spacing
        (slices, rows, columns) in mm.

    Returns
    -------
    tuple of Outline
        Slice by slice; each part and each hole is a separate line.

    Notes
    -----
    Marching squares (Lorensen and Cline's marching cubes, SIGGRAPH 1987, in a plane).
    """
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    corners = [padded[:, r : padded.shape[1] - 1 + r, c : padded.shape[2] - 1 + c] for r, c in _CORNERS]
    kinds = sum((corner.astype(np.uint8) << bit for bit, corner in enumerate(corners)), np.uint8(0))
    across = padded.shape[2]
    plane = padded.shape[1] * across
    # The number of a side is twice the number of its first voxel, plus one if the side runs down the rows.
    sides = np.array([0, 2 + 1, 2 * across, 1])
    # The number of a square is that of its first voxel in the padded slices. None starts in the last row or column.
    places = np.flatnonzero((kinds > 0) & (kinds < 15))
    kind_of = kinds.reshape(-1)[places]
    z, place = np.divmod(places, kinds.shape[1] * kinds.shape[2])
    row, column = np.divmod(place, kinds.shape[2])
    first = 2 * (z * plane + row * across + column)
    after: dict[int, int] = {}
    for kind, lines in enumerate(_turns()):
        here = first[kind_of == kind]
        for entered, left in lines:
            after.update(zip((here + sides[entered]).tolist(), (here + sides[left]).tolist(), strict=True))
    found = [_outline(loop, plane, across, spacing) for loop in _loops(after)]
    return tuple(sorted(found, key=lambda one: (one.slice, -abs(one.area), one.points[0].tolist())))


def _loops(after: dict[int, int]) -> Iterator[list[int]]:
    while after:
        start, side = after.popitem()
        loop = [start]
        while side != start:
            loop.append(side)
            side = after.pop(side)
        yield loop


def _outline(loop: list[int], plane: int, across: int, spacing: Spacing) -> Outline:
    sides = np.array(loop)
    voxel, down = sides // 2, sides % 2
    z = int(voxel[0]) // plane
    row, column = (voxel % plane) // across, voxel % across
    halves = np.stack([2 * row + down, 2 * column + (1 - down)], axis=1)  # in half voxels, of the padded slice
    points = (halves / 2 - 1) * np.array(spacing[1:])
    return Outline(z, points, area(points), (points + np.roll(points, -1, axis=0)) / 2)


def area(points: Floats) -> float:
    """Area in mm² of the closed line through `points` (n, 2); negative in the opposite direction of rotation."""
    row, column = points.T
    return float((row * np.roll(column, -1) - np.roll(row, -1) * column).sum() / 2)


_DIRECTIONS = np.array([[np.sin(a), np.cos(a)] for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])


def _candidates(points: Floats) -> Floats:
    """Leave out points well inside the polygon of the furthest points in 16 directions (Akl and Toussaint 1978)."""
    furthest = (points @ _DIRECTIONS.T).argmax(axis=0)
    corners = points[furthest[furthest != np.roll(furthest, -1)]]
    if len(corners) < 3:
        return points
    row, column = (np.roll(corners, -1, axis=0) - corners).T
    beside = row * (points[:, 1:] - corners[:, 1]) - column * (points[:, :1] - corners[:, 0])
    left: Floats = points[(beside > -1e-9).any(axis=1)]
    return left


def hull(points: Floats) -> Floats:
    """Corners of the convex hull of `points` (n, 2), in order: Andrew's monotone chain."""
    ordered = sorted(set(map(tuple, _candidates(points).tolist())))

    def half(chain_of: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        chain: list[tuple[float, ...]] = []
        for p in chain_of:
            while len(chain) > 1:
                (a, b), (c, d) = chain[-2], chain[-1]
                if (c - a) * (p[1] - b) - (d - b) * (p[0] - a) > 0:
                    break
                chain.pop()
            chain.append(p)
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))
