"""Regions of interest: read from RTSTRUCT or SEG, chosen by rule, turned into a voxel mask."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.plain import Bits, Floats
from lungstage.appliance.dicom.files import is_of_the_disk, read_unchanged
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.instance import LABEL_MAP_SEGMENTATION_STORAGE, contour_data
from lungstage.appliance.dicom.names import listed, the_region
from lungstage.appliance.dicom.references import Reference, source_image, the_one_image
from lungstage.appliance.dicom.segment_pixels import segment_pixels
from lungstage.appliance.dicom.values import FARTHEST, directions, vector

Mask = Bits
Points = Floats

_CODE = ("CodeValue", "CodingSchemeDesignator")
_DECIMALS = re.compile(rb"[-+0-9.eE \\]*")  # numpy, too, would read "1_0" as ten
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_POSITION_TOLERANCE = 0.01  # mm; what decimal strings of 16 characters may round away, and no more


@dataclass(frozen=True, slots=True)
class Outline:
    """One contour of an RTSTRUCT: corners (n, 3) in LPS mm, its type, and the image it names, if any."""

    points: Points
    geometric_type: str
    image: Reference


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """One non-empty frame of a segment: where it lies, the one image it names, if any, and its pixels."""

    position: Points
    image: Reference
    pixels: Mask


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
        ROI Name or Segment Label.
    property_type
        (code value, coding scheme) of the Segmented Property Type; () for an RTSTRUCT.
    frame_of_reference_uid
        In which it is defined; empty where the file does not say.
    outlines, frames
        Its content: outlines of an RTSTRUCT, or frames of a SEG.
    fault
        Why its content cannot be trusted; empty where it can.
    orientation, pixel_spacing
        Of a SEG's frames, in the units of :class:`appliance.dicom.header.ImageHeader`; () for an RTSTRUCT.
    """

    source: RoiHeader
    number: int
    name: str
    property_type: tuple[str, ...]
    frame_of_reference_uid: str
    outlines: tuple[Outline, ...] = ()
    frames: tuple[SegmentFrame, ...] = ()
    fault: str = ""
    orientation: tuple[float, ...] = ()
    pixel_spacing: tuple[float, ...] = ()


def _outline(contour: Dataset) -> Outline:
    text = contour_data(contour)
    if not _DECIMALS.fullmatch(text):
        raise Refused(ReasonCode.ROI_UNREADABLE, "A contour's coordinates are not decimal strings.")
    data = np.array(text.split(b"\\") if text else [], dtype=np.float64)
    if data.size % 3 or not (np.abs(data) < FARTHEST).all():
        raise Refused(ReasonCode.ROI_UNREADABLE, "A contour's coordinates are not finite triplets.")
    stated = contour.get("NumberOfContourPoints")
    if stated is not None and stated != data.size // 3:
        raise Refused(ReasonCode.ROI_UNREADABLE, "A contour has more or fewer points than it says.")
    return Outline(
        points=data.reshape((-1, 3)),
        geometric_type=str(contour.get("ContourGeometricType") or ""),
        image=the_one_image(contour.get("ContourImageSequence") or ()),
    )


def _outlines(items: Sequence[Dataset]) -> tuple[Outline, ...]:
    return tuple(_outline(contour) for item in items for contour in item.get("ContourSequence") or ())


def _structure_set_regions(dataset: Dataset, source: RoiHeader) -> tuple[Region, ...]:
    contours: dict[int, list[Dataset]] = defaultdict(list)
    for item in dataset.get("ROIContourSequence") or ():
        if item.get("ReferencedROINumber") is not None:
            contours[int(item.ReferencedROINumber)].append(item)
    numbered = [roi for roi in dataset.get("StructureSetROISequence") or () if roi.get("ROINumber") is not None]
    times = Counter(int(roi.ROINumber) for roi in numbered)
    regions = []
    for roi in numbered:
        number = int(roi.ROINumber)
        fault = "Several regions of the structure set bear its number." if times[number] > 1 else ""
        if len(contours[number]) > 1 and not all(contours[other] for other in times):
            fault = "Contours of another region may stand under its number."
        outlines: tuple[Outline, ...] = ()
        try:
            outlines = _outlines(contours[number])
        # Another region's contours are no reason to refuse this one's; see `choose`.
        except Refused as refused:
            fault = str(refused)
        except (TypeError, ValueError):  # whose own words would quote the file
            fault = "Its contours cannot be read."
        regions.append(
            Region(
                source=source,
                number=number,
                name=str(roi.get("ROIName") or "").strip(),
                property_type=(),
                frame_of_reference_uid=str(roi.get("ReferencedFrameOfReferenceUID") or ""),
                outlines=outlines,
                fault=fault,
            )
        )
    return tuple(regions)


def _shared_or_own(dataset: Dataset, frame: Dataset, keyword: str) -> Dataset:
    """Return a functional group's item, from the frame itself or from what all frames share."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or (Dataset(),)
    for group in (frame, shared[0]):
        items = group.get(keyword)
        if items:
            item: Dataset = items[0]
            return item
    raise Refused(ReasonCode.ROI_UNREADABLE, f"The segmentation lacks its {keyword}.")


def _numbers(item: Dataset, keyword: str, length: int) -> tuple[float, ...]:
    numbers = vector(item, keyword, length)
    if not numbers:
        raise Refused(ReasonCode.ROI_UNREADABLE, f"The segmentation's {keyword} is not {length} numbers.")
    return numbers


def _directions(item: Dataset) -> tuple[float, ...]:
    return directions(item) if _numbers(item, "ImageOrientationPatient", 6) else ()


def _segmentation_regions(dataset: Dataset, source: RoiHeader) -> tuple[Region, ...]:
    is_label_map = source.sop_class_uid == LABEL_MAP_SEGMENTATION_STORAGE
    pixels = segment_pixels(dataset)
    groups = dataset.PerFrameFunctionalGroupsSequence
    orientations = {_directions(_shared_or_own(dataset, group, "PlaneOrientationSequence")) for group in groups}
    spacings = {_numbers(_shared_or_own(dataset, g, "PixelMeasuresSequence"), "PixelSpacing", 2) for g in groups}
    if len(orientations) != 1 or len(spacings) != 1:
        raise Refused(ReasonCode.SEG_GRID_MISMATCH, "The segmentation's frames differ in orientation or pixel spacing.")
    regions = []
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        frames = []
        for group, frame in zip(groups, pixels, strict=True):
            if is_label_map:
                mask = frame == number
            elif int(_shared_or_own(dataset, group, "SegmentIdentificationSequence").ReferencedSegmentNumber) == number:
                mask = frame > 0
            else:
                continue
            if mask.any():
                place = _numbers(_shared_or_own(dataset, group, "PlanePositionSequence"), "ImagePositionPatient", 3)
                frames.append(SegmentFrame(np.array(place), source_image(group), mask))
        codes = segment.get("SegmentedPropertyTypeCodeSequence") or ()
        regions.append(
            Region(
                source=source,
                number=number,
                name=str(segment.get("SegmentLabel") or "").strip(),
                property_type=tuple(str(codes[0].get(k)) for k in _CODE) if codes else (),
                frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
                frames=tuple(frames),
                orientation=next(iter(orientations)),
                pixel_spacing=next(iter(spacings)),
            )
        )  # fmt: skip
    return tuple(regions)


# A case is planned again whenever one of its slices arrives; its RTSTRUCT, which stays the same, may hold a million
# coordinates. The header bears a digest of the content, so a file that changed is another entry.
@lru_cache(maxsize=4)
def load_regions(source: RoiHeader) -> tuple[Region, ...]:
    """Read every region that an RTSTRUCT or SEG holds.

    Raises
    ------
    Refused
        ``roi_unreadable``, ``seg_fractional`` or ``seg_grid_mismatch``.
    """
    try:
        dataset = read_unchanged(source)
        read = _structure_set_regions if source.kind == "RTSTRUCT" else _segmentation_regions
        return read(dataset, source)
    except (Refused, Unavailable):
        raise
    except Exception as error:  # hostile bytes: whatever the decoder raises, the file is at fault
        if is_of_the_disk(error):
            raise
        raise Refused(ReasonCode.ROI_UNREADABLE, f"The {source.kind} cannot be read.") from error


class SelectionRule(Protocol):
    """The part of a bundle's manifest that says which region is the tumour."""

    @property
    def name_patterns(self) -> tuple[str, ...]:
        """Regular expressions for names, most telling first."""

    @property
    def excluded_patterns(self) -> tuple[str, ...]:
        """Names that the rule never takes."""

    @property
    def property_types(self) -> tuple[tuple[str, str], ...]:
        """Segmented Property Types that mean the primary tumour."""


def _names(regions: Sequence[Region]) -> tuple[str, ...]:
    return tuple(region.name for region in regions)


def _matches(pattern: str, region: Region) -> bool:
    return re.fullmatch(pattern, region.name, flags=re.IGNORECASE) is not None


def choose(regions: Sequence[Region], rule: SelectionRule, name: str | None) -> Region:
    """Choose the one region to measure.

    Parameters
    ----------
    regions
        What one RTSTRUCT or SEG offers.
    rule
        The bundle's rule.
    name
        A name given by the user, which overrides the rule; case and outer blanks are ignored.

    Raises
    ------
    Refused
        ``roi_not_found`` where no region fits and ``roi_ambiguous`` where several do, with the names there are;
        ``roi_unreadable`` where the one that fits is faulty.
    """
    region = _choose_by_rule(regions, rule) if name is None else _choose_by_name(regions, name)
    if region.fault:
        message = f"{the_region(region.name)} is faulty: {region.fault}"
        raise Refused(ReasonCode.ROI_UNREADABLE, message, (region.name,))
    return region


def _choose_by_name(regions: Sequence[Region], name: str) -> Region:
    wanted = [region for region in regions if region.name.casefold() == name.strip().casefold()]
    if len(wanted) == 1:
        return wanted[0]
    code = ReasonCode.ROI_AMBIGUOUS if wanted else ReasonCode.ROI_NOT_FOUND
    found = f"{len(wanted)} regions have" if wanted else "No region of interest has"
    names = _names(regions)
    raise Refused(code, f"{found} the name that was asked for; there are: {listed(names)}.", names)


def _choose_by_rule(regions: Sequence[Region], rule: SelectionRule) -> Region:
    eligible = [r for r in regions if not any(_matches(pattern, r) for pattern in rule.excluded_patterns)]
    by_code = [region for region in eligible if region.property_type in rule.property_types]
    rounds = [by_code, *([r for r in eligible if _matches(pattern, r)] for pattern in rule.name_patterns)]
    for found in rounds:
        if len(found) == 1:
            return found[0]
        # Two segments may both be coded as neoplasm, primary and node; the names may still tell them apart.
        if len(found) > 1 and found is not by_code:
            break
    several = any(rounds)
    raise Refused(
        ReasonCode.ROI_AMBIGUOUS if several else ReasonCode.ROI_NOT_FOUND,
        f"{'More than one' if several else 'No'} region of interest could be the primary tumour; name one with --roi. "
        f"There are: {listed(_names(regions))}.",
        _names(regions),
    )


def prove_outlines(region: Region) -> None:
    """Refuse contours that do not bound an area.

    Raises
    ------
    Refused
        ``contour_not_closed``.
    """
    for outline in region.outlines:
        if outline.geometric_type not in _CLOSED or len(outline.points) < 3:
            raise Refused(
                ReasonCode.CONTOUR_NOT_CLOSED,
                f"{the_region(region.name)} has a contour that is open or a point.",
                (region.name,),
            )


def same_grid(region: Region, orientation: Sequence[float], pixel_spacing: Sequence[float]) -> bool:
    """Whether a SEG's frames have the orientation and pixel spacing of the images."""
    return np.allclose(region.orientation, orientation, atol=1e-4) and np.allclose(
        region.pixel_spacing, pixel_spacing, rtol=1e-4
    )


def same_place(position: Points, other: Points) -> bool:
    """Whether a SEG's frame starts where the image does (0.01 mm)."""
    return bool(np.abs(position - other).max() <= _POSITION_TOLERANCE)
