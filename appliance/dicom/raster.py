"""Conversion of contours or segment frames to voxels: a voxel is inside if its centre is inside (even–odd rule)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.completeness import ReferenceSlices
from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.pixel_grid import corners_in_pixels
from lungstage.appliance.dicom.region import Outline, SegmentFrame

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


def fill(points: Points, shape: tuple[int, int]) -> Mask:
    """Fill a polygon: a pixel is inside if its centre is inside (even–odd rule).

    Parameters
    ----------
    points
        (n, 2) corners as (row, column) in pixel units; the centre of the first pixel is (0, 0).
    shape
        (rows, columns).

    Returns
    -------
    ndarray of bool
        (rows, columns).

    Notes
    -----
    A contour may run around its hole in the same direction as around its rim. The keyhole contours of the IBSI CT do,
    and its reference mask has the hole. A contour that overlaps itself looks the same, so it is filled the same way.
    """
    rows, columns = shape
    start, end = points, np.roll(points, -1, axis=0)
    inside = np.zeros(shape, dtype=np.bool_)
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    # Half-open in the row direction: a corner exactly on a row of centres counts once.
    first = np.clip(np.ceil(low), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(high), 0, rows).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (row - start[edge, 0]) / (end[edge, 0] - start[edge, 0])
    column = start[edge, 1] + slope * (end[edge, 1] - start[edge, 1])
    place = np.clip(np.ceil(column), 0, columns).astype(np.int64)
    if not place.size:
        return inside
    # Only the bounding box of the polygon is counted: outside it, every row crosses an even number of edges.
    top, left = int(row.min()), int(place.min())
    height, width = int(row.max()) - top + 1, int(place.max()) - left
    cell = (row - top) * (width + 1) + place - left
    crossings = np.bincount(cell, minlength=height * (width + 1)).reshape(height, width + 1)
    inside[top : top + height, left : left + width] = np.cumsum(crossings, axis=1)[:, :width] % 2
    return inside


def combine(polygons: Sequence[Mask], *, where: str = "a slice") -> Mask:
    """Combine the contours of one slice by the even–odd rule: a contour within another is a hole.

    Parameters
    ----------
    polygons
        The filled contours.
    where
        Name of the slice, for a message.

    Raises
    ------
    Refused
        ``contours_overlap``: two contours cross, or one exists twice; the even–odd rule would cut false holes.
    """
    for i, first in enumerate(polygons):
        for second in polygons[i + 1 :]:
            common = first & second
            if not common.any():
                continue
            nested = np.array_equal(common, first) != np.array_equal(common, second)
            if not nested:
                raise Refused(
                    ReasonCode.CONTOURS_OVERLAP,
                    f"Two contours of the region overlap on {where}. Draw them as one contour, or delete the "
                    "duplicate, and export again.",
                )
    total: Mask = np.logical_xor.reduce(polygons)
    return total


def _outline_mask(outlines: tuple[Outline, ...], image: ImageHeader) -> Mask:
    polygons = []
    for outline in outlines:
        corners = corners_in_pixels(outline, image)
        row, column = corners.T
        # The image ends half a pixel beyond the outermost centres.
        if min(row.min(), column.min()) < -0.5 or row.max() > image.rows - 0.5 or column.max() > image.columns - 0.5:
            raise Refused(
                ReasonCode.ROI_OUTSIDE_SERIES,
                f"The region extends beyond the pixels of slice {image.name}. Draw it within the CT, or send the CT "
                "series that it was drawn on.",
            )
        polygons.append(fill(corners, (image.rows, image.columns)))
    return combine(polygons, where=f"slice {image.name}")


def rasterise(slices: ReferenceSlices) -> Mask:
    """Convert the region to voxels.

    Returns
    -------
    ndarray of bool
        (slices, rows, columns) on the reference slices.

    Raises
    ------
    Refused
        ``roi_outside_series``, ``contours_overlap`` or ``roi_empty``.
    """
    first = slices.images[0]
    mask = np.zeros((len(slices.images), first.rows, first.columns), dtype=np.bool_)
    for plane, image, content in zip(mask, slices.images, slices.content, strict=True):
        outlines = tuple(item for item in content if isinstance(item, Outline))
        if outlines:
            plane |= _outline_mask(outlines, image)
        for item in content:
            if isinstance(item, SegmentFrame):
                plane |= item.pixels
    if not mask.any():
        raise Refused(ReasonCode.ROI_EMPTY, "The region holds no voxel centre. Draw it larger, and export again.")
    return mask
