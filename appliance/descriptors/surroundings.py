"""Measure the surroundings of a tumour: place and steepness of its edge, and contact with other tissue than lung."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.descriptors.crop import Crop
from lungstage.appliance.descriptors.outline import Outline, outer

Floats = npt.NDArray[np.float64]

NOT_LUNG_HU: Final = -500
"""Voxels above this value are not aerated lung."""
_BESIDE_MM = 3.0  # at this distance no voxel mixes tumour and surroundings
_REACH_MM, _STEP_MM = 4.0, 0.25
_FALL_OVER_MM = 1.0
_ACROSS_MM = 2.0  # half of the length over which an edge is evaluated
_LEAST_FALL_HU = 150
_MOST_POINTS = 1500
_TANGENT = 3  # points to either side, so that the voxel steps do not turn the normal


@dataclass(frozen=True, slots=True)
class Edge:
    """The edge between tumour and lung, along the outline in the axial slices.

    Attributes
    ----------
    visible
        Share of the outline's points where HU fall towards lung.
    offset_mm
        Median distance between outline and steepest fall; None if HU fall nowhere.
    slope_hu_per_mm, width_mm
        Medians of the steepest fall, and of the whole fall divided by it; None if HU fall nowhere.
    """

    visible: float
    offset_mm: float | None
    slope_hu_per_mm: float | None
    width_mm: float | None


def _profile_points(outlines: tuple[Outline, ...]) -> tuple[Floats, Floats]:
    """Return points (n, 3) of outer outlines (slice, row, column) and outward normals (n, 2); mm within the slice."""
    those = outer(outlines)
    # Near the poles a slice cuts the surface obliquely, and every edge looks wide. So small slices are left out.
    largest = max(sum(one.area for one in those if one.slice == z) for z in {one.slice for one in those})
    broad = {z for z in {one.slice for one in those} if 2 * sum(o.area for o in those if o.slice == z) >= largest}
    points, normals = [], []
    for outline in those:
        if outline.slice not in broad:
            continue
        tangent = np.roll(outline.smooth, -_TANGENT, axis=0) - np.roll(outline.smooth, _TANGENT, axis=0)
        size = np.hypot(*tangent.T)
        right = size > 0
        normal = np.stack([tangent[right, 1], -tangent[right, 0]], axis=1) / size[right, None]
        points.append(np.column_stack([np.full(right.sum(), outline.slice), outline.smooth[right]]))
        normals.append(normal)
    stacked, out = np.concatenate(points), np.concatenate(normals)
    stride = max(1, -(-len(stacked) // _MOST_POINTS))
    return stacked[::stride], out[::stride]


def _sample(crop: Crop, points: Floats, normals: Floats, distances: Floats) -> Floats:
    """Return HU (n, d) at these distances (mm) outward of each point, linear within the slice; NaN beyond its edge."""
    place = points[:, None, 1:] + distances[:, None] * normals[:, None, :]
    row, column = np.moveaxis(place / np.array(crop.spacing[1:]), -1, 0)
    rows, columns = crop.hu.shape[1:]
    there = (row >= 0) & (row <= rows - 1) & (column >= 0) & (column <= columns - 1)
    row, column = np.where(there, row, 0), np.where(there, column, 0)
    top = np.minimum(row.astype(np.intp), max(rows - 2, 0))
    left = np.minimum(column.astype(np.intp), max(columns - 2, 0))
    down, right = row - top, column - left
    flat, z = crop.hu.reshape(-1), points[:, 0].astype(np.intp)[:, None]
    first = (z * rows + top) * columns + left
    below, beside = (columns if rows > 1 else 0), (1 if columns > 1 else 0)
    upper = flat[first] * (1 - right) + flat[first + beside] * right
    lower = flat[first + below] * (1 - right) + flat[first + below + beside] * right
    return np.where(there, upper * (1 - down) + lower * down, np.nan)


def edge(crop: Crop) -> Edge:
    """Measure the edge along the outline's normals in the axial slices with at least half of the largest area.

    Returns
    -------
    Edge
        The steepest fall over 1 mm is searched within 4 mm on either side. It counts if HU fall by at least 150 over
        the 4 mm around it, to less than :data:`NOT_LUNG_HU`. The edge is where a step would have the same area under
        the profile of these 4 mm.
    """
    points, normals = _profile_points(crop.outlines)
    beyond = _REACH_MM + _ACROSS_MM
    distances = np.arange(-beyond, beyond + _STEP_MM / 2, _STEP_MM)
    hu = _sample(crop, points, normals, distances)
    half, across = round(_FALL_OVER_MM / _STEP_MM / 2), round(_ACROSS_MM / _STEP_MM)
    falls = (hu[:, : -2 * half] - hu[:, 2 * half :]) / _FALL_OVER_MM  # at the distances but the outermost ones
    searched = falls[:, across - half : falls.shape[1] - across + half]
    steepest = np.where(np.isnan(searched), -np.inf, searched).argmax(axis=1)
    row = np.arange(len(hu))
    centre = steepest + across
    inner, outer = hu[row, centre - across], hu[row, centre + across]
    fall = inner - outer
    seen = (fall >= _LEAST_FALL_HU) & (outer < NOT_LUNG_HU)
    if not seen.any():
        return Edge(0.0, None, None, None)
    slope = searched[row, steepest][seen]
    # A wide edge is equally steep at several places. So its place is found by areas: a step there would have the same
    # area above the outer HU as the profile.
    window = hu[row[:, None], centre[:, None] + np.arange(-across, across)][seen]
    above = (window + hu[row[:, None], centre[:, None] + np.arange(1 - across, across + 1)][seen]) / 2 - outer[
        seen, None
    ]
    place = distances[centre - across][seen] + _STEP_MM * above.sum(axis=1) / fall[seen]
    return Edge(
        visible=float(seen.mean()),
        offset_mm=float(np.median(np.abs(place))),
        slope_hu_per_mm=float(np.median(slope)),
        width_mm=float(np.median(fall[seen] / slope)),
    )


@dataclass(frozen=True, slots=True)
class Contact:
    """Share of a tumour's surface that does not border on lung.

    Attributes
    ----------
    share
        Share by area of the surface that could be evaluated; None if none of it could be.
    looked_at
        Share of the surface with enough volume next to it for an evaluation.
    """

    share: float | None
    looked_at: float


def contact(crop: Crop) -> Contact:
    """Measure the share of the surface in contact with other tissue than lung.

    Returns
    -------
    Contact
        The surface is that of the voxels. At each outer face, the HU 3 mm further out (at least one voxel) are compared
        with :data:`NOT_LUNG_HU`. Places inside the mask are left out.
    """
    z, y, x = crop.spacing
    faces = (y * x, z * x, z * y)
    total = looked_at = touching = 0.0
    for axis, (step, area) in enumerate(zip(crop.spacing, faces, strict=True)):
        far = max(1, round(_BESIDE_MM / step))
        for turned in (False, True):
            mask, hu = np.moveaxis(crop.mask, axis, 0), np.moveaxis(crop.hu, axis, 0)
            if turned:
                mask, hu = mask[::-1], hu[::-1]
            count = len(mask)
            following = np.zeros_like(mask)
            following[:-1] = mask[1:]
            face = mask & ~following
            total += area * int(face.sum())
            # If the volume ends before that, its last slice is used.
            at = np.minimum(np.arange(count) + far, count - 1)
            there = face & ~mask[at]
            looked_at += area * int(there.sum())
            touching += area * int((there & (hu[at] > NOT_LUNG_HU)).sum())
    return Contact(touching / looked_at if looked_at else None, looked_at / total)
