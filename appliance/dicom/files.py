"""Reading of one DICOM file, completely or in part; both check that the file is complete and digest its pixels."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lungstage.appliance.contract.errors import Refused, Unavailable
from lungstage.appliance.dicom import jpeg_lossless
from lungstage.appliance.dicom.header import Header, ImageHeader, PixelData
from lungstage.appliance.dicom.instance import headers_of, image_header, is_segmentation
from lungstage.appliance.dicom.multiframe import frame_count, is_enhanced_ct, single_frames
from lungstage.appliance.dicom.pixeldata import (
    EMPTY_OFFSET_TABLE,
    UNCOMPRESSED,
    PixelSpan,
    Span,
    cut_short,
    damaged,
    digest_of_span,
    encapsulated_frames,
    file_changed,
    native_frames,
    pixel_fault,
    read_span,
)
from lungstage.appliance.dicom.wellformed import Encoding, read_elements, read_meta

jpeg_lossless.register()

NOT_DICOM = "This file is not DICOM."
"""Message for a file that does not begin like a DICOM file."""

_NOT_REGULAR = (
    "This is not a regular file, but a link, a pipe or a device.",
    "Copy the file itself to this place.",
)
_MAX_INFLATED = 512 * 1024 * 1024  # bytes
_HEAD = 140  # bytes: preamble, prefix, and the first element's tag and representation
_STANDARD_SYNTAX = "1.2.840.10008.1.2"
_FIRST_LITTLE = frozenset(bytes((element, 0)) for element in range(0x20))


def looks_like_dicom(path: Path) -> bool:
    """Whether the file begins like a DICOM file, or like the elements of one."""
    with path.open("rb") as file:
        return _beginning(file.read(_HEAD)) is not None


def _beginning(head: bytes) -> int | None:
    """Return the offset of the first element: after preamble and ``DICM`` (PS3.10, 7.1), or earlier without them.

    Planning systems write data sets without any header, and others the meta information without the preamble.
    """
    if head[128:132] == b"DICM":
        return 132
    if head[:4] == b"DICM":
        return 4
    is_meta = head[:2] == b"\2\0" and _is_named(head)
    return 0 if is_meta or _bare_syntax(head) is not None else None


def _bare_syntax(head: bytes) -> UID | None:
    """Detect the encoding of a data set from its first element; None if that does not come before (0008,0020)."""
    if head[:2] == b"\x08\0" and head[2:4] in _FIRST_LITTLE:
        if _is_named(head):
            return ExplicitVRLittleEndian
        return ImplicitVRLittleEndian if head[6:8] == b"\0\0" else None
    return ExplicitVRBigEndian if head[:3] == b"\0\x08\0" and head[3:4] < b" " and _is_named(head) else None


def _is_named(head: bytes) -> bool:
    """Whether a Value Representation follows the tag."""
    return head[4:6].isalpha() and head[4:6].isupper()


def read_dataset(path: Path, *, with_pixels: bool = True) -> Dataset:
    """Read a whole DICOM file except its private elements, and check that it is complete.

    Parameters
    ----------
    path
        The file.
    with_pixels
        Whether to read the pixels too.

    Raises
    ------
    Refused
        ``dicom_unreadable``: not a regular file, not DICOM, incomplete, or not parseable.
    OSError
        The disk cannot be read at the moment; the content of the file is not the cause.
    """
    with _blaming(path) as file:
        dataset, found, stream = _front(file, os.fstat(file.fileno()).st_size)
        if found is not None and with_pixels:
            dataset.add_new("PixelData", found.vr, read_span(stream, found.whole))
            dataset["PixelData"].is_undefined_length = found.fragments is not None
        return dataset


def read_headers(path: Path, *, hash_pixels: bool = True, key: bytes = b"") -> tuple[Header, ...]:
    """Read the headers of a file.

    Parameters
    ----------
    path
        The file.
    hash_pixels
        Whether to read an image's pixels too, for their digest; otherwise only the elements before them are read.
    key
        Key of the hashes of the patient's identity (:mod:`dicom.identity`). Only headers read with the same key can be
        compared.

    Returns
    -------
    tuple of ImageHeader or RoiHeader
        One per frame of an Enhanced CT, else one. None if the object is neither an image nor a ROI object, or if
        lungstage wrote it.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    OSError
        The disk cannot be read at the moment.
    """
    with _opened(path) as (dataset, pixels):
        wanted = hash_pixels or pixels.inflated or is_segmentation(dataset)
        known = tuple(
            PixelData(digest_of_span(pixels.stream, span) if wanted else "", () if pixels.inflated else span)
            for span in pixels.spans
        )
    return headers_of(dataset, path, known, key=key)


def with_pixel_digest(image: ImageHeader) -> ImageHeader:
    """Return the header with the digest of the image's pixels; the pixels are read if they were not read before.

    Raises
    ------
    Unavailable
        The file is shorter than when its header was read.
    """
    if image.pixel_digest or not image.pixel_span:
        return image
    with _regular(image.path) as file:
        return replace(image, pixel_digest=digest_of_span(file, image.pixel_span))


def read_unchanged(header: Header) -> Dataset:
    """Read the whole file of a ROI object or of a single-frame image again.

    Raises
    ------
    Unavailable
        Its header or its pixels have changed since they were read; the case must be planned again.
    """
    dataset = read_dataset(header.path)
    element = dataset.get_item("PixelData")
    value = element.value if element is not None and isinstance(element.value, bytes) else b""
    pixels = () if element is None else (PixelData(hashlib.sha256(value).hexdigest(), ()),)
    if headers_of(dataset, header.path, pixels) != (header,):
        raise file_changed()
    return dataset


def read_slices(images: Sequence[ImageHeader]) -> Iterator[Dataset]:
    """Read slices again with their pixels; for an Enhanced CT only the requested frames, each as a single-frame image.

    Yields
    ------
    Dataset
        One per slice, in their order.

    Raises
    ------
    Unavailable
        As in :func:`read_unchanged`.
    """
    for path, group in itertools.groupby(images, key=lambda image: image.path if image.frame else None):
        if path is None:
            yield from map(read_unchanged, group)
        else:
            yield from _read_frames(path, tuple(group))


def _read_frames(path: Path, images: Sequence[ImageHeader]) -> Iterator[Dataset]:
    with _opened(path) as (dataset, pixels):
        if max(image.frame for image in images) > len(pixels.spans):
            raise file_changed()
        for image, frame in zip(images, single_frames(dataset, [image.frame for image in images]), strict=True):
            value = read_span(pixels.stream, pixels.spans[image.frame - 1])
            known = PixelData(hashlib.sha256(value).hexdigest(), ())
            if image_header(frame, path, known, image.frame) != image:
                raise file_changed()
            if pixels.encapsulated:
                frame.add_new("PixelData", "OB", EMPTY_OFFSET_TABLE + value)
                frame["PixelData"].is_undefined_length = True
            else:
                frame.add_new("PixelData", pixels.vr, value)
            yield frame


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The places of a file's pixels, frame by frame, in the file itself or in its inflated content."""

    stream: BinaryIO
    spans: tuple[Span, ...] = ()
    vr: str = "OW"
    encapsulated: bool = False

    @property
    def inflated(self) -> bool:
        return isinstance(self.stream, io.BytesIO)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Dataset, _Pixels]]:
    """Read the elements before the pixels, and find the pixels; errors meanwhile are errors of the file."""
    with _blaming(path) as file:
        dataset, found, stream = _front(file, os.fstat(file.fileno()).st_size)
        if found is None:
            yield dataset, _Pixels(stream)
        elif not is_enhanced_ct(dataset):
            yield dataset, _Pixels(stream, (found.whole,), found.vr, found.fragments is not None)
        else:
            yield dataset, _frames(dataset, stream, found)


def _frames(dataset: Dataset, stream: BinaryIO, found: PixelSpan) -> _Pixels:
    """Find the frames of an Enhanced CT."""
    count, (start, length) = frame_count(dataset), found.whole
    fault = pixel_fault(
        dataset,
        count,
        encapsulated=found.fragments is not None,
        length=length,
        tail=lambda at: read_span(stream, (start + at, length - at)),
    )
    if fault:
        raise damaged(f"The pixel data of this DICOM file {fault}", "")
    if found.fragments is not None:
        return _Pixels(stream, encapsulated_frames(stream, count, found.fragments), found.vr, True)
    return _Pixels(stream, native_frames(dataset, count, start), found.vr)


def _front(file: BinaryIO, size: int) -> tuple[Dataset, PixelSpan | None, BinaryIO]:
    """Check that a file is complete; return the elements before the pixels, the pixels' place, and their stream.

    The stream is the file or its inflated content. pydicom alone would read an incomplete file without an error.
    """
    stream = file
    file.seek(0)
    file.seek(_beginning(file.read(_HEAD)) or 0)
    meta = read_meta(file, size)
    syntax = _syntax(file, meta)
    if syntax == DeflatedExplicitVRLittleEndian:
        inflated = _inflate(file.read())
        size, stream = len(inflated), io.BytesIO(inflated)
    encoding = Encoding(implicit=syntax == ImplicitVRLittleEndian, little=syntax != ExplicitVRBigEndian)
    dataset, pixels = read_elements(stream, size, encoding)
    if not len(dataset) and pixels is None:
        raise damaged("This DICOM file contains no elements that can be read. It may be incomplete.")
    dataset.file_meta = meta
    return dataset, pixels, stream


def prove_whole(content: bytes) -> None:
    """Check that bytes are a complete DICOM file.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    """
    _front(io.BytesIO(content), len(content))


def _syntax(file: BinaryIO, meta: FileMetaDataset) -> UID:
    """Return the transfer syntax of the elements from here on; add it to the meta information if it is missing."""
    at = file.tell()
    seen = _bare_syntax(file.read(8))
    file.seek(at)
    said = meta.get("TransferSyntaxUID")
    if said == seen is not None:
        return seen
    if not said:
        if seen is None:
            raise damaged("This DICOM file has no Transfer Syntax UID (0002,0010).", UNCOMPRESSED)
        meta.TransferSyntaxUID = seen
        return seen
    if not (isinstance(said, UID) and said.is_valid and said.startswith(_STANDARD_SYNTAX)):
        raise damaged(
            "The Transfer Syntax UID (0002,0010) of this DICOM file is not one of the DICOM standard.", UNCOMPRESSED
        )
    as_said = said if said in (ImplicitVRLittleEndian, ExplicitVRBigEndian) else ExplicitVRLittleEndian
    if seen not in (None, as_said) and said != DeflatedExplicitVRLittleEndian:
        raise damaged(
            f"The Transfer Syntax UID (0002,0010) of this DICOM file means {as_said.name}, but the file is encoded in "
            f"{seen.name}.",
            UNCOMPRESSED,
        )
    return said


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file only: not a link to another place, and not a pipe that never ends."""
    if not stat.S_ISREG(path.lstat().st_mode):  # opening a device may start it
        raise damaged(*_NOT_REGULAR)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise damaged(*_NOT_REGULAR)
        yield file


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[BinaryIO]:
    """Open a file, and turn any error of the parser into a refusal of the file; errors of the disk stay as they are."""
    with _regular(path) as file:
        if _beginning(file.read(_HEAD)) is None:
            raise damaged(NOT_DICOM, "")
        try:
            yield file
        except (Refused, Unavailable):
            raise
        except Exception as error:
            if is_of_the_disk(error):
                raise
            raise damaged("This DICOM file cannot be parsed.") from error


def is_of_the_disk(error: Exception) -> bool:
    """Whether an exception is the system's error about the disk; pydicom also raises OSError for a file's bytes."""
    return isinstance(error, OSError) and error.errno is not None


def _inflate(deflated: bytes) -> bytes:
    """Inflate a file's elements (PS3.5, A.5), up to a size that no image has."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, _MAX_INFLATED)
    if len(inflated) == _MAX_INFLATED:
        raise damaged("The inflated content of this DICOM file has 512 MB or more; no image is that large.")
    if not inflater.eof:
        raise cut_short()
    return inflated
