"""A second reader of DICOM, which shares no code with the first and refuses every contradiction.

It reads a file strictly by PS3.5: no tag is there twice, every length is that of its content, and numbers contain
only the characters that their Value Representation allows. It refuses what a library reads leniently. So an answer of
the appliance about a damaged file can be compared with the file's unambiguous content.

It also reads these harmless habits: no preamble or no meta information, unsorted tags, delimiters with a length or
after the last element, private elements of unknown representation, implicit items in explicit files, text under
another representation of text, and numbers under another of numbers.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR  # a table of the standard; nothing else of pydicom is used

LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
SHORT = frozenset({"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT"}) | {
    "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US",
}  # fmt: skip
TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END, PIXEL_DATA = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
_DECIMAL = re.compile(rb" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,11} *")
_UID = re.compile(rb"[0-9.]{1,64}\0?")
_MAX_INFLATED = 64 * 1024 * 1024

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"


class Contradiction(Exception):
    """The file or the study contradicts itself, or has no reliable content."""


@dataclass
class Element:
    """An encoded value: bytes, the items of a sequence, or the fragments of encapsulated pixels."""

    vr: str
    value: bytes = b""
    items: list[Dataset] = field(default_factory=list)
    fragments: list[bytes] = field(default_factory=list)


class Dataset(dict[int, Element]):
    """Elements by tag, with their values read strictly."""

    order = "<"

    def raw(self, tag: int) -> bytes:
        element = self.get(tag)
        if element is None:
            return b""
        if element.items or element.vr not in (SHORT | LONG) - {"SQ", "UN"}:
            raise Contradiction(f"{tag:08x} has the VR {element.vr}")
        return element.value

    def characters(self, tag: int) -> bytes:
        """Return the value of an element that must be text."""
        if tag in self and self[tag].vr not in TEXT and self[tag].value:
            raise Contradiction(f"{tag:08x} has the VR {self[tag].vr}")
        return self.raw(tag)

    def text(self, tag: int) -> str:
        return self.characters(tag).decode("latin-1").strip(" \0")

    def uid(self, tag: int) -> str:
        value = self.characters(tag).rstrip(b" ")
        if not _UID.fullmatch(value):
            raise Contradiction(f"{tag:08x} is no UID")
        return value.rstrip(b"\0").decode()

    def decimals(self, tag: int, count: int | None = None) -> list[float]:
        """Return the numbers of a DS; `count` of them, if given."""
        if tag not in self:
            raise Contradiction(f"{tag:08x} is missing")
        if self[tag].vr in _NUMBERS:
            numbers = [float(number) for number in self._unpacked(tag)]
            if not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
                raise Contradiction(f"{tag:08x} is not {count} numbers")
            return numbers
        self.characters(tag)
        parts = self.raw(tag).rstrip(b"\0").split(b"\\")
        if not all(_DECIMAL.fullmatch(part) for part in parts) or (count is not None and len(parts) != count):
            raise Contradiction(f"{tag:08x} is not made of {count} decimal strings")
        numbers = [float(part) for part in parts]
        if not all(map(math.isfinite, numbers)):
            raise Contradiction(f"{tag:08x} is beyond all numbers")
        return numbers

    def doubles(self, tag: int) -> list[float]:
        """Return the numbers of an FD."""
        self._expect(tag, "FD")
        return list(struct.unpack(f"{self.order}{len(self[tag].value) // 8}d", self[tag].value))

    def integer(self, tag: int) -> int:
        """Return the single number of an IS or US."""
        element = self.get(tag)
        if element is None:
            raise Contradiction(f"{tag:08x} is missing")
        if element.vr in _NUMBERS:
            numbers = self._unpacked(tag)
        elif _INTEGER.fullmatch(self.characters(tag).rstrip(b"\0")):
            numbers = [int(element.value.rstrip(b"\0"))]
        else:
            numbers = self.decimals(tag, 1)
        if len(numbers) != 1 or not math.isfinite(numbers[0]) or numbers[0] != int(numbers[0]):
            raise Contradiction(f"{tag:08x} is not one whole number")
        if dictionary_VR(tag) == "US" and not 0 <= numbers[0] < 65536:
            raise Contradiction(f"{tag:08x} is out of range")
        return int(numbers[0])

    def _unpacked(self, tag: int) -> Sequence[float]:
        form, value = _NUMBERS[self[tag].vr], self[tag].value
        size = struct.calcsize(form)
        if len(value) % size:
            raise Contradiction(f"{tag:08x} is no row of numbers")
        return struct.unpack(f"{self.order}{len(value) // size}{form}", value)

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
        """Read elements up to `end`, or to an item's end if it is `open_ended`."""
        if depth > 100:
            raise Contradiction("sequences in sequences without end")
        found = Dataset()
        found.order = self.order
        closed = False  # whether the last element was a sequence with a length
        while at < end:
            tag = self._tag(at, end)
            if open_ended and tag == _ITEM_END and self._length(at + 4, end) != _UNDEFINED:
                return found, at + 8
            if tag >> 16 == 0xFFFE or tag == 0:
                if depth == 0 and (tag == 0 or self._may_be_stray(found, tag, closed)) and self._is_over(tag, at):
                    return found, end
                raise Contradiction("an item or its end where none can be")
            if tag in found:
                raise Contradiction("one tag twice")
            if found and tag < max(found) and not (tag >> 16 & 1 or not tag & 0xFFFF or self._is_known(tag)):
                raise Contradiction("an unknown tag out of order")
            if depth == 0 and tag < 0x7FE00008 and found and max(found) >= 0x7FE00008:
                raise Contradiction("an element behind the pixels")
            begin = at
            found[tag], at = self._element(tag, at + 4, end, depth)
            closed = found[tag].vr == "SQ" and self.content[begin + 4 : begin + 12].find(b"\xff\xff\xff\xff") < 0
        if open_ended:
            raise Contradiction("an item never ends")
        return found, at

    @staticmethod
    def _may_be_stray(found: Dataset, tag: int, closed: bool) -> bool:
        return tag in (_ITEM_END, _SEQUENCE_END) and (PIXEL_DATA in found or (tag == _SEQUENCE_END and closed))

    def _is_over(self, tag: int, at: int) -> bool:
        """Whether only padding follows, after a delimiter without a length or directly."""
        if any(self.content[at + 4 : at + 8]):
            return False
        rest = self.content[at + 8 :]
        if rest[:4] == b"\xfc\xff\xfc\xff":
            rest = rest[12:] if rest[4:6] == b"OB" else rest[8:]
        return not any(rest)

    @staticmethod
    def _is_known(tag: int) -> bool:
        try:
            return bool(dictionary_VR(tag))
        except KeyError:
            return False

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
                vr, length, at = self._of_no_known_vr(tag, vr, at, end)
        if vr == "SQ":
            items, at = self._either_way(at, end, length, depth, implicit_first=self.implicit)
            return Element(vr, items=items), at
        if vr == "UN" and (length == _UNDEFINED or self._vr(tag) == "SQ"):  # encoded as in implicit files (6.2.2)
            items, at = self._either_way(at, end, length, depth, implicit_first=True)
            return Element(self._vr(tag), items=items), at
        if length == _UNDEFINED:
            if tag != PIXEL_DATA:
                raise Contradiction("a value never ends")
            fragments, at = self._fragments(at, end)
            return Element(vr, fragments=fragments), at
        if at + length > end:
            raise Contradiction("a value is longer than what holds it")
        if vr == "UN" and not tag >> 16 & 1:  # in explicit files, a value too long for its VR (PS3.5, 6.2.2)
            vr = self._vr(tag)
        return Element(vr, self.content[at : at + length]), at + length

    def _of_no_known_vr(self, tag: int, vr: str, at: int, end: int) -> tuple[str, int, int]:
        """Return a private element's length, from two or four bytes: with the right one, another element follows."""
        if not tag >> 16 & 1 and (vr not in ("\0\0", "  ", "??", "--") or not self._is_known(tag) or tag >= 0x7FE00008):
            raise Contradiction(f"no VR is {vr!r}")
        if at + 4 > end:
            raise Contradiction("cut short")
        short, long = (
            struct.unpack_from(self.order + form, self.content, at + k)[0] for form, k in (("H", 2), ("I", 0))
        )
        tried = {(at + 4, short), (at + 4, long)}
        if self.content[at + 2 : at + 4] == b"\0\0" and at + 8 <= end:
            tried.add((at + 8, self._length(at + 4, end)))
        sound = {(begin, length) for begin, length in tried if self._may_follow(tag, begin + length, end)}
        if len({begin + length for begin, length in sound}) != 1:
            raise Contradiction(f"no VR is {vr!r}, and nothing tells where it ends")
        begin, length = min(sound)
        return ("UN" if tag >> 16 & 1 else self._vr(tag)), length, begin

    def _may_follow(self, tag: int, at: int, end: int) -> bool:
        if at >= end or at + 8 > end:
            return at == end
        following = self._tag(at, end)
        if following in (_ITEM_END, _SEQUENCE_END):
            return True
        named = self.content[at + 4 : at + 6].decode("latin-1") in LONG | SHORT
        return following > tag and (named or (following >> 16 == tag >> 16 and bool(tag >> 16 & 1)))

    def _either_way(
        self, at: int, end: int, length: int, depth: int, *, implicit_first: bool
    ) -> tuple[list[Dataset], int]:
        """Read items in the regular encoding, or else in the other one."""
        if self.implicit:
            return self._sequence(at, end, length, depth)
        ways = [_Reader(self.content, implicit=True, order=self.order), self]
        first, second = ways if implicit_first else ways[::-1]
        try:
            return first._sequence(at, end, length, depth)
        except Contradiction as fault:
            try:
                return second._sequence(at, end, length, depth)
            except Contradiction:
                raise fault from None

    def _sequence(self, at: int, end: int, length: int, depth: int) -> tuple[list[Dataset], int]:
        items: list[Dataset] = []
        stop = end if length == _UNDEFINED else at + length
        if stop > end:
            raise Contradiction("a sequence is longer than what holds it")
        while at < stop:
            tag, size = self._tag(at, stop), self._length(at + 4, stop)
            at += 8
            if tag == _SEQUENCE_END and length == _UNDEFINED and size != _UNDEFINED:
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
            if tag == _SEQUENCE_END and size != _UNDEFINED:
                return fragments[1:], at  # the first fragment is the offset table
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
    begin = 132 if content[128:132] == b"DICM" else 4 if content[:4] == b"DICM" else 0
    if not begin and not (content[:2] == b"\2\0" or _guess(content)):
        raise Contradiction("not DICOM")
    meta, end = _Reader(content, implicit=False, order="<"), begin
    while content[end : end + 2] == b"\x02\0":  # only group 0002 is read in this way
        _, end = meta._element(meta._tag(end, len(content)), end + 4, len(content), 0)
    header, at = meta.dataset(begin, end, depth=0)
    body = content[at:]
    seen = _guess(body)
    syntax = header.uid(0x00020010) if header.raw(0x00020010) else seen
    if not syntax.startswith("1.2.840.10008.1.2"):
        raise Contradiction("no transfer syntax of DICOM's")
    if seen and syntax != DEFLATED and seen != (syntax if syntax in (IMPLICIT, BIG) else EXPLICIT):
        raise Contradiction("written otherwise than it says")
    if syntax == DEFLATED:
        try:
            body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, _MAX_INFLATED)
        except zlib.error as error:
            raise Contradiction("does not inflate") from error
    order = ">" if syntax == BIG else "<"
    dataset, _ = _Reader(body, syntax == IMPLICIT, order).dataset(0, len(body), depth=0)
    for tag in [tag for tag in dataset if tag >> 16 == 2]:  # it does not belong in the data set
        del dataset[tag]
    return syntax, dataset


def _guess(body: bytes) -> str:
    """Return the encoding of elements that begin with group 0008; empty if they do not."""
    named = re.fullmatch(rb"[A-Z]{2}", body[4:6]) is not None
    if re.match(rb"\x08\0[\0-\x1f]\0", body):
        return EXPLICIT if named else IMPLICIT if body[6:8] == b"\0\0" else ""
    return BIG if named and re.match(rb"\0\x08\0[\0-\x1f]", body) else ""
