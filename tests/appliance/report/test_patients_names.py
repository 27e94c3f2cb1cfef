"""Patients' names in all DICOM character sets are whole in documents; the page draws them or says that it cannot."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.report.headers import warnings_of_text
from lungstage.appliance.report.page_documents import page_documents
from lungstage.appliance.report.result_page import result_page
from lungstage.appliance.report.translation import Translator
from tests.support.pages import page_context, pdf_in, text_of
from tests.support.reports import generated_sources, write_both

# Defined Terms of PS3.3 C.12.1.1.2, without and with code extensions, as pydicom writes them.
NAMES = {
    "ISO_IR 6": "Smith^John", "ISO_IR 100": "Buc^Jérôme", "ISO_IR 101": "Wałęsa^Lech", "ISO_IR 109": "Ġużeppi^Ħal",
    "ISO_IR 110": "Āboliņš^Jānis", "ISO_IR 144": "Люкceмбypг^Пётр", "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 126": "Διονυσιος^Άννα", "ISO_IR 138": "שרון^דבורה", "ISO_IR 148": "Çavuşoğlu^Işıl",
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ", "ISO_IR 166": "นามสกุล^ชื่อ",
    "ISO_IR 192": "Wang^XiaoDong=王^小東", "GB18030": "Wang^XiaoDong=王^小东", "GBK": "Wang^XiaoDong=王^小东",
    "ISO 2022 IR 6\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO 2022 IR 13\\ISO 2022 IR 87": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "ISO 2022 IR 6\\ISO 2022 IR 159": "Ue^A=丂^丄", "ISO 2022 IR 6\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "ISO 2022 IR 6\\ISO 2022 IR 144": "Люкceмбypг^Пётр", "ISO 2022 IR 6\\ISO 2022 IR 166": "นามสกุล^ชื่อ",
}  # fmt: skip

# A character set for which pydicom 3.0 writes no escape sequence.
AS_BYTES = {"ISO 2022 IR 6\\ISO 2022 IR 100": ("Buc^Jérôme", b"Buc^\x1b-AJ\xe9r\xf4me ")}


def named(sets: str, name: str | bytes) -> tuple[Dataset, ...]:
    """Slices with a name in a character set; bytes are written to the file unchanged."""
    stand_in = "X" * len(name)
    sources = generated_sources(
        3, SpecificCharacterSet=sets.split("\\"), PatientName=name if isinstance(name, str) else stand_in
    )
    if isinstance(name, str):
        return sources
    files = [io.BytesIO() for _ in sources]
    for source, file in zip(sources, files, strict=True):
        source.save_as(file, enforce_file_format=True)
    return tuple(pydicom.dcmread(io.BytesIO(file.getvalue().replace(stand_in.encode(), name))) for file in files)


@pytest.mark.parametrize(
    ("sets", "name", "written_as"),
    [(sets, name, name) for sets, name in NAMES.items()] + [(sets, *both) for sets, both in AS_BYTES.items()],
)
def test_every_document_bears_it_and_the_page_shows_it_or_says_that_it_cannot(
    sets: str, name: str, written_as: str | bytes, tmp_path: Path
) -> None:
    sources = named(sets, written_as)
    context = page_context(sources)
    page = result_page(context, "en")
    documents = page_documents(context, DocumentOptions(("sr", "pdf")))
    written = [
        *map(pydicom.dcmread, write_both(context.report, tmp_path)),
        pydicom.dcmread(io.BytesIO(documents[0].content)),
    ]
    for dataset in written:
        assert str(dataset.PatientName) == name
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
    groups = [", ".join(group.split("^")) for group in name.split("=")[:2]]
    undrawable = Translator("en")("name.undrawable")
    shown = page.heading.patient[0].split(" · ")
    assert set(shown) <= {*groups, undrawable}
    left_out = any(Translator("en")("told.names_left_out") == caveat.text for caveat in page.caveats)
    assert left_out is (set(shown) != set(groups))
    assert page.heading.patient[1] == "ID P-17"
    assert "ID P-17" in text_of(pdf_in(documents[0].content))


def test_a_name_of_a_script_that_comes_with_the_page_is_always_drawn() -> None:
    """Latin and Cyrillic names need no system font."""
    for sets in ("ISO_IR 6", "ISO_IR 100", "ISO_IR 101", "ISO_IR 110", "ISO_IR 144", "ISO_IR 148"):
        sources = generated_sources(1, SpecificCharacterSet=sets, PatientName=NAMES[sets])
        context = page_context(generated_sources())
        context = replace(context, report=replace(context.report, sources=sources * len(context.report.sources)))
        assert result_page(context, "en").heading.patient[0] == ", ".join(NAMES[sets].split("^"))


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        ("ISO_IR 203", b"\xbcuvre^\xb4ofia "), ("ISO_IR 999", b"\xbcuvre^\xb4ofia "),
        ("ISO 2022 IR 6\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab "),  # PS3.5 K.2
    ],
)  # fmt: skip
def test_a_name_that_pydicom_cannot_read_is_said_and_none_is_made_up(sets: str, name: bytes, tmp_path: Path) -> None:
    """pydicom reads Latin-9 as Latin-1, with wrong letters, and leaves escape sequences in Chinese names."""
    sources = named(sets, name)
    (told,) = warnings_of_text(sources[0])
    assert "Patient's Name" in told
    context = page_context(sources)
    for path in write_both(context.report, tmp_path):
        assert not pydicom.dcmread(path).PatientName
    assert result_page(context, "en").heading.patient[0] == Translator("en")("patient.unknown")
