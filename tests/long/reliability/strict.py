"""A second reader of DICOM, which shares no code with the first: it believes nothing that contradicts itself.

It takes a file by the letter of PS3.5: tags ascend, every length is that of what it counts, numbers hold only the
characters that their Value Representation allows. What a library reads leniently, this one refuses, so whatever the
appliance says of a damaged file can be held against what the file undoubtedly says.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR  # a table of the standard, and nothing else of pydicom

LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
SHORT = frozenset({"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT"}) | {
    "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US",
}  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END, PIXEL_DATA = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
_DECIMAL = re.compile(rb" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,11} *")
_UID = re.compile(rb"[0-9.]{1,64}\0?")
_MAX_INFLATED = 64 * 1024 * 1024

IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


class Contradiction(Exception):
    """The file, or the study, says two things at once, or nothing that can be relied on."""


@dataclass
class Element:
    """A value as it is encoded: bytes, or the items of a sequence, or the fragments of encapsulated pixels."""

    vr: str
    value: bytes = b""
    items: list[Dataset] = field(default_factory=list)
    fragments: list[bytes] = field(default_factory=list)


class Dataset(dict[int, Element]):
    """Elements by tag, with their values read by the letter."""

    order = "<"

    def raw(self, tag: int) -> bytes:
        element = self.get(tag)
        if element is None:
            return b""
        if element.items or element.vr not in (SHORT | LONG) - {"SQ", "UN"}:
            raise Contradiction(f"{tag:08x} has the VR {element.vr}")
        return element.value

    def text(self, tag: int) -> str:
        return self.raw(tag).decode("latin-1").strip(" \0")

    def uid(self, tag: int) -> str:
        value = self.raw(tag)
        if not _UID.fullmatch(value):
            raise Contradiction(f"{tag:08x} is no UID")
        return value.rstrip(b"\0").decode()

    def decimals(self, tag: int, count: int | None = None) -> list[float]:
        """Numbers of a DS; `count` of them, where that is given."""
        self._expect(tag, "DS")
        parts = self.raw(tag).rstrip(b"\0").split(b"\\")
        if not all(_DECIMAL.fullmatch(part) for part in parts) or (count is not None and len(parts) != count):
            raise Contradiction(f"{tag:08x} is not made of {count} decimal strings")
        return [float(part) for part in parts]

    def doubles(self, tag: int) -> list[float]:
        """Numbers of an FD."""
        self._expect(tag, "FD")
        return list(struct.unpack(f"{self.order}{len(self[tag].value) // 8}d", self[tag].value))

    def integer(self, tag: int) -> int:
        """The one number of an IS or US."""
        element = self.get(tag)
        if element is None:
            raise Contradiction(f"{tag:08x} is missing")
        if dictionary_VR(tag) == "US":
            self._expect(tag, "US")
            if len(element.value) != 2:
                raise Contradiction(f"{tag:08x} is not one US")
            return int(struct.unpack(self.order + "H", element.value)[0])
        self._expect(tag, "IS")
        if not _INTEGER.fullmatch(element.value.rstrip(b"\0")):
            raise Contradiction(f"{tag:08x} is no integer string")
        return int(element.value.rstrip(b"\0"))

    def items(self, tag: int) -> list[Dataset]:  # type: ignore[override]  # never asked for all elements
        element = self.get(tag)
        if element is None:
            return []
        if element.vr != "SQ":
            raise Contradiction(f"{tag:08x} is no sequence")
        return element.items

    def _expect(self, tag: int, vr: str) -> None:
        if tag not in self:
            raise Contradiction(f"{tag:08x} is missing")
        if self[tag].vr != vr:
            raise Contradiction(f"{tag:08x} has the VR {self[tag].vr}")


class _Reader:
    def __init__(self, content: bytes, implicit: bool, order: str) -> None:
        self.content, self.implicit, self.order = content, implicit, order

    def dataset(self, at: int, end: int, *, depth: int, open_ended: bool = False) -> tuple[Dataset, int]:
        """Read elements up to `end`, or to an item's end where it is `open_ended`."""
        if depth > 100:
            raise Contradiction("sequences in sequences without end")
        found = Dataset()
        found.order = self.order
        last = -1
        while at < end:
            tag = self._tag(at, end)
            if open_ended and tag == _ITEM_END:
                if self._length(at + 4, end) != 0:
                    raise Contradiction("an item's end has a length")
                return found, at + 8
            if tag <= last or tag >> 16 == 0xFFFE:
                raise Contradiction("tags do not ascend")
            last = tag
            found[tag], at = self._element(tag, at + 4, end, depth)
        if open_ended:
            raise Contradiction("an item never ends")
        return found, at

    def _element(self, tag: int, at: int, end: int, depth: int) -> tuple[Element, int]:
        if self.implicit:
            vr = self._vr(tag)
            length, at = self._length(at, end), at + 4
        else:
            vr = self.content[at : at + 2].decode("latin-1")
            if vr in LONG:
                length, at = self._length(at + 4, end), at + 8
            elif vr in SHORT:
                if at + 4 > end:
                    raise Contradiction("cut short")
                length, at = struct.unpack_from(self.order + "H", self.content, at + 2)[0], at + 4
            else:
                raise Contradiction(f"no VR is {vr!r}")
        if vr == "SQ":
            items, at = self._sequence(at, end, length, depth)
            return Element(vr, items=items), at
        if vr == "UN" and (length == _UNDEFINED or self._vr(tag) == "SQ"):  # written as implicit files are (6.2.2)
            items, at = _Reader(self.content, implicit=True, order="<")._sequence(at, end, length, depth)
            return Element(self._vr(tag), items=items), at
        if length == _UNDEFINED:
            if tag != PIXEL_DATA:
                raise Contradiction("a value never ends")
            fragments, at = self._fragments(at, end)
            return Element(vr, fragments=fragments), at
        if at + length > end:
            raise Contradiction("a value is longer than what holds it")
        if vr == "UN" and not tag >> 16 & 1:  # in explicit files, what is too long for its own VR (PS3.5, 6.2.2)
            vr = self._vr(tag)
        return Element(vr, self.content[at : at + length]), at + length

    def _sequence(self, at: int, end: int, length: int, depth: int) -> tuple[list[Dataset], int]:
        items: list[Dataset] = []
        stop = end if length == _UNDEFINED else at + length
        if stop > end:
            raise Contradiction("a sequence is longer than what holds it")
        while at < stop:
            tag, size = self._tag(at, stop), self._length(at + 4, stop)
            at += 8
            if tag == _SEQUENCE_END and length == _UNDEFINED and size == 0:
                return items, at
            if tag != _ITEM:
                raise Contradiction("a sequence holds what is no item")
            if size == _UNDEFINED:
                item, at = self.dataset(at, stop, depth=depth + 1, open_ended=True)
            elif at + size > stop:
                raise Contradiction("an item is longer than its sequence")
            else:
                item, at = self.dataset(at, at + size, depth=depth + 1)
            items.append(item)
        if length == _UNDEFINED:
            raise Contradiction("a sequence never ends")
        return items, at

    def _fragments(self, at: int, end: int) -> tuple[list[bytes], int]:
        fragments = []
        while True:
            tag, size = self._tag(at, end), self._length(at + 4, end)
            at += 8
            if tag == _SEQUENCE_END and size == 0:
                return fragments[1:], at  # the first is the table of offsets
            if tag != _ITEM or at + size > end:
                raise Contradiction("encapsulated pixels do not hold together")
            fragments.append(self.content[at : at + size])
            at += size

    def _tag(self, at: int, end: int) -> int:
        if at + 8 > end:
            raise Contradiction("cut short")
        group, element = struct.unpack_from(self.order + "HH", self.content, at)
        return int(group) << 16 | int(element)

    def _length(self, at: int, end: int) -> int:
        if at + 4 > end:
            raise Contradiction("cut short")
        return int(struct.unpack_from(self.order + "I", self.content, at)[0])

    def _vr(self, tag: int) -> str:
        if tag >> 16 & 1 or not tag & 0xFFFF:
            return "UN" if tag & 0xFFFF else "UL"
        try:
            return dictionary_VR(tag).split(" or ")[0]
        except KeyError as error:
            raise Contradiction(f"{tag:08x} is in no dictionary") from error


def read(content: bytes) -> tuple[str, Dataset]:
    """Read a file; return its Transfer Syntax UID and its elements.

    Raises
    ------
    Contradiction
        Where any byte of it is not what it must be.
    """
    if content[128:132] != b"DICM":
        raise Contradiction("not DICOM")
    meta, at = _Reader(content, implicit=False, order="<"), 132
    end = at
    while content[end : end + 2] == b"\x02\0":  # group 0002 alone is read so
        _, end = meta._element(meta._tag(end, len(content)), end + 4, len(content), 0)
    header, at = meta.dataset(132, end, depth=0)
    syntax = header.uid(0x00020010)
    body = content[at:]
    if syntax == DEFLATED:
        try:
            body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, _MAX_INFLATED)
        except zlib.error as error:
            raise Contradiction("does not inflate") from error
    order = ">" if syntax == BIG else "<"
    dataset, _ = _Reader(body, syntax == IMPLICIT, order).dataset(0, len(body), depth=0)
    return syntax, dataset
