"""Surface, volume, principal axes and diameters of a mask, as PyRadiomics defines them.

A marching-cubes mesh is a sum over 2×2×2 neighbourhoods, and there are only 256 kinds of them. The contribution of each
kind is computed once, in whole numbers that are valid for every voxel spacing. It is then multiplied by the number of
such neighbourhoods.
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
    """Return the corners of a face in order, with the same direction of rotation on all six, seen from outside."""
    ring: list[Point] = []
    for step in ((0, 0), (1, 0), (1, 1), (0, 1)):
        corner = [side] * 3
        corner[(axis + 1) % 3], corner[(axis + 2) % 3] = step
        ring.append((corner[0], corner[1], corner[2]))
    return ring if side else ring[::-1]


_FACES = tuple(_face(axis, side) for axis in range(3) for side in (0, 1))


def _between(a: Point, b: Point) -> Point:
    """Return the midpoint of two corners, where the surface cuts the edge between them."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _loops(inside: frozenset[Point]) -> Iterator[list[Point]]:
    """Follow the surface's lines across the faces of a neighbourhood, from edge to edge, until each loop closes.

    On each face a line surrounds each run of inside corners. So two diagonally opposite corners stay separate. A cut
    edge starts a run on one of its two faces and ends a run on the other.
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

    A loop of five or more points is not in a plane, so the area depends on the shared point. PyRadiomics uses an end of
    the longest diagonal. For seven points it uses the point on the loop's axis of symmetry: the one whose two
    neighbours are nearest to each other.
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
        Its inside corners, (z, y, x) of 0 and 1.

    Yields
    ------
    tuple
        Three points in half voxels, in the same direction of rotation seen from outside the mask.

    Notes
    -----
    Source: the marching cubes of Lorensen and Cline (SIGGRAPH 1987) with every vertex in the middle of its edge, as in
    PyRadiomics 3.0.1. A neighbourhood with the corner (1, 1, 0) inside has the surface of its complement, reversed.
    ``tests/appliance/radiomics/test_mesh.py`` compares all 256 kinds with PyRadiomics.
    """
    if _TURNED in inside:
        for a, b, c in triangles(frozenset(_CORNERS) - inside):
            yield a, c, b
    else:
        for loop in _loops(inside):
            yield from _fan(loop)


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Contribution of each of the 256 kinds of neighbourhood; corner k is inside if bit k of the kind is set.

    Attributes
    ----------
    faces
        (n, 3) absolute normals (z, y, x) of the occurring triangles; their length is twice the area, in half voxels.
    counts
        (256, n) number of triangles of each.
    cones
        (256,) six times the signed volume between the surface and the neighbourhood's first corner, in half voxels.
    fluxes
        (256, 3) increase of `cones` for each half voxel between neighbourhood and origin along (z, y, x).
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
    """Measure the largest distances between mesh vertices, exactly.

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
    The two points with the largest distance are corners of the convex hull. So only the corners of the planes' hulls
    are compared. In 3D they are compared in descending order of their distance from the centre, until no remaining pair
    can be further apart.
    """
    return _kernels.diameters(mask, *spacing, wanted) if wanted else (0.0, 0.0, 0.0, 0.0)


def principal_moments(mask: Mask, spacing: Spacing) -> Floats:
    """Eigenvalues, ascending, of the covariance of voxel centres in mm² (PyRadiomics' principal component analysis).

    The sums are exact integers. So a region in one plane has a moment of exactly, or almost exactly, 0. A negative
    moment is a rounding error and set to 0, as in PyRadiomics.
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
