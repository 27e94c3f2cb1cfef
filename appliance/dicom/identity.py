"""Check by keyed hashes that files belong to one patient; the identity itself is never stored.

Without the key, a person cannot test names and numbers against the hashes in a ledger. The hashes are only compared for
equality. So any key is suitable, as long as all compared files were read with the same one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.header import Header, RoiHeader
from lungstage.appliance.dicom.values import text

_Patient = tuple[str, tuple[str, ...], str]


def patient_keys(dataset: Dataset, key: bytes) -> dict[str, Any]:
    """Hash the patient's identity in a dataset: ``patient_key``, ``name_key`` and ``birth_key`` of a header.

    Parameters
    ----------
    dataset
        An image or a ROI object.
    key
        At most 64 bytes.
    """
    groups = tuple(_plain(group) for group in _said(dataset, "PatientName").split("=")[:3])
    birth = "".join(filter(str.isdigit, _said(dataset, "PatientBirthDate")))
    return {
        "patient_key": patient_key(text(dataset, "PatientID"), key),
        # Ideographic and phonetic groups may be missing, so each group is compared with the same group.
        "name_key": tuple(_hash(f"name {k}", group, key) for k, group in enumerate(groups)) if any(groups) else (),
        "birth_key": _hash("birth", birth if len(birth) == 8 else "", key),
    }  # fmt: skip


def patient_key(patient_id: str, key: bytes) -> str:
    """Hash a Patient ID as :func:`patient_keys` does; empty if there is none."""
    return _hash("id", patient_id, key)


def _said(dataset: Dataset, keyword: str) -> str:
    """Return the text of an element; a name or date that cannot be read is no reason to refuse the file."""
    element = dataset.get_item(keyword)
    value = element.value if isinstance(element, RawDataElement) else None
    if isinstance(value, bytes) and value.isascii() and b"\x1b" not in value:  # the same in all character sets
        return value.decode("ascii").strip(" \0")
    try:
        return str(dataset.get(keyword) or "").strip()
    except Exception:  # a library may raise any error for bytes that it cannot decode
        return ""


def _plain(name: str) -> str:
    """Normalise a name: case, blanks, form of the letters and empty components do not matter."""
    components = unicodedata.normalize("NFKC", name).casefold().split("^")
    return "^".join(" ".join(component.split()) for component in components).rstrip("^")


def _hash(what: str, value: str, key: bytes) -> str:
    if not value:
        return ""
    content = f"{what}\0{value}".encode(errors="surrogatepass")
    return hashlib.blake2b(content, key=key, digest_size=16).hexdigest()


def _patient(header: Header) -> _Patient:
    return header.patient_key, header.name_key, header.birth_key


def _names_contradict(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    common = [(a, b) for a, b in zip(one, other, strict=False) if a and b]
    return bool(common) and all(a != b for a, b in common)


def _names_agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return (not one and not other) or any(a == b for a, b in zip(one, other, strict=False) if a)


def _may_be_one(one: _Patient, other: _Patient) -> bool:
    """Whether two may be the same patient: by the ID if both have one, else by name and birth date.

    Two people with the same ID differ in name and in birth date; one difference alone may be a correction.
    """
    if one[0] and other[0]:
        births_contradict = bool(one[2] and other[2]) and one[2] != other[2]
        return one[0] == other[0] and not (_names_contradict(one[1], other[1]) and births_contradict)
    return _names_agree(one[1], other[1]) and one[2] == other[2]


def count_patients(headers: Iterable[Header]) -> int:
    """Count the patients of the files."""
    found: list[_Patient] = []
    for patient in sorted({_patient(header) for header in headers}):
        if not any(_may_be_one(patient, other) for other in found):
            found.append(patient)
    return len(found)


def prove_one_patient(headers: Iterable[Header]) -> bool:
    """Refuse files of several patients; return whether the files contain any patient identity.

    Raises
    ------
    Refused
        ``patient_mismatch``.
    """
    kinds: dict[_Patient, set[str]] = {}
    for header in headers:
        kinds.setdefault(_patient(header), set()).add(header.kind if isinstance(header, RoiHeader) else "CT")
    patients = sorted(kinds)
    for place, patient in enumerate(patients):
        for other in patients[:place]:
            if not _may_be_one(patient, other):
                raise Refused(
                    ReasonCode.PATIENT_MISMATCH, _mismatch(patient, other, _between(kinds[patient], kinds[other]))
                )
    return any(any(patient) for patient in patients)


def _between(some: set[str], others: set[str]) -> str:
    """Name the kind of files that two patients have in common, or else the two kinds."""
    if both := some & others:
        return f"files of the {min(both)}"
    return " and ".join(f"the {kind}" for kind in sorted({min(some), min(others)}))


def _mismatch(one: _Patient, other: _Patient, files: str) -> str:
    """Say in which elements two patients differ, and what that means, without the values."""
    name, birth = _names_contradict(one[1], other[1]), bool(one[2] and other[2] and one[2] != other[2])
    if not (one[0] and other[0]):
        return (
            f"A Patient ID (0010,0020) is missing, and name and birth date do not agree between {files}. Make sure "
            "that they belong to one patient, and export them again with the Patient ID."
        )
    if one[0] == other[0]:
        return (
            f"Name and birth date differ between {files}, although the Patient ID (0010,0020) is the same. They may "
            "belong to different patients. Find out to which patient each file belongs, correct it, and export it "
            "again."
        )
    if name and birth:
        return (
            f"Patient ID (0010,0020), name and birth date all differ between {files}. They probably belong to "
            "different patients. Do not use them together; export the files of one patient."
        )
    too = " The name also differs." if name else " The birth date also differs." if birth else ""
    return (
        f"The Patient ID (0010,0020) differs between {files}.{too} Find out to which patient each file belongs. If all "
        "belong to one patient, correct the Patient ID (an anonymiser may have changed it), and export again."
    )
