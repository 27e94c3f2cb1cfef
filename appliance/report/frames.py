"""A Segmentation on some frames of an Enhanced CT; highdicom takes an Enhanced CT whole, and one alone.

So it is made from single-frame stand-ins, and each reference to one is then replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import CTImageStorage

from lungstage.appliance.report.context import OnFrames, derive_uid


def stand_ins(headers: Sequence[Dataset], context: OnFrames) -> list[Dataset]:
    """Headers of frames as headers of single-frame images, each with a UID of its own."""
    sources = []
    for k, header in enumerate(headers):
        source = Dataset()
        source.update(header)  # the elements are the header's own: replaced, never changed
        source.add_new("SOPClassUID", "UI", CTImageStorage)
        source.add_new("SOPInstanceUID", "UI", derive_uid(context.identity, f"source-{k}"))
        sources.append(source)
    return sources


def name_frames(segmentation: Dataset, headers: Sequence[Dataset], context: OnFrames) -> None:
    """Replace in place each reference to a stand-in by one to the frame that it stood for.

    Parameters
    ----------
    segmentation
        Made from the stand-ins of `headers`.
    headers
        Of the frames.
    context
        Its `frames` are their numbers.
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
