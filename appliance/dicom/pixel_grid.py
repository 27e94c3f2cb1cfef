"""Contours and segmentation frames in pixel coordinates of their image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame

Floats = npt.NDArray[np.float64]

_COSINE_TOLERANCE = 1e-4
_SPACING_SHARE = 1e-4
_POSITION_TOLERANCE = 0.01  # mm in the plane; the rounding of decimal strings of 16 characters
_CENTRE_TOLERANCE = 1e-3  # pixels
_CENTRE_SHARE = 0.99


def corners_in_pixels(outline: Outline, image: ImageHeader) -> Floats:
    """Return a contour's corners (n, 2) as (row, column); the centre of the first pixel is (0, 0)."""
    offset = outline.points - np.array(image.position)
    column = offset @ np.array(image.orientation[:3]) / image.pixel_spacing[1]
    row = offset @ np.array(image.orientation[3:]) / image.pixel_spacing[0]
    return np.column_stack([row, column])


def run_through_centres(outlines: Iterable[tuple[Outline, ImageHeader]]) -> bool:
    """Whether contours run from pixel centre to pixel centre; software that follows a mask's rim draws such contours.

    Then half of each pixel at the rim is outside. Corners from a planning system lie anywhere, or between pixels.
    """
    corners = [corners_in_pixels(outline, image) for outline, image in outlines]
    if not corners:
        return False
    places = np.concatenate(corners)
    return bool((np.abs(places - np.rint(places)).max(axis=1) <= _CENTRE_TOLERANCE).mean() >= _CENTRE_SHARE)


def laid_on(image: ImageHeader, region: Region, frame: SegmentFrame, tolerance: float) -> SegmentFrame | None:
    """Map a frame to the pixels of an image, if its grid matches exactly.

    Writers may store frames flipped, transposed or cropped: the same voxels in another order. Nothing is resampled.

    Parameters
    ----------
    image
        An image with a position.
    region, frame
        A region of a SEG, and one of its frames.
    tolerance
        Largest allowed distance (mm) of the frame from the image's plane.

    Returns
    -------
    SegmentFrame or None
        With pixels of the image's shape (rows, columns); None if the frame's voxels do not match the image's, or some
        lie outside the image.
    """
    axes, own = np.reshape(image.orientation, (2, 3)), np.reshape(region.orientation, (2, 3))
    turn = own @ axes.T  # [axis of the frame, axis of the image]; each first along a row, then along a column
    turned = np.rint(turn)
    spacing, own_spacing = np.array(image.pixel_spacing[::-1]), np.array(region.pixel_spacing[::-1])
    if (
        np.abs(turn - turned).max() > _COSINE_TOLERANCE
        or (np.abs(turned).sum(axis=0) != 1).any()
        or (np.abs(turned).sum(axis=1) != 1).any()
        or not np.allclose(np.abs(turned) @ spacing, own_spacing, rtol=_SPACING_SHARE)
    ):
        return None
    rows, columns = frame.pixels.shape
    # The far corners must also lie on the grid: errors of the spacing or of a cosine add up.
    corners = np.array([[0, 0], [columns - 1, 0], [0, rows - 1]]) * own_spacing @ own
    offsets = frame.position + corners - image.position
    depths = offsets @ np.cross(*axes)
    places = offsets @ axes.T / spacing  # (column, row)
    if np.abs(depths).max() > tolerance or np.abs((places - np.rint(places)) * spacing).max() > _POSITION_TOLERANCE:
        return None
    first = np.rint(places[0]).astype(np.int64)
    row, column = np.nonzero(frame.pixels)
    at = first + np.stack([column, row], axis=1) @ turned.astype(np.int64)
    if (at < 0).any() or (at >= (image.columns, image.rows)).any():
        return None
    pixels = np.zeros((image.rows, image.columns), dtype=np.bool_)
    pixels[at[:, 1], at[:, 0]] = True
    return replace(frame, pixels=pixels)
