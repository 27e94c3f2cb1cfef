"""The pixels of a segmentation, frame by frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.values import whole


def segment_pixels(dataset: Dataset) -> npt.NDArray[np.unsignedinteger]:
    """Decode a segmentation.

    Returns
    -------
    ndarray
        (frames, rows, columns): 0 and 1, or the numbers of a label map's segments.

    Raises
    ------
    Refused
        ``roi_unreadable`` or ``seg_fractional``.
    """
    frames = dataset.pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    # pydicom hands out frames beyond their stated number.
    if not whole(dataset, "NumberOfFrames") == len(frames) == len(dataset.PerFrameFunctionalGroupsSequence):
        raise Refused(ReasonCode.ROI_UNREADABLE, "The segmentation's frames do not match their descriptions.")
    if str(dataset.get("SegmentationType")) == "FRACTIONAL":
        full = int(dataset.MaximumFractionalValue)
        if not np.isin(frames, (0, full)).all():
            raise Refused(
                ReasonCode.SEG_FRACTIONAL,
                "The segmentation holds fractions; where the tumour ends is not for this software to decide.",
            )
        return frames // full
    return frames
