"""The outbox: whole or not at all, once, never overwritten."""

from __future__ import annotations

import errno
import os
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest

from lungstage.appliance.report import outbox
from lungstage.appliance.report.outbox import OutboxConflictError, clean, deliver, encode
from tests.support.fake_steps import as_bytes, document

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DATASETS = (document("SEG", "2.25.1", WHEN), document("SR", "2.25.2", WHEN))
DOCUMENTS = tuple(encode(dataset) for dataset in DATASETS)


def test_documents_are_delivered_whole_and_under_their_own_names(tmp_path: Path) -> None:
    paths = deliver(DOCUMENTS, tmp_path)
    assert [path.name for path in paths] == ["SEG-2.25.1.dcm", "SR-2.25.2.dcm"]
    assert sorted(os.listdir(tmp_path)) == ["SEG-2.25.1.dcm", "SR-2.25.2.dcm"]
    for path, dataset in zip(paths, DATASETS, strict=True):
        assert path.read_bytes() == as_bytes(dataset)
        assert pydicom.dcmread(path).SOPInstanceUID == dataset.SOPInstanceUID


def test_a_repetition_changes_nothing(tmp_path: Path) -> None:
    before = [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in deliver(DOCUMENTS, tmp_path)]
    after = [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in deliver(DOCUMENTS, tmp_path)]
    assert after == before


def test_other_content_under_the_name_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "SR-2.25.2.dcm").write_bytes(b"somebody else's")
    with pytest.raises(OutboxConflictError):
        deliver(DOCUMENTS, tmp_path)
    assert (tmp_path / "SR-2.25.2.dcm").read_bytes() == b"somebody else's"


@pytest.mark.parametrize("uid", ["../2.25.1", "2.25.1/x", "1" * 65, ""])
def test_a_uid_cannot_lead_out_of_the_folder(uid: str) -> None:
    dataset = document("SR", "2.25.1", WHEN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of these values, as it should
        dataset.SOPInstanceUID = uid
    with pytest.raises(ValueError, match="file name"):
        encode(dataset)


@pytest.mark.parametrize("site", ["write", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_that_fails_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if site == "write":
            patch.setattr(Path, "open", fail)
        elif site == "fsync":
            patch.setattr(outbox.os, "fsync", fail)
        else:
            patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            deliver(DOCUMENTS, tmp_path)
        assert os.listdir(tmp_path) == []
    assert len(deliver(DOCUMENTS, tmp_path)) == 2


def test_bytes_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(descriptor: int) -> None:
        happened.append("sync " + ("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))
        fsync(descriptor)

    def watched_rename(self: Path, target: Path) -> Path:
        happened.append("rename")
        return rename(self, target)

    monkeypatch.setattr(outbox.os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    deliver(DOCUMENTS, tmp_path)
    assert happened == ["sync file", "rename", "sync file", "rename", "sync folder"]


def test_a_folder_that_knows_no_sync_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def no_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(outbox.os, "fsync", no_folders)
    assert len(deliver(DOCUMENTS, tmp_path)) == 2


def test_only_our_own_leftovers_are_cleaned(tmp_path: Path) -> None:
    for name in (".SR-2.25.2.dcm.part", ".SEG-2.25.1.dcm.part", "SR-2.25.2.dcm", ".other.part", "SR-2.25.3.dcm.part"):
        (tmp_path / name).write_bytes(b"x")
    assert clean(tmp_path) == 2
    assert sorted(os.listdir(tmp_path)) == [".other.part", "SR-2.25.2.dcm", "SR-2.25.3.dcm.part"]


def test_the_same_document_made_at_another_time_is_left_as_it_was(tmp_path: Path) -> None:
    first, later, other = (document("SR", "2.25.3", WHEN + timedelta(hours=hours)) for hours in range(3))
    other.SeriesDescription = "something else"
    (path,) = deliver([encode(first)], tmp_path)
    before = path.read_bytes()
    assert deliver([encode(later)], tmp_path) == (path,)
    assert path.read_bytes() == before
    with pytest.raises(OutboxConflictError):
        deliver([encode(other)], tmp_path)
    assert path.read_bytes() == before
