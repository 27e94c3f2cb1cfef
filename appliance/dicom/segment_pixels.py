"""The pixels of a segmentation, frame by frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.instance import LABEL_MAP_SEGMENTATION_STORAGE
from lungstage.appliance.dicom.pixeldata import NATIVE, UNCOMPRESSED, fault_of
from lungstage.appliance.dicom.values import sequence, whole

OTHERWISE = "Send an RTSTRUCT, or a SEG from other software. The same export gives the same file."
"""What to do if the software that wrote the SEG is the cause."""

_FEW_EDGES = 8  # fewer could occur by chance
_UNITS = (8, 16, 32)  # bits; some writers pad to these, although PS3.5, 8.1.1 requires packing without gaps


def segment_pixels(dataset: Dataset) -> npt.NDArray[np.unsignedinteger]:
    """Decode a segmentation.

    Returns
    -------
    ndarray
        (frames, rows, columns): 0 and 1, or the segment numbers of a label map.

    Raises
    ------
    Refused
        ``roi_unreadable`` or ``seg_fractional``.
    """
    count = whole(dataset, "NumberOfFrames") or 0
    if count != len(sequence(dataset, "PerFrameFunctionalGroupsSequence")):
        raise _unreadable(
            f"{the_seg(dataset)} describes another number of frames (Per-Frame Functional Groups Sequence, 5200,9230) "
            f"than its Number of Frames (0028,0008). {OTHERWISE}"
        )
    if fault := fault_of(dataset, count, rewrite=OTHERWISE):
        raise _unreadable(f"The pixel data of {the_seg(dataset)} {fault}")
    if int(dataset.BitsAllocated) == 1:
        _prove_order_of_bits(dataset)
    frames = dataset.pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    if len(frames) != count:
        raise _unreadable(
            f"{the_seg(dataset)} holds another number of frames than its Number of Frames (0028,0008). {OTHERWISE}"
        )
    if dataset.get("SOPClassUID") == LABEL_MAP_SEGMENTATION_STORAGE:
        return frames
    full = 1
    if dataset.get("SegmentationType") == "FRACTIONAL":
        full = whole(dataset, "MaximumFractionalValue") or 0
        if full < 1:
            raise _unreadable(f"{the_seg(dataset)} has no usable Maximum Fractional Value (0062,000E). {OTHERWISE}")
        if not np.isin(frames, (0, full)).all():
            raise Refused(
                ReasonCode.SEG_FRACTIONAL,
                f"{the_seg(dataset)} holds fractions (Segmentation Type, 0062,0001), so the edge of the tumour is not "
                "defined. Export a binary SEG, or an RTSTRUCT.",
            )
    elif frames.max(initial=0) > 1:
        raise _unreadable(
            f"{the_seg(dataset)} is declared binary (Segmentation Type, 0062,0001), but holds values other than 0 and "
            f"1. {OTHERWISE}"
        )
    return frames // full


def _prove_order_of_bits(dataset: Dataset) -> None:
    """Refuse packed bits if their order is uncertain."""
    syntax = dataset.file_meta.TransferSyntaxUID
    # The bytes should be swapped in pairs (PS3.5, A.3), but not all software does so.
    if syntax == ExplicitVRBigEndian and dataset["PixelData"].VR == "OW":
        raise _unreadable(
            f"{the_seg(dataset)} stores its bits in words of Explicit VR Big Endian. Not all software uses the same "
            f"order for them. {UNCOMPRESSED}"
        )
    if syntax in NATIVE and are_bits_reversed(dataset.PixelData):
        raise _unreadable(
            f"The bits of {the_seg(dataset)} are probably stored in the wrong order within each byte: its contours "
            f"break at every eighth voxel. {OTHERWISE}"
        )


def are_bits_reversed(packed: bytes) -> bool:
    """Whether the bits of each byte are probably in reverse order, which is the default of ``numpy.packbits``.

    The number of edges within a byte does not depend on the direction of reading. But at a border between bytes, a
    correct mask has an edge only if the outline passes there. With reversed bits, it has two edges there for every
    outline that passes elsewhere. So if reading in the other direction removes these edges, the bits are reversed.
    """
    octets = np.frombuffer(packed, np.uint8)
    first, last = octets & 1, octets >> 7
    edges, otherwise = (np.count_nonzero(end[:-1] != start[1:]) for end, start in ((last, first), (first, last)))
    return bool(edges >= _FEW_EDGES and edges > 2 * otherwise)


def certain_frames(dataset: Dataset) -> int:
    """Count the first frames with a certain position in the data, if frames do not end at the end of a byte.

    Some writers pad every frame; others pad the frames that one segment has in a row. Frames after the first padding
    are then shifted by some voxels, and still look like a tumour. Usually the length of the data shows the padding. If
    the padded length equals the correct one, the frames after the first possible padding are uncertain.
    """
    groups = sequence(dataset, "PerFrameFunctionalGroupsSequence")
    count, bits = len(groups), int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated)
    if bits % 8 == 0 or dataset.file_meta.TransferSyntaxUID not in NATIVE:
        return count
    runs = [len(list(run)) for _, run in itertools.groupby(_segment_number(dataset, group) for group in groups)]
    true = _even(_padded(bits, [count], 8))
    alike = [parts[0] for parts in ([1] * count, runs) for unit in _UNITS if _even(_padded(bits, parts, unit)) == true]
    return min([count, *alike])


def _segment_number(dataset: Dataset, group: Dataset) -> int | None:
    for part in (group, *sequence(dataset, "SharedFunctionalGroupsSequence")):
        for item in sequence(part, "SegmentIdentificationSequence"):
            return whole(item, "ReferencedSegmentNumber")
    return None


def _padded(bits: int, parts: Iterable[int], unit: int) -> int:
    """Return the number of bytes of parts with these numbers of frames, each part padded to a unit."""
    return sum(-(-bits * frames // unit) * unit // 8 for frames in parts)


def _even(length: int) -> int:
    return length + length % 2


def the_seg(dataset: Dataset) -> str:
    """Name of a SEG within a sentence: its UID, because there may be several."""
    return f"SEG {dataset.SOPInstanceUID}"


def _unreadable(message: str) -> Refused:
    return Refused(ReasonCode.ROI_UNREADABLE, message)
