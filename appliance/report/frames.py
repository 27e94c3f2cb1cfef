"""A Segmentation on some frames of an Enhanced CT.

highdicom accepts only one Enhanced CT, and only all of its frames. The Segmentation is therefore made from single-frame
stand-ins. Each reference to a stand-in is then replaced by a reference to the frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import CTImageStorage

from lungstage.appliance.report.context import OnFrames, derive_uid


def stand_ins(headers: Sequence[Dataset], context: OnFrames) -> list[Dataset]:
    """Return headers of frames as headers of single-frame images, each with a new UID."""
    sources = []
    for k, header in enumerate(headers):
        source = Dataset()
        source.update(header)  # both share the elements, so they are replaced and never changed
        source.add_new("SOPClassUID", "UI", CTImageStorage)
        source.add_new("SOPInstanceUID", "UI", derive_uid(context.identity, f"source-{k}"))
        sources.append(source)
    return sources


def name_frames(segmentation: Dataset, headers: Sequence[Dataset], context: OnFrames) -> None:
    """Replace each reference to a stand-in by a reference to its frame, in place.

    Parameters
    ----------
    segmentation
        Segmentation made from the stand-ins of `headers`.
    headers
        Headers of the frames.
    context
        Its `frames` are the frame numbers.
    """
    uids = [source.SOPInstanceUID for source in stand_ins(headers, context)]
    frames = dict(zip(uids, zip(headers, context.frames, strict=True), strict=True))
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for item in group.DerivationImageSequence[0].SourceImageSequence:
            header, frame = frames[item.ReferencedSOPInstanceUID]
            item.update(_reference(header.SOPClassUID, header.SOPInstanceUID, [frame]))
    images: dict[tuple[str, str], list[int]] = defaultdict(list)
    for header, frame in frames.values():
        images[header.SOPClassUID, header.SOPInstanceUID].append(frame)
    segmentation.SourceImageSequence = [_reference(*image, sorted(numbers)) for image, numbers in images.items()]
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [_reference(*image, []) for image in images]


def _reference(sop_class_uid: str, sop_instance_uid: str, frames: Sequence[int]) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    if any(frames):
        item.ReferencedFrameNumber = list(frames)
    return item
