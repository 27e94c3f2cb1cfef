"""PyRadiomics' mesh measures without its quadratic search for diameters.

PyRadiomics' C extension always compares every pair of mesh vertices, which is most of the time a large tumour
takes. A marching-cubes mesh is a sum over 2×2×2 neighbourhoods, of which there are only 256 kinds: what each kind
adds is asked of PyRadiomics' own extension once per voxel spacing, and then multiplied by how often the kind occurs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import cShape
from radiomics.shape import RadiomicsShape

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_CORNERS = tuple((z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1))
_DIAMETERS = ("Maximum3DDiameter", "Maximum2DDiameterSlice", "Maximum2DDiameterRow", "Maximum2DDiameterColumn")


def _kind(kind: int) -> Mask:
    """Return the 2×2×2 neighbourhood whose corner k is inside where bit k of `kind` is set."""
    return np.array([bool(kind >> bit & 1) for bit in range(8)]).reshape(2, 2, 2)


@lru_cache(maxsize=16)
def _mesh_table(spacing: tuple[float, float, float]) -> tuple[Floats, Floats, Floats]:
    """Measure what each of the 256 neighbourhoods adds to the mesh.

    Returns
    -------
    area
        (256,) in mm².
    volume
        (256,) signed volume in mm³ of the cone from the neighbourhood's own first corner.
    flux
        (256, 3) by which the signed volume grows, in mm³, per voxel that the neighbourhood lies off the origin
        along (z, y, x).
    """
    step = np.array(spacing)
    single = [cShape.calculate_coefficients(_kind(kind), step)[:2] for kind in range(256)]
    area = np.array([pair[0] for pair in single])
    volume = np.array([pair[1] for pair in single])
    flux = np.zeros((256, 3))
    for axis in range(3):
        for kind in range(256):
            block = _kind(kind)
            # A third layer, equal to the first, puts the same neighbourhood one voxel further along the axis;
            # the neighbourhood it forms with the first layer is itself one of the 256, so it can be taken off.
            first = np.take(block, [0], axis=axis)
            twice = np.concatenate([first, block], axis=axis)
            lead = np.concatenate([first, first], axis=axis)
            lead_kind = sum(int(lead[corner]) << bit for bit, corner in enumerate(_CORNERS))
            flux[kind, axis] = cShape.calculate_coefficients(twice, step)[1] - volume[lead_kind] - volume[kind]
    return area, volume, flux


def surface_and_volume(mask: Mask, spacing: Floats) -> tuple[float, float]:
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
    shape = tuple(n - 1 for n in mask.shape)
    kinds = np.zeros(shape, dtype=np.uint8)
    for bit, (z, y, x) in enumerate(_CORNERS):
        part = mask[z : z + shape[0], y : y + shape[1], x : x + shape[2]]
        kinds |= part.view(np.uint8) << bit
    where = np.nonzero((kinds > 0) & (kinds < 255))
    found = kinds[where]
    area, volume, flux = _mesh_table((float(spacing[0]), float(spacing[1]), float(spacing[2])))
    counts = np.bincount(found, minlength=256)
    offsets = np.stack([np.bincount(found, weights=index, minlength=256) for index in where], axis=1)
    return float(counts @ area), float(counts @ volume + (offsets * flux).sum())


def _vertices(mask: Mask) -> npt.NDArray[np.int64]:
    """Mesh vertices in half-voxel units, (n, 3) as (z, y, x): one midway on every edge that the surface cuts."""
    found = []
    for axis in range(3):
        cut = np.argwhere(np.diff(mask.view(np.int8), axis=axis)) * 2
        cut[:, axis] += 1
        found.append(cut)
    return np.concatenate(found)


def _rim(points: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Keep, of the points on each line along the last axis, the outermost two: the others lie between them."""
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0]))
    points = points[order]
    new_line = np.any(np.diff(points[:, :2], axis=0) != 0, axis=1)
    outermost = np.concatenate([[True], new_line]) | np.concatenate([new_line, [True]])
    rim: npt.NDArray[np.int64] = points[outermost]
    return rim


# Directions to look along, and the cosine of the largest angle between any direction and the nearest of them (its
# opposite counts as itself). Finer grids leave fewer candidates, coarser ones cost less.
_ANGLES = np.arange(0, np.pi, np.pi / 90)
_FLAT = np.stack([np.sin(_ANGLES), np.cos(_ANGLES)])
_FLAT_COSINE = float(np.cos(np.pi / 180))
_STEP = np.pi / 12
_LATITUDE, _LONGITUDE = np.meshgrid(np.arange(-np.pi / 2, np.pi / 2, _STEP) + _STEP / 2, np.arange(0, np.pi, _STEP))
_SOLID = np.stack(
    [np.sin(_LATITUDE), np.cos(_LATITUDE) * np.sin(_LONGITUDE), np.cos(_LATITUDE) * np.cos(_LONGITUDE)]
).reshape(3, -1)
_SOLID_COSINE = float(np.cos(_STEP / np.sqrt(2)))


def _widest(points: Floats, directions: Floats, cosine: float) -> float:
    """Greatest distance between two of `points` (n, d), exactly.

    Let D be that distance, between p and q, and u the nearest of the `directions` (d, k). Then the points are at
    least D ``cosine`` wide along u; and p lies within D (1 - ``cosine``) of the outermost point along u, because no
    point is further than D from q. The same holds for q. So few points need to be compared, and none is missed.
    """
    along = points @ directions
    top, bottom = along.max(axis=0), along.min(axis=0)
    width = top - bottom
    reach = float(width.max())
    slack = reach / cosine * (1 - cosine)
    best = 0.0
    for k in np.argsort(-width):
        if width[k] < best * cosine:
            break
        upper = points[along[:, k] >= top[k] - slack]
        lower = points[along[:, k] <= bottom[k] + slack]
        apart = upper[:, None, :] - lower[None, :, :]
        best = max(best, float(np.sqrt(np.einsum("ijk,ijk->ij", apart, apart).max())))
    return best


def _widest_plane(planes: npt.NDArray[np.int64], points: Floats) -> float:
    """Greatest distance between two of `points` (n, 2) with the same entry in `planes` (n,), which ascends."""
    starts = np.flatnonzero(np.diff(planes, prepend=planes[0] - 1))
    along = points @ _FLAT
    width = np.maximum.reduceat(along, starts) - np.minimum.reduceat(along, starts)
    bound = width.max(axis=1) / _FLAT_COSINE
    ends = np.append(starts[1:], len(planes))
    best = 0.0
    for plane in np.argsort(-bound):
        if bound[plane] < best:
            break
        best = max(best, _widest(points[starts[plane] : ends[plane]], _FLAT, _FLAT_COSINE))
    return best


def diameters(mask: Mask, spacing: Floats) -> tuple[float, float, float, float]:
    """Measure the greatest distances between mesh vertices.

    Parameters
    ----------
    mask, spacing
        As for :func:`surface_and_volume`.

    Returns
    -------
    tuple of float
        In mm, in PyRadiomics' order: within a slice (same z), a row's plane (same y), a column's plane (same x),
        and in 3D (IBSI L0JK).
    """
    vertices = _vertices(mask)
    planar = []
    for axis in range(3):
        a, b = (k for k in range(3) if k != axis)
        rim = _rim(vertices[:, (axis, a, b)])
        planar.append(_widest_plane(rim[:, 0], rim[:, 1:] * spacing[[a, b]] / 2))
    return planar[0], planar[1], planar[2], _widest(_rim(vertices) * spacing / 2, _SOLID, _SOLID_COSINE)


class MeshShape(RadiomicsShape):  # type: ignore[misc]
    """PyRadiomics' shape class with the mesh measured by :func:`surface_and_volume`; its formulas are its own."""

    def _initSegmentBasedCalculation(self) -> None:  # noqa: N802  (PyRadiomics' name)
        self.pixelSpacing = np.array(self.inputImage.GetSpacing()[::-1])
        self.maskArray = np.pad(sitk.GetArrayFromImage(self.inputMask) == self.label, 1)
        self.labelledVoxelCoordinates = np.nonzero(self.maskArray)
        self.SurfaceArea, self.Volume = surface_and_volume(self.maskArray, self.pixelSpacing)
        self.eigenValues = _principal_moments(self.labelledVoxelCoordinates, self.pixelSpacing)

    def _initCalculation(self, voxelCoordinates: Any = None) -> None:  # noqa: N802, N803  (PyRadiomics' names)
        if any(self.enabledFeatures.get(name) for name in _DIAMETERS):
            self.diameters = diameters(self.maskArray, self.pixelSpacing)


def _principal_moments(coordinates: tuple[npt.NDArray[np.int64], ...], spacing: Floats) -> Floats:
    """Eigenvalues, ascending, of the covariance of voxel centres in mm² (PyRadiomics' principal component analysis)."""
    physical = np.stack(coordinates, axis=1) * spacing
    physical -= physical.mean(axis=0)
    physical /= np.sqrt(len(physical))
    moments: Floats = np.sort(np.linalg.eigvals(physical.T.copy() @ physical).real)
    moments[(moments < 0) & (moments > -1e-10)] = 0  # rounding, for flat ROIs
    return moments
