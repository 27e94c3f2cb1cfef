"""Damage to the bytes of a DICOM file, as by disks, networks, faulty software or an attacker.

Every mutator takes a file and a random source, and returns another file. :func:`landmarks` finds the elements, so that
length fields, tags and values are hit as often as the much more frequent pixels.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.long.reliability.strict import LONG, SHORT
from tests.support.habits import HABITS, parts

Chance = random.Random
ByteMutator = Callable[[bytes, Chance, Sequence[bytes]], bytes]

_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_VR = re.compile(b"|".join(vr.encode() for vr in sorted(LONG | SHORT)))
_LENGTHS = (0, 1, 2, 7, 0x7F, 0xFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass(frozen=True)
class Landmark:
    """Start of an element in explicit little endian, width of its length field, length of its value."""

    at: int
    width: int
    length: int

    @property
    def length_at(self) -> int:
        return self.at + (8 if self.width == 4 else 6)

    @property
    def value_at(self) -> int:
        return self.length_at + self.width


def landmarks(content: bytes) -> list[Landmark]:
    """Find what looks like elements, at every depth, and few in pixels that look like elements."""
    found = []
    for match in _VR.finditer(content, 136):
        at, vr = match.start() - 4, match.group().decode()
        width = 4 if vr in LONG else 2
        start = at + (8 if width == 4 else 6)
        length = int.from_bytes(content[start : start + width], "little")
        if (width == 4 and content[at + 6 : at + 8] != b"\0\0") or (
            length != 0xFFFFFFFF and start + width + length > len(content)
        ):
            continue
        found.append(Landmark(at, width, length))
    return found


def _replace(content: bytes, at: int, new: bytes, old: int | None = None) -> bytes:
    return content[:at] + new + content[at + (len(new) if old is None else old) :]


def _anywhere(content: bytes, chance: Chance) -> int:
    """Return a place, mostly in the header, where damage matters most."""
    front = min(len(content), 4096)
    return chance.randrange(132, front) if front > 132 and chance.random() < 0.7 else chance.randrange(len(content))


def flip_bits(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(content)
    for _n in range(chance.choice((1, 1, 1, 2, 4, 8))):
        changed[_anywhere(content, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def change_bytes(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Replace one to sixteen bytes in a row, by random or equal bytes."""
    at, count = _anywhere(content, chance), chance.choice((1, 1, 2, 4, 16))
    new = (
        chance.choice((b"\0", b"\xff", b" ", b"\\", b"_")) * count if chance.random() < 0.4 else chance.randbytes(count)
    )
    return _replace(content, at, new[: len(content) - at])


def cut(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Cut the file anywhere."""
    return content[: chance.choice((chance.randrange(len(content)), _anywhere(content, chance), len(content) - 1))]


def append(content: bytes, chance: Chance, corpus: Sequence[bytes]) -> bytes:
    """Append zeros, random bytes or another file."""
    return content + chance.choice((b"\0" * 2, chance.randbytes(64), chance.choice(corpus)[:100_000]))


def splice(content: bytes, chance: Chance, corpus: Sequence[bytes]) -> bytes:
    """Overwrite with a piece of another file, or insert one."""
    other = chance.choice(corpus)
    size = chance.choice((4, 8, 32, 128, 1024))
    start = _anywhere(other, chance) if len(other) > 140 else 0
    piece = other[start : start + size]
    at = _anywhere(content, chance)
    return _replace(content, at, piece, chance.choice((0, len(piece))))


def drop_piece(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Remove a piece."""
    return _replace(content, _anywhere(content, chance), b"", chance.choice((1, 2, 4, 8, 16, 128, 1024)))


def lie_about_length(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Change the length field of an element, or of an item."""
    marks = landmarks(content)
    items = [m.start() for m in re.finditer(re.escape(_ITEM), content)]
    if items and chance.random() < 0.3:
        at, width = chance.choice(items) + 4, 4
    elif marks:
        mark = chance.choice(marks)
        at, width = mark.length_at, mark.width
    else:
        at, width = _anywhere(content, chance), 2
    true = int.from_bytes(content[at : at + width], "little")
    lie = chance.choice((*_LENGTHS, true + 2, true + 1, max(0, true - 2), true // 2, true * 2, true ^ 0x100))
    return _replace(content, at, (lie % (1 << 8 * width)).to_bytes(width, "little"))


def change_value(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Change one byte of an element's value of any size."""
    marks = [m for m in landmarks(content) if 0 < m.length < 0xFFFF and m.value_at + m.length <= len(content)]
    if not marks:
        return flip_bits(content, chance, ())
    mark = chance.choice(marks)
    at = mark.value_at + chance.randrange(mark.length)
    new = chance.choice((b"0", b"1", b"9", b"-", b".", b"_", b"e", b"\\", b" ", b"\0", b"\xff", chance.randbytes(1)))
    return _replace(content, at, new)


def change_vr(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Give an element another Value Representation, or an invalid one."""
    marks = landmarks(content)
    if not marks:
        return flip_bits(content, chance, ())
    vr = chance.choice((*sorted(LONG | SHORT), "XX", "\0\0", "??")).encode()
    return _replace(content, chance.choice(marks).at + 4, vr)


def double_element(content: bytes, chance: Chance, corpus: Sequence[bytes]) -> bytes:
    """Repeat an element with a change, directly after it or elsewhere: two values under one tag."""
    marks = [m for m in landmarks(content) if m.length < 0xFFFF]
    if not marks:
        return flip_bits(content, chance, ())
    mark = chance.choice(marks)
    end = mark.value_at + mark.length
    twin = bytearray(content[mark.at : end])
    if mark.length:
        twin[-1 - chance.randrange(mark.length)] = chance.choice(b"0123456789 \x00\x01")
    at = end if chance.random() < 0.7 else chance.choice(marks).at
    return _replace(content, at, bytes(twin), 0)


def swap_elements(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Exchange two elements, or their tags."""
    marks = sorted((m for m in landmarks(content) if m.length < 0xFFFF), key=lambda m: m.at)
    if len(marks) < 2:
        return flip_bits(content, chance, ())
    first, second = sorted(chance.sample(marks, 2), key=lambda m: m.at)
    if chance.random() < 0.5:
        tags = content[first.at : first.at + 4], content[second.at : second.at + 4]
        return _replace(_replace(content, first.at, tags[1]), second.at, tags[0])
    a, b = (slice(m.at, m.value_at + m.length) for m in (first, second))
    if a.stop > b.start:
        return flip_bits(content, chance, ())
    return content[: a.start] + content[b] + content[a.stop : b.start] + content[a] + content[b.stop :]


def break_items(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """End a sequence or an item in a wrong place, or remove its end."""
    marks = [m.start() for m in re.finditer(re.escape(_ITEM[:2]), content)]
    if not marks:
        return change_value(content, chance, ())
    at = chance.choice(marks)
    tag = chance.choice((_ITEM, _ITEM_END, _SEQUENCE_END, b"\x06\x30\x40\0", chance.randbytes(4)))
    return _replace(content, at, tag + (b"\0\0\0\0" if chance.random() < 0.5 else b""))


def nest(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Nest sequences up to thousands deep, with or without ends; they may contain the file itself."""
    marks = landmarks(content)
    at = chance.choice(marks).at if marks else len(content)
    depth = chance.choice((2, 30, 300, 3000))
    tag = chance.choice((b"\x08\0\x40\x11", b"\x06\x30\x39\0", b"\0\x52\x30\x92", b"\x09\0\x10\x10"))
    inner = chance.choice((b"", content[at : at + 2000], content[132:2000]))
    begin = (tag + b"SQ\0\0\xff\xff\xff\xff" + _ITEM + b"\xff\xff\xff\xff") * depth
    end = (_ITEM_END + b"\0\0\0\0" + _SEQUENCE_END + b"\0\0\0\0") * chance.choice((depth, depth, depth - 1))
    return _replace(content, at, begin + inner + end, 0)


def lie_about_syntax(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Name another transfer syntax than that of the file."""
    match = re.search(rb"\x02\x00\x10\x00UI(..)([0-9.]+\x00?)", content[:1024], re.DOTALL)
    if match is None:
        return flip_bits(content, chance, ())
    syntax = chance.choice(
        ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
         "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
         "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.100", "1.2.3.4", "")
    ).encode()  # fmt: skip
    syntax += b"\0" * (len(syntax) % 2)
    new = b"\x02\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    out = _replace(content, match.start(), new, match.end() - match.start())
    group = re.search(rb"\x02\x00\x00\x00UL\x04\x00", out[:256])
    if group is None:
        return out
    length = int.from_bytes(out[group.end() : group.end() + 4], "little") + len(out) - len(content)
    return _replace(out, group.end(), length.to_bytes(4, "little"))


def deflate(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Make a deflated file: cut, damaged or sound."""
    body = lie_about_syntax(content, _Always("1.2.840.10008.1.2.1.99"), ())
    group = re.search(rb"\x02\x00\x00\x00UL\x04\x00(....)", body[:256], re.DOTALL)
    if group is None:
        return body
    at = group.end() + int.from_bytes(group.group(1), "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(body[at:]) + packer.flush()
    if chance.random() < 0.6:
        packed = chance.choice((flip_bits, cut, change_bytes))(packed, chance, ())
    return body[:at] + packed


class _Always(random.Random):
    """A random source with a fixed choice."""

    def __init__(self, chosen: str) -> None:
        super().__init__(0)
        self._chosen = chosen

    def choice(self, _: Sequence[str]) -> str:  # type: ignore[override]
        return self._chosen


def take_a_habit(content: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    """Apply a readable habit of other writers, before or after some damage."""
    return chance.choice(HABITS)(parts(content)).joined()


BYTE_MUTATORS: tuple[ByteMutator, ...] = (
    flip_bits, flip_bits, change_bytes, cut, append, splice, drop_piece, lie_about_length, lie_about_length,
    change_value, change_value, change_value, change_vr, double_element, swap_elements, break_items, break_items,
    nest, lie_about_syntax, deflate, take_a_habit, take_a_habit,
)  # fmt: skip
