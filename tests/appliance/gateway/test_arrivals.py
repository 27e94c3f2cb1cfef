"""Received objects are written to the inbox once and whole, or refused with a status that says why."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage

from lungstage.appliance.contract.arrival import FOLDER, Mark
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway import arrivals as module
from lungstage.appliance.gateway.arrivals import Arrivals
from lungstage.appliance.gateway.contexts import PIXELS
from lungstage.appliance.gateway.head import (
    CANNOT_UNDERSTAND,
    CONTRADICTS,
    NO_SPACE,
    NO_SUCH_CLASS,
    NotTakenError,
    is_uid,
)
from lungstage.appliance.gateway.queue import Queue
from tests.long.conformance.tables import AllTransferSyntaxes, can_decode
from tests.support.studies import rtstruct_study


@pytest.fixture
def arrivals(tmp_path: Path) -> Arrivals:
    (tmp_path / "inbox").mkdir()
    return Arrivals(tmp_path / "inbox", Queue(tmp_path / "q"), 1)


@pytest.fixture(scope="module")
def ct() -> Dataset:
    return rtstruct_study().slices[0]


def part(arrivals: Arrivals, content: bytes) -> Path:
    path = arrivals.draft()
    path.write_bytes(content)
    return path


def encoded(dataset: Dataset, tmp_path: Path, **changes: object) -> bytes:
    path = tmp_path / "one"
    dataset.save_as(path, enforce_file_format=True)
    again = pydicom.dcmread(path)
    for keyword, value in changes.items():
        setattr(again, keyword, value)
    again.save_as(path)
    return path.read_bytes()


def files(arrivals: Arrivals) -> list[Path]:
    return sorted(path for path in arrivals.folder.parent.rglob("*") if path.is_file() and FOLDER not in path.parts)


def left(arrivals: Arrivals) -> list[str]:
    return sorted(path.name for path in arrivals.folder.iterdir() if path.name != "lock")


def test_the_transfer_syntaxes_are_those_that_the_appliance_reads() -> None:
    assert set(PIXELS) == {uid for uid in AllTransferSyntaxes if can_decode(uid)}


def test_it_lies_in_its_study_s_folder_byte_for_byte(arrivals: Arrivals, ct: Dataset, tmp_path: Path) -> None:
    content = encoded(ct, tmp_path)
    head = arrivals.take(part(arrivals, content), 1, "CT1")
    assert files(arrivals) == [arrivals.folder.parent / ct.StudyInstanceUID / f"{ct.SOPInstanceUID}.dcm"]
    assert files(arrivals)[0].read_bytes() == content
    assert head.study_instance_uid == ct.StudyInstanceUID
    assert arrivals._queue.senders(ct.StudyInstanceUID) == {"CT1"}


def test_it_is_flushed_before_and_its_folder_after_it_is_in_place(
    arrivals: Arrivals, ct: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def flushed(descriptor: int) -> None:
        done.append(f"flush {Path(os.readlink(f'/proc/self/fd/{descriptor}')).suffix or 'folder'}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(module.os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    path = part(arrivals, encoded(ct, tmp_path))
    done.clear()
    arrivals.take(path, 1, "CT1")
    assert done[0] == "flush .part"
    assert done[-2] == "rename"
    assert done[-1].startswith("flush ")


def test_the_study_is_marked_before_its_first_file_and_until_every_sender_is_done(
    arrivals: Arrivals, ct: Dataset, tmp_path: Path
) -> None:
    content = encoded(ct, tmp_path)
    for sender in (1, 2):
        arrivals.take(part(arrivals, content), sender, "CT1")
    (mark,) = left(arrivals)
    said = Mark.read((arrivals.folder / mark).read_text())
    assert said is not None
    assert said.folder == ct.StudyInstanceUID
    arrivals.marks.close(1)
    assert left(arrivals) == [mark]
    before = (arrivals.folder / mark).read_text()
    arrivals.marks.renew()
    assert (arrivals.folder / mark).read_text() != before
    arrivals.marks.close(2)
    assert left(arrivals) == []


def test_a_second_copy_does_no_harm_and_another_content_is_kept_beside(
    arrivals: Arrivals, ct: Dataset, tmp_path: Path
) -> None:
    content = encoded(ct, tmp_path)
    for _ in range(3):
        arrivals.take(part(arrivals, content), 1, "CT1")
    assert len(files(arrivals)) == 1
    other = encoded(ct, tmp_path, SeriesDescription="another")
    for _ in range(2):
        arrivals.take(part(arrivals, other), 1, "CT2")
    assert {path.read_bytes() for path in files(arrivals)} == {content, other}


def test_the_same_object_by_another_way_is_the_same(arrivals: Arrivals, ct: Dataset, tmp_path: Path) -> None:
    arrivals.take(part(arrivals, encoded(ct, tmp_path)), 1, "CT1")
    again = pydicom.dcmread(tmp_path / "one")
    again.file_meta.ImplementationVersionName = "ANOTHER"
    again.save_as(tmp_path / "one")
    arrivals.take(part(arrivals, (tmp_path / "one").read_bytes()), 1, "CT1")
    assert len(files(arrivals)) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"SOPInstanceUID": "1.2.3"}, CONTRADICTS), ({"StudyInstanceUID": "1.2/../../etc"}, CONTRADICTS),
        ({"StudyInstanceUID": ".."}, CONTRADICTS), ({"StudyInstanceUID": ""}, CONTRADICTS),
        ({"StudyInstanceUID": "1" * 65}, CONTRADICTS), ({"SOPClassUID": MRImageStorage}, CONTRADICTS),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(
    arrivals: Arrivals,
    ct: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    status: int,
) -> None:
    path = tmp_path / "one"
    ct.save_as(path, enforce_file_format=True)
    again = pydicom.dcmread(path)
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    for keyword, value in changes.items():
        again[keyword]._value = value
    with path.open("wb") as file:
        pydicom.dcmwrite(file, again)
    with pytest.raises(NotTakenError) as caught:
        arrivals.take(part(arrivals, path.read_bytes()), 1, "CT1")
    assert caught.value.status == status
    assert files(arrivals) == []
    assert left(arrivals) == []


def test_what_is_of_no_use_is_refused(arrivals: Arrivals, ct: Dataset, tmp_path: Path) -> None:
    ct.save_as(tmp_path / "one", enforce_file_format=True)
    again = pydicom.dcmread(tmp_path / "one")
    again.SOPClassUID = again.file_meta.MediaStorageSOPClassUID = MRImageStorage
    again.save_as(tmp_path / "one")
    with pytest.raises(NotTakenError) as caught:
        arrivals.take(part(arrivals, (tmp_path / "one").read_bytes()), 1, "CT1")
    assert caught.value.status == NO_SUCH_CLASS


@given(data=st.binary(max_size=400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_refused_and_leaves_nothing(arrivals: Arrivals, data: bytes) -> None:
    for content in (data, bytes(128) + b"DICM" + data):
        with pytest.raises(NotTakenError) as caught:
            arrivals.take(part(arrivals, content), 1, "CT1")
        assert caught.value.status in (CANNOT_UNDERSTAND, CONTRADICTS, NO_SUCH_CLASS)
    assert files(arrivals) == []
    assert left(arrivals) == []


def test_a_deflated_object_is_looked_at_without_being_blown_up(arrivals: Arrivals, ct: Dataset, tmp_path: Path) -> None:
    ct.save_as(tmp_path / "one", enforce_file_format=True)
    again = pydicom.dcmread(tmp_path / "one")
    again.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    again.save_as(tmp_path / "one", enforce_file_format=True)
    arrivals.take(part(arrivals, (tmp_path / "one").read_bytes()), 1, "CT1")
    assert len(files(arrivals)) == 1
    content = (tmp_path / "one").read_bytes()
    meta = content[: content.rindex(b"1.2.840.10008.1.2.1.99") + 22]
    bomb = zlib.compressobj(9, wbits=-15)
    with pytest.raises(NotTakenError):
        arrivals.take(part(arrivals, meta + bomb.compress(bytes(2**28)) + bomb.flush()), 1, "CT1")


def test_a_full_disk_is_told_and_leaves_nothing(
    arrivals: Arrivals, ct: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = part(arrivals, encoded(ct, tmp_path))
    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(NotTakenError) as caught:
        arrivals.take(path, 1, "CT1")
    assert caught.value.status == NO_SPACE
    assert files(arrivals) == []


def test_what_a_killed_gateway_left_half_written_goes(arrivals: Arrivals, tmp_path: Path) -> None:
    part(arrivals, b"half")
    arrivals.marks.open(1, "1.2")
    arrivals._alone.close()
    again = Arrivals(tmp_path / "inbox", Queue(tmp_path / "q"), 1)
    assert left(again) == []
    with pytest.raises(Unavailable, match="Another gateway"):
        Arrivals(tmp_path / "inbox", Queue(tmp_path / "q"), 1)


@given(st.text())
def test_what_names_a_file_is_of_digits_and_points(text: str) -> None:
    assert not is_uid(text) or set(text) <= set("0123456789.")
    assert not is_uid(text) or text not in (".", "..")
    assert is_uid("1.2.840.10008")
