"""One DICOM file at a time: read whole or in part, proven whole either way, its pixels known by their digest."""

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

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from lungstage.appliance.contract.errors import Refused, Unavailable
from lungstage.appliance.dicom import jpeg_lossless
from lungstage.appliance.dicom.header import Header, ImageHeader, PixelData
from lungstage.appliance.dicom.instance import headers_of, image_header, is_segmentation
from lungstage.appliance.dicom.multiframe import frame_count, is_enhanced_ct, single_frames
from lungstage.appliance.dicom.pixeldata import (
    EMPTY_OFFSET_TABLE,
    PixelSpan,
    Span,
    cut_short,
    damaged,
    digest_of_span,
    encapsulated_frames,
    native_frames,
    read_span,
)
from lungstage.appliance.dicom.wellformed import Encoding, read_elements, read_meta

jpeg_lossless.register()

_MAX_INFLATED = 512 * 1024 * 1024  # bytes


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
    with _blaming(path) as file:
        _front(file)
        file.seek(0)
        return pydicom.dcmread(file)


def read_headers(path: Path, *, hash_pixels: bool = True, key: bytes = b"") -> tuple[Header, ...]:
    """Read what lungstage must know of a file.

    Parameters
    ----------
    path
        The file.
    hash_pixels
        Whether an image's pixels are read too, for their digest; otherwise only what stands before them is.
    key
        Of the hashes of the patient's identity (:mod:`dicom.identity`): headers read with one key can be compared.

    Returns
    -------
    tuple of ImageHeader or RoiHeader
        One for each frame of an Enhanced CT, else a single one. None for DICOM of no interest here: neither an image
        nor a ROI, or an object that lungstage itself wrote.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    OSError
        The disk does not give the file up for the moment.
    """
    with _opened(path) as (dataset, pixels):
        wanted = hash_pixels or pixels.inflated or is_segmentation(dataset)
        known = tuple(
            PixelData(digest_of_span(pixels.stream, span) if wanted else "", () if pixels.inflated else span)
            for span in pixels.spans
        )
    return headers_of(dataset, path, known, key=key)


def with_pixel_digest(image: ImageHeader) -> ImageHeader:
    """Return a header that bears the digest of the image's pixels, which are read where they were not yet.

    Raises
    ------
    Unavailable
        The file is shorter than it was when its header was read.
    """
    if image.pixel_digest or not image.pixel_span:
        return image
    with _regular(image.path) as file:
        return replace(image, pixel_digest=digest_of_span(file, image.pixel_span))


def read_unchanged(header: Header) -> FileDataset:
    """Read the file of a ROI or of an image of its own again, whole.

    Raises
    ------
    Unavailable
        It is not what it was when the header was read, or an image's pixels when their digest was; whoever plans
        must look again.
    """
    dataset = read_dataset(header.path)
    element = dataset.get_item("PixelData")
    value = element.value if element is not None and isinstance(element.value, bytes) else b""
    pixels = () if element is None else (PixelData(hashlib.sha256(value).hexdigest(), ()),)
    if headers_of(dataset, header.path, pixels) != (header,):
        raise _changed()
    return dataset


def read_slices(images: Sequence[ImageHeader]) -> Iterator[Dataset]:
    """Read slices again, with their pixels; of an Enhanced CT only the frames wanted, each as an image of its own.

    Yields
    ------
    Dataset
        One for each, in their order.

    Raises
    ------
    Unavailable
        As of :func:`read_unchanged`.
    """
    for path, group in itertools.groupby(images, key=lambda image: image.path if image.frame else None):
        if path is None:
            yield from map(read_unchanged, group)
        else:
            yield from _read_frames(path, tuple(group))


def _read_frames(path: Path, images: Sequence[ImageHeader]) -> Iterator[Dataset]:
    with _opened(path) as (dataset, pixels):
        if max(image.frame for image in images) > len(pixels.spans):
            raise _changed()
        for image, frame in zip(images, single_frames(dataset, [image.frame for image in images]), strict=True):
            value = read_span(pixels.stream, pixels.spans[image.frame - 1])
            known = PixelData(hashlib.sha256(value).hexdigest(), ())
            if image_header(frame, path, known, image.frame) != image:
                raise _changed()
            if pixels.encapsulated:
                frame.add_new("PixelData", "OB", EMPTY_OFFSET_TABLE + value)
                frame["PixelData"].is_undefined_length = True
            else:
                frame.add_new("PixelData", "OW", value)
            yield frame


def _changed() -> Unavailable:
    return Unavailable("A file changed between being looked at and being read.")


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Where a file's pixels lie, frame by frame: in the file itself, or in what was inflated of it."""

    stream: BinaryIO
    spans: tuple[Span, ...] = ()
    encapsulated: bool = False

    @property
    def inflated(self) -> bool:
        return isinstance(self.stream, io.BytesIO)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Dataset, _Pixels]]:
    """Read what stands before the pixels, and find these; what fails meanwhile is blamed on the file."""
    with _blaming(path) as file:
        dataset, found, stream = _front(file)
        if found is None:
            yield dataset, _Pixels(stream)
        elif not is_enhanced_ct(dataset):
            yield dataset, _Pixels(stream, (found.whole,), found.fragments is not None)
        elif found.fragments is None:
            yield dataset, _Pixels(stream, native_frames(dataset, frame_count(dataset), found.whole))
        else:
            yield dataset, _Pixels(stream, encapsulated_frames(stream, frame_count(dataset), found.fragments), True)


def _front(file: BinaryIO) -> tuple[Dataset, PixelSpan | None, BinaryIO]:
    """Prove a file to be whole; return what stands before the pixels, where these are, and in what: it may be inflated.

    pydicom alone would hand out what there is of a file, without a word.
    """
    size, stream = os.fstat(file.fileno()).st_size, file
    meta = read_meta(file, size)
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise damaged("This DICOM file does not say how it is encoded.")
    if syntax == DeflatedExplicitVRLittleEndian:
        inflated = _inflate(file.read())
        size, stream = len(inflated), io.BytesIO(inflated)
    encoding = Encoding(implicit=syntax == ImplicitVRLittleEndian, little=syntax != ExplicitVRBigEndian)
    dataset, pixels = read_elements(stream, size, encoding)
    if not len(dataset):
        raise cut_short()
    dataset.file_meta = meta
    return dataset, pixels, stream


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file, and nothing that took its place since it was seen: no link to elsewhere, no pipe that never ends."""
    if not stat.S_ISREG(path.lstat().st_mode):  # opening a device may set it going
        raise damaged("This is not a regular file.")
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise damaged("This is not a regular file.")
        yield file


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[BinaryIO]:
    """Open a file, and blame it for whatever the parser raises over it: it meets hostile bytes. The disk does not."""
    with _regular(path) as file:
        if file.read(132)[128:] != b"DICM":
            raise damaged("This file is not DICOM.")
        try:
            yield file
        except (Refused, Unavailable):
            raise
        except Exception as error:
            if is_of_the_disk(error):
                raise
            raise damaged("This DICOM file cannot be parsed.") from error


def is_of_the_disk(error: Exception) -> bool:
    """Whether an exception is the system's word about the disk; pydicom raises OSError over a file's bytes, too."""
    return isinstance(error, OSError) and error.errno is not None


def _inflate(deflated: bytes) -> bytes:
    """Inflate a file's elements (PS3.5, A.5), but no more of them than any image has."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, _MAX_INFLATED)
    if len(inflated) == _MAX_INFLATED:
        raise damaged("This deflated DICOM file is larger than any image.")
    if not inflater.eof:
        raise cut_short()
    return inflated
