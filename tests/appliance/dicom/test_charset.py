"""Text that is not in the file's stated character set is recognised, and correct text is not reported."""

from __future__ import annotations

import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from lungstage.appliance.dicom.charset import is_undecodable
from lungstage.appliance.report.headers import copied_header, warnings_of_text


def _dataset(value: bytes, sets: bytes, keyword: str = "PatientName", vr: str | None = "PN") -> Dataset:
    raw = {}
    for tag, code, content in ((Tag("SpecificCharacterSet"), "CS", sets), (Tag(keyword), vr, value)):
        raw[tag] = RawDataElement(tag, code, len(content), content, 0, vr is None, True)
    if not sets:
        del raw[Tag("SpecificCharacterSet")]
    return Dataset(raw)


GARBLED = {
    "GBK without a set": ("张三".encode("gbk"), b""),
    "GBK under ASCII": ("张三".encode("gbk"), b"ISO_IR 6"),
    "Latin-1 without a set": ("Müller".encode("latin-1"), b""),
    "Latin-1 under UTF-8": ("Müller".encode("latin-1"), b"ISO_IR 192"),
    "UTF-8 under Latin-1": ("Müller".encode(), b"ISO_IR 100"),
    "a misspelt set": ("Müller".encode("latin-1"), b"ISO-IR 100"),
    "a set that is none": ("Müller".encode(), b"UTF-8"),
    "Windows' quotes under Latin-1": ("O’Neil".encode("cp1252"), b"ISO_IR 100"),
    "replaced before": ("M\N{REPLACEMENT CHARACTER}ller".encode(), b"ISO_IR 192"),
    "control characters": ("M\x81ller".encode(), b"ISO_IR 192"),
    "Japanese under Korean": (b"\x1b$B;3ED\x1b(B", b"\\ISO 2022 IR 149"),
    "Latin-1 beside Japanese": ("Müller".encode("latin-1"), b"\\ISO 2022 IR 87"),
    "cut within a character": ("張".encode()[:2], b"ISO_IR 192"),
}
SOUND = {
    "ASCII": (b"Doe^Jane", b""),
    "ASCII under a misspelt set": (b"Doe^Jane", b"ISO-IR 100"),
    "Latin-1": ("Müller^José".encode("latin-1"), b"ISO_IR 100"),
    "UTF-8": ("Wang^XiaoDong=王^小东".encode(), b"ISO_IR 192"),
    "GB18030": ("Wang^XiaoDong=王^小东".encode("gb18030"), b"GB18030"),
    "Cyrillic": ("Люкceмбypг".encode("iso8859_5", "ignore"), b"ISO_IR 144"),
    "Japanese": (
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        b"\\ISO 2022 IR 87",
    ),
    "empty": (b"", b"ISO_IR 192"),
}


@pytest.mark.parametrize("vr", ["PN", None], ids=["explicit", "implicit"])
@pytest.mark.parametrize("kind", GARBLED)
def test_garbled_text_is_known(kind: str, vr: str | None) -> None:
    assert is_undecodable(_dataset(*GARBLED[kind], vr=vr), "PatientName")


@pytest.mark.parametrize("vr", ["PN", None], ids=["explicit", "implicit"])
@pytest.mark.parametrize("kind", SOUND)
def test_sound_text_is_known(kind: str, vr: str | None) -> None:
    assert not is_undecodable(_dataset(*SOUND[kind], vr=vr), "PatientName")


@pytest.mark.parametrize("kind", [*GARBLED, *SOUND])
def test_having_been_read_before_changes_nothing(kind: str) -> None:
    for keyword, vr in (("PatientName", "PN"), ("InstitutionName", "LO")):
        dataset = _dataset(*(GARBLED | SOUND)[kind], keyword, vr)
        before = is_undecodable(dataset, keyword)
        _ = dataset[keyword].value
        if kind not in ("UTF-8 under Latin-1", "Japanese under Korean", "Latin-1 beside Japanese") or vr == "PN":
            assert is_undecodable(dataset, keyword) == before


@given(
    st.sampled_from(
        [term for term in python_encoding if term and not term.startswith("ISO 2022") and term != "ISO_IR 6"]
    ),
    st.text(
        st.characters(exclude_categories=["C", "Z"], exclude_characters="\\^=\N{REPLACEMENT CHARACTER}"), min_size=1
    ),
)
def test_what_a_set_writes_it_reads(term: str, text: str) -> None:
    try:
        value = text.encode(python_encoding[term])
    except UnicodeError:
        return
    if term in ("ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110") and not text.isascii():
        value = b"x" + value + b"x"
        try:
            value.decode()
        except UnicodeError:
            pass
        else:
            return
    assert not is_undecodable(_dataset(value, term.encode()), "PatientName")


def test_what_is_no_text_is_never_garbled() -> None:
    assert not is_undecodable(_dataset(b"\xff\x01", b"", "Rows", None), "Rows")


def test_the_report_leaves_it_empty_and_says_so() -> None:
    source = _dataset("张三".encode("gbk"), b"")
    source.PatientID, source.Manufacturer = "1", "ACME"
    source[Tag("InstitutionName")] = _dataset("医院".encode("gbk"), b"", "InstitutionName", "LO").get_item(
        "InstitutionName"
    )
    header = copied_header(source)
    assert "PatientName" not in header
    assert "InstitutionName" not in header
    assert (header.PatientID, header.Manufacturer) == ("1", "ACME")
    (warning,) = warnings_of_text(source)
    assert "Patient's Name" in warning
    assert "Institution Name" in warning
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header, implicit_vr=False, little_endian=True)


def test_sound_text_is_no_warning() -> None:
    source = _dataset(*SOUND["Japanese"])
    assert warnings_of_text(source) == ()
    assert str(copied_header(source).PatientName).startswith("Yamada^Tarou=山田^太郎")


@pytest.mark.parametrize("value", [["", ""], ["A", "B"], ["Ä", "B"]])
def test_several_values_where_one_is_allowed_are_no_defect(value: list[str]) -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.StudyID = value
    assert not is_undecodable(dataset, "StudyID")
    del dataset.SpecificCharacterSet
    assert is_undecodable(dataset, "StudyID") is ("Ä" in value)
