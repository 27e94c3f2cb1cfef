"""Coded terms of a file, and what SNOMED RT's retired codes are called today."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sr._snomed_dict import mapping

Coded = tuple[str, ...]
"""(code value, coding scheme, meaning) as the file has them; () where it has none. The meaning is free text."""

_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
SNOMED_RT = frozenset({"SRT", "SNM3", "99SDM"})
"""The designators that SNOMED RT has had in DICOM."""


def coded(items: Iterable[Dataset] | None) -> tuple[Coded, ...]:
    """Read the items of a code sequence."""
    return tuple(
        (
            next((str(item.get(keyword)).strip() for keyword in _VALUES if item.get(keyword)), ""),
            str(item.get("CodingSchemeDesignator") or "").strip(),
            str(item.get("CodeMeaning") or "").strip(),
        )
        for item in items or ()
    )


def in_snomed_ct(code: Coded) -> Coded:
    """Return a SNOMED RT code as the SNOMED CT code that DICOM PS3.16 gives for it, and any other as it is."""
    if code and code[1] in SNOMED_RT:
        current = mapping["SRT"].get(code[0])
        return (current, "SCT", *code[2:]) if current else code
    return code
