"""Coded terms of a file, and the SNOMED CT codes that replace the retired codes of SNOMED RT."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sr._snomed_dict import mapping

Coded = tuple[str, ...]
"""(code value, coding scheme, meaning) from the file; () if it has none. The meaning is free text."""

_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
SNOMED_RT = frozenset({"SRT", "SNM3", "99SDM"})
"""All designators of SNOMED RT in DICOM."""


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
    """Replace a SNOMED RT code by the SNOMED CT code of DICOM PS3.16; return any other code unchanged."""
    if code and code[1] in SNOMED_RT:
        current = mapping["SRT"].get(code[0])
        return (current, "SCT", *code[2:]) if current else code
    return code
