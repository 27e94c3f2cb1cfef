"""What an element says, as a plain value: read as it stands in the file where that is safe, else by pydicom.

pydicom's own conversion, with all that it provides for, is most of the time that reading a header takes.
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
"""What no number of a geometry reaches (mm)."""

_PLAIN = frozenset({"CS", "DS", "IS", "UI"})  # Value Representations without character sets
_TEXT = frozenset({"LO", "SH"})  # those with one
_SAME_IN_ALL_SETS = re.compile(rb"[0-9A-Za-z .,_+-]*")
_MOMENT = re.compile(r"[0-9]{14}(\.[0-9]{1,6})?")
_DECIMALS = re.compile(r"[-+0-9.eE \\]*")  # PS3.5, table 6.2-1: float() alone would read "1_0" as ten
_SNAP = 1e-4  # of a direction cosine; what writers of few decimals, or of noise in many, are off


class ElementError(ValueError):
    """An element does not hold what it should; the message names it, and quotes nothing of it."""


def unfit(keyword: str | BaseTag, why: str) -> ElementError:
    """Say of an element of this file that it cannot be used, and why."""
    tag = Tag(keyword)
    return ElementError(f"{dictionary_description(tag)} {in_brackets(tag)} of this file {why}.")


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's text without padding; empty where it is absent.

    Raises
    ------
    ElementError
        It has not the Value Representation that DICOM gives it, so what it says cannot be handed on.
    """
    plain = _undecoded(dataset, keyword)
    if plain is not None:
        return plain
    value = _decoded(dataset, keyword)
    return "" if value is None else str(value).strip()


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return an element's texts, as of :func:`text`."""
    plain = _undecoded(dataset, keyword)
    if plain is not None:
        return tuple(part.strip() for part in plain.split("\\")) if plain else ()
    value = _decoded(dataset, keyword) or ()
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value)


def vector(dataset: Dataset, keyword: str, length: int) -> Vector:
    """Return the numbers of an element; () where they are not `length` finite ones.

    Raises
    ------
    ElementError
        It holds something else than decimal strings.
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
        raise unfit(keyword, "is not made of decimal numbers") from None
    return items if len(items) == length and all(abs(v) < FARTHEST for v in items) else ()


def directions(dataset: Dataset) -> Vector:
    """Return the Image Orientation as of :func:`vector`, free of noise.

    Two directions that are within 1e-4 of the patient's axes are these axes: on a grid of 1 mm one mask voxel in three
    ties where voxels are 0.75 mm apart, and 1e-10 then decides to which side it falls. Others that are at right angles
    and of unit length to as much are made so exactly.
    """
    given = vector(dataset, "ImageOrientationPatient", 6)
    return _without_noise(given) if given else ()


@functools.lru_cache(maxsize=1024)
def _without_noise(given: Vector) -> Vector:
    axes = np.reshape(given, (2, 3))
    if np.abs(axes @ axes.T - np.eye(2)).max() > _SNAP:
        return given  # what is no pair of directions is refused further on
    clean = np.rint(axes)
    if np.abs(axes - clean).max() > _SNAP:
        along = axes[0] / np.linalg.norm(axes[0])
        down = axes[1] - (axes[1] @ along) * along
        clean = np.array([along, down / np.linalg.norm(down)])
    return tuple(float(value) + 0.0 for value in clean.ravel())


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the one number of an element, as of :func:`vector`; None where there is not one."""
    values = vector(dataset, keyword, 1)
    return values[0] if values else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """Return the whole number of an element; None where it is absent or empty.

    Raises
    ------
    ElementError
        It holds something else, or several, or has not the Value Representation that DICOM gives it.
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
    """Return two elements' date and time as YYYYMMDDHHMMSS.FFFFFF; empty where they do not say."""
    both = text(dataset, date) + text(dataset, time)
    return both if _MOMENT.fullmatch(both) else ""


def sequence(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; none where it is absent."""
    return tuple(dataset.get(keyword) or ())


def _undecoded(dataset: Dataset, keyword: str) -> str | None:
    """Value of an element of plain characters as it stands in the file; None where it takes more to read it."""
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
    """Value of an element that is there, which is left undecoded in the dataset: the report must see its bytes."""
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement):
        element = convert_raw_data_element(
            element, encoding=dataset.original_character_set or default_encoding, ds=dataset
        )
    return None if element is None else element.value


def _proven(dataset: Dataset, tag: BaseTag, vr: str) -> DataElement | RawDataElement | None:
    """Find an element, and prove that it has its own Value Representation, or that it names none."""
    element = dataset.get_item(tag)
    # An implicit file names none.
    if element is not None and element.VR not in (vr, None, "UN") and element.VR not in vr.split(" or "):
        raise unfit(tag, f"is written as {element.VR}, and should be {vr}")
    return element


@functools.cache
def definition(keyword: str) -> tuple[BaseTag, str]:
    """Return tag and Value Representation of an element."""
    return known(Tag(keyword))
