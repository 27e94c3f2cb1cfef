"""The table of docs/reliability.md: the results for hostile files, and for studies that only look like a lung CT."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lungstage.appliance.model.bundle import Bundle, load_bundle
from tests.long.reliability import hostile, page


@pytest.fixture(scope="module")
def bundle(shipped_bundle: Path) -> Bundle:
    return load_bundle(shipped_bundle, self_test=False)


@pytest.fixture(scope="module")
def section() -> str:
    match = re.search("<!-- hostile -->(.*)<!-- /hostile -->", page.PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    return match.group(1)


@pytest.fixture(scope="module")
def rows(bundle: Bundle, shared_data: Path) -> list[tuple[str, str, str, str, str]]:
    return hostile.hostile_verdicts(bundle, shared_data)


def test_studies_of_our_own(bundle: Bundle, section: str) -> None:
    found = {name: (status, code) for name, (status, code, _) in hostile.own_verdicts(bundle).items()}
    assert found == {name: expected for name, (_, expected) in hostile.OWN.items()}
    for name, (status, code) in found.items():
        assert f"| {name} | {status} | {hostile._code(code)} |" in section


def test_no_hostile_file_is_staged_and_each_is_in_the_table(
    rows: list[tuple[str, str, str, str, str]], section: str
) -> None:
    assert len(rows) > 200
    assert {status for _, _, status, _, _ in rows} == {"refused", "held"}
    for name, what, status, code in hostile.gathered(rows):
        assert f"| `{name}` | {what} | {status} | {hostile._code(code)} |" in section, name


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("MR Image Storage", {"not_ct", "dicom_unreadable"}),
        ("Secondary Capture Image Storage", {"not_ct", "dicom_unreadable"}),
        ("RT Dose Storage", {"not_ct", "dicom_unreadable"}),
        ("CT Image Storage", {"no_roi", "not_ct", "dicom_unreadable"}),
        ("Segmentation Storage", {"ct_missing"}),
        ("RT Structure Set Storage", {"ct_missing"}),
        ("Comprehensive SR Storage", {"no_dicom"}),
        ("not DICOM", {"no_dicom"}),
    ],
)
def test_like_is_answered_alike(kind: str, codes: set[str], rows: list[tuple[str, str, str, str, str]]) -> None:
    found = {code for _, what, _, code, _ in rows if what.startswith(kind)}
    assert found
    assert found <= codes
