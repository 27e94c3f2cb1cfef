"""One DICOM file at a time: read whole or only its front, proven whole either way, its pixels known by their digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from appliance.dicom import jpeg_lossless
from appliance.dicom.instance import Header, ImageHeader, PixelData, header_of, is_segmentation
from appliance.errors import ReasonCode, Refused, Unavailable

jpeg_lossless.register()

ByteOrder = Literal["little", "big"]

_MAX_INFLATED = 512 * 1024 * 1024  # bytes
_FRONT_BYTES = 4096  # more than any meta information that is not meant to be odd
_BLOCK = 1024 * 1024  # bytes
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA, _ITEM, _SEQUENCE_END = (0x7FE0, 0x0010), (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)


def looks_like_dicom(path: Path) -> bool:
    """Whether the file starts like a DICOM file (PS3.10: a preamble of 128 bytes, then ``DICM``)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dataset(path: Path) -> FileDataset:
    """Read a whole DICOM file and prove that none of it is missing.

    Raises
    ------
    Refused
        ``dicom_unreadable``: not a regular file, not DICOM, cut short, or not parseable.
    OSError
        The disk does not give the file up for the moment; its content is not to blame.
    """
    with _blaming(path):
        return _proven(pydicom.dcmread(path))


def read_header(path: Path, *, hash_pixels: bool = True) -> Header | None:
    """Read what lungstage must know of a file.

    Parameters
    ----------
    path
        The file.
    hash_pixels
        Whether an image's pixels are read too, for their digest; otherwise only what stands before them is.

    Returns
    -------
    ImageHeader, RoiHeader or None
        None for DICOM of no interest here: neither an image nor a ROI, or an object that lungstage itself wrote.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    OSError
        The disk does not give the file up for the moment.
    """
    with _blaming(path), path.open("rb") as file:
        dataset = _proven(pydicom.dcmread(file, stop_before_pixels=True))
        if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return _whole_header(path)  # its offsets would not be the file's
        span = _pixel_span(file, dataset)
        wanted = hash_pixels or is_segmentation(dataset)
        pixels = span and PixelData(_digest_of_span(file, span) if wanted else "", span)
    return header_of(dataset, path, pixels or None)


def with_pixel_digest(image: ImageHeader) -> ImageHeader:
    """Return a header that bears the digest of the image's pixels, which are read where they were not yet.

    Raises
    ------
    Unavailable
        The file is shorter than it was when its header was read.
    """
    if image.pixel_digest or not image.pixel_span:
        return image
    with image.path.open("rb") as file:
        return replace(image, pixel_digest=_digest_of_span(file, image.pixel_span))


def read_unchanged(header: Header) -> FileDataset:
    """Read the file of a header again, whole.

    Raises
    ------
    Unavailable
        It is not what it was when the header was read, or an image's pixels when their digest was; whoever plans
        must look again.
    """
    dataset = read_dataset(header.path)
    if header_of(dataset, header.path, _pixels_of(dataset)) != header:
        raise Unavailable("A file changed between being looked at and being read.")
    return dataset


def _whole_header(path: Path) -> Header | None:
    dataset = read_dataset(path)
    return header_of(dataset, path, _pixels_of(dataset))


def _unreadable(message: str) -> Refused:
    return Refused(ReasonCode.DICOM_UNREADABLE, message)


def _cut_short() -> Refused:
    return _unreadable("This DICOM file is cut short.")


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Blame the file for whatever the parser raises over it: it meets hostile bytes. The disk is another matter."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _unreadable("This is not a regular file.")
    with path.open("rb") as file:
        front = file.read(_FRONT_BYTES)
    if front[128:132] != b"DICM":
        raise _unreadable("This file is not DICOM.")
    try:
        if _transfer_syntax(front) in (None, DeflatedExplicitVRLittleEndian):
            _prove_modest(path)
        yield
    except (Refused, Unavailable, OSError):
        raise
    except Exception as error:
        raise _unreadable("This DICOM file cannot be parsed.") from error


def _transfer_syntax(front: bytes) -> str | None:
    """Transfer Syntax UID out of the file meta information (PS3.10, 7.1), or None where it is not just as usual.

    pydicom finds it too, in a third of the time that reading a whole header takes.
    """
    at, found = 132, None
    while front[at : at + 2] == b"\x02\0":
        long = front[at + 4 : at + 6] in (b"OB", b"UN")
        start = at + (12 if long else 8)
        length = int.from_bytes(front[start - 4 : start] if long else front[start - 2 : start], "little")
        if front[at + 2 : at + 4] == b"\x10\0":
            found = front[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = start + length
    return found if at < len(front) else None


def _prove_modest(path: Path) -> None:
    """Refuse a deflated file that would blow up beyond any image's size."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    with path.open("rb") as file:
        file.seek(144 + meta.FileMetaInformationGroupLength)
        if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), _MAX_INFLATED)) == _MAX_INFLATED:
            raise _unreadable("This deflated DICOM file is larger than any image.")


def _proven(dataset: FileDataset) -> FileDataset:
    """Prove that the last element is whole: pydicom hands out what there is of it without a word."""
    if not len(dataset):
        raise _cut_short()
    last = dataset.get_item(list(dataset.keys())[-1])
    if isinstance(last, RawDataElement) and last.length != _UNDEFINED and len(last.value or b"") < last.length:
        raise _cut_short()
    return dataset


def _pixels_of(dataset: FileDataset) -> PixelData | None:
    """Describe the Pixel Data of a dataset that was read whole."""
    element = dataset.get_item("PixelData")
    if element is None:
        return None
    value = element.value if isinstance(element.value, bytes) else b""
    return PixelData(hashlib.sha256(value).hexdigest(), ())


def _pixel_span(file: BinaryIO, dataset: FileDataset) -> tuple[int, int] | None:
    """Find the value of the Pixel Data that `file` stands before, and prove that all of it is there.

    Returns
    -------
    tuple of int or None
        Offset and length in bytes, of encapsulated pixels without the sequence's end (PS3.5, 7.1 and A.4); None where
        `dataset` ends, or pixels of another kind begin.
    """
    implicit, little = dataset.original_encoding
    order: ByteOrder = "little" if little else "big"
    size = os.fstat(file.fileno()).st_size
    if _tag(file, order) != _PIXEL_DATA:
        return None
    if not implicit:
        file.seek(4, os.SEEK_CUR)  # Value Representation
    length = _unsigned(file, order)
    start = file.tell()
    if length != _UNDEFINED:
        if start + length > size:
            raise _cut_short()
        return start, length
    while (tag := _tag(file, order)) == _ITEM:
        file.seek(_unsigned(file, order), os.SEEK_CUR)
        if file.tell() > size:
            raise _cut_short()
    end = file.tell() - 4
    if tag != _SEQUENCE_END or len(file.read(4)) < 4:
        raise _cut_short()
    return start, end - start


def _tag(file: BinaryIO, order: ByteOrder) -> tuple[int, int]:
    return int.from_bytes(file.read(2), order), int.from_bytes(file.read(2), order)


def _unsigned(file: BinaryIO, order: ByteOrder) -> int:
    return int.from_bytes(file.read(4), order)


def _digest_of_span(file: BinaryIO, span: tuple[int, ...]) -> str:
    start, left = span
    file.seek(start)
    digest = hashlib.sha256()
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise Unavailable("A file changed between being looked at and being read.")
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()
