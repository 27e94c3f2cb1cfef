"""Values of elements as plain Python values: read directly from the file if that is safe, else by pydicom.

The conversion by pydicom covers all cases and takes most of the time that reading a header needs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_description
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from lungstage.appliance.dicom.pixeldata import in_brackets
from lungstage.appliance.dicom.representation import known

Vector = tuple[float, ...]

FARTHEST = 1e9
"""Limit for every number of a geometry (mm)."""

_PLAIN = frozenset({"CS", "DS", "IS", "UI"})  # Value Representations without character sets
_TEXT = frozenset({"LO", "SH"})  # Value Representations with a character set
_SAME_IN_ALL_SETS = re.compile(rb"[0-9A-Za-z .,_+-]*")
_MOMENT = re.compile(r"[0-9]{14}(\.[0-9]{1,6})?")
_DECIMALS = re.compile(r"[-+0-9.eE \\]*")  # PS3.5, table 6.2-1: float() alone would read "1_0" as ten
_SNAP = 1e-4  # of a direction cosine; the error of writers with few decimals, or with noise in many


class ElementError(ValueError):
    """An element has an invalid value; the message names the element but does not quote its value."""


def unfit(keyword: str | BaseTag, why: str) -> ElementError:
    """Return the error for an element of this file that cannot be used, with the reason."""
    tag = Tag(keyword)
    return ElementError(f"{dictionary_description(tag)} {in_brackets(tag)} of this file {why}.")


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's text without padding; empty if it is absent.

    Raises
    ------
    ElementError
        It does not have the Value Representation that DICOM defines for it, so its value cannot be copied.
    """
    plain = _undecoded(dataset, keyword)
    if plain is not None:
        return plain
    value = _decoded(dataset, keyword)
    return "" if value is None else str(value).strip()


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the texts of an element with several values, as in :func:`text`."""
    plain = _undecoded(dataset, keyword)
    if plain is not None:
        return tuple(part.strip() for part in plain.split("\\")) if plain else ()
    value = _decoded(dataset, keyword) or ()
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value)


def vector(dataset: Dataset, keyword: str, length: int) -> Vector:
    """Return the numbers of an element; () if they are not `length` finite numbers.

    Raises
    ------
    ElementError
        Its value is not decimal strings.
    """
    decimals = _undecoded(dataset, keyword)
    if decimals is None:
        value = dataset.get(keyword)
        values = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        decimals = "\\".join(str(v) for v in values if v is not None)
    try:
        if not _DECIMALS.fullmatch(decimals):
            raise ValueError
        items = tuple(float(v) for v in decimals.split("\\")) if decimals else ()
    except ValueError:
        raise unfit(keyword, "does not contain decimal numbers") from None
    return items if len(items) == length and all(abs(v) < FARTHEST for v in items) else ()


def directions(dataset: Dataset) -> Vector:
    """Return the Image Orientation as in :func:`vector`, without noise.

    Two directions within 1e-4 of the patient's axes are replaced by these axes. Otherwise noise of 1e-10 would matter:
    on a grid of 1 mm with voxels 0.75 mm apart, one mask voxel in three lies exactly on a boundary. Other directions
    that are orthogonal and of unit length within 1e-4 are made exactly so.
    """
    given = vector(dataset, "ImageOrientationPatient", 6)
    return _without_noise(given) if given else ()


@functools.lru_cache(maxsize=1024)
def _without_noise(given: Vector) -> Vector:
    axes = np.reshape(given, (2, 3))
    if np.abs(axes @ axes.T - np.eye(2)).max() > _SNAP:
        return given  # directions that are not orthogonal are refused later
    clean = np.rint(axes)
    if np.abs(axes - clean).max() > _SNAP:
        along = axes[0] / np.linalg.norm(axes[0])
        down = axes[1] - (axes[1] @ along) * along
        clean = np.array([along, down / np.linalg.norm(down)])
    return tuple(float(value) + 0.0 for value in clean.ravel())


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the single number of an element, as in :func:`vector`; None if there is not exactly one."""
    values = vector(dataset, keyword, 1)
    return values[0] if values else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """Return the whole number of an element; None if it is absent or empty.

    Raises
    ------
    ElementError
        Its value is not a single whole number, or it does not have the Value Representation that DICOM defines for it.
    """
    tag, vr = definition(keyword)
    element = _proven(dataset, tag, vr)
    if element is None:
        return None
    if vr == "US" and isinstance(element, RawDataElement) and element.VR != "UN" and element.length == 2:
        return int.from_bytes(element.value or b"", "little" if element.is_little_endian else "big")
    try:
        value = dataset[tag].value
    except (TypeError, ValueError):
        raise unfit(keyword, "is not one whole number") from None
    if value is None or value == "":
        return None
    if not isinstance(value, int):
        raise unfit(keyword, "is not one whole number")
    return int(value)


def moment(dataset: Dataset, date: str, time: str) -> str:
    """Return the date and time of two elements as YYYYMMDDHHMMSS.FFFFFF; empty if they are missing or invalid."""
    both = text(dataset, date) + text(dataset, time)
    return both if _MOMENT.fullmatch(both) else ""


def sequence(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; empty if it is absent."""
    return tuple(dataset.get(keyword) or ())


def _undecoded(dataset: Dataset, keyword: str) -> str | None:
    """Value of an element with plain characters directly from the file; None if it needs full decoding."""
    tag, vr = definition(keyword)
    element = _proven(dataset, tag, vr)
    if element is None:
        return ""
    value = element.value if isinstance(element, RawDataElement) else None
    if not isinstance(value, bytes) or element.VR == "UN":
        return None
    if vr in _PLAIN or (vr in _TEXT and _SAME_IN_ALL_SETS.fullmatch(value)):
        return value.decode("ascii", "replace").strip(" \0")
    return None


def _decoded(dataset: Dataset, keyword: str) -> Any:
    """Value of a present element; the dataset keeps it undecoded, because the report needs its bytes."""
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement):
        element = convert_raw_data_element(
            element, encoding=dataset.original_character_set or default_encoding, ds=dataset
        )
    return None if element is None else element.value


def _proven(dataset: Dataset, tag: BaseTag, vr: str) -> DataElement | RawDataElement | None:
    """Find an element, and check that it has its defined Value Representation, or states none."""
    element = dataset.get_item(tag)
    # An implicit file states no Value Representation.
    if element is not None and element.VR not in (vr, None, "UN") and element.VR not in vr.split(" or "):
        raise unfit(tag, f"has Value Representation {element.VR}, but must have {vr}")
    return element


@functools.cache
def definition(keyword: str) -> tuple[BaseTag, str]:
    """Return the tag and the Value Representation of an element."""
    return known(Tag(keyword))
