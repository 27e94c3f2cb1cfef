"""The regions of a SEG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.charset import text_of
from lungstage.appliance.dicom.coded import Coded, coded
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.instance import LABEL_MAP_SEGMENTATION_STORAGE
from lungstage.appliance.dicom.names import listed
from lungstage.appliance.dicom.pixeldata import element_name
from lungstage.appliance.dicom.references import source_images
from lungstage.appliance.dicom.region import Region, SegmentFrame, same_place
from lungstage.appliance.dicom.segment_pixels import OTHERWISE, certain_frames, segment_pixels, the_seg
from lungstage.appliance.dicom.values import directions, vector, whole

_ANATOMY = ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")

_IN_DOUBT = (
    "Its frames do not fill whole bytes, and earlier frames may have been padded by the software that wrote the SEG. "
    "Export it as an RTSTRUCT instead."
)

Pixels = npt.NDArray[np.unsignedinteger]


def segmentation_regions(dataset: Dataset, source: RoiHeader) -> tuple[Region, ...]:
    """Read every segment of a SEG; an error in one segment only becomes its :attr:`Region.fault`.

    Raises
    ------
    Refused
        ``roi_unreadable``, ``seg_fractional`` or ``seg_grid_mismatch``.
    """
    numbers = _segment_numbers(dataset)
    pixels = segment_pixels(dataset)
    groups = dataset.PerFrameFunctionalGroupsSequence
    is_label_map = source.sop_class_uid == LABEL_MAP_SEGMENTATION_STORAGE
    segment_of = [] if is_label_map else [_segment_of(dataset, group) for group in groups]
    _prove_declared(dataset, numbers, _labels(dataset, pixels) if is_label_map else set(segment_of))
    orientations = {_directions(_shared_or_own(dataset, group, "PlaneOrientationSequence")) for group in groups}
    measures = [_shared_or_own(dataset, group, "PixelMeasuresSequence") for group in groups]
    spacings = {_numbers(item, "PixelSpacing", 2) for item in measures}
    if len(orientations) != 1 or len(spacings) != 1:
        raise Refused(
            ReasonCode.SEG_GRID_MISMATCH,
            f"The frames of {the_seg(dataset)} differ in Image Orientation (0020,0037) or Pixel Spacing (0028,0030). "
            f"{OTHERWISE}",
        )
    certain = certain_frames(dataset)
    regions = []
    for segment, number in zip(dataset.SegmentSequence, numbers, strict=True):
        frames: list[SegmentFrame] = []
        last = 0
        for k, (group, frame) in enumerate(zip(groups, pixels, strict=True)):
            if not is_label_map and segment_of[k] != number:
                continue
            mask = frame == number if is_label_map else frame > 0
            if mask.any():
                last = k
                place = _numbers(_shared_or_own(dataset, group, "PlanePositionSequence"), "ImagePositionPatient", 3)
                frames.append(SegmentFrame(np.array(place), source_images(group), mask))
        regions.append(
            Region(
                source=source,
                number=number,
                name=text_of(segment, "SegmentLabel", dataset),
                property_type=_first(segment, "SegmentedPropertyTypeCodeSequence"),
                frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
                frames=tuple(frames),
                fault=_fault(frames) if last < certain else _IN_DOUBT,
                orientation=next(iter(orientations)),
                pixel_spacing=next(iter(spacings)),
                slice_spacing=_measure(measures, "SpacingBetweenSlices"),
                slice_thickness=_measure(measures, "SliceThickness"),
                property_category=_first(segment, "SegmentedPropertyCategoryCodeSequence"),
                anatomy=tuple(code for keyword in _ANATOMY for code in coded(segment.get(keyword))),
            )
        )
    return tuple(regions)


def _unreadable(message: str) -> Refused:
    return Refused(ReasonCode.ROI_UNREADABLE, message)


def _segment_numbers(dataset: Dataset) -> tuple[int, ...]:
    """Segment Number of each item of the Segment Sequence, no two of them equal."""
    numbers = tuple(whole(segment, "SegmentNumber") for segment in dataset.SegmentSequence)
    twice = [number for number, times in Counter(numbers).items() if times > 1]
    if twice:
        segments = zip(dataset.SegmentSequence, numbers, strict=True)
        names = [text_of(one, "SegmentLabel", dataset) for one, number in segments if number == twice[0]]
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            f"Several segments of {the_seg(dataset)} have the number {twice[0]} (Segment Number, 0062,0004), so their "
            f"frames cannot be assigned: {listed(names)}. Give each segment its own number, or export only the "
            "tumour's segment.",
            tuple(names),
        )
    if None in numbers:
        raise _unreadable(f"A segment of {the_seg(dataset)} has no number (Segment Number, 0062,0004). {OTHERWISE}")
    return tuple(number for number in numbers if number is not None)


def _segment_of(dataset: Dataset, group: Dataset) -> int | None:
    """Segment that a frame belongs to; None if it does not refer to exactly one."""
    item = _shared_or_own(dataset, group, "SegmentIdentificationSequence", only=True)
    return whole(item, "ReferencedSegmentNumber")


def _labels(dataset: Dataset, pixels: Pixels) -> set[int | None]:
    """Segment numbers in the pixels of a label map; 0 and the padding value are background."""
    named: set[int | None] = {int(label) for frame in pixels for label in np.flatnonzero(np.bincount(frame.ravel()))}
    return named - {0, whole(dataset, "PixelPaddingValue")}


def _prove_declared(dataset: Dataset, numbers: Sequence[int], named: set[int | None]) -> None:
    """Refuse frames of segments that the Segment Sequence does not describe; it is unknown what they are."""
    if not named <= set(numbers):
        stray = sorted(str(number) for number in named - set(numbers))[0]
        raise _unreadable(
            f"{the_seg(dataset)} has pixels of segment number {stray}, but its Segment Sequence (0062,0002) does not "
            f"describe this segment. {OTHERWISE}"
        )


def _fault(frames: Sequence[SegmentFrame]) -> str:
    """Describe the fault if two frames of a segment at the same position differ; otherwise empty."""
    at = sorted(frames, key=lambda frame: tuple(np.round(frame.position, 1)))
    for first, second in pairwise(at):
        if same_place(first.position, second.position) and not np.array_equal(first.pixels, second.pixels):
            return "Two of its frames lie at the same position, but differ. Export it as an RTSTRUCT instead."
    return ""


def _first(segment: Dataset, keyword: str) -> Coded:
    return next(iter(coded(segment.get(keyword))), ())


def _shared_or_own(dataset: Dataset, frame: Dataset, keyword: str, *, only: bool = False) -> Dataset:
    """Return a functional group's item, from the frame itself or from the groups that all frames share."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or (Dataset(),)
    for group in (frame, shared[0]):
        items = group.get(keyword)
        if items:
            if only and len(items) > 1:
                raise _unreadable(
                    f"A frame of {the_seg(dataset)} refers to several segments (Segment Identification Sequence, "
                    f"0062,000A). {OTHERWISE}"
                )
            item: Dataset = items[0]
            return item
    raise _unreadable(f"{the_seg(dataset)} has no {element_name(Tag(keyword))}. {OTHERWISE}")


def _measure(measures: Sequence[Dataset], keyword: str) -> float:
    """Return the value (mm) that the Pixel Measures of all frames agree on; 0 if they differ or have none."""
    stated = {vector(item, keyword, 1) for item in measures}
    return abs(sum(stated.pop())) if len(stated) == 1 else 0.0


def _directions(item: Dataset) -> tuple[float, ...]:
    return directions(item) if _numbers(item, "ImageOrientationPatient", 6) else ()


def _numbers(item: Dataset, keyword: str, length: int) -> tuple[float, ...]:
    numbers = vector(item, keyword, length)
    if not numbers:
        raise _unreadable(f"The SEG's {element_name(Tag(keyword))} does not hold {length} numbers. {OTHERWISE}")
    return numbers
