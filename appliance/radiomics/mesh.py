"""Surface, volume, principal axes and diameters of a mask, as PyRadiomics defines them.

A marching-cubes mesh is a sum over 2×2×2 neighbourhoods, of which there are only 256 kinds: what each kind adds is
worked out once, in whole numbers that serve every voxel spacing, and then multiplied by how often the kind occurs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lungstage.appliance.radiomics import _kernels

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Spacing = tuple[float, float, float]
Point = tuple[int, int, int]  # (z, y, x) in half voxels, from the neighbourhood's first corner

_CORNERS: tuple[Point, ...] = tuple((z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1))
_TURNED = (1, 1, 0)


def _face(axis: int, side: int) -> list[Point]:
    """Corners of a face of the neighbourhood in turn, one way round seen from outside on all six."""
    ring: list[Point] = []
    for step in ((0, 0), (1, 0), (1, 1), (0, 1)):
        corner = [side] * 3
        corner[(axis + 1) % 3], corner[(axis + 2) % 3] = step
        ring.append((corner[0], corner[1], corner[2]))
    return ring if side else ring[::-1]


_FACES = tuple(_face(axis, side) for axis in range(3) for side in (0, 1))


def _between(a: Point, b: Point) -> Point:
    """Midpoint of two corners: where the surface cuts the edge between them."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _loops(inside: frozenset[Point]) -> Iterator[list[Point]]:
    """Follow the surface's lines across the faces of a neighbourhood, from edge to edge, until each loop closes.

    On each face a line goes round each run of corners inside; so two that lie across from each other stay apart. An
    edge that is cut begins a run on one of its faces, and ends one on the other.
    """
    after: dict[Point, Point] = {}
    for ring in _FACES:
        for k in range(4):
            if ring[k] in inside and ring[k - 1] not in inside:
                end = next(n for n in range(k, k + 4) if ring[(n + 1) % 4] not in inside)
                after[_between(ring[k - 1], ring[k])] = _between(ring[end % 4], ring[(end + 1) % 4])
    while after:
        first, point = after.popitem()
        loop = [first]
        while point != first:
            loop.append(point)
            point = after.pop(point)
        yield loop


def _apart(a: Point, b: Point) -> int:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def _fan(loop: list[Point]) -> Iterator[tuple[Point, Point, Point]]:
    """Fill a loop with triangles that share one of its points.

    Loops of five and more do not lie in a plane, and which point it is decides on the area. PyRadiomics' triangles are
    those from an end of the longest diagonal; of seven points, from the one on the loop's axis of symmetry, which is
    that between the two that lie nearest to each other.
    """
    places = range(len(loop))
    if len(loop) == 7:
        start = min(places, key=lambda k: _apart(loop[k - 1], loop[(k + 1) % 7]))
    else:
        start = max(places, key=lambda k: max(_apart(loop[k], other) for other in loop))
    turned = loop[start:] + loop[:start]
    for second, third in itertools.pairwise(turned[1:]):
        yield turned[0], second, third


def triangles(inside: frozenset[Point]) -> Iterator[tuple[Point, Point, Point]]:
    """List the triangles of a neighbourhood's surface.

    Parameters
    ----------
    inside
        Its corners that are inside, (z, y, x) of 0 and 1.

    Yields
    ------
    tuple
        Three points in half voxels; seen from outside the mask, one way round.

    Notes
    -----
    Source: the marching cubes of Lorensen and Cline (SIGGRAPH 1987) with every vertex midway on its edge, as
    PyRadiomics 3.0.1 has them: a neighbourhood with the corner (1, 1, 0) inside has its opposite's surface, turned.
    All 256 kinds are held against PyRadiomics' own answers in ``tests/appliance/radiomics/test_mesh.py``.
    """
    if _TURNED in inside:
        for a, b, c in triangles(frozenset(_CORNERS) - inside):
            yield a, c, b
    else:
        for loop in _loops(inside):
            yield from _fan(loop)


@dataclass(frozen=True, slots=True)
class _Kinds:
    """What each of the 256 kinds of neighbourhood adds; corner k is inside where bit k of the kind is set.

    Attributes
    ----------
    faces
        (n, 3) absolute normals (z, y, x) of the triangles that occur, each twice its area long, in half voxels.
    counts
        (256, n) triangles of each.
    cones
        (256,) six times the signed volume between the surface and the neighbourhood's first corner, in half voxels.
    fluxes
        (256, 3) by which that grows for each half voxel that the neighbourhood lies off the origin along (z, y, x).
    """

    faces: Int64
    counts: Int64
    cones: Int64
    fluxes: Int64


@lru_cache(maxsize=1)
def _kinds() -> _Kinds:
    found = [
        (kind, triangle)
        for kind in range(256)
        for triangle in triangles(frozenset(corner for bit, corner in enumerate(_CORNERS) if kind >> bit & 1))
    ]
    kinds = np.array([kind for kind, _ in found])
    a, b, c = np.array([triangle for _, triangle in found], dtype=np.int64).transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    faces, which = np.unique(np.abs(normals), axis=0, return_inverse=True)
    counts, cones = np.zeros((256, len(faces)), dtype=np.int64), np.zeros(256, dtype=np.int64)
    fluxes = np.zeros((256, 3), dtype=np.int64)
    np.add.at(counts.ravel(), kinds * len(faces) + which.ravel(), 1)
    np.add.at(cones, kinds, (a * np.cross(b, c)).sum(axis=1))
    np.add.at(fluxes, kinds, normals)
    return _Kinds(faces, counts, cones, fluxes)


def surface_and_volume(mask: Mask, spacing: Spacing) -> tuple[float, float]:
    """Measure the mesh of a mask.

    Parameters
    ----------
    mask
        (z, y, x), with an empty layer on every side.
    spacing
        (z, y, x) in mm.

    Returns
    -------
    tuple of float
        Surface area in mm² (IBSI C0JK) and mesh volume in mm³ (IBSI RNU0), as PyRadiomics defines them.
    """
    found = np.zeros((256, 4), dtype=np.int64)
    _kernels.mesh_counts(mask, found)
    kinds, (z, y, x) = _kinds(), spacing
    occurring, places = found[:, 0], found[:, 1:]
    sides = kinds.faces * np.array([y * x, z * x, z * y])
    area = (occurring @ kinds.counts) @ np.sqrt((sides**2).sum(axis=1)) / 8
    volume = int(occurring @ kinds.cones + 2 * (places * kinds.fluxes).sum()) / 48
    return float(area), volume * z * y * x


def diameters(mask: Mask, spacing: Spacing, wanted: int = 15) -> tuple[float, float, float, float]:
    """Measure the greatest distances between mesh vertices, exactly.

    Parameters
    ----------
    mask, spacing
        As for :func:`surface_and_volume`.
    wanted
        Bits of the diameters to measure, in the order returned; the others are 0.

    Returns
    -------
    tuple of float
        In mm, in PyRadiomics' order: within a slice (same z), a row's plane (same y), a column's plane (same x),
        and in 3D (IBSI L0JK).

    Notes
    -----
    Two points that are furthest apart are corners of the convex hull, so only the hulls' corners of the planes are
    compared; in 3D in falling order of their distance from the centre, until no pair left can be further apart.
    """
    return _kernels.diameters(mask, *spacing, wanted) if wanted else (0.0, 0.0, 0.0, 0.0)


def principal_moments(mask: Mask, spacing: Spacing) -> Floats:
    """Eigenvalues, ascending, of the covariance of voxel centres in mm² (PyRadiomics' principal component analysis).

    The sums are exact integers, so a region that lies in one plane has a moment of exactly, or very nearly, 0; a
    negative one is rounding, which PyRadiomics sets to 0 as well.
    """
    sums = np.zeros(10, dtype=np.int64)
    _kernels.moments(mask, sums)
    n, first, second = int(sums[0]), sums[1:4].tolist(), iter(sums[4:].tolist())
    covariance = np.zeros((3, 3))
    for a in range(3):
        for b in range(a, 3):
            covariance[a, b] = covariance[b, a] = (n * next(second) - first[a] * first[b]) / n**2
    step = np.array(spacing)
    moments: Floats = np.linalg.eigvalsh(covariance * step[:, None] * step[None, :])
    return np.maximum(moments, 0)
