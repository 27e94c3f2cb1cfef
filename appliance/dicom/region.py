"""A region of interest as it is in its file, before any choice or placement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungstage.appliance.contract.plain import Bits, Floats
from lungstage.appliance.dicom.coded import Coded
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.references import Reference

Mask = Bits
Points = Floats

_POSITION_TOLERANCE = 0.01  # mm; the rounding of decimal strings of 16 characters


@dataclass(frozen=True, slots=True)
class Outline:
    """One contour of an RTSTRUCT: corners (n, 3) in LPS mm, its type, and the images that it refers to, if any."""

    points: Points
    geometric_type: str
    images: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """One non-empty frame of a segment: its position, the images that it refers to, if any, and its pixels."""

    position: Points
    images: tuple[Reference, ...]
    pixels: Mask


def named_on(item: Outline | SegmentFrame) -> Reference:
    """Return the only image, or frame of it, that a contour or a frame refers to; ("", 0) if there are several."""
    return item.images[0] if len(item.images) == 1 else ("", 0)


@dataclass(frozen=True, slots=True)
class Region:
    """A region of interest as it is in its file.

    Attributes
    ----------
    source
        Its RTSTRUCT or SEG.
    number
        ROI Number or Segment Number.
    name
        ROI Name or Segment Label; characters that cannot be decoded are :data:`dicom.charset.UNREADABLE`.
    property_type
        Segmented Property Type, as in :mod:`dicom.coded`; () for an RTSTRUCT.
    frame_of_reference_uid
        Its Frame of Reference UID; empty if the file has none.
    outlines, frames
        Its content: contours of an RTSTRUCT, or frames of a SEG. Contours that enclose no area are left out.
    fault
        Why its content cannot be used; empty if it can.
    orientation, pixel_spacing
        Orientation and spacing of a SEG's frames, in the units of :class:`appliance.dicom.header.ImageHeader`; () for
        an RTSTRUCT.
    slice_spacing, slice_thickness
        Spacing and thickness (mm) that a SEG gives for its slices; 0 if they are missing, or differ between frames.
    interpreted_types
        RT ROI Interpreted Type of each of its observations, in capitals; empty for a SEG.
    property_category
        Segmented Property Category of a segment, in the same form as `property_type`.
    anatomy
        Anatomic Regions and Primary Anatomic Structures of a segment, in the same form.
    """

    source: RoiHeader
    number: int
    name: str
    property_type: Coded
    frame_of_reference_uid: str
    outlines: tuple[Outline, ...] = ()
    frames: tuple[SegmentFrame, ...] = ()
    fault: str = ""
    orientation: tuple[float, ...] = ()
    pixel_spacing: tuple[float, ...] = ()
    slice_spacing: float = 0.0
    slice_thickness: float = 0.0
    interpreted_types: tuple[str, ...] = ()
    property_category: Coded = ()
    anatomy: tuple[Coded, ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether it has any content, also if this content cannot be used."""
        return bool(self.outlines or self.frames or self.fault)


def same_place(position: Points, other: Points) -> bool:
    """Whether two positions agree within 0.01 mm."""
    return bool(np.abs(position - other).max() <= _POSITION_TOLERANCE)
