"""Enhanced CT: one file of many slices, taken apart into what single-frame CT images would say of each.

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

# Of each functional group, the elements that a single-frame image bears itself.
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
    """Return the Number of Frames, proven to be that of their descriptions.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    """
    count = whole(dataset, "NumberOfFrames") or 0
    if count < 1 or count != len(dataset.get("PerFrameFunctionalGroupsSequence") or ()):
        raise damaged("This DICOM file does not hold as many frames as it describes.", REWRITE)
    return count


def single_frames(dataset: Dataset, numbers: Iterable[int]) -> Iterator[Dataset]:
    """Make frames of an Enhanced CT datasets of their own, as those of single-frame images would be.

    Parameters
    ----------
    dataset
        The Enhanced CT; its Pixel Data need not be in it.
    numbers
        Of the frames wanted, counted from 1.

    Yields
    ------
    Dataset
        One for each, without pixels; it bears the SOP Class and Instance UID of the whole.
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
    """Add what functional groups say; they outrank what is there."""
    for group in groups:
        for macro, keywords in _MACROS.items():
            for item in group.get(macro) or ():
                for keyword in keywords:
                    if keyword in item:
                        frame[keyword] = item.get_item(keyword)
    if "FrameType" in frame:
        frame.add_new("ImageType", "CS", frame.FrameType)
