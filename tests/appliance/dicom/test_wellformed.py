"""A file with wrong lengths, tags or items is refused, and never read with less or other content."""

from __future__ import annotations

import io
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.files import read_dataset, read_headers
from tests.support.habits import end_of_meta
from tests.support.studies import rtstruct_study, seg_study

ITEM = b"\xfe\xff\x00\xe0"


def _content(kind: str, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    study = seg_study() if kind == "SEG" else rtstruct_study()
    dataset = study.slices[4] if kind == "CT" else study.rois[0]
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian and kind == "CT":
        dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _verdict(content: bytes, folder: Path) -> str:
    """Digest of the read content, or the code of the refusal. Front and whole file must agree."""
    path = folder / "file"
    path.write_bytes(content)
    verdicts = []
    for read in (read_headers, read_dataset):
        try:
            found = read(path)
            verdicts.append(found[0].digest if isinstance(found, tuple) else "whole")
        except Refused as refused:
            verdicts.append(str(refused.reason.code))
    assert (verdicts[0] == "dicom_unreadable") == (verdicts[1] == "dicom_unreadable"), verdicts
    return verdicts[0]


SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
SOUND = [*itertools.product(("CT", "RTSTRUCT", "SEG"), SYNTAXES), ("CT", RLELossless)]


@pytest.mark.parametrize(("kind", "syntax"), SOUND, ids=lambda value: getattr(value, "name", value))
def test_sound_files_are_well_formed(kind: str, syntax: UID, tmp_path: Path) -> None:
    assert _verdict(_content(kind, syntax), tmp_path) != "dicom_unreadable"


def test_zeros_at_the_end_are_no_fault(tmp_path: Path) -> None:
    content = _content("RTSTRUCT")
    assert _verdict(content + bytes(512), tmp_path) == _verdict(content, tmp_path)
    assert _verdict(content + bytes(511) + b"\1", tmp_path) == "dicom_unreadable"


def _double(tag: bytes, content: bytes) -> bytes:
    """Repeat an element directly after itself, with another last byte."""
    at = content.index(tag)
    end = at + 8 + content[at + 6]
    return content[:end] + content[at : end - 1] + b"7" + content[end:]


def _unknown_tag_out_of_order(content: bytes) -> bytes:
    at = content.index(b"\x18\0\x50\0DS")
    return content[:at] + b"\x08\0\xf3\x7f" + content[at + 4 :]


def _end_of_no_sequence(content: bytes) -> bytes:
    """The end of a sequence without its beginning. It is accepted only after the pixels, where CTP writes it."""
    at = content.index(b"\x18\0\x50\0DS")
    return content[:at] + b"\xfe\xff\xdd\xe0\0\0\0\0" + content[at:]


def _after_the_pixels(content: bytes) -> bytes:
    return content + b"(\0\x52\x10DS\4\0-500"


def _nested(content: bytes) -> bytes:
    at = content.index(b"\x08\0\x60\0CS")
    begin = (b"\x08\0\x51\0SQ\0\0\xff\xff\xff\xff" + ITEM + b"\xff\xff\xff\xff") * 65
    end = (b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0") * 65
    return content[:at] + begin + end + content[at:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "one tag twice": lambda content: _double(b"(\0\x52\x10DS", content),
    "an unknown tag out of order": _unknown_tag_out_of_order,
    "the end of no sequence": _end_of_no_sequence,
    "bytes behind the end of no sequence": lambda content: content + b"\xfe\xff\xdd\xe0\0\0\0\0" + b"\1\0",
    "two ends of no sequence": lambda content: content + b"\xfe\xff\xdd\xe0\0\0\0\0" * 2,
    "no Value Representation": lambda content: content.replace(b"\x18\0\x50\0DS", b"\x18\0\x50\0D?", 1),
    "a longer length": lambda content: content.replace(b"\x18\0\x50\0DS\2\0", b"\x18\0\x50\0DS\x12\0", 1),
    "an element behind the pixels": _after_the_pixels,
    "sequences without end": _nested,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(damage: str, tmp_path: Path) -> None:
    content = DAMAGE[damage](_content("CT"))
    assert content != _content("CT")
    assert _verdict(content, tmp_path) == "dicom_unreadable"


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda uid: uid.name)
@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_no_lie_about_an_item_takes_part_of_a_region_away(kind: str, syntax: UID, tmp_path: Path) -> None:
    """The length and tag of every item are changed in turn; pydicom alone would silently lose contours."""
    content = _content(kind, syntax)
    clean = _verdict(content, tmp_path)
    for match in re.finditer(re.escape(ITEM), content):
        at = match.start() + 4
        true = int.from_bytes(content[at : at + 4], "little")
        for lie in {0, true + 2, max(true - 2, 0), true // 2, 0xFFFFFFFF} - {true}:
            changed = content[:at] + lie.to_bytes(4, "little") + content[at + 4 :]
            assert _verdict(changed, tmp_path) in ("dicom_unreadable", clean), (at, true, lie)
        for tag in (b"\xfe\xff\xdd\xe0", b"\xfe\xff\x0d\xe0", b"\x08\0\x05\0"):
            changed = content[: at - 4] + tag + content[at:]
            assert _verdict(changed, tmp_path) == "dicom_unreadable", (at, tag)


def _without_its_representation(tag: bytes) -> bytes:
    """An RTSTRUCT with a sequence as UN of defined length, as from a writer that does not know it (PS3.5, 6.2.2)."""
    named, unnamed = (_content("RTSTRUCT", syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian))
    at, inner = named.index(tag + b"SQ") + 4, unnamed.index(tag) + 4
    end = at + 8 + int.from_bytes(named[at + 4 : at + 8], "little")
    items = unnamed[inner : inner + 4 + int.from_bytes(unnamed[inner : inner + 4], "little")]
    return named[:at] + b"UN\0\0" + items + named[end:]


def test_a_sequence_is_looked_into_whatever_it_is_called(tmp_path: Path) -> None:
    content = _without_its_representation(b"\x06\x30\x39\0")
    assert _verdict(content, tmp_path) == _verdict(_content("RTSTRUCT"), tmp_path)
    for match in list(re.finditer(re.escape(ITEM), content))[-6:]:
        at = match.start() + 4
        true = int.from_bytes(content[at : at + 4], "little")
        changed = content[:at] + (true // 2).to_bytes(4, "little") + content[at + 4 :]
        assert _verdict(changed, tmp_path) == "dicom_unreadable"


@pytest.mark.slow
def test_real_files_are_well_formed(shared_data: Path) -> None:
    """Files of scanners, planning systems and other libraries are accepted; only damaged files are refused."""
    torn = set()
    for folder in ("dicom", "ibsi", "sr", "hostile"):
        for path in sorted((shared_data / folder).rglob("*")):
            if path.is_file() and path.open("rb").read(132)[128:] == b"DICM":
                try:
                    read_headers(path)
                except Refused as refused:
                    sentence = str(refused)
                    words = (
                        "stated length",
                        "twice",
                        "after the pixel data",
                        "no known",
                        "nested",
                        "no item or sequence",
                        "encoded in",
                    )
                    if any(word in sentence for word in words):
                        torn.add(path.name)
    assert torn == {"DICOMDIR-nooffset", "SC_rgb_jpeg.dcm"}


def _reduce(dataset: Dataset) -> None:
    """Remove what lungstage does not keep: private elements, group lengths, and elements after the pixels."""
    for element in list(dataset):
        if element.tag.is_private or not element.tag.element or element.tag > 0x7FE00010:
            del dataset[element.tag]
        elif element.VR == "SQ":
            for item in element.value:
                _reduce(item)


@pytest.mark.slow
def test_what_is_kept_is_what_pydicom_reads(shared_data: Path, tmp_path: Path) -> None:
    """For real and generated files in every encoding, public values and pixels are the same."""
    paths = [path for folder in ("dicom", "sr", "hostile") for path in sorted((shared_data / folder).rglob("*"))][::3]
    for k, (kind, syntax) in enumerate(SOUND):
        (tmp_path / str(k)).write_bytes(_content(kind, syntax))
    read = 0
    for path in [*tmp_path.iterdir(), *paths]:
        try:
            ours = read_dataset(path)
        except (Refused, OSError):
            continue
        theirs = pydicom.dcmread(path, force=True)
        _reduce(theirs)
        for element in theirs:
            assert ours[element.tag] == element, (path, element.tag)
        assert len(ours) == len(theirs)
        read += 1
    assert read > 100


SAID = [
    (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    (ExplicitVRLittleEndian, ExplicitVRBigEndian),
    (ExplicitVRLittleEndian, UID("1.2.840.113619.5.2")),
]


@pytest.mark.parametrize(("true", "said"), SAID, ids=lambda uid: getattr(uid, "name", uid))
def test_a_file_that_is_not_encoded_as_it_says_is_refused(true: UID, said: UID, tmp_path: Path) -> None:
    uid = said.encode() + bytes(len(said) % 2)
    content = _said_to_be(true, b"\2\0\x10\0UI" + len(uid).to_bytes(2, "little") + uid)
    assert _verdict(content, tmp_path) == "dicom_unreadable"
    with pytest.raises(Refused, match=r"\(0002,0010\) of this DICOM file (means .* encoded in|is not one of)"):
        read_headers(tmp_path / "file")


@pytest.mark.parametrize("syntax", SYNTAXES[:3], ids=lambda uid: uid.name)
@pytest.mark.parametrize("element", [b"", b"\2\0\x10\0UI\0\0"], ids=["missing", "empty"])
def test_a_file_that_does_not_say_how_it_is_encoded_is_read_as_it_is(
    element: bytes, syntax: UID, tmp_path: Path
) -> None:
    assert _verdict(_said_to_be(syntax, element), tmp_path) == _verdict(_content("CT", syntax), tmp_path)


def _said_to_be(true: UID, element: bytes) -> bytes:
    content = _content("CT", true)
    at = content.index(b"\2\0\x10\0UI")
    return content[:at] + element + content[at + 8 + content[at + 6] :]


@pytest.mark.parametrize("syntax", SYNTAXES[:3], ids=lambda uid: uid.name)
@pytest.mark.parametrize("kind", ["CT", "RTSTRUCT", "SEG"])
def test_a_bare_data_set_is_read(kind: str, syntax: UID, tmp_path: Path) -> None:
    content = _content(kind, syntax)
    at = end_of_meta(content)
    assert _verdict(content[at:], tmp_path) == _verdict(content, tmp_path)


@pytest.mark.parametrize(
    ("damage", "element"),
    [
        ("no Value Representation", "(0018,0050)"),
        ("a longer length", "(0018,0050)"),
        ("one tag twice", "(0028,1052)"),
        ("an element behind the pixels", "(0028,1052)"),
        ("the end of no sequence", "(FFFE,E0DD)"),
    ],
)
def test_the_sentence_names_the_element(damage: str, element: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DAMAGE[damage](_content("CT")))
    with pytest.raises(Refused, match=re.escape(element)):
        read_headers(tmp_path / "file")


def test_what_is_implicit_within_what_is_implicit_costs_no_more(tmp_path: Path) -> None:
    """Sequences are tried both ways. In 60 levels, the time must not double with each level."""
    inner = b""
    for _ in range(60):
        item = b"\xfe\xff\0\xe0" + len(inner).to_bytes(4, "little") + inner
        inner = b"\x29\0\x10\x10SQ\0\0" + len(item).to_bytes(4, "little") + item
    torn = inner[:-8] + b"\xfe\xff\0\xe0\xff\xff\0\0"
    content = _content("CT")
    at = content.index(b"\xe0\x7f\x10\0")
    started = time.process_time()
    assert _verdict(content[:at] + torn + content[at:], tmp_path) == "dicom_unreadable"
    assert time.process_time() - started < 5
