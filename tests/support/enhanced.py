"""Enhanced CT made of single-frame slices, and region objects that refer to its frames: the same study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, generate_uid

from lungstage.appliance.staging.phantom import segmentation
from tests.support.studies import Study, contours_of, rtstruct_study, square_mask

ORDER = (4, 9, 0, 7, 2, 11, 5, 1, 10, 3, 8, 6)
"""The slice of each frame; no frame has the same number as its slice."""

# PS3.3 C.7.6.16.2: functional group, its elements, whether they differ between the frames.
_GROUPS: dict[str, tuple[tuple[str, ...], bool]] = {
    "PixelMeasuresSequence": (("PixelSpacing", "SliceThickness"), False),
    "PlaneOrientationSequence": (("ImageOrientationPatient",), False),
    "PlanePositionSequence": (("ImagePositionPatient",), True),
    "PixelValueTransformationSequence": (("RescaleIntercept", "RescaleSlope", "RescaleType"), False),
}


def item(**elements: object) -> Dataset:
    """A dataset of the given elements."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(slices: Sequence[Dataset], order: Sequence[int] = ORDER, *, all_per_frame: bool = False) -> Dataset:
    """Put slices into one Enhanced CT, as frames in the given order.

    Parameters
    ----------
    slices
        Uncompressed single-frame images.
    order
        Index of the slice that each frame is.
    all_per_frame
        Write every functional group for each frame, although all share it.
    """
    whole = deepcopy(slices[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    uid = generate_uid(entropy_srcs=[slices[0].SOPInstanceUID, repr(order)])
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = uid
    whole.InstanceNumber, whole.NumberOfFrames = 1, len(order)
    whole.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    for keywords, _ in _GROUPS.values():
        for keyword in keywords:
            delattr(whole, keyword)
    frame_type = item(FrameType=whole.ImageType, PixelPresentation="MONOCHROME", VolumetricProperties="VOLUME")
    shared, groups = Dataset(), [Dataset() for _ in order]
    shared.CTImageFrameTypeSequence = [frame_type]
    for macro, (keywords, differs) in _GROUPS.items():
        for group, k in zip(groups, order, strict=True):
            macro_item = item(**{keyword: slices[k][keyword].value for keyword in keywords})
            setattr(group if differs or all_per_frame else shared, macro, [macro_item])
    for group, k in zip(groups, order, strict=True):
        group.FrameContentSequence = [item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])]
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], groups
    whole.PixelData = b"".join(slices[k].PixelData for k in order)
    return whole


def refer_to(whole: Dataset, images: Iterable[Dataset], frames: dict[str, int]) -> None:
    """Change references to slices into references to frames; `frames` gives the number by the slice's UID, or 0."""
    for image in images:
        frame = frames[image.ReferencedSOPInstanceUID]
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = whole.SOPClassUID, whole.SOPInstanceUID
        if frame:
            image.ReferencedFrameNumber = frame


def enhanced_rtstruct_study(
    *, reference: bool = True, order: Sequence[int] = ORDER, single: Study | None = None, all_per_frame: bool = False
) -> Study:
    """The study of :func:`support.studies.rtstruct_study`, or `single`, with an Enhanced CT in place of its slices."""
    single = single or rtstruct_study(reference=reference)
    whole = enhanced(single.slices, order, all_per_frame=all_per_frame)
    roi = deepcopy(single.rois[0])
    frames = {single.slices[k].SOPInstanceUID: number for number, k in enumerate(order, start=1)}
    for contour in contours_of(roi):
        refer_to(whole, contour.get("ContourImageSequence", ()), frames)
    series = roi.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.ContourImageSequence = [
        item(ReferencedSOPClassUID=whole.SOPClassUID, ReferencedSOPInstanceUID=whole.SOPInstanceUID)
    ]
    return Study([whole], [roi])


def enhanced_seg_study(mask: npt.NDArray[np.bool_] | None = None) -> Study:
    """The study of :func:`support.studies.seg_study` with an Enhanced CT; highdicom makes the references to frames."""
    whole = enhanced(rtstruct_study().slices)
    frames = (square_mask() if mask is None else mask)[list(ORDER)]
    return Study([whole], [segmentation([whole], frames)])
