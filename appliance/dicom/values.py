"""What an element says, as a plain value: read as it stands in the file where that is safe, else by pydicom.

pydicom's own conversion, with all that it provides for, is most of the time that reading a header takes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

Vector = tuple[float, ...]

FARTHEST = 1e9
"""What no number of a geometry reaches (mm)."""

_PLAIN = frozenset({"CS", "DS", "IS", "UI"})  # Value Representations without character sets
_TEXT = frozenset({"LO", "SH"})  # those with one
_SAME_IN_ALL_SETS = re.compile(rb"[0-9A-Za-z .,_+-]*")
_MOMENT = re.compile(r"[0-9]{14}(\.[0-9]{1,6})?")
_DECIMALS = re.compile(r"[-+0-9.eE \\]*")  # PS3.5, table 6.2-1: float() alone would read "1_0" as ten


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's text without padding; empty where it is absent.

    Raises
    ------
    ValueError
        It has not the Value Representation that DICOM gives it, so what it says cannot be handed on.
    """
    plain = _undecoded(dataset, keyword)
    if plain is not None:
        return plain
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return an element's texts, as of :func:`text`."""
    plain = _undecoded(dataset, keyword)
    if plain is not None:
        return tuple(part.strip() for part in plain.split("\\")) if plain else ()
    value = dataset.get(keyword) or ()
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value)


def vector(dataset: Dataset, keyword: str, length: int) -> Vector:
    """Return the numbers of an element; () where they are not `length` finite ones.

    Raises
    ------
    ValueError
        It holds something else than decimal strings.
    """
    decimals = _undecoded(dataset, keyword)
    if decimals is None:
        value = dataset.get(keyword)
        values = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        decimals = "\\".join(str(v) for v in values if v is not None)
    if not _DECIMALS.fullmatch(decimals):
        raise ValueError("not decimal strings")
    items = tuple(float(v) for v in decimals.split("\\")) if decimals else ()
    return items if len(items) == length and all(abs(v) < FARTHEST for v in items) else ()


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the one number of an element, as of :func:`vector`; None where there is not one."""
    values = vector(dataset, keyword, 1)
    return values[0] if values else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """Return the whole number of an element; None where it is absent or empty.

    Raises
    ------
    ValueError
        It holds something else, or several, or has not the Value Representation that DICOM gives it.
    """
    tag, vr = _definition(keyword)
    element = _proven(dataset, tag, vr)
    if element is None:
        return None
    if vr == "US" and isinstance(element, RawDataElement) and element.VR != "UN" and element.length == 2:
        return int.from_bytes(element.value or b"", "little" if element.is_little_endian else "big")
    value = dataset[tag].value
    if value is None or value == "":
        return None
    if not isinstance(value, int):
        raise ValueError("not one whole number")
    return int(value)


def moment(dataset: Dataset, date: str, time: str) -> str:
    """Return two elements' date and time as YYYYMMDDHHMMSS.FFFFFF; empty where they do not say."""
    both = text(dataset, date) + text(dataset, time)
    return both if _MOMENT.fullmatch(both) else ""


def sequence(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; none where it is absent."""
    return tuple(dataset.get(keyword) or ())


def _undecoded(dataset: Dataset, keyword: str) -> str | None:
    """Value of an element of plain characters as it stands in the file; None where it takes more to read it."""
    tag, vr = _definition(keyword)
    element = _proven(dataset, tag, vr)
    if element is None:
        return ""
    value = element.value if isinstance(element, RawDataElement) else None
    if not isinstance(value, bytes) or element.VR == "UN":
        return None
    if vr in _PLAIN or (vr in _TEXT and _SAME_IN_ALL_SETS.fullmatch(value)):
        return value.decode("ascii", "replace").strip(" \0")
    return None


def _proven(dataset: Dataset, tag: BaseTag, vr: str) -> DataElement | RawDataElement | None:
    """Find an element, and prove that it has its own Value Representation, or that it names none."""
    if tag not in dataset:
        return None
    element = dataset.get_item(tag)
    if element is not None and element.VR not in (None, "UN", *vr.split(" or ")):  # an implicit file names none
        raise ValueError("another Value Representation than its own")
    return element


@functools.cache
def _definition(keyword: str) -> tuple[BaseTag, str]:
    """Tag and Value Representation of an element."""
    tag = Tag(keyword)
    return tag, dictionary_VR(tag)
