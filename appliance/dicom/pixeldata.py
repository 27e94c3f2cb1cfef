"""The place of the Pixel Data in a file, and the check that they match the header (PS3.5, 7.1, 8.1.1 and A.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.datadict import dictionary_description
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
"""Transfer syntaxes that store the pixels in one value, without fragments."""

_BLOCK = 1024 * 1024  # bytes
_TAIL = 16  # the last bytes of a fragment; its codestream must end within them, padding included
_END_OF_IMAGE = b"\xff\xd9"
EMPTY_OFFSET_TABLE = b"\xfe\xff\x00\xe0" + bytes(4)
"""The first item of encapsulated pixels if the offset table is empty."""


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """The value of a file's Pixel Data.

    Attributes
    ----------
    whole
        Offset and length in bytes; for encapsulated pixels without the end of the sequence.
    vr
        Value Representation in the file.
    fragments
        Offset and length of each fragment, including its item tag; None for native pixels.
    """

    whole: Span
    vr: str = "OW"
    fragments: tuple[Span, ...] | None = None


_SEND_AGAIN = "Send it again. If the error stays, export it with other software."
REWRITE = "Export it with other software or in another format. The same export gives the same file."
_SYNTAX = "Transfer Syntax UID, 0002,0010"
UNCOMPRESSED = "Export it again without compression (Explicit VR Little Endian)."
CORRECT_WRITER = (
    "An anonymiser or converter may have caused this. Correct its settings, and export the whole study again."
)


def damaged(message: str, remedy: str = _SEND_AGAIN) -> Refused:
    """Return the refusal of a file that is incomplete or inconsistent."""
    return Refused(ReasonCode.DICOM_UNREADABLE, f"{message} {remedy}".strip())


def cut_short(tag: int | None = None) -> Refused:
    """Return the refusal of a file that ends too early; `tag` is the element in which it ends, if known."""
    return damaged("This DICOM file is incomplete" + (f": it ends within element {element_name(tag)}." if tag else "."))


def in_brackets(tag: int) -> str:
    """Write a tag in the usual form: (gggg,eeee)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def element_name(tag: int) -> str:
    """Write the DICOM name of an element and its tag; only the tag if the element is unknown."""
    try:
        return f"{dictionary_description(tag)} {in_brackets(tag)}"
    except KeyError:
        return in_brackets(tag)


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
    """Describe how Pixel Data differ from their header and transfer syntax.

    Native pixels must have the length that the header gives, plus at most one byte to make it even (PS3.5, 8.1.1).
    "Applications should be prepared to accept" more: here, zeros are accepted if they are fewer than one row and one
    column take. If Rows or Columns are too small, or a frame is missing in the count, the excess is at least that long.
    No excess is accepted if it could also be padding after every frame.

    Parameters
    ----------
    dataset
        The header.
    count
        Number of frames.
    encapsulated
        Whether the pixels are in fragments.
    length
        Length of their value, in bytes.
    tail
        Returns the value from an offset on.
    rewrite
        What to do if the software that wrote the file is the cause.

    Returns
    -------
    str
        The rest of a sentence that begins with "The pixel data", and what to do; empty if nothing is wrong.
    """
    native = dataset.file_meta.TransferSyntaxUID in NATIVE
    if native and encapsulated:
        return f"are declared uncompressed ({_SYNTAX}), but stored in fragments like compressed data. {UNCOMPRESSED}"
    if not native and not encapsulated:
        return f"are declared compressed ({_SYNTAX}), but stored without fragments. {UNCOMPRESSED}"
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
    rounding = 7 if allocated % 8 else 0  # bits that rounding to bytes can hide
    least = min(int(dataset.Rows), int(dataset.Columns)) * allocated
    if excess * 8 + rounding < least and (count == 1 or bits % 32 == 0):
        return "" if not any(tail(size)) else f"are followed by {counted(excess, 'byte')} of other data. {rewrite}"
    padded = -(-bits // 8) * count
    why = " The software may have padded each frame to a whole byte." if length - padded in (0, padded % 2) else ""
    return f"are {counted(excess, 'byte')} too long for {expected}.{why} {rewrite}"


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
    """Divide native pixels into frames, after their length was checked; `start` is the offset of the first.

    Raises
    ------
    Refused
        ``dicom_unreadable``: a frame ends within a byte.
    """
    bits = _cells(dataset) * int(dataset.BitsAllocated)
    if bits % 8:
        raise damaged("The frames of this DICOM file do not end at the end of a byte.", REWRITE)
    return tuple((start + k * bits // 8, bits // 8) for k in range(count))


def encapsulated_frames(file: BinaryIO, count: int, fragments: tuple[Span, ...]) -> tuple[Span, ...]:
    """Divide encapsulated pixels into frames: one frame per fragment, or else at the end of each codestream.

    This needs no offset table. A codestream of the JPEG family ends with a marker that cannot occur within it, and RLE
    has one fragment per frame.

    Raises
    ------
    Refused
        ``dicom_unreadable``: the number of frames differs from the header.
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
        raise damaged(f"The pixel data of this DICOM file do not contain {count} frames (Number of Frames, 0028,0008).")
    return tuple(frames)


def file_changed() -> Unavailable:
    """Return the error for a file that changed during reading."""
    return Unavailable(
        "A file changed while it was read. The daemon reads it again when it is complete; repeat a one-shot command."
    )


def read_span(file: BinaryIO, span: tuple[int, ...]) -> bytes:
    """Read a part of a file.

    Raises
    ------
    Unavailable
        The file is now shorter than before.
    """
    start, length = span
    file.seek(start)
    content = file.read(length)
    if len(content) < length:
        raise file_changed()
    return content


def digest_of_span(file: BinaryIO, span: tuple[int, ...]) -> str:
    """Hex SHA-256 of a part of a file.

    Raises
    ------
    Unavailable
        The file is now shorter than before.
    """
    start, length = span
    digest = hashlib.sha256()
    for offset in range(0, length, _BLOCK):
        digest.update(read_span(file, (start + offset, min(_BLOCK, length - offset))))
    return digest.hexdigest()
