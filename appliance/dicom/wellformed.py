"""Structural check of a file's elements, before a lenient parser reads them.

If a length, a tag or an item is damaged, pydicom continues with the next bytes without an error. Contours can disappear
from a sequence, or the second of two values under one tag replaces the first. So every value, item and sequence must
have its stated length and lie within its parent, and no tag may occur twice (PS3.5, 7.1, 7.5, A.4).

Some errors of writers are accepted because their meaning is clear: tags that do not ascend, delimiters with a length or
after the last element, elements of the meta group among the others, private elements without a known Value
Representation, and sequences with implicitly encoded items.

The check passes over all elements, and keeps them in their encoded form. This is the form that pydicom's Dataset uses,
and pydicom decodes an element when it is requested. Private elements are checked but not kept, because lungstage does
not use them.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.pixeldata import PixelSpan, Span, cut_short, damaged, element_name
from lungstage.appliance.dicom.representation import in_its_own, known

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET = BaseTag(0x00080005)
_FLOAT_PIXELS, _PIXEL_DATA = 0x7FE00008, 0x7FE00010  # the first and the last element that may hold pixels
_META_GROUP, _DELIMITER_GROUP = 0x0002, 0xFFFE
_DEEPEST = 64  # nested sequences; a structured report has about a dozen
_PIXEL_VRS = ("OB", "OW")  # pixels are bytes, even if a file gives another Value Representation
_SHORT_LENGTH = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG_LENGTH = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}
_BLANK = frozenset({b"\0\0", b"  ", b"??", b"--"})

_Elements = dict[BaseTag, DataElement | RawDataElement]


@dataclass(frozen=True, slots=True)
class Encoding:
    """Encoding of the elements after the meta information."""

    implicit: bool
    little: bool


def read_meta(file: BinaryIO, size: int) -> FileMetaDataset:
    """Read a file's meta information (PS3.10, 7.1) from the current position, and stop after it.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    """
    walk = _Walk(file, size, Encoding(implicit=False, little=True))
    return FileMetaDataset(walk.elements(size, depth=0, implicit=False, meta=True))


def read_elements(file: BinaryIO, size: int, encoding: Encoding) -> tuple[Dataset, PixelSpan | None]:
    """Read the elements from here on; check that each is complete and occurs only once.

    Parameters
    ----------
    file
        The file, positioned before the first element.
    size
        End of the elements, in bytes from the start of the file. Zeros after the last element are allowed.
    encoding
        Encoding of the elements.

    Returns
    -------
    Dataset
        The public elements before the pixels, not decoded yet.
    PixelSpan or None
        The place of the Pixel Data.

    Raises
    ------
    Refused
        ``dicom_unreadable``, with the faulty element.
    """
    walk = _Walk(file, size, encoding)
    elements = walk.elements(size, depth=0, implicit=encoding.implicit)
    while (first := next(iter(elements), _FLOAT_PIXELS)) >> 16 == _META_GROUP:
        del elements[BaseTag(first)]  # it belongs to the meta information, and is ignored here
    dataset = Dataset(elements)
    names = elements.get(_CHARACTER_SET)
    character_set: Any = default_encoding
    if isinstance(names, RawDataElement):
        character_set = convert_encodings(convert_raw_data_element(names).value)
    dataset.set_original_encoding(encoding.implicit, encoding.little, character_set)
    for item in walk.items:
        item.set_original_encoding(encoding.implicit, encoding.little, character_set)
    return dataset, walk.pixels


class _Walk:
    """One pass over the elements: its position, and what it has found."""

    def __init__(self, file: BinaryIO, size: int, encoding: Encoding) -> None:
        self.pixels: PixelSpan | None = None
        self.items: list[Dataset] = []
        self._file, self._size, self._little = file, size, encoding.little
        order = "<" if encoding.little else ">"
        self._head, self._vr_and_short, self._long = (
            struct.Struct(order + form).unpack for form in ("HH4s", "2sH", "I")
        )
        self._at = file.tell()
        self._tag = self._former = 0  # tags of the current element and of the previous one
        self._keeps = True  # whether elements are kept, or only checked

    def elements(
        self, end: int, *, depth: int, implicit: bool, delimited: bool = False, meta: bool = False
    ) -> _Elements:
        """Pass to `end`, or to the end of a `delimited` item, or to the end of the `meta` information."""
        if depth > _DEEPEST:
            raise damaged(f"The sequences of this DICOM file are nested more than {_DEEPEST} levels deep.")
        kept: _Elements = {}
        seen: set[int] = set()
        last, ascending, closed = -1, True, False
        while self._at < end:
            self._at += 8  # like _read(), but without a call for each element
            head = self._file.read(8) if self._at <= end else b""
            if len(head) < 8:
                raise cut_short(self._tag)
            group, element, rest = self._head(head)
            tag = group << 16 | element
            if meta and group != _META_GROUP:
                self._seek(self._at - 8)
                break
            if group == _DELIMITER_GROUP or not tag:
                if delimited and tag == _ITEM_END and self._long(rest)[0] != _UNDEFINED:
                    return _sorted(kept, ascending)
                if not depth and self._is_a_tail(tag, rest, end, closed):
                    break
                raise damaged(f"This DICOM file has {element_name(tag)} at a place where no item or sequence ends.")
            if tag > last:
                last = tag
            else:
                self._prove_out_of_order(tag, last, tag in seen, depth)
                ascending = False
            seen.add(tag)
            self._tag, self._former = tag, self._tag
            value = self._value(tag, rest, end, depth, implicit)
            closed = False
            if value is not None:
                kept[value.tag] = value
                closed = isinstance(value, DataElement) and not value.is_undefined_length
        if delimited:
            raise self._torn()
        return _sorted(kept, ascending)

    @staticmethod
    def _prove_out_of_order(tag: int, last: int, again: bool, depth: int) -> None:
        """Refuse an element that occurs twice, is stored after the pixels, or probably has a damaged tag."""
        if again:
            raise damaged(f"Element {element_name(tag)} of this DICOM file exists twice.")
        if not depth and last >= _FLOAT_PIXELS > tag:
            raise damaged(f"Element {element_name(tag)} of this DICOM file is stored after the pixel data.")
        if not (tag >> 16 & 1 or known(tag)[1] or not tag & 0xFFFF):
            raise damaged(f"Element {element_name(tag)} of this DICOM file is unknown and out of order.")

    def _is_a_tail(self, tag: int, rest: bytes, end: int, closed: bool) -> bool:
        """Whether only padding is left after a delimiter that closes nothing.

        CTP writes such a delimiter after native pixels at the end of a file. Elsewhere it could be the end of a damaged
        sequence. So it is accepted only after pixels, or after a sequence that was `closed` by its length.
        """
        if tag and not (self.pixels or (closed and tag == _SEQUENCE_END)):
            return False
        if any(rest):
            return False
        padding = self._file.read(end - self._at)
        if padding.startswith(b"\xfc\xff\xfc\xff"):  # Data Set Trailing Padding (PS3.10, 7.2)
            padding = padding[12 if padding[4:6] == b"OB" else 8 :]
        self._seek(end)
        return not any(padding)

    def _value(
        self, tag: int, rest: bytes, end: int, depth: int, implicit: bool
    ) -> DataElement | RawDataElement | None:
        """Pass over a value, or enter it if it is a sequence; `rest` is the bytes after the tag.

        Returns
        -------
        DataElement, RawDataElement or None
            The element to keep.
        """
        vr: str | None
        if implicit:
            vr, (length,) = None, self._long(rest)
        else:
            code, length = self._vr_and_short(rest)
            vr = _SHORT_LENGTH.get(code)
            if vr is None:
                vr = _LONG_LENGTH.get(code)
                if vr is None:
                    vr, length = self._guessed(tag, code, rest, end)
                else:
                    (length,) = self._long(self._read(4, end))
        start = self._at
        if length != _UNDEFINED and start + length > end:
            raise cut_short(tag) if depth == 0 else self._torn()
        key, own = known(tag)
        left_out = tag & 0x10000 or not tag & 0xFFFF or not self._keeps
        if vr == "SQ" or (vr in (None, "UN") and (own == "SQ" or (length == _UNDEFINED and tag != _PIXEL_DATA))):
            before, self._keeps = self._keeps, not left_out
            items = self._items_either_way(tag, end, length, depth, implicit, vr)
            self._keeps = before
            found = DataElement(key, "SQ", items, already_converted=True)
            found.is_undefined_length = length == _UNDEFINED
            return None if left_out else found
        if length == _UNDEFINED:
            if tag != _PIXEL_DATA:
                raise self._torn()
            pixels = self._fragments(end, vr if vr in _PIXEL_VRS else "OB")
            if depth == 0:
                self.pixels = pixels
            return None
        if left_out or (depth == 0 and tag >= _FLOAT_PIXELS):
            self._seek(start + length)
            if depth == 0 and tag == _PIXEL_DATA:
                self.pixels = PixelSpan((start, length), vr if vr in _PIXEL_VRS else "OW")
            return None
        value = self._read(length, end)
        if own and vr is not None and own != vr:
            vr, value = in_its_own(own, vr, value, little=self._little)
        content: Any = value or empty_value_for_VR(vr, raw=True)
        return RawDataElement(key, vr, len(value), content, start, implicit, self._little)

    def _guessed(self, tag: int, code: bytes, rest: bytes, end: int) -> tuple[str, int]:
        """Find the length of an element without a known Value Representation, and stop before its value.

        The length may have two bytes, four bytes after two reserved ones, or four bytes directly as in implicit files.
        The correct one is followed by another element, or by the end of the parent. This is tried for private elements,
        and for public elements with a blank Value Representation; these get the one of the dictionary.

        Raises
        ------
        Refused
            ``dicom_unreadable``: no length fits, or several different lengths fit.
        """
        start = self._at
        _, own = known(tag)
        fitting = set()
        if tag >> 16 & 1 or (own and code in _BLANK and tag < _FLOAT_PIXELS):
            self._file.seek(start)
            after = self._file.read(4)
            lengths = [(start, self._vr_and_short(rest)[1]), (start, self._long(rest)[0])]
            if not any(rest[2:]) and len(after) == 4:
                lengths.append((start + 4, self._long(after)[0]))
            fitting = {(at, length) for at, length in lengths if self._goes_on(tag, at + length, end)}
        if not own and not tag >> 16 & 1:
            raise damaged(f"No element begins at the end of element {element_name(self._former)} of this DICOM file.")
        if len({at + length for at, length in fitting}) != 1:
            raise damaged(f"Element {element_name(tag)} of this DICOM file has no known Value Representation.")
        at, length = min(fitting)
        self._seek(at)
        return own.partition(" or ")[0] or "UN", length

    def _goes_on(self, tag: int, at: int, end: int) -> bool:
        """Whether an element that can follow `tag` begins there, or the parent ends there."""
        if at >= end:
            return at == end
        self._file.seek(at)
        head = self._file.read(8)
        if at + 8 > end or len(head) < 8:
            return False
        group, element, rest = self._head(head)
        following = group << 16 | element
        if following in (_ITEM_END, _SEQUENCE_END):
            return True
        code = rest[:2]
        is_named = code in _SHORT_LENGTH or code in _LONG_LENGTH
        return following > tag and (is_named or (group == tag >> 16 and group % 2 == 1))

    def _items_either_way(
        self, tag: int, end: int, length: int, depth: int, implicit: bool, vr: str | None
    ) -> Sequence:
        """Pass over a sequence; if its items do not have the expected encoding, try the other one.

        Items of a sequence with Value Representation UN are implicit in every file (PS3.5, 6.2.2). Some writers ignore
        this rule, and some write the items of private sequences implicitly in explicit files. Everything within an
        implicit item is implicit too.
        """
        start, met = self._at, len(self.items)
        stop = end if length == _UNDEFINED else start + length
        first = implicit or vr == "UN"
        try:
            return Sequence(self._items(tag, stop, length, depth, first))
        except Refused:
            if implicit:
                raise
            del self.items[met:]
            self._seek(start)
            with contextlib.suppress(Refused):
                return Sequence(self._items(tag, stop, length, depth, not first))
            raise

    def _items(self, tag: int, end: int, length: int, depth: int, implicit: bool) -> Iterator[Dataset]:
        while self._at < end:
            self._tag = tag
            what, size = self._item(end)
            if length == _UNDEFINED and what == _SEQUENCE_END and size != _UNDEFINED:
                return
            if what != _ITEM or (size != _UNDEFINED and self._at + size > end):
                raise self._torn()
            if size == _UNDEFINED:
                elements = self.elements(end, depth=depth + 1, implicit=implicit, delimited=True)
            else:
                elements = self.elements(self._at + size, depth=depth + 1, implicit=implicit)
            if self._keeps:
                self.items.append(Dataset(elements))
                yield self.items[-1]
        if length == _UNDEFINED:
            raise self._torn()

    def _fragments(self, end: int, vr: str) -> PixelSpan:
        """Pass over encapsulated pixels."""
        start, items = self._at, list[Span]()
        while True:
            at = self._at
            tag, size = self._item(end)
            if tag == _SEQUENCE_END and size != _UNDEFINED:
                return PixelSpan((start, at - start), vr, tuple(items[1:]))  # the first item is the offset table
            if tag != _ITEM or self._at + size > end:
                raise self._torn()
            self._seek(self._at + size)
            items.append((at, self._at - at))

    def _item(self, end: int) -> tuple[int, int]:
        """Tag and length of an item, or of a sequence delimiter."""
        group, element, rest = self._head(self._read(8, end))
        return group << 16 | element, self._long(rest)[0]

    def _seek(self, at: int) -> None:
        if at > self._size:
            raise cut_short(self._tag)
        self._file.seek(at)
        self._at = at

    def _read(self, count: int, end: int) -> bytes:
        self._at += count
        content = self._file.read(count) if self._at <= end else b""
        if len(content) < count:
            raise cut_short(self._tag)
        return content

    def _torn(self) -> Refused:
        return damaged(f"Element {element_name(self._tag)} of this DICOM file does not have its stated length.")


def _sorted(elements: _Elements, ascending: bool) -> _Elements:
    return elements if ascending else dict(sorted(elements.items()))
