"""Reading one file: its front gives the same header as the whole file, and any truncation is noticed."""

from __future__ import annotations

import errno
from dataclasses import replace
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

from lungstage.appliance.contract.errors import Refused, Unavailable
from lungstage.appliance.dicom import files
from lungstage.appliance.dicom.header import ImageHeader, headers_from_json, headers_to_json
from lungstage.appliance.staging.one_shot import scan
from tests.appliance.dicom.test_bad_input import measured
from tests.support.studies import rtstruct_study

SYNTAXES = [
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
]  # fmt: skip


def _slice_as(syntax: UID, folder: Path) -> Path:
    dataset = rtstruct_study().slices[4]
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    path = folder / "slice.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_the_front_of_a_file_gives_the_same_header(syntax: UID, tmp_path: Path) -> None:
    path = _slice_as(syntax, tmp_path)
    (front,), (whole,) = files.read_headers(path, hash_pixels=False), files.read_headers(path)
    assert isinstance(front, ImageHeader)
    assert isinstance(whole, ImageHeader)
    assert files.with_pixel_digest(front) == whole
    assert replace(front, pixel_digest="") == replace(whole, pixel_digest="")
    assert files.read_unchanged(whole).SOPInstanceUID == whole.sop_instance_uid
    assert headers_from_json(headers_to_json([whole]), path) == (whole,)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_a_file_cut_anywhere_is_refused_by_its_front(syntax: UID, tmp_path: Path) -> None:
    path = _slice_as(syntax, tmp_path)
    content = path.read_bytes()
    # RLE ends with a delimiter of 8 bytes; a deflated stream may end with a padding byte that is not needed.
    last = 2 if syntax == DeflatedExplicitVRLittleEndian else 1
    cuts = {*range(140, len(content), 97), len(content) - last, len(content) - 9, len(content) - 16}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        with pytest.raises(Refused) as caught:
            files.read_headers(path, hash_pixels=False)
        assert caught.value.reason.code == "dicom_unreadable", cut


def test_one_shot_reads_no_pixels_it_does_not_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = rtstruct_study().write(tmp_path)
    hashed: list[str] = []
    real = files.digest_of_span

    def counting(file: object, span: tuple[int, ...]) -> str:
        hashed.append(file.name)  # type: ignore[attr-defined]
        return real(file, span)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "digest_of_span", counting)
    found = scan([folder])
    assert len(found.headers) == 13
    assert not hashed
    assert measured(folder)["status"] == "measured"
    assert len(hashed) == 6  # only the region's slices


def test_a_file_is_read_without_its_pixels_and_proven_whole_all_the_same(tmp_path: Path) -> None:
    path = _slice_as(ExplicitVRLittleEndian, tmp_path)
    whole, front = files.read_dataset(path), files.read_dataset(path, with_pixels=False)
    assert {*whole.keys()} - {*front.keys()} == {pydicom.tag.Tag("PixelData")}
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Refused):
        files.read_dataset(path, with_pixels=False)


def test_copies_that_differ_in_a_pixel_alone_conflict(tmp_path: Path) -> None:
    study = rtstruct_study()
    folder = study.write(tmp_path)
    assert measured(folder)["status"] == "measured"
    (folder / "copy").write_bytes((folder / "0006").read_bytes())
    assert measured(folder)["status"] == "measured"
    content = bytearray((folder / "0006").read_bytes())
    content[-3] ^= 1
    (folder / "copy").write_bytes(content)
    assert measured(folder)["reason"]["code"] == "conflicting_instances"


def test_a_file_that_shrank_is_unavailable_and_not_its_own_fault(tmp_path: Path) -> None:
    path = _slice_as(ExplicitVRLittleEndian, tmp_path)
    (front,) = files.read_headers(path, hash_pixels=False)
    assert isinstance(front, ImageHeader)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Unavailable):
        files.with_pixel_digest(front)


def test_what_the_parser_cannot_read_is_not_the_disk_s_fault(tmp_path: Path) -> None:
    """pydicom raises OSError for a sequence that never ends."""
    path = _slice_as(ExplicitVRLittleEndian, tmp_path)
    content = path.read_bytes()
    at = content.index(b"\x08\0\x60\0CS")  # Modality; an endless item is inserted before it
    endless = b"\x08\0\x51\0SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    path.write_bytes(content[:at] + endless + content[at:-2])
    with pytest.raises(Refused) as caught:
        files.read_headers(path)
    assert caught.value.reason.code == "dicom_unreadable"


@pytest.mark.parametrize(("read", "failing"), [("read_headers", "read_elements"), ("read_dataset", "read_span")])
def test_a_disk_that_fails_is_not_the_file_s_fault(
    read: str, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _slice_as(ExplicitVRLittleEndian, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(f"lungstage.appliance.dicom.files.{failing}", fail)
    with pytest.raises(OSError, match="Input/output"):
        getattr(files, read)(path)


def test_pixels_of_another_kind_are_no_image(tmp_path: Path) -> None:
    dataset = rtstruct_study().slices[4]
    dataset.FloatPixelData = b"\0" * 4 * dataset.Rows * dataset.Columns
    del dataset.PixelData
    dataset.SOPClassUID = pydicom.uid.ParametricMapStorage
    dataset.save_as(tmp_path / "map", enforce_file_format=True)
    assert files.read_headers(tmp_path / "map") == ()


def test_plain_elements_read_alike_from_explicit_and_implicit_files(tmp_path: Path) -> None:
    headers = []
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        (header,) = files.read_headers(_slice_as(syntax, tmp_path))
        assert isinstance(header, ImageHeader)
        headers.append(header)
    assert headers[0] == headers[1]
    assert headers[0].image_type == ("ORIGINAL", "PRIMARY", "AXIAL")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda uid: uid.name)
def test_a_scout_whose_image_type_is_one_word_is_none_of_the_slices(syntax: UID, tmp_path: Path) -> None:
    dataset = rtstruct_study().slices[4]
    dataset.ImageType = "LOCALIZER"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "scout", enforce_file_format=True)
    (header,) = files.read_headers(tmp_path / "scout")
    assert isinstance(header, ImageHeader)
    assert header.image_type == ("LOCALIZER",)
    assert not header.is_ct_slice


def test_one_shot_names_file_and_element_and_counts_the_others(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path)
    for k, name in enumerate(("0003", "0004", "0005", "0006")):
        content = (folder / name).read_bytes()
        tag = b"(\0\x52\x10DS" if k < 3 else b"(\0\x53\x10DS"
        (folder / name).write_bytes(content.replace(tag, tag[:4] + b"D?", 1))
    (folder / "0003").rename(folder / "0003\x1b[2J")
    outcome = measured(folder)
    assert (outcome["status"], outcome["reason"]["code"]) == ("refused", "dicom_unreadable")
    sentence = outcome["reason"]["message"]
    assert sentence.startswith(
        "'0003\N{REPLACEMENT CHARACTER}[2J' and 2 more files with the same fault cannot be read. Element Rescale "
        "Intercept (0028,1052) of this DICOM file has no known Value Representation. Send it again. "
    )
    assert " 1 file cannot be read for other reasons. " in sentence
    assert " needs are missing, at z = " in sentence
    assert outcome["warnings"] == []  # no other messages


def test_one_shot_says_so_where_there_is_nothing_else(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    sentence = measured(folder)["reason"]["message"]
    assert sentence.startswith(
        "'0000' cannot be read. This DICOM file is incomplete: it ends within element RT ROI Observations Sequence "
        "(3006,0080)."
    )
    assert sentence.endswith("There is no other DICOM file.")


def test_junk_beside_a_study_is_no_damaged_dicom(tmp_path: Path) -> None:
    folder = rtstruct_study().write(tmp_path)
    (folder / "._0001").write_bytes(b"\0\x05\x16\x07" + bytes(100))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    (folder / "empty").write_bytes(b"")
    (folder / "VERSION").write_text("1")
    outcome = measured(folder)
    assert outcome["status"] == "measured"
    assert outcome["warnings"][0] == "4 files are not DICOM and were ignored."
