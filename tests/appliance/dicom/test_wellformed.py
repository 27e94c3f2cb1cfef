"""A file whose lengths, tags or items lie is refused, and never read as if it held less, or something else."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom import files
from lungstage.appliance.dicom.files import read_dataset, read_headers
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
    """Digest of what is read, or the code of the refusal; the front and the whole must agree."""
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
    """Repeat an element of a short value right behind itself, with another last byte."""
    at = content.index(tag)
    end = at + 8 + content[at + 6]
    return content[:end] + content[at : end - 1] + b"7" + content[end:]


def _swap_with_next(tag: bytes, content: bytes) -> bytes:
    at = content.index(tag)
    middle = at + 8 + content[at + 6]
    end = middle + 8 + content[middle + 6]
    return content[:at] + content[middle:end] + content[at:middle] + content[end:]


def _after_the_pixels(content: bytes) -> bytes:
    return content + b"(\0\x52\x10DS\4\0-500"


def _nested(content: bytes) -> bytes:
    at = content.index(b"\x08\0\x60\0CS")
    begin = (b"\x08\0\x51\0SQ\0\0\xff\xff\xff\xff" + ITEM + b"\xff\xff\xff\xff") * 65
    end = (b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0") * 65
    return content[:at] + begin + end + content[at:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "one tag twice": lambda content: _double(b"(\0\x52\x10DS", content),
    "tags out of order": lambda content: _swap_with_next(b"\x18\0\x50\0DS", content),
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


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda uid: uid.name)
@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_no_lie_about_an_item_takes_part_of_a_region_away(kind: str, syntax: UID, tmp_path: Path) -> None:
    """Every item's length and tag, changed in turn: pydicom alone would drop contours in silence."""
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
    """An RTSTRUCT with a sequence as UN, of defined length, as writers do who do not know it (PS3.5, 6.2.2)."""
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


def test_real_files_are_well_formed(shared_data: Path) -> None:
    """Scanners, planning systems and other libraries write what is proven here; only damaged files do not pass."""
    torn = set()
    for folder in ("dicom", "ibsi", "sr", "hostile"):
        for path in sorted((shared_data / folder).rglob("*")):
            if path.is_file() and path.open("rb").read(132)[128:] == b"DICM":
                try:
                    read_headers(path)
                except Refused as refused:
                    sentence = str(refused)
                    if any(str(words) in sentence for words in ("hold together", "in order", "no known", "nested")):
                        torn.add(path.name)
    assert torn == {"DICOMDIR-nooffset", "SC_rgb_jpeg.dcm"}


def test_what_is_kept_is_what_pydicom_reads(shared_data: Path, tmp_path: Path) -> None:
    """Of real files and of generated ones, in every encoding: the same values, and the same pixels."""
    paths = [path for folder in ("dicom", "sr", "hostile") for path in sorted((shared_data / folder).rglob("*"))][::3]
    for k, (kind, syntax) in enumerate(SOUND):
        (tmp_path / str(k)).write_bytes(_content(kind, syntax))
    read = 0
    for path in [*tmp_path.iterdir(), *paths]:
        try:
            with files._opened(path) as (ours, pixels):
                theirs = pydicom.dcmread(path)
                assert ours.original_encoding == theirs.original_encoding
                for tag in [tag for tag in theirs if tag.tag < 0x7FE00008]:
                    assert ours[tag.tag] == tag, (path, tag.tag)
                if "PixelData" in theirs and not pixels.encapsulated and len(pixels.spans) == 1:
                    assert files.read_span(pixels.stream, pixels.spans[0]) == theirs.PixelData
                read += 1
        except (Refused, OSError):
            continue
    assert read > 100


SAID = [
    (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    (ExplicitVRLittleEndian, ExplicitVRBigEndian),
    (ExplicitVRLittleEndian, None),
]


@pytest.mark.parametrize(("true", "said"), SAID, ids=lambda uid: getattr(uid, "name", uid))
def test_a_file_that_is_not_encoded_as_it_says_is_refused(true: UID, said: UID | None, tmp_path: Path) -> None:
    content = _content("CT", true)
    at = content.index(b"\2\0\x10\0UI")
    end = at + 8 + content[at + 6]
    uid = b"" if said is None else said.encode() + bytes(len(said) % 2)
    element = uid and content[at : at + 6] + len(uid).to_bytes(2, "little") + uid
    assert _verdict(content[:at] + element + content[end:], tmp_path) == "dicom_unreadable"
