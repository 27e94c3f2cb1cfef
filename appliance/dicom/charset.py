"""Check that text is in the character set of its file; pydicom replaces or guesses characters, and only warns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from lungstage.appliance.dicom.values import definition

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""Replacement for a character that cannot be decoded."""

_ESCAPE = b"\x1b"
_WITH_CHARACTER_SETS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_NONE_NAMED = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})
_LATIN = frozenset({"latin_1", "iso8859_2", "iso8859_3", "iso8859_4"})


def text_of(dataset: Dataset, keyword: str, root: Dataset) -> str:
    """Return an element's text; if it cannot be decoded, its ASCII characters and :data:`UNREADABLE` for the others.

    Parameters
    ----------
    dataset, keyword
        An item of a sequence, and the keyword of its element.
    root
        The dataset that contains the sequence and states the character set.
    """
    if not is_undecodable(dataset, keyword, root):
        return str(dataset.get(keyword) or "").strip()
    value = dataset.get_item(keyword).value
    characters = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return "".join(one if " " <= one <= "~" else UNREADABLE for one in characters).strip()


def is_undecodable(dataset: Dataset, keyword: str, root: Dataset | None = None) -> bool:
    """Whether an element's text is not in the Specific Character Set of its dataset (PS3.3 C.12.1.1.2).

    For an item of a sequence, the character set is that of the dataset that contains the sequence (`root`). pydicom
    ignores a different set that the item may state.

    Text is undecodable in these cases: it has bytes beyond ASCII, but the file states no character set or an unknown
    one; its bytes are not valid in the stated set; or they become control or replacement characters. UTF-8 text under
    a Latin set is detected by its form: "Ã¼" is not a name.
    """
    tag, vr = definition(keyword)
    if vr not in _WITH_CHARACTER_SETS or tag not in dataset:
        return False
    value = dataset.get_item(tag).value
    if isinstance(value, MultiValue):  # already decoded, with several values, even if only one is allowed
        value = "\\".join(map(str, value))
    original = getattr(value, "original_string", value)  # a name that was decoded keeps its bytes
    if not original or (original.isascii() and (isinstance(original, str) or _ESCAPE not in original)):
        return False
    named = (dataset if root is None else root).get("SpecificCharacterSet") or ""
    if root is not None and dataset.get("SpecificCharacterSet", named) != named:
        return True
    sets = [named] if isinstance(named, str) else [str(one) for one in named]
    if not isinstance(original, bytes):
        return _is_suspect(str(value), sets)
    if vr == "PN":
        return not all(_is_text(group, sets, PN_DELIMS) for group in original.split(b"="))
    return not _is_text(original, sets, TEXT_VR_DELIMS)


def _is_suspect(text: str, sets: Sequence[str]) -> bool:
    """Whether text that pydicom has decoded may differ from the text in the file."""
    return not all(one in python_encoding for one in sets) or _NONE_NAMED.issuperset(sets) or not _is_clean(text)


def _is_text(value: bytes, sets: Sequence[str], delimiters: set[int]) -> bool:
    if value.isascii() and _ESCAPE not in value:
        return True
    if not all(one in python_encoding for one in sets):
        return False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encodings = convert_encodings(list(sets))
        # Without a stated character set, pydicom uses Latin-1.
        encodings = ["ascii" if one in _NONE_NAMED else code for one, code in zip(sets, encodings, strict=False)]
        try:
            text = decode_bytes(value, encodings, delimiters) if _ESCAPE in value else value.decode(encodings[0])
        except (IndexError, LookupError, UnicodeError):
            return False
    return not caught and _is_clean(text) and not (encodings[0] in _LATIN and _is_utf8(value))


def _is_clean(text: str) -> bool:
    return not any(character == UNREADABLE or "\x80" <= character < "\xa0" for character in text)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeError:
        return False
    return not value.isascii()
