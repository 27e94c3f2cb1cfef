"""The compiled engine: make only the intermediate results that the selected features need, each once.

There is one discretisation and one padded grey-level volume. A texture matrix is made only if a selected feature uses
it; the same holds for mesh, principal axes and diameters. The loops over voxels are in ``_kernels.c``, the formulas in
:mod:`radiomics.formulas`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import FEATURE_NAMES_BY_CLASS, ExtractionSpec
from lungstage.appliance.radiomics import _kernels, mesh
from lungstage.appliance.radiomics.formulas import (
    FIRST_ORDER,
    GLCM,
    GLDM,
    GLRLM,
    GLSZM,
    NGTDM,
    SHAPE,
    Cooccurrence,
    Floats,
    Int64,
    Intensities,
    Shape,
    Sizes,
    ToneDifferences,
)
from lungstage.appliance.radiomics.grid import MeasurableRoi, bounds

_MESH = frozenset({"MeshVolume", "Sphericity", "SurfaceArea", "SurfaceVolumeRatio"})
_AXES = frozenset({"Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength", "MinorAxisLength"})
_DIAMETER_BITS = {
    "Maximum2DDiameterSlice": 1, "Maximum2DDiameterColumn": 2, "Maximum2DDiameterRow": 4, "Maximum3DDiameter": 8,
}  # fmt: skip

_MOST_LEVELS = 65535  # of a grey-level volume; PyRadiomics' co-occurrence matrix of as many would take 450 GB


@dataclass(frozen=True, slots=True)
class Plan:
    """The intermediate results that a selection of features needs.

    Attributes
    ----------
    wanted
        Feature names by class; only classes with at least one selected feature.
    mesh, axes
        Whether a shape feature needs the surface mesh or the principal axes.
    diameters
        Bits of the needed diameters, as in :func:`radiomics._kernels.diameters`.
    """

    wanted: Mapping[str, tuple[str, ...]]
    mesh: bool
    axes: bool
    diameters: int

    @property
    def matrices(self) -> frozenset[str]:
        """The texture matrices to make."""
        return frozenset(self.wanted) - {"shape", "firstorder"}


@lru_cache(maxsize=8)
def plan_of(features: tuple[str, ...]) -> Plan:
    """Plan the features with these names; the plan is made once for all patients."""
    wanted: dict[str, tuple[str, ...]] = {}
    for group in FEATURE_NAMES_BY_CLASS:
        prefix = f"original_{group}_"
        names = tuple(name.removeprefix(prefix) for name in features if name.startswith(prefix))
        if names:
            wanted[group] = names
    shape = frozenset(wanted.get("shape", ()))
    bits = sum(bit for name, bit in _DIAMETER_BITS.items() if name in shape)
    return Plan(wanted, bool(shape & _MESH), bool(shape & _AXES), bits)


def directions(size: tuple[int, ...], distances: tuple[int, ...], flat: int | None) -> Int64:
    """List the directions in which a box of voxels has neighbours.

    Parameters
    ----------
    size
        (z, y, x) of the box.
    distances
        From voxel to neighbour, as the largest of the three steps.
    flat
        An axis without steps (``force2D``).

    Returns
    -------
    numpy.ndarray
        (n, 3) steps (z, y, x), one of each opposite pair, in PyRadiomics' order and direction (``generate_angles``).
    """
    return _steps(_reach(size, distances, flat), distances)


def _reach(size: tuple[int, ...], distances: tuple[int, ...], flat: int | None) -> tuple[int, ...]:
    furthest = max(distances)
    return tuple(0 if axis == flat else min(furthest, n - 1) for axis, n in enumerate(size))


@lru_cache(maxsize=32)
def _steps(reach: tuple[int, ...], distances: tuple[int, ...]) -> Int64:
    every = itertools.product(*(range(n, -n - 1, -1) for n in reach))
    kept = [step for step in every if step > (0, 0, 0) and max(map(abs, step)) in distances]
    steps = np.array(kept, dtype=np.int64).reshape(-1, 3)
    steps.setflags(write=False)  # all callers share this cached array
    return steps


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """Steps to neighbours at the spec's distances, and to adjacent neighbours (for runs and zones).

    `reach` is the longest step along each axis.
    """

    distant: Int64
    adjacent: Int64
    reach: tuple[int, ...]

    @classmethod
    def of(cls, roi: MeasurableRoi, settings: Mapping[str, Any]) -> _Neighbours:
        flat = settings.get("force2Ddimension", 0) if settings.get("force2D", False) else None
        distances, size = tuple(settings.get("distances", (1,))), roi.mask.shape
        adjacent = directions(size, (1,), flat)
        distant = adjacent if distances == (1,) else directions(size, distances, flat)
        return cls(distant, adjacent, _reach(size, distances, flat))


def prove_directions(roi: MeasurableRoi, spec: ExtractionSpec) -> None:
    """Refuse a region without neighbours in any direction that a selected texture needs.

    Raises
    ------
    Refused
        ``roi_too_small``. PyRadiomics' C code would fail here with its own error.
    """
    plan, neighbours = plan_of(spec.features), _Neighbours.of(roi, spec.settings)
    needs = {"glcm": neighbours.distant, "gldm": neighbours.distant, "ngtdm": neighbours.distant}
    if any(not len(needs.get(matrix, neighbours.adjacent)) for matrix in plan.matrices):
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            "The region is too thin for the texture features: no two of its voxels can be neighbours. Check that it is "
            "the whole tumour. If it is, it cannot be measured.",
        )


def bin_edges(lowest: Any, highest: Any, settings: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Return the edges of the grey levels from the region's lowest and highest value.

    Source: PyRadiomics ``imageoperations.getBinEdges``; IBSI fixed bin size (Q3RU), from 0 or, on the IBSI grid, from
    the start of the re-segmentation range; IBSI fixed bin number (K15C).
    PyRadiomics computes whole bin widths in int16, which overflows if the edges exceed its range; this code does not.
    For single-precision images PyRadiomics rounds the edges. This code does the same, because rounding decides the bin
    of a voxel at an edge.
    """
    if lowest.dtype != np.float32:
        lowest, highest = lowest.item(), highest.item()
    count = settings.get("binCount")
    if count is not None:
        edges = np.histogram_bin_edges(np.array([lowest, highest]), count)
        edges[-1] += 1  # the highest value belongs to the last bin
        return edges
    width = settings.get("binWidth", 25)
    limits = settings.get("resegmentRange")
    start = lowest - lowest % width if limits is None else min(limits)
    edges = np.arange(start, highest + 2 * width, width)
    return edges if len(edges) > 1 else np.array([edges[0] - 0.5, edges[0] + 0.5])


@dataclass(frozen=True, slots=True)
class _Discretised:
    """The region's voxels in HU and in grey levels.

    Attributes
    ----------
    values, counts
        (n,) HU ascending, and the number of voxels of each.
    grey
        (k + 1,) grey level of each rank: ``grey[0]`` is 0, outside; the others are the present grey levels, ascending.
    grey_counts
        (k,) number of voxels of each present grey level.
    levels
        (z, y, x) ranks, padded; empty if no matrix is needed.
    """

    values: Floats
    counts: Int64
    grey: Int64
    grey_counts: Int64
    levels: npt.NDArray[np.uint16]

    @property
    def highest(self) -> int:
        """The highest grey level; PyRadiomics' :math:`N_g`."""
        return int(self.grey[-1])


def _binned(values: npt.NDArray[Any], edges: npt.NDArray[Any]) -> Int64:
    """Find the bin of each value, counted from 1 (``numpy.digitize`` without its checks)."""
    bins: Int64 = edges.searchsorted(values, side="right")
    return bins


def _firsts(ascending: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each entry is the first of its value."""
    new = np.ones(len(ascending), dtype=bool)
    new[1:] = ascending[1:] != ascending[:-1]
    return new


def _ranked(ascending: Int64, counts: Int64) -> tuple[Int64, Int64, Int64]:
    """Return 0 followed by the present grey levels, their counts, and the rank from 1 of each entry of `ascending`."""
    new = _firsts(ascending)
    (starts,) = new.nonzero()
    grey = np.zeros(len(starts) + 1, dtype=np.int64)
    grey[1:] = ascending[starts]
    return grey, np.add.reduceat(counts, starts), new.cumsum()


def _prove_levels(grey: Int64) -> None:
    if grey.size - 1 > _MOST_LEVELS:
        raise Refused(
            ReasonCode.LIMITS_EXCEEDED,
            f"The region has {grey.size - 1} grey levels, but texture features can be computed from at most "
            f"{_MOST_LEVELS}. Check the region for metal, or use a wider bin (binWidth) in the extraction spec.",
        )


def _discretise(roi: MeasurableRoi, settings: Mapping[str, Any], pad: Sequence[int] | None) -> _Discretised:
    """Bin the region once for all features; `pad` is the margin of the grey-level volume, or None for no volume.

    Raises
    ------
    Refused
        ``limits_exceeded`` if there are more grey levels than the volume can store.
    """
    image, mask = roi.image, roi.mask
    shape = (0, 0, 0) if pad is None else tuple(n + 2 * margin for n, margin in zip(mask.shape, pad, strict=True))
    levels = np.zeros(shape, dtype=np.uint16)
    if image.dtype == np.int16:
        # There are few distinct values: count each, and bin the values instead of the voxels.
        lowest, found = _kernels.histogram(image, mask)
        histogram = np.frombuffer(found, dtype=np.int64)
        (occurring,) = histogram.nonzero()
        counts, hu = histogram[occurring], occurring + lowest
        grey, grey_counts, ranks = _ranked(_binned(hu, bin_edges(hu[0], hu[-1], settings)), counts)
        if pad is not None:
            _prove_levels(grey)
            table = np.zeros(len(histogram), dtype=np.uint16)
            table[occurring] = ranks
            _kernels.levels(image, mask, lowest, table, levels)
        return _Discretised(hu.astype(np.float64), counts, grey, grey_counts, levels)
    voxels = image[mask]
    values = np.sort(voxels)
    edges = bin_edges(values[0], values[-1], settings)
    counts = np.ones(len(values), dtype=np.int64)
    grey, grey_counts, _ = _ranked(_binned(values, edges), counts)
    if pad is not None:
        _prove_levels(grey)
        inner = levels[tuple(slice(margin, margin + n) for margin, n in zip(pad, mask.shape, strict=True))]
        inner[mask] = grey.searchsorted(_binned(voxels, edges))
    return _Discretised(values.astype(np.float64), counts, grey, grey_counts, levels)


def _norms(steps: Int64, spacing: Floats, norm: str) -> Floats:
    """Return the (n,) length of each step in mm (PyRadiomics' ``weightingNorm``)."""
    lengths = np.abs(steps) * spacing
    if norm == "infinity":
        result: Floats = lengths.max(axis=1)
    elif norm == "euclidean":
        result = np.sqrt((lengths**2).sum(axis=1))
    else:
        result = lengths.sum(axis=1)
    return result


def _without_empty(matrices: Floats) -> Floats:
    """Leave out empty directions, as PyRadiomics does if there are several directions."""
    if matrices.shape[2] < 2:
        return matrices
    filled = matrices.any(axis=(0, 1))
    return matrices if filled.all() else matrices[:, :, filled]


def _glcm(voxels: _Discretised, steps: Int64, spacing: Floats, settings: Mapping[str, Any]) -> Cooccurrence:
    k = len(voxels.grey_counts)
    counts = np.zeros((k, k, len(steps)), dtype=np.int32)
    _kernels.glcm(voxels.levels, steps, k, counts)
    # Columns are outermost in memory, as in PyRadiomics' own matrix, so sums round in the same way. This matters for
    # Imc2: it has no value if rounding makes it the root of a negative number.
    p = np.empty(counts.shape).transpose(1, 0, 2)
    p[...] = counts
    if settings.get("symmetricalGLCM", True):
        p += counts.transpose(1, 0, 2)
    norm = settings.get("weightingNorm")
    if norm is not None:
        weights = np.ones(len(steps)) if norm == "no_weighting" else np.exp(-(_norms(steps, spacing, norm) ** 2))
        p = (p * weights).sum(axis=2, keepdims=True)
    p = _without_empty(p)
    total = p.sum(axis=(0, 1))
    total[total == 0] = np.nan
    return Cooccurrence(p / total, voxels.grey[1:], voxels.highest)


def _alike(voxels: _Discretised, steps: Int64) -> npt.NDArray[np.uint16]:
    """Return bits (z, y, x) for run lengths and zones: bit k is set if the voxel one step k before has equal level."""
    same = np.zeros(voxels.levels.shape, dtype=np.uint16)
    _kernels.alike(voxels.levels, steps, len(voxels.grey_counts), same)
    return same


def _glrlm(
    voxels: _Discretised, steps: Int64, same: npt.NDArray[np.uint16], spacing: Floats, settings: Mapping[str, Any]
) -> Sizes:
    counts = np.zeros((len(voxels.grey_counts), max(voxels.levels.shape), len(steps)), dtype=np.int32)
    _kernels.glrlm(voxels.levels, steps, len(voxels.grey_counts), same, counts)
    occurring = np.flatnonzero(counts.any(axis=(0, 2)))
    p = counts[:, occurring].astype(np.float64)
    norm = settings.get("weightingNorm")
    if norm is not None:
        weights = np.ones(len(steps)) if norm == "no_weighting" else _norms(steps, spacing, norm)
        p = (p * weights).sum(axis=2, keepdims=True)
    return Sizes(_without_empty(p), voxels.grey[1:], occurring + 1)


def _glszm(voxels: _Discretised, steps: Int64, same: npt.NDArray[np.uint16]) -> Sizes:
    k = len(voxels.grey_counts)
    found = np.frombuffer(_kernels.zones(voxels.levels, steps, k, same), dtype=np.int32).reshape(-1, 2)
    ascending = np.sort(found[:, 1])
    occurring = ascending[_firsts(ascending)]
    cell = found[:, 0] * np.int64(len(occurring)) + occurring.searchsorted(found[:, 1])
    counts = np.bincount(cell, minlength=k * len(occurring)).astype(np.float64)
    return Sizes(counts.reshape(k, -1, 1), voxels.grey[1:], occurring.astype(np.int64))


def _gldm(voxels: _Discretised, steps: Int64, tolerance: int) -> Sizes:
    counts = np.zeros((len(voxels.grey_counts), 2 * len(steps) + 1), dtype=np.int32)
    _kernels.gldm(voxels.levels, steps, voxels.grey, tolerance, counts)
    occurring = np.flatnonzero(counts.any(axis=0))
    # PyRadiomics also counts the voxel itself as a dependence.
    return Sizes(counts[:, occurring, None].astype(np.float64), voxels.grey[1:], occurring + 1)


def _ngtdm(voxels: _Discretised, steps: Int64) -> ToneDifferences:
    k = len(voxels.grey_counts)
    matrix = np.zeros((k, 2))
    tones = voxels.grey.astype(np.int32)[voxels.levels]
    _kernels.ngtdm(voxels.levels, steps, k, tones, matrix)
    return ToneDifferences(matrix[:, 0], matrix[:, 1], voxels.grey[1:])


def _shape(roi: MeasurableRoi, plan: Plan) -> Shape:
    # The mesh and its diameters need one empty voxel around the region.
    padded = np.zeros(tuple(n + 2 for n in roi.mask.shape), dtype=bool)
    padded[1:-1, 1:-1, 1:-1] = roi.mask
    area, volume = mesh.surface_and_volume(padded, roi.spacing) if plan.mesh else (np.nan, np.nan)
    axes = mesh.principal_moments(roi.mask, roi.spacing) if plan.axes else np.full(3, np.nan)
    return Shape(area, volume, axes, mesh.diameters(padded, roi.spacing, plan.diameters))


def components(mask: npt.NDArray[np.bool_]) -> int:
    """Count the connected components of a mask (z, y, x), diagonal neighbours included, as zones of one level."""
    part = mask[bounds(mask)[1]]
    steps = directions(part.shape, (1,), None)
    if not len(steps):
        return 1
    levels = np.pad(part, 1).astype(np.uint16)
    same = np.zeros(levels.shape, dtype=np.uint16)
    _kernels.alike(levels, steps, 1, same)
    return len(_kernels.zones(levels, steps, 1, same)) // 8  # each zone is two 32-bit integers: level and size


def compute(roi: MeasurableRoi, spec: ExtractionSpec) -> dict[str, float]:
    """Compute the features that `spec` names, and only the intermediate results that they need.

    Returns
    -------
    dict
        Values by PyRadiomics' names; NaN if its formula fails.
    """
    plan = plan_of(spec.features)
    settings, spacing = spec.settings, np.array(roi.spacing)
    values: dict[str, float] = {}

    def evaluate(group: str, formulas: Mapping[str, Any], source: object) -> None:
        for name in plan.wanted[group]:
            values[f"original_{group}_{name}"] = float(formulas[name](source))

    with np.errstate(all="ignore"):
        if "shape" in plan.wanted:
            evaluate("shape", SHAPE, _shape(roi, plan))
        if plan.wanted.keys() == {"shape"}:
            return values
        neighbours = _Neighbours.of(roi, settings)
        voxels = _discretise(roi, settings, neighbours.reach if plan.matrices else None)
        if "firstorder" in plan.wanted:
            shift, volume = settings.get("voxelArrayShift", 0), float(np.prod(spacing))
            source = Intensities(voxels.values, voxels.counts, voxels.grey_counts, shift, volume)
            evaluate("firstorder", FIRST_ORDER, source)
        if "glcm" in plan.wanted:
            evaluate("glcm", GLCM, _glcm(voxels, neighbours.distant, spacing, settings))
        if "gldm" in plan.wanted:
            evaluate("gldm", GLDM, _gldm(voxels, neighbours.distant, settings.get("gldm_a", 0)))
        if plan.matrices & {"glrlm", "glszm"}:
            same = _alike(voxels, neighbours.adjacent)
        if "glrlm" in plan.wanted:
            evaluate("glrlm", GLRLM, _glrlm(voxels, neighbours.adjacent, same, spacing, settings))
        if "glszm" in plan.wanted:
            evaluate("glszm", GLSZM, _glszm(voxels, neighbours.adjacent, same))
        if "ngtdm" in plan.wanted:
            evaluate("ngtdm", NGTDM, _ngtdm(voxels, neighbours.distant))
    return values
