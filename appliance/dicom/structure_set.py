"""The regions of an RTSTRUCT."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.charset import text_of
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.instance import contour_data
from lungstage.appliance.dicom.names import counted, the_region
from lungstage.appliance.dicom.references import image_references
from lungstage.appliance.dicom.region import Outline, Points, Region
from lungstage.appliance.dicom.values import FARTHEST, number

_DECIMALS = re.compile(rb"[-+0-9.eE \\]*")  # numpy, too, would read "1_0" as ten
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# Terms that a message may quote: those of PS3.3 C.8.8.6.3, and one that MIM writes; others could be free text.
_WHAT = {
    "POINT": "marked as points (POINT)",
    "OPEN_PLANAR": "marked as open (OPEN_PLANAR)",
    "OPEN_NONPLANAR": "marked as open (OPEN_NONPLANAR)",
    "INTERPOLATED_PLANAR": "marked as interpolated (INTERPOLATED_PLANAR)",
}
_ALONE = "Export this region alone, in a separate RTSTRUCT."
_ANOTHER = "Draw it again, or export the RTSTRUCT from other software."
_THIN = 1e-6  # mm; a contour with all corners this near to one line encloses no area


def structure_set_regions(dataset: Dataset, source: RoiHeader) -> tuple[Region, ...]:
    """Read every region of an RTSTRUCT; an error in one region becomes its :attr:`Region.fault`."""
    contours: dict[int, list[Dataset]] = defaultdict(list)
    for item in dataset.get("ROIContourSequence") or ():
        if item.get("ReferencedROINumber") is not None:
            contours[int(item.ReferencedROINumber)].append(item)
    types: dict[int, list[str]] = defaultdict(list)
    for item in dataset.get("RTROIObservationsSequence") or ():
        if item.get("ReferencedROINumber") is not None:
            types[int(item.ReferencedROINumber)].append(str(item.get("RTROIInterpretedType") or "").strip().upper())
    numbered = [roi for roi in dataset.get("StructureSetROISequence") or () if roi.get("ROINumber") is not None]
    times = Counter(int(roi.ROINumber) for roi in numbered)
    regions = []
    for roi in numbered:
        of = int(roi.ROINumber)
        fault = f"Several regions of the RTSTRUCT have its ROI Number (3006,0022). {_ALONE}" if times[of] > 1 else ""
        if len(contours[of]) > 1 and not all(contours[other] for other in times):
            fault = f"Contours of another region may be stored under its ROI Number (3006,0084). {_ALONE}"
        outlines: tuple[Outline, ...] = ()
        try:
            outlines = _outlines(contours[of])
        # An error in one region is no reason to refuse the others; see `choose`.
        except Refused as refused:
            fault = str(refused)
        except (TypeError, ValueError):  # their text could quote the file
            fault = f"Its contours cannot be read. {_ANOTHER}"
        regions.append(
            Region(
                source=source,
                number=of,
                name=text_of(roi, "ROIName", dataset),
                property_type=(),
                frame_of_reference_uid=str(roi.get("ReferencedFrameOfReferenceUID") or ""),
                outlines=outlines,
                fault=fault,
                interpreted_types=tuple(types[of]),
            )
        )
    return tuple(regions)


def _outlines(items: Sequence[Dataset]) -> tuple[Outline, ...]:
    """Read a region's contours; those that enclose no area are left out."""
    every = (_outline(contour) for item in items for contour in item.get("ContourSequence") or ())
    return tuple(outline for outline in every if not _encloses_nothing(outline.points))


def _outline(contour: Dataset) -> Outline:
    text = contour_data(contour)
    if not _DECIMALS.fullmatch(text):
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            f"A contour's coordinates (Contour Data, 3006,0050) are not all decimal numbers such as -12.5. {_ANOTHER}",
        )
    data = np.array(text.split(b"\\") if text else [], dtype=np.float64)
    if data.size % 3 or not (np.abs(data) < FARTHEST).all():
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            "A contour's coordinates (Contour Data, 3006,0050) are not groups of x, y and z in a plausible range. "
            f"{_ANOTHER}",
        )
    stated = number(contour, "NumberOfContourPoints")
    if stated is not None and stated != data.size // 3:
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            f"The number of points of a contour differs from its Number of Contour Points (3006,0046). {_ANOTHER}",
        )
    _prove_no_offset(contour)
    return Outline(
        points=data.reshape((-1, 3)),
        geometric_type=str(contour.get("ContourGeometricType") or "").strip(),
        images=image_references(contour.get("ContourImageSequence") or ()),
    )


def _prove_no_offset(contour: Dataset) -> None:
    """Refuse a Contour Offset Vector (retired, PS3.3-2009 C.8.8.6): it moves the contour from its coordinates."""
    offset = contour.get("ContourOffsetVector")
    if offset is None or offset == "":
        return
    values = offset if isinstance(offset, Sequence) and not isinstance(offset, str) else [offset]
    if len(values) != 3 or any(float(value) != 0 for value in values):
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            "Its contours have a shift (Contour Offset Vector, 3006,0045) that lungstage does not apply. Apply the "
            "shift in the contouring software, and export the RTSTRUCT again.",
        )


def _encloses_nothing(points: Points) -> bool:
    """Whether it is a point or a line; tools that convert masks to contours write them."""
    if len(points) < 3:
        return True
    arms = points - points[0]
    longest = arms[np.argmax((arms**2).sum(axis=1))]
    length = float(np.linalg.norm(longest))
    return length < _THIN or float(np.linalg.norm(np.cross(arms, longest / length), axis=1).max()) < _THIN


def prove_outlines(region: Region) -> None:
    """Refuse contours that do not enclose an area.

    Raises
    ------
    Refused
        ``contour_not_closed``.
    """
    kinds = {outline.geometric_type for outline in region.outlines}
    others = sorted(kinds - {*_CLOSED})
    if others:
        kind = others[0] if others[0] in _WHAT else "another type" if others[0] else "no type"
        count = sum(outline.geometric_type == others[0] for outline in region.outlines)
        raise Refused(
            ReasonCode.CONTOUR_NOT_CLOSED,
            f"{the_region(region.name)} has {counted(count, 'contour')} {_WHAT.get(kind, f'of {kind}')} instead of "
            "closed (Contour Geometric Type, 3006,0042). In the contouring software, draw closed contours instead, "
            "and export the RTSTRUCT again.",
            (region.name,),
        )
