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

OTHERWISE = "To export it the same way makes the same file: send an RTSTRUCT, or a SEG from other software."
"""What helps where whoever wrote the SEG is at fault."""

_FEW_EDGES = 8  # that could be chance
_UNITS = (8, 16, 32)  # bits to which writers have padded what PS3.5, 8.1.1 wants packed without a gap


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
    count = whole(dataset, "NumberOfFrames") or 0
    if count != len(sequence(dataset, "PerFrameFunctionalGroupsSequence")):
        raise _unreadable(f"{the_seg(dataset)} does not hold as many frames as it describes. {OTHERWISE}")
    if fault := fault_of(dataset, count, rewrite=OTHERWISE):
        raise _unreadable(f"The pixel data of {the_seg(dataset)} {fault}")
    if int(dataset.BitsAllocated) == 1:
        _prove_order_of_bits(dataset)
    frames = dataset.pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    if len(frames) != count:
        raise _unreadable(
            f"{the_seg(dataset)} does not hold as many frames as it says (Number of Frames, 0028,0008). {OTHERWISE}"
        )
    if dataset.get("SOPClassUID") == LABEL_MAP_SEGMENTATION_STORAGE:
        return frames
    full = 1
    if dataset.get("SegmentationType") == "FRACTIONAL":
        full = whole(dataset, "MaximumFractionalValue") or 0
        if full < 1:
            raise _unreadable(
                f"{the_seg(dataset)} does not say what the full value of a voxel is (Maximum Fractional Value, "
                f"0062,000E). {OTHERWISE}"
            )
        if not np.isin(frames, (0, full)).all():
            raise Refused(
                ReasonCode.SEG_FRACTIONAL,
                f"{the_seg(dataset)} holds fractions (Segmentation Type, 0062,0001), so where the tumour ends "
                "would be a guess. Export a "
                "binary SEG, or an RTSTRUCT.",
            )
    elif frames.max(initial=0) > 1:
        raise _unreadable(
            f"{the_seg(dataset)} says that it is binary (Segmentation Type, 0062,0001), but holds other values "
            f"than 0 and 1. {OTHERWISE}"
        )
    return frames // full


def _prove_order_of_bits(dataset: Dataset) -> None:
    """Refuse packed bits of which no one can be sure in what order they are."""
    syntax = dataset.file_meta.TransferSyntaxUID
    # Their bytes should be swapped in pairs (PS3.5, A.3), which not all who write or read such do.
    if syntax == ExplicitVRBigEndian and dataset["PixelData"].VR == "OW":
        raise _unreadable(
            f"{the_seg(dataset)} holds its bits in words of Explicit VR Big Endian, which not all software writes in "
            f"the same order. {UNCOMPRESSED}"
        )
    if syntax in NATIVE and are_bits_reversed(dataset.PixelData):
        raise _unreadable(
            f"The bits of {the_seg(dataset)} seem to be stored in the wrong order within each byte: its outlines break "
            f"at every eighth voxel. {OTHERWISE}"
        )


def are_bits_reversed(packed: bytes) -> bool:
    """Whether each byte's bits look to be the other way round, as ``numpy.packbits`` has them unless told otherwise.

    Read in either direction, a byte has as many edges within it; but where bytes meet, a sound mask has an edge only if
    its outline happens to pass there, and the same mask with its bits reversed has two for every outline that passes
    anywhere else. So edges that would go if each byte were read the other way say that it should be.
    """
    octets = np.frombuffer(packed, np.uint8)
    first, last = octets & 1, octets >> 7
    edges, otherwise = (np.count_nonzero(end[:-1] != start[1:]) for end, start in ((last, first), (first, last)))
    return bool(edges >= _FEW_EDGES and edges > 2 * otherwise)


def certain_frames(dataset: Dataset) -> int:
    """Count the frames from the first on whose place is certain, although frames may not end with a byte.

    Some writers pad every frame, others the frames that one segment has in a row. What follows the first gap is then
    shifted by some voxels, and still looks like a tumour. The length tells, unless such a file has the one of a sound
    file: then nothing is known of the frames behind the first place where there may be a gap.
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
    """Bytes of parts of so many frames, each part padded to a unit."""
    return sum(-(-bits * frames // unit) * unit // 8 for frames in parts)


def _even(length: int) -> int:
    return length + length % 2


def the_seg(dataset: Dataset) -> str:
    """Name a whole SEG within a sentence: by its UID, as others may lie beside it."""
    return f"SEG {dataset.SOPInstanceUID}"


def _unreadable(message: str) -> Refused:
    return Refused(ReasonCode.ROI_UNREADABLE, message)
