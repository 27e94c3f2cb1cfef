"""Conversion of elements with a wrong Value Representation to their defined one, if no information is lost.

Research software writes Slice Thickness as FD, Rows as UL, or Body Part Examined as LO. Text keeps its bytes, and
numbers are written again in the defined representation. Anything else is left unchanged; :mod:`dicom.values` then
reports an error if the element is needed.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Sequence

from pydicom.datadict import dictionary_VR
from pydicom.tag import BaseTag

_TEXT = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_BINARY = {
    "FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q",
}  # fmt: skip
_DECIMAL = re.compile(rb" *[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)? *")

Numbers = Sequence[int | float]


@functools.lru_cache(maxsize=10_000)
def known(tag: int) -> tuple[BaseTag, str]:
    """Return a tag and its Value Representation in DICOM; the latter is empty for an unknown tag.

    Every call returns the same tag object. Looking up an element by the object that it is stored under avoids pydicom's
    comparison of tags. That comparison is written in Python and takes a tenth of the time of a header.
    """
    try:
        return BaseTag(tag), dictionary_VR(tag)
    except KeyError:
        return BaseTag(tag), ""


def in_its_own(expected: str, vr: str, value: bytes, *, little: bool) -> tuple[str, bytes]:
    """Write a value in its defined representation.

    Parameters
    ----------
    expected
        Value Representation of the element in DICOM; several are separated by " or ".
    vr
        Value Representation in the file.
    value
        Bytes of the value in the file.
    little
        Whether numbers are little endian, before and after.

    Returns
    -------
    str, bytes
        Representation and value. They are unchanged if the representation is a defined one, or the value fits none.
    """
    own = expected.split(" or ")
    if vr in own:
        return vr, value
    if vr in _TEXT and own[0] in _TEXT:
        return own[0], value
    numbers = _numbers(vr, value, little)
    if numbers is not None:
        for to in own:
            written = _written(to, numbers, little)
            if written is not None:
                return to, written
    return vr, value


def _numbers(vr: str, value: bytes, little: bool) -> Numbers | None:
    form = _BINARY.get(vr)
    if form is not None:
        size = struct.calcsize(form)
        return struct.unpack(f"{_order(little)}{len(value) // size}{form}", value) if len(value) % size == 0 else None
    parts = value.rstrip(b"\0 ").split(b"\\") if value else []
    if vr not in _TEXT or not all(_DECIMAL.fullmatch(part) for part in parts):
        return None
    return [float(part) for part in parts]


def _written(vr: str, numbers: Numbers, little: bool) -> bytes | None:
    """Write numbers; None if the representation cannot hold them exactly."""
    if vr == "DS":
        return "\\".join(repr(number).removesuffix(".0") for number in numbers).encode()
    if vr not in ("IS", *_BINARY):
        return None
    is_floating = vr in ("FD", "FL")
    if not is_floating and not all(float(number).is_integer() for number in numbers):
        return None
    exact = numbers if is_floating else [int(number) for number in numbers]
    if vr == "IS":
        return "\\".join(map(str, exact)).encode()
    try:
        written = struct.pack(f"{_order(little)}{len(exact)}{_BINARY[vr]}", *exact)
    except (struct.error, OverflowError):  # out of range
        return None
    return written if not is_floating or _numbers(vr, written, little) == tuple(numbers) else None


def _order(little: bool) -> str:
    return "<" if little else ">"
