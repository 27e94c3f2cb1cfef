"""Where in a file the Pixel Data lie, and the proof that they are what the header says (PS3.5, 7.1, 8.1.1 and A.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.dicom.names import counted

Span = tuple[int, int]

NATIVE = frozenset(
    {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)
"""Transfer syntaxes whose pixels stand in one value, and not in fragments."""

_BLOCK = 1024 * 1024  # bytes
_TAIL = 16  # bytes of a fragment in which its codestream must end, padding included
_END_OF_IMAGE = b"\xff\xd9"
EMPTY_OFFSET_TABLE = b"\xfe\xff\x00\xe0" + bytes(4)
"""The first item of encapsulated pixels, where it tells nothing."""


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """The value of a file's Pixel Data.

    Attributes
    ----------
    whole
        Offset and length in bytes; of encapsulated pixels without the sequence's end.
    vr
        Value Representation that the file gives them.
    fragments
        Offset and length of each fragment with its item's tag; None where the pixels are native.
    """

    whole: Span
    vr: str = "OW"
    fragments: tuple[Span, ...] | None = None


_SEND_AGAIN = "Send it again; if it comes the same, the software that wrote it is at fault: export it by another."
REWRITE = "To export it the same way makes the same file: use another software or format."
_SYNTAX = "Transfer Syntax UID, 0002,0010"
UNCOMPRESSED = "Export again, uncompressed (Explicit VR Little Endian)."
CORRECT_WRITER = "An anonymiser or converter may have done it: correct its setting, and export the whole study again."


def damaged(message: str, remedy: str = _SEND_AGAIN) -> Refused:
    """Return the refusal of a file that is cut short or contradicts itself."""
    return Refused(ReasonCode.DICOM_UNREADABLE, f"{message} {remedy}".strip())


def cut_short(tag: int | None = None) -> Refused:
    """Return the refusal of a file that ends too soon; `tag` is the element in which it does, where that is known."""
    return damaged("This DICOM file is cut short" + (f" within element {in_brackets(tag)}." if tag else "."))


def in_brackets(tag: int) -> str:
    """Write a tag as everybody does: (gggg,eeee)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _cells(dataset: Dataset) -> int:
    """Count the values of one frame."""
    return int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)


def pixel_fault(
    dataset: Dataset,
    count: int,
    *,
    encapsulated: bool,
    length: int,
    tail: Callable[[int], bytes],
    rewrite: str = REWRITE,
) -> str:
    """Say in what Pixel Data are not what their header and transfer syntax say they are.

    Native pixels are as many as the header says, and no more than a byte that makes their length even (PS3.5, 8.1.1).
    "Applications should be prepared to accept" more than that: zeros are, as long as they are fewer than one row and
    one column take. Rows or Columns that are too small leave at least so many, and so does a frame too few. Where the
    excess could as well be a pad behind every frame, none is accepted.

    Parameters
    ----------
    dataset
        The header.
    count
        Number of frames.
    encapsulated
        Whether the pixels are in fragments.
    length
        Of their value, in bytes.
    tail
        Gives the value from an offset on.
    rewrite
        What to do where whoever wrote the file is at fault.

    Returns
    -------
    str
        How a sentence goes on that begins with "The pixel data", and what to do; empty where nothing is wrong.
    """
    native = dataset.file_meta.TransferSyntaxUID in NATIVE
    if native and encapsulated:
        return f"are labelled uncompressed ({_SYNTAX}), but stored in fragments, as if compressed. {UNCOMPRESSED}"
    if not native and not encapsulated:
        return f"are labelled compressed ({_SYNTAX}), but stored uncompressed, not in fragments. {UNCOMPRESSED}"
    if not native:
        return ""
    allocated = int(dataset.BitsAllocated)
    bits = _cells(dataset) * allocated
    size = -(-bits * count // 8)
    excess = length - size
    expected = f"{counted(count, 'frame')} of {int(dataset.Rows)} rows and {int(dataset.Columns)} columns"
    if excess < 0 or not size:
        return f"are {counted(-excess, 'byte')} too short for {expected}. {_SEND_AGAIN}"
    if excess <= size % 2:
        return ""
    rounding = 7 if allocated % 8 else 0  # bits by which sizes in bytes make a difference look smaller
    least = min(int(dataset.Rows), int(dataset.Columns)) * allocated
    if excess * 8 + rounding < least and (count == 1 or bits % 32 == 0):
        return "" if not any(tail(size)) else f"are followed by {counted(excess, 'byte')} of something else. {rewrite}"
    padded = -(-bits // 8) * count
    why = ", as if its software padded each frame to a whole byte" if length - padded in (0, padded % 2) else ""
    return f"are {counted(excess, 'byte')} too long for {expected}{why}. {rewrite}"


def fault_of(dataset: Dataset, count: int, *, rewrite: str = REWRITE) -> str:
    """Return the :func:`pixel_fault` of the Pixel Data in a dataset."""
    element = dataset["PixelData"]
    value = element.value
    return pixel_fault(
        dataset,
        count,
        encapsulated=element.is_undefined_length,
        length=len(value),
        tail=lambda at: value[at:],
        rewrite=rewrite,
    )


def native_frames(dataset: Dataset, count: int, start: int) -> tuple[Span, ...]:
    """Divide native pixels, proven to be as many as the header says, into frames; `start` is where they begin.

    Raises
    ------
    Refused
        ``dicom_unreadable``: a frame ends within a byte.
    """
    bits = _cells(dataset) * int(dataset.BitsAllocated)
    if bits % 8:
        raise damaged("This DICOM file's frames do not end with a byte.", REWRITE)
    return tuple((start + k * bits // 8, bits // 8) for k in range(count))


def encapsulated_frames(file: BinaryIO, count: int, fragments: tuple[Span, ...]) -> tuple[Span, ...]:
    """Divide encapsulated pixels into frames: one for each fragment, else where a codestream ends.

    No table of offsets is needed for this: every JPEG family's codestream ends with the one marker that cannot occur
    within it, and run lengths are one fragment a frame.

    Raises
    ------
    Refused
        ``dicom_unreadable``: they are fewer or more than the header says.
    """
    if len(fragments) == count:
        return fragments
    frames: list[Span] = []
    begin = fragments[0][0] if fragments else 0
    for start, length in fragments:
        file.seek(start + max(8, length - _TAIL))
        tail = file.read(min(length - 8, _TAIL))
        if tail.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):
            frames.append((begin, start + length - begin))
            begin = start + length
    if len(frames) != count or begin != sum(fragments[-1]):
        raise damaged(f"This DICOM file's pixels are not those of {count} frames.")
    return tuple(frames)


def read_span(file: BinaryIO, span: tuple[int, ...]) -> bytes:
    """Read a piece of a file.

    Raises
    ------
    Unavailable
        The file is shorter than it was.
    """
    start, length = span
    file.seek(start)
    content = file.read(length)
    if len(content) < length:
        raise Unavailable(
            "A file changed while it was read. Once it is copied whole, it is read again; a one-shot command is to "
            "be repeated."
        )
    return content


def digest_of_span(file: BinaryIO, span: tuple[int, ...]) -> str:
    """Hex SHA-256 of a piece of a file.

    Raises
    ------
    Unavailable
        The file is shorter than it was.
    """
    start, length = span
    digest = hashlib.sha256()
    for offset in range(0, length, _BLOCK):
        digest.update(read_span(file, (start + offset, min(_BLOCK, length - offset))))
    return digest.hexdigest()
