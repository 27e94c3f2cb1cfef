"""Surface, volume, principal axes and diameters of a mask, as PyRadiomics defines them.

A marching-cubes mesh is a sum over 2×2×2 neighbourhoods, of which there are only 256 kinds: what each kind adds is
asked of PyRadiomics' own extension, and then multiplied by how often the kind occurs. That keeps its table of
triangles the only source, and its quadratic search for diameters out of the way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec

import numpy as np
import numpy.typing as npt

from lungstage.appliance.radiomics import _kernels

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

_CORNERS = tuple((z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1))


@lru_cache(maxsize=1)
def _coefficients() -> Callable[[Mask, Floats], tuple[float, float, tuple[float, ...]]]:
    """Load PyRadiomics' extension alone: the package would import SimpleITK, a third of the process's memory."""
    package = find_spec("radiomics")
    spec = package and PathFinder.find_spec("_cshape", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise ImportError("PyRadiomics' extension _cshape is not installed")
    extension = module_from_spec(spec)
    spec.loader.exec_module(extension)
    function: Callable[[Mask, Floats], tuple[float, float, tuple[float, ...]]] = extension.calculate_coefficients
    return function


def _kind(kind: int) -> Mask:
    """Return the 2×2×2 neighbourhood whose corner k is inside where bit k of `kind` is set."""
    return np.array([bool(kind >> bit & 1) for bit in range(8)]).reshape(2, 2, 2)


@lru_cache(maxsize=64)
def _areas(spacing: Spacing) -> Floats:
    """(256,) surface in mm² that each neighbourhood adds at a voxel spacing."""
    measure, step = _coefficients(), np.array(spacing)
    return np.array([measure(_kind(kind), step)[0] for kind in range(256)])


@lru_cache(maxsize=1)
def _volumes() -> tuple[Floats, Floats]:
    """Measure the volume that each neighbourhood adds at a voxel spacing of 1; it grows as the voxel does.

    Returns
    -------
    volume
        (256,) signed volume of the cone from the neighbourhood's own first corner.
    flux
        (256, 3) by which the signed volume grows per voxel that the neighbourhood lies off the origin along (z, y, x).
    """
    measure, unit = _coefficients(), np.ones(3)
    volume = np.array([measure(_kind(kind), unit)[1] for kind in range(256)])
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
            flux[kind, axis] = measure(twice, unit)[1] - volume[lead_kind] - volume[kind]
    return volume, flux


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
    volume, flux = _volumes()
    counts, offsets = found[:, 0], found[:, 1:]
    area = float(counts @ _areas(spacing))
    return area, float(counts @ volume + (offsets * flux).sum()) * float(np.prod(spacing))


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
