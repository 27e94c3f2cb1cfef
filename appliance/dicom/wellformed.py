"""A file's elements, proven to hold together before anybody relies on what a lenient parser makes of them.

Where a length, a tag or an item has been damaged, pydicom goes on with whatever it finds next: contours vanish from a
sequence, the second of two values under one tag replaces the first, and nothing is said. PS3.5 leaves no room for
that: tags ascend, every value, item and sequence ends where it says, and within what holds it (7.1, 7.5, A.4).

Whoever walks a file for that proof has its outermost elements in hand. They are kept as they are encoded, which is
what pydicom's Dataset is made of, and pydicom decodes whichever is asked for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.pixeldata import PixelSpan, Span, cut_short, damaged

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET = BaseTag(0x00080005)
_FLOAT_PIXELS, _PIXEL_DATA = 0x7FE00008, 0x7FE00010  # the first and the last element that may hold pixels
_META_GROUP, _DELIMITER_GROUP = 0x0002, 0xFFFE
_PREAMBLE = 132
_DEEPEST = 64  # sequences within each other; a structured report has a dozen
_SHORT_LENGTH = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG_LENGTH = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements after the meta information are written."""

    implicit: bool
    little: bool


def read_meta(file: BinaryIO, size: int) -> FileMetaDataset:
    """Read a file's meta information (PS3.10, 7.1), and leave the file behind it.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    """
    file.seek(_PREAMBLE)
    walk = _Walk(file, size, Encoding(implicit=False, little=True))
    walk.elements(size, depth=0, implicit=False, meta=True)
    return FileMetaDataset(walk.raw)


def read_elements(file: BinaryIO, size: int, encoding: Encoding) -> tuple[Dataset, PixelSpan | None]:
    """Prove that every element from here on is whole, in its place, and nowhere twice.

    Parameters
    ----------
    file
        What holds the elements, standing before the first.
    size
        Where they end, in bytes from the file's beginning. Zeros after the last element are no fault.
    encoding
        How they are written.

    Returns
    -------
    Dataset
        The elements before the pixels, none of them decoded yet.
    PixelSpan or None
        Where the Pixel Data are.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    """
    walk = _Walk(file, size, encoding)
    walk.elements(size, depth=0, implicit=encoding.implicit)
    dataset = Dataset(walk.raw)
    names = walk.raw.get(_CHARACTER_SET)
    character_set: Any = default_encoding
    if isinstance(names, RawDataElement):
        character_set = convert_encodings(convert_raw_data_element(names).value)
    dataset.set_original_encoding(encoding.implicit, encoding.little, character_set)
    return dataset, walk.pixels


class _Walk:
    """One way through the elements: where it stands, and what it has kept of the outermost ones."""

    def __init__(self, file: BinaryIO, size: int, encoding: Encoding) -> None:
        self.raw: dict[BaseTag, DataElement | RawDataElement] = {}
        self.pixels: PixelSpan | None = None
        self._file, self._size, self._little = file, size, encoding.little
        order = "<" if encoding.little else ">"
        self._head, self._vr_and_short, self._long = (
            struct.Struct(order + form).unpack for form in ("HH4s", "2sH", "I")
        )
        self._at = file.tell()

    def elements(self, end: int, *, depth: int, implicit: bool, delimited: bool = False, meta: bool = False) -> None:
        """Walk to `end`; where they are `delimited`, to the end of their item; of `meta` information, to its end."""
        if depth > _DEEPEST:
            raise damaged("This DICOM file's sequences are nested too deeply.")
        last = -1
        while self._at < end:
            group, element, rest = self._head(self._read(8, end))
            tag = group << 16 | element
            if meta and group != _META_GROUP:
                self._seek(self._at - 8)
                return
            if delimited and tag == _ITEM_END:
                if any(rest):
                    raise _torn()
                return
            if tag <= last or group == _DELIMITER_GROUP:
                if not (tag or depth or any(rest)) and not any(self._file.read(end - self._at)):
                    self._seek(end)
                    return
                raise damaged("This DICOM file's elements are not in order, or one is there twice.")
            last = tag
            self._value(tag, rest, end, depth, implicit)
        if delimited:
            raise _torn()

    def _value(self, tag: int, rest: bytes, end: int, depth: int, implicit: bool) -> None:
        """Step over a value, or into it where it is a sequence; `rest` is what followed the tag."""
        vr: str | None
        if implicit:
            vr, (length,) = None, self._long(rest)
        else:
            code, length = self._vr_and_short(rest)
            vr = _SHORT_LENGTH.get(code)
            if vr is None:
                vr = _LONG_LENGTH.get(code)
                if vr is None:
                    raise damaged("This DICOM file holds an element of no known Value Representation.")
                (length,) = self._long(self._read(4, end))
        start = self._at
        if length != _UNDEFINED and start + length > end:
            raise cut_short() if depth == 0 else _torn()
        kept = depth == 0 and tag < _FLOAT_PIXELS
        if vr == "SQ" or (vr in (None, "UN") and (_is_sequence(tag) or _is_unended(tag, length))):
            implicit = implicit or vr == "UN"  # PS3.5, 6.2.2: however the rest of the file is written
            self._sequence(end if length == _UNDEFINED else start + length, length, depth, implicit)
            if kept:
                self._file.seek(start)
                self._keep(tag, "SQ", self._file.read(self._at - start), start, implicit)
        elif length == _UNDEFINED:
            if tag != _PIXEL_DATA:
                raise _torn()
            pixels = self._fragments(end)
            if depth == 0:
                self.pixels = pixels
        elif kept:
            self._keep(tag, vr, self._read(length, end), start, implicit)
        else:
            self._seek(start + length)
            if depth == 0 and tag == _PIXEL_DATA:
                self.pixels = PixelSpan((start, length))

    def _keep(self, tag: int, vr: str | None, value: bytes, start: int, implicit: bool) -> None:
        known: Any = value or empty_value_for_VR(vr, raw=True)
        key = BaseTag(tag)
        self.raw[key] = RawDataElement(key, vr, len(value), known, start, implicit, self._little)

    def _sequence(self, end: int, length: int, depth: int, implicit: bool) -> None:
        while self._at < end:
            tag, size = self._item(end)
            if length == _UNDEFINED and tag == _SEQUENCE_END and size == 0:
                return
            if tag != _ITEM or (size != _UNDEFINED and self._at + size > end):
                raise _torn()
            if size == _UNDEFINED:
                self.elements(end, depth=depth + 1, implicit=implicit, delimited=True)
            else:
                self.elements(self._at + size, depth=depth + 1, implicit=implicit)
        if length == _UNDEFINED:
            raise _torn()

    def _fragments(self, end: int) -> PixelSpan:
        """Step over encapsulated pixels."""
        start, items = self._at, list[Span]()
        while True:
            at = self._at
            tag, size = self._item(end)
            if tag == _SEQUENCE_END and size == 0:
                return PixelSpan((start, at - start), tuple(items[1:]))  # the first is the table of offsets
            if tag != _ITEM or self._at + size > end:
                raise _torn()
            self._seek(self._at + size)
            items.append((at, self._at - at))

    def _item(self, end: int) -> tuple[int, int]:
        """Tag and length of an item, or of what ends a sequence."""
        group, element, rest = self._head(self._read(8, end))
        return group << 16 | element, self._long(rest)[0]

    def _seek(self, at: int) -> None:
        if at > self._size:
            raise cut_short()
        self._file.seek(at)
        self._at = at

    def _read(self, count: int, end: int) -> bytes:
        self._at += count
        content = self._file.read(count) if self._at <= end else b""
        if len(content) < count:
            raise cut_short()
        return content


def _torn() -> Refused:
    return damaged("This DICOM file's sequences do not hold together.")


def _is_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _is_unended(tag: int, length: int) -> bool:
    """Whether nothing but its undefined length tells that an element is a sequence."""
    return length == _UNDEFINED and tag != _PIXEL_DATA
