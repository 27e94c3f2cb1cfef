"""Unusual ways of writers to encode a file that is still readable without doubt; each habit changes a file's parts.

No code of the appliance is used. The file must be in explicit little endian, with sequences of defined length.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_ITEM, _ITEM_END, _SEQUENCE_END = ((0xFFFE, element) for element in (0xE000, 0xE00D, 0xE0DD))
_PIXELS = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Parts:
    """The parts of a file: bytes before the meta information, this, elements by tag with their bytes, the rest."""

    front: bytes
    meta: bytes
    elements: tuple[tuple[int, bytes], ...]
    tail: bytes = b""

    def joined(self) -> bytes:
        return self.front + self.meta + b"".join(content for _, content in self.elements) + self.tail


Habit = Callable[[Parts], Parts]


def _delimiter(tag: tuple[int, int], length: int = 0) -> bytes:
    return struct.pack("<HHI", *tag, length)


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + (struct.pack("<HI", 0, len(value)) if vr in _LONG else struct.pack("<H", len(value))) + value


def _split(content: bytes) -> list[tuple[int, bytes, bytes]]:
    """Elements as (tag, Value Representation, value)."""
    found, at = [], 0
    while at < len(content):
        group, element, vr, short = struct.unpack_from("<HH2sH", content, at)
        at += 8
        length = short
        if vr in _LONG:
            length, at = struct.unpack_from("<I", content, at)[0], at + 4
        end = len(content) if length == _UNDEFINED else at + length  # encapsulated pixels are the last element
        found.append((group << 16 | element, vr, content[at:end]))
        at = end
    return found


def _items(value: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(value):
        length = struct.unpack_from("<I", value, at + 4)[0]
        found.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    return found


def end_of_meta(content: bytes) -> int:
    """Return the offset after a file's meta information."""
    at = 132
    while content[at : at + 2] == b"\2\0":
        vr = content[at + 4 : at + 6]
        form = ("<I", at + 8, at + 12) if vr in _LONG else ("<H", at + 6, at + 8)
        at = form[2] + struct.unpack_from(form[0], content, form[1])[0]
    return at


def parts(content: bytes) -> Parts:
    """Split a file into its parts."""
    at = end_of_meta(content)
    elements, begin = [], at
    while begin < len(content):
        (tag, vr, value), *_ = _split(content[begin:])
        size = len(value) + (12 if vr in _LONG else 8)
        elements.append((tag, content[begin : begin + size]))
        begin += size
    return Parts(content[:132], content[132:at], tuple(elements))


def without_preamble(file: Parts) -> Parts:
    return replace(file, front=b"")


def prefix_alone(file: Parts) -> Parts:
    return replace(file, front=b"DICM")


def without_meta(file: Parts) -> Parts:
    """Some planning systems write this."""
    return replace(file, front=b"", meta=b"")


def data_set_behind_the_prefix(file: Parts) -> Parts:
    return replace(file, meta=b"")


def _before_the_pixels(file: Parts, *added: tuple[int, bytes]) -> Parts:
    place = next((k for k, (tag, _) in enumerate(file.elements) if tag >= 0x7FE00000), len(file.elements))
    return replace(file, elements=file.elements[:place] + added + file.elements[place:])


def meta_among_the_elements(file: Parts) -> Parts:
    """They name another transfer syntax, which must be ignored."""
    return _before_the_pixels(
        file,
        (0x00020010, _element(0x00020010, b"UI", b"1.2.840.10008.1.2.2")),
        (0x00020013, _element(0x00020013, b"SH", b"TOOL")),
    )


def unsorted(file: Parts) -> Parts:
    """Elements that a de-identifier added or rewrote are at the end."""
    moved = [e for e in file.elements if e[0] >> 16 in (0x10, 0x20, 0x28, 0x3006) or e[0] == 0x00180050][::-1]
    kept = replace(file, elements=tuple(e for e in file.elements if e not in moved))
    return _before_the_pixels(kept, (0x00120063, _element(0x00120063, b"LO", b"TOOL 1.0")), *moved)


def stray_delimiter(file: Parts) -> Parts:
    """CTP writes it after native pixels at the end of the file."""
    return replace(file, tail=file.tail + _delimiter(_SEQUENCE_END))


def zeros(file: Parts) -> Parts:
    return replace(file, tail=file.tail + bytes(512))


def trailing_padding(file: Parts) -> Parts:
    return replace(file, tail=file.tail + _element(0xFFFCFFFC, b"OB", bytes(64)))


def _open(value: bytes, length: int) -> bytes:
    """Return a sequence's items without lengths; delimiters end them."""
    written = b""
    for item in _items(value):
        written += _delimiter(_ITEM, _UNDEFINED)
        written += b"".join(_opened(*element, length) for element in _split(item)) + _delimiter(_ITEM_END, length)
    return written + _delimiter(_SEQUENCE_END, length)


def _opened(tag: int, vr: bytes, value: bytes, length: int) -> bytes:
    if vr != b"SQ":
        return _element(tag, vr, value)
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, _UNDEFINED) + _open(value, length)


def _delimited(file: Parts, length: int) -> Parts:
    changed = []
    for tag, content in file.elements:
        is_sequence = content[4:6] == b"SQ" and struct.unpack_from("<I", content, 8)[0] != _UNDEFINED
        changed.append((tag, _opened(tag, b"SQ", content[12:], length) if is_sequence else content))
    return replace(file, elements=tuple(changed))


def delimiters(file: Parts) -> Parts:
    return _delimited(file, 0)


def delimiters_of_a_length(file: Parts) -> Parts:
    return _delimited(file, 8)


_CREATOR = (0x00290010, _element(0x00290010, b"LO", b"ACME 1.0"))


def _private(file: Parts, content: bytes) -> Parts:
    return _before_the_pixels(file, _CREATOR, (0x00291010, struct.pack("<HH", 0x29, 0x1010) + content))


def blank_representation(file: Parts) -> Parts:
    return _private(file, b"\0\0" + struct.pack("<H", 4) + b"\1\0\2\0")


def unknown_representation(file: Parts) -> Parts:
    return _private(file, b"ox" + struct.pack("<HI", 0, 6) + b"\1\0\2\0\3\0")


def implicit_element(file: Parts) -> Parts:
    return _private(file, struct.pack("<I", 6) + b"\1\0\2\0\3\0")


def implicit_items(file: Parts) -> Parts:
    """A private sequence of a scanner with implicit items in an explicit file."""
    inner = struct.pack("<HHI", 0x29, 0x10, 8) + b"ACME 1.0" + struct.pack("<HHI", 0x29, 0x1001, 4) + b"\1\0\2\0"
    item = _delimiter(_ITEM, len(inner)) + inner
    return _private(file, b"SQ" + struct.pack("<HI", 0, len(item)) + item)


def explicit_items_of_unknown(file: Parts) -> Parts:
    """A UN element of undefined length; its items are explicit, although they should be implicit (PS3.5, 6.2.2)."""
    inner = _element(0x00290010, b"LO", b"ACME 1.0") + _element(0x00291001, b"US", b"\1\0")
    item = _delimiter(_ITEM, len(inner)) + inner
    return _private(file, b"UN" + struct.pack("<HI", 0, _UNDEFINED) + item + _delimiter(_SEQUENCE_END))


def _decimals(value: bytes) -> list[float]:
    return [float(part) for part in value.split(b"\\")]


# For each element, the Value Representation of a research writer, and how it encodes the value.
_AS_WRITTEN: dict[int, tuple[bytes, Callable[[bytes], bytes]]] = {
    0x00080060: (b"LO", bytes),
    0x00080018: (b"ST", bytes),
    0x00100020: (b"ST", bytes),
    0x00180015: (b"LO", bytes),
    0x00180050: (b"FD", lambda value: struct.pack("<d", *_decimals(value))),
    0x0020000E: (b"LO", bytes),
    0x00200013: (b"US", lambda value: struct.pack("<H", int(value))),
    0x00200032: (b"LO", bytes),
    0x00280010: (b"UL", lambda value: value + b"\0\0"),
    0x00280011: (b"IS", lambda value: str(struct.unpack("<H", value)[0]).encode()),
    0x00280030: (b"FD", lambda value: struct.pack("<2d", *_decimals(value))),
    0x00280103: (b"SS", bytes),
    0x00281052: (b"FD", lambda value: struct.pack("<d", *_decimals(value))),
    0x30060022: (b"UL", lambda value: struct.pack("<I", int(value))),
    0x30060026: (b"ST", bytes),
    0x30060046: (b"DS", bytes),
    0x30060050: (b"UT", bytes),
    0x30060084: (b"US", lambda value: struct.pack("<H", int(value))),
    0x00620004: (b"UL", lambda value: value + b"\0\0"),
    0x00620005: (b"UT", bytes),
}  # fmt: skip


def _renamed(tag: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"SQ":
        items = [b"".join(_renamed(*element) for element in _split(item)) for item in _items(value)]
        return _element(tag, vr, b"".join(_delimiter(_ITEM, len(item)) + item for item in items))
    other, written = _AS_WRITTEN.get(tag, (vr, bytes))
    return _element(tag, other, written(value))


def other_representations(file: Parts) -> Parts:
    changed = []
    for tag, content in file.elements:
        is_private, is_open = tag >> 16 & 1, content[8:12] == b"\xff\xff\xff\xff"
        if not (is_private or is_open or tag == _PIXELS):
            ((_, vr, value),) = _split(content)
            content = _renamed(tag, vr, value)
        changed.append((tag, content))
    return replace(file, elements=tuple(changed))


HABITS: tuple[Habit, ...] = (
    without_preamble, prefix_alone, without_meta, data_set_behind_the_prefix, meta_among_the_elements, unsorted,
    stray_delimiter, zeros, trailing_padding, delimiters, delimiters_of_a_length, blank_representation,
    unknown_representation, implicit_element, implicit_items, explicit_items_of_unknown, other_representations,
)  # fmt: skip
