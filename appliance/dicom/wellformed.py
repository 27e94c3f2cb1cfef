"""The proof that a file's elements hold together, before anybody relies on what a lenient parser makes of them.

Where a length, a tag or an item has been damaged, pydicom goes on with whatever it finds next: contours vanish from a
sequence, the second of two values under one tag replaces the first, and nothing is said. PS3.5 leaves no room for
that: tags ascend, every value, item and sequence ends where it says, and within what holds it (7.1, 7.5, A.4).
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Literal

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from appliance.dicom.pixeldata import cut_short, damaged
from appliance.errors import Refused

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END, _PIXEL_DATA = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
_META_GROUP, _DELIMITER_GROUP = 0x0002, 0xFFFE
_PREAMBLE = 132
_DEEPEST = 64  # sequences within each other; a structured report has a dozen
_SHORT_LENGTH = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_16)
_LONG_LENGTH = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)


def prove_well_formed(file: BinaryIO, size: int, *, implicit: bool, little: bool) -> None:
    """Prove that every element of a DICOM file is whole, in its place, and nowhere twice.

    Parameters
    ----------
    file
        The file, from its preamble on.
    size
        Its size in bytes. Zeros after the last element are no fault.
    implicit, little
        How its elements after the meta information are encoded.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    """
    walk = _Walk(file, size)
    walk.seek(_PREAMBLE)
    walk.elements(size, depth=0, implicit=False, meta=True)
    walk.order = "<" if little else ">"
    walk.elements(size, depth=0, implicit=implicit)


def prove_elements(file: BinaryIO, size: int) -> None:
    """Prove the same of elements in explicit little endian that no file is around, e.g. of what was inflated."""
    _Walk(file, size).elements(size, depth=0, implicit=False)


class _Walk:
    order: Literal["<", ">"] = "<"

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._at = file.tell()

    def seek(self, at: int) -> None:
        if at > self._size:
            raise cut_short()
        self._file.seek(at)
        self._at = at

    def elements(self, end: int, *, depth: int, implicit: bool, delimited: bool = False, meta: bool = False) -> None:
        """Walk to `end`; where they are `delimited`, to the end of their item; of `meta` information, to its end."""
        if depth > _DEEPEST:
            raise damaged("This DICOM file's sequences are nested too deeply.")
        last = -1
        while self._at < end:
            start = self._at
            tag, rest = self._head(end)
            if meta and tag >> 16 != _META_GROUP:
                self.seek(start)
                return
            if delimited and tag == _ITEM_END:
                if any(rest):
                    raise _torn()
                return
            if tag <= last or tag >> 16 == _DELIMITER_GROUP:
                if not (tag or depth or any(rest)) and not any(self._file.read(end - self._at)):
                    self.seek(end)
                    return
                raise damaged("This DICOM file's elements are not in order, or one is there twice.")
            last = tag
            self._value(tag, rest, end, depth, implicit)
        if delimited:
            raise _torn()

    def _value(self, tag: int, rest: bytes, end: int, depth: int, implicit: bool) -> None:
        """Step over a value, or into it where it is a sequence; `rest` is what followed the tag."""
        if implicit:
            vr = b"SQ" if _is_sequence(tag) else b""
            length = self._number(rest)
        else:
            vr = rest[:2]
            if vr in _SHORT_LENGTH:
                length = struct.unpack(self.order + "H", rest[2:])[0]
            elif vr in _LONG_LENGTH:
                length = self._number(self._read(4, end))
            else:
                raise damaged("This DICOM file holds an element of no known Value Representation.")
        if length != _UNDEFINED and self._at + length > end:
            raise cut_short() if depth == 0 else _torn()
        if vr == b"SQ" or (length == _UNDEFINED and vr in (b"", b"UN") and tag != _PIXEL_DATA):
            self._sequence(end if length == _UNDEFINED else self._at + length, length, depth, implicit or vr == b"UN")
        elif length != _UNDEFINED:
            self.seek(self._at + length)
        elif tag == _PIXEL_DATA:
            self._fragments(end)
        else:
            raise _torn()

    def _sequence(self, end: int, length: int, depth: int, implicit: bool) -> None:
        while self._at < end:
            tag, rest = self._head(end)
            size = self._number(rest)
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

    def _fragments(self, end: int) -> None:
        """Step over encapsulated pixels."""
        while True:
            tag, rest = self._head(end)
            size = self._number(rest)
            if tag == _SEQUENCE_END and size == 0:
                return
            if tag != _ITEM or self._at + size > end:
                raise _torn()
            self.seek(self._at + size)

    def _head(self, end: int) -> tuple[int, bytes]:
        """Tag, and the four bytes after it."""
        head = self._read(8, end)
        group, element = struct.unpack_from(self.order + "HH", head)
        return group << 16 | element, head[4:]

    def _number(self, four: bytes) -> int:
        return int(struct.unpack(self.order + "I", four)[0])

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
