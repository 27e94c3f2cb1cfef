"""Where in a file the Pixel Data lie, whole or frame by frame, proven to be all there (PS3.5, 7.1 and A.4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable

Span = tuple[int, int]

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
    fragments
        Offset and length of each fragment with its item's tag; None where the pixels are native.
    """

    whole: Span
    fragments: tuple[Span, ...] | None = None


def damaged(message: str) -> Refused:
    """Return the refusal of a file that is cut short or contradicts itself."""
    return Refused(ReasonCode.DICOM_UNREADABLE, message)


def cut_short() -> Refused:
    """Return the refusal of a file that ends too soon."""
    return damaged("This DICOM file is cut short.")


def native_frames(dataset: Dataset, count: int, whole: Span) -> tuple[Span, ...]:
    """Divide native pixels into frames.

    Raises
    ------
    Refused
        ``dicom_unreadable``: they are fewer or more than the header says.
    """
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated)
    start, length = whole
    size = bits // 8
    if bits % 8 or not size or length != size * count + size * count % 2:
        raise damaged(f"This DICOM file's pixels are not those of {count} frames.")
    return tuple((start + k * size, size) for k in range(count))


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
        raise Unavailable("A file changed between being looked at and being read.")
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
