"""Enhanced CT: one file with many slices, split into the datasets of single-frame CT images.

PS3.3 A.38 (Enhanced CT), A.70 (Legacy Converted Enhanced CT) and C.7.6.16 (functional groups).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from lungstage.appliance.dicom.pixeldata import REWRITE, damaged
from lungstage.appliance.dicom.values import text, whole

ENHANCED_CT = frozenset({EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})

_SHARED_GROUPS = 0x52009229  # the first element of the functional groups

# For each functional group: the elements that a single-frame image has at its top level.
_MACROS = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "CTAcquisitionDetailsSequence": ("GantryDetectorTilt",),
    "CTImageFrameTypeSequence": ("FrameType",),
}


def is_enhanced_ct(dataset: Dataset) -> bool:
    """Whether this is a multi-frame CT with functional groups."""
    return text(dataset, "SOPClassUID") in ENHANCED_CT


def frame_count(dataset: Dataset) -> int:
    """Return the Number of Frames, checked against the number of frame descriptions.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    """
    count = whole(dataset, "NumberOfFrames") or 0
    if count < 1 or count != len(dataset.get("PerFrameFunctionalGroupsSequence") or ()):
        raise damaged(
            "The Number of Frames (0028,0008) of this DICOM file differs from the number of frames that it describes "
            "(Per-Frame Functional Groups Sequence, 5200,9230).",
            REWRITE,
        )
    return count


def single_frames(dataset: Dataset, numbers: Iterable[int]) -> Iterator[Dataset]:
    """Make a separate dataset of each requested frame of an Enhanced CT, like that of a single-frame image.

    Parameters
    ----------
    dataset
        The Enhanced CT, with or without its Pixel Data.
    numbers
        Numbers of the requested frames, counted from 1.

    Yields
    ------
    Dataset
        One per frame, without pixels; it has the SOP Class and Instance UID of the Enhanced CT.
    """
    common = dataset[:_SHARED_GROUPS]
    del common.NumberOfFrames
    _take_over(common, dataset.get("SharedFunctionalGroupsSequence") or ())
    for number in numbers:
        frame = common[:]
        frame.file_meta = dataset.file_meta
        _take_over(frame, dataset.PerFrameFunctionalGroupsSequence[number - 1 : number])
        yield frame


def _take_over(frame: Dataset, groups: Iterable[Dataset]) -> None:
    """Add the elements of functional groups; they take precedence over elements at the top level."""
    for group in groups:
        for macro, keywords in _MACROS.items():
            for item in group.get(macro) or ():
                for keyword in keywords:
                    if keyword in item:
                        frame[keyword] = item.get_item(keyword)
    if "FrameType" in frame:
        frame.add_new("ImageType", "CS", frame.FrameType)
