"""The mask of a region of interest as DICOM: a Segmentation object, and the outline of its key slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from lungstage.appliance.report.context import OnFrames, ReportContext, derive_uid, roi_label, tracking_identifier
from lungstage.appliance.report.frames import name_frames, stand_ins
from lungstage.appliance.report.headers import MANUFACTURER, opening, settle, source_headers, with_thickness

Edge = tuple[int, int, int, int]  # corner (x, y) where it starts, direction (x, y)

# For each side of a pixel: the neighbour beyond it (row, column), the corner (x, y) where the side starts and its
# direction, so that the pixel lies to the right of it.
_SIDES = (
    ((-1, 0), (0, 0), (1, 0)),
    ((0, 1), (1, 0), (0, 1)),
    ((1, 0), (1, 1), (-1, 0)),
    ((0, -1), (0, 1), (0, -1)),
)


def build_segmentation(context: ReportContext, headers: list[Dataset] | None = None) -> Segmentation:
    """Make the Segmentation (DICOM PS3.3 A.51) of a region that came as contours; the report refers to it.

    Parameters
    ----------
    context
        Input of report and segmentation.
    headers
        Result of :func:`appliance.report.headers.source_headers`, if it was made already.

    Returns
    -------
    Segmentation
        One segment, only the frames that contain a part of it; the same `context` gives the same bytes. A voxel is
        stored as one bit, or as a byte (0 or 255) if the bits of a frame do not fill whole bytes.
    """
    headers = headers or source_headers(context)
    # An RTSTRUCT need not say how its contours were drawn. The algorithm here is the conversion to voxels.
    algorithm = AlgorithmIdentificationSequence(
        name="RTSTRUCT to voxels by voxel centre, even-odd",
        family=codes.DCM.ManualProcessing,
        version=context.software_version,
        source=MANUFACTURER,
    )
    segment = SegmentDescription(
        segment_number=1,
        segment_label=roi_label(context),
        segmented_property_category=codes.cid7150.MorphologicallyAbnormalStructure,
        segmented_property_type=context.finding or codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=derive_uid(context.identity, "tracking"),
        tracking_id=tracking_identifier(context),
        anatomic_regions=context.sites or None,
    )
    segment.SegmentDescription = (
        f"Contours of {context.roi_source.sop_instance_uid} on the CT grid. A voxel is inside if its centre is inside."
    )
    return segmentation_of(
        context.mask,
        headers,
        context,
        segment_descriptions=[segment],
        series_number=9002,
        series_description="lungstage region of interest (research use only)",
        content_label="LUNGSTAGE_ROI",
        content_description="Region of interest of a radiomics measurement",
        **opening(context, "seg"),
    )


def segmentation_of(
    mask: npt.NDArray[np.bool_], headers: list[Dataset], context: OnFrames, **attributes: Any
) -> Segmentation:
    """Make a Segmentation with one segment from a mask on slices; it does not depend on clock or random numbers.

    Parameters
    ----------
    mask
        (slices, rows, columns) bool.
    headers
        Result of :func:`appliance.report.headers.source_headers` for the same slices.
    context
        Source of headers and UIDs.
    attributes
        Other arguments of highdicom's Segmentation.
    """
    segmentation = Segmentation(
        source_images=with_thickness(stand_ins(headers, context) if context.frames else headers),
        pixel_array=np.asarray(mask, dtype=np.uint8),
        segmentation_type=_encoding(mask),
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,  # only 0 and 1 occur
        **attributes,
    )
    if len(headers) == 1:  # highdicom would invent a spacing of 1 mm
        del segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    if context.frames:
        name_frames(segmentation, headers, context)
    settle(segmentation, context)
    return segmentation


def _encoding(mask: npt.NDArray[np.bool_]) -> SegmentationTypeValues:
    """Choose bits, or bytes if the bits of a frame do not fill whole bytes.

    Otherwise one byte would contain bits of two frames (DICOM PS3.5 8.1.1). Archives and viewers that expect each frame
    to start at a new byte read such frames wrongly.
    """
    whole = mask[0].size % 8 == 0
    return SegmentationTypeValues.BINARY if whole else SegmentationTypeValues.FRACTIONAL


def key_slice(mask: npt.NDArray[np.bool_]) -> int:
    """Return the index of the slice in which the region covers most voxels; the first of several.

    Parameters
    ----------
    mask
        (slices, rows, columns) bool.
    """
    return int(np.argmax(np.count_nonzero(mask, axis=(1, 2))))


def outer_contour(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the outline of the largest part of a planar region, along the sides of its pixels.

    Parameters
    ----------
    region
        (rows, columns) bool, not empty.

    Returns
    -------
    ndarray
        (n, 2) corners as (column, row) in image-relative coordinates: (0, 0) is the outer corner of the first pixel,
        (0.5, 0.5) its centre (DICOM PS3.3 C.18.6.1.1). Closed: the last corner is the first. Parts are 4-connected;
        the largest encloses most area, its holes included.
    """
    # Pixels lie to the right of their sides, so outlines enclose a positive area and holes a negative one.
    return max(outlines(region), key=enclosed_area)


def outlines(region: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.float64]]:
    """Return all outlines of a planar region and of its holes, each in the form of :func:`outer_contour`."""
    return [_corners(loop) for loop in _loops(_boundary(region))]


def enclosed_area(corners: npt.NDArray[np.float64]) -> float:
    """Return the signed area in pixels of a closed polygon (n, 2); positive if it runs clockwise on the screen."""
    x, y = corners.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


def _boundary(region: npt.NDArray[np.bool_]) -> dict[Edge, None]:
    padded = np.pad(region, 1)
    edges: dict[Edge, None] = {}
    for (down, right), (start_x, start_y), (x, y) in _SIDES:
        exposed = region & ~np.roll(padded, (-down, -right), axis=(0, 1))[1:-1, 1:-1]
        for row, column in np.argwhere(exposed).tolist():
            edges[column + start_x, row + start_y, x, y] = None
    return edges


def _loops(edges: dict[Edge, None]) -> list[list[Edge]]:
    remaining = dict(edges)
    loops = []
    while remaining:
        edge, loop = next(iter(remaining)), []
        while edge in remaining:
            del remaining[edge]
            loop.append(edge)
            column, row, x, y = edge
            # Try a right turn first: if two pixels touch at a corner, stay with the same pixel.
            turns = ((-y, x), (x, y), (y, -x))
            edge = next(e for turn in turns if (e := (column + x, row + y, *turn)) in edges)
        loops.append(loop)
    return loops


def _corners(loop: list[Edge]) -> npt.NDArray[np.float64]:
    turns = [edge[:2] for before, edge in zip([loop[-1], *loop], loop, strict=False) if before[2:] != edge[2:]]
    return np.asarray([*turns, turns[0]], dtype=np.float64)
