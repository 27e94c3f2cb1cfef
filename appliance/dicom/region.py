"""A region of interest as its file offers it, before anything was decided about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungstage.appliance.contract.plain import Bits, Floats
from lungstage.appliance.dicom.coded import Coded
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.references import Reference

Mask = Bits
Points = Floats

_POSITION_TOLERANCE = 0.01  # mm; what decimal strings of 16 characters may round away, and no more


@dataclass(frozen=True, slots=True)
class Outline:
    """One contour of an RTSTRUCT: corners (n, 3) in LPS mm, its type, and the images it names, if any."""

    points: Points
    geometric_type: str
    images: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """One non-empty frame of a segment: where it lies, the images it names, if any, and its pixels."""

    position: Points
    images: tuple[Reference, ...]
    pixels: Mask


def named_on(item: Outline | SegmentFrame) -> Reference:
    """Return the one image, or frame of it, that a contour or a frame says it lies on; several do not say it."""
    return item.images[0] if len(item.images) == 1 else ("", 0)


@dataclass(frozen=True, slots=True)
class Region:
    """A region of interest as its file offers it.

    Attributes
    ----------
    source
        The RTSTRUCT or SEG that it comes from.
    number
        ROI Number or Segment Number.
    name
        ROI Name or Segment Label; with :data:`dicom.charset.UNREADABLE` for what cannot be decoded.
    property_type
        Segmented Property Type, as in :mod:`dicom.coded`; () for an RTSTRUCT.
    frame_of_reference_uid
        In which it is defined; empty where the file does not say.
    outlines, frames
        Its content: outlines of an RTSTRUCT, or frames of a SEG; contours that enclose nothing are left out.
    fault
        Why its content cannot be trusted; empty where it can.
    orientation, pixel_spacing
        Of a SEG's frames, in the units of :class:`appliance.dicom.header.ImageHeader`; () for an RTSTRUCT.
    slice_spacing, slice_thickness
        That a SEG says it was drawn with, in mm; 0 where it does not say, or not the same of all frames.
    interpreted_types
        RT ROI Interpreted Type of each observation of it, in capitals; of a SEG none.
    property_category
        Segmented Property Category of a segment, likewise.
    anatomy
        Anatomic Regions and Primary Anatomic Structures of a segment, likewise.
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
        """Whether it has any content; one whose content cannot be trusted has."""
        return bool(self.outlines or self.frames or self.fault)


def same_place(position: Points, other: Points) -> bool:
    """Whether a SEG's frame starts where the image does (0.01 mm)."""
    return bool(np.abs(position - other).max() <= _POSITION_TOLERANCE)
