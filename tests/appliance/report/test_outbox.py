"""The outbox: a document appears whole and once, or not at all, and is never overwritten."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lungstage.appliance.report import outbox
from lungstage.appliance.report.outbox import OutboxConflictError, clean, deliver, encode
from tests.conftest import ROOT
from tests.support.fake_steps import as_bytes, document
from tests.support.seconds import within_seconds

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DATASETS = (document("SEG", "2.25.1", WHEN), document("SR", "2.25.2", WHEN))
DOCUMENTS = tuple(encode(dataset) for dataset in DATASETS)

CLEAN = (
    "import sys, pathlib; from lungstage.appliance.report import outbox; print(outbox.clean(pathlib.Path(sys.argv[1])))"
)


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
        warnings.simplefilter("ignore")  # pydicom rightly warns of these values
        dataset.SOPInstanceUID = uid
    with pytest.raises(ValueError, match="file name"):
        encode(dataset)


@pytest.mark.parametrize("site", ["open", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_that_fails_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if site == "open":
            patch.setattr(outbox.os, "open", fail)
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
    ours = (".SR-2.25.2.dcm.part", ".SEG-2.25.1.dcm.0123456789abcdef.part")
    others = ("SR-2.25.2.dcm", ".other.part", "SR-2.25.3.dcm.part", ".SR-2.25.3.dcm.0123.part")
    for name in (*ours, *others):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / ".SR-2.25.4.dcm.part")
    (tmp_path / ".SR-2.25.5.dcm.part").symlink_to(tmp_path / "SR-2.25.2.dcm")
    (tmp_path / ".SR-2.25.6.dcm.part").mkdir()
    kept = {*os.listdir(tmp_path)} - {*ours}
    with within_seconds(5):
        assert clean(tmp_path) == 2
    assert {*os.listdir(tmp_path)} == kept


def test_what_another_writer_is_at_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another daemon starts and cleans while this one writes."""
    fsync, cleaned = os.fsync, []

    def fsync_and_clean(descriptor: int) -> None:
        fsync(descriptor)
        if any(name.endswith(".part") for name in os.listdir(tmp_path)):
            cleaned.append(
                subprocess.run([sys.executable, "-c", CLEAN, tmp_path], check=True, capture_output=True).stdout
            )

    monkeypatch.setattr(outbox.os, "fsync", fsync_and_clean)
    deliver(DOCUMENTS, tmp_path)
    assert cleaned == [b"0\n"] * 2
    assert sorted(os.listdir(tmp_path)) == ["SEG-2.25.1.dcm", "SR-2.25.2.dcm"]


def test_what_a_killed_writer_leaves_is_cleaned(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from lungstage.appliance.report import outbox
outbox.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
outbox.deliver([outbox.Document("SR-2.25.2.dcm", "", "", b"whole")], Path({str(tmp_path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert [name[:15] for name in os.listdir(tmp_path)] == [".SR-2.25.2.dcm."]
    assert clean(tmp_path) == 1
    assert os.listdir(tmp_path) == []


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def _dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside.with_name("not yet"))


def _hard_link(path: Path, outside: Path) -> None:
    os.link(outside, path)


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, outside: Path) -> None:
    path.mkdir()


def _huge(path: Path, outside: Path) -> None:
    """The document itself, followed by a terabyte of zeros."""
    path.write_bytes(DOCUMENTS[-1].content)
    os.truncate(path, 2**40)


def _bomb(path: Path, outside: Path) -> None:
    """A document that is a thousand times larger when it is read."""
    dataset = document("SR", "2.25.2", WHEN)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.TextValue = "0" * 2**27
    dataset.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 2**20


OBSTACLES = [_link, _dangling_link, _hard_link, _fifo, _folder, _huge]


def _everything_below(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Inode, mode and size of each entry, and the content of short files."""
    found = {}
    for path in folder.rglob("*"):
        at = path.lstat()
        content = path.read_bytes() if path.is_file() and at.st_size < 2**20 else b""
        found[str(path)] = (at.st_ino, at.st_mode, at.st_size, content)
    return found


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda one: one.__name__.strip("_"))
def test_what_stands_in_the_way_is_left_alone_and_so_is_all_that_it_leads_to(
    obstacle: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    folder, outside = tmp_path / "outbox", tmp_path / "precious"
    folder.mkdir()
    outside.write_bytes(b"somebody's")
    obstacle(folder / DOCUMENTS[-1].name, outside)
    before = _everything_below(tmp_path)
    with within_seconds(5):
        with pytest.raises(OutboxConflictError, match=re.escape(DOCUMENTS[-1].name)):
            deliver(DOCUMENTS[-1:], folder)
        digest = outbox.digests(DOCUMENTS, folder)[DOCUMENTS[-1].name]
    lying = outside.read_bytes() if obstacle is _hard_link else DOCUMENTS[-1].content
    assert digest == hashlib.sha256(lying).hexdigest()
    assert _everything_below(tmp_path) == before


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda one: one.__name__.strip("_"))
def test_what_comes_while_a_document_is_written_is_left_alone_too(
    obstacle: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outside = tmp_path / "outbox", tmp_path / "precious"
    folder.mkdir()
    outside.write_bytes(b"somebody's")
    before = {}

    def fsync(_: int) -> None:
        obstacle(folder / DOCUMENTS[-1].name, outside)
        before.update(_everything_below(tmp_path))

    monkeypatch.setattr(outbox.os, "fsync", fsync)
    with within_seconds(5), pytest.raises(OutboxConflictError):
        deliver(DOCUMENTS[-1:], folder)
    assert _everything_below(tmp_path).items() < before.items()  # only the writer's temporary file is gone
    assert len(before) == len(_everything_below(tmp_path)) + 1


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda one: one.__name__.strip("_"))
def test_a_temporary_name_that_was_guessed_is_not_written_to(
    obstacle: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outside = tmp_path / "outbox", tmp_path / "precious"
    folder.mkdir()
    outside.write_bytes(b"somebody's")
    monkeypatch.setattr(outbox.secrets, "token_hex", lambda n: "0" * 2 * n)
    obstacle(folder / f".{DOCUMENTS[-1].name}.{'0' * 16}.part", outside)
    before = _everything_below(tmp_path)
    with within_seconds(5), pytest.raises(FileExistsError):
        deliver(DOCUMENTS[-1:], folder)
    assert _everything_below(tmp_path) == before
    monkeypatch.undo()
    assert len(deliver(DOCUMENTS, folder)) == 2


@pytest.mark.parametrize("obstacle", [_link, _fifo, _folder], ids=lambda one: one.__name__.strip("_"))
def test_a_document_that_is_exchanged_while_it_is_looked_at(
    obstacle: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange is between the check that it is a file and the opening."""
    (path,) = deliver(DOCUMENTS[-1:], tmp_path)
    outside = tmp_path / "precious"
    outside.write_bytes(DOCUMENTS[-1].content)  # the outcome must not reveal that a file outside has the same content
    really = os.open

    def open_late(name: object, *rest: object, **more: object) -> int:
        if os.fspath(name) == str(path) and path.is_file() and not path.is_symlink():  # type: ignore[call-overload]
            path.unlink()
            obstacle(path, outside)
        return really(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(outbox.os, "open", open_late)
    with within_seconds(5), pytest.raises((OSError, OutboxConflictError)):
        deliver(DOCUMENTS[-1:], tmp_path)


def test_a_temporary_name_cannot_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, rename = [], Path.rename

    def watched(self: Path, target: Path) -> Path:
        names.append(self.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        deliver(DOCUMENTS[-1:], tmp_path / str(number))
    assert len(set(names)) == 20


def test_a_document_that_would_grow_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _bomb(tmp_path / DOCUMENTS[-1].name, tmp_path)
    monkeypatch.setattr(outbox, "_longest", lambda _: 2**19)  # the limit of a SEG, which is large enough for this file
    tracemalloc.start()
    with pytest.raises(OutboxConflictError):
        deliver(DOCUMENTS[-1:], tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.slow
def test_two_writers_never_tear_a_document(tmp_path: Path) -> None:
    """Two processes write the same document at different times in many folders, while a reader checks them."""
    program = f"""
import sys
from datetime import datetime, timedelta
from pathlib import Path
from lungstage.appliance.report.outbox import deliver, encode
from tests.support.fake_steps import document
folder = Path({str(tmp_path)!r})
for hour in range(150):
    when = datetime(2026, 1, 1) + timedelta(hours=hour, seconds=int(sys.argv[1]))
    (folder / f"{{hour}}").mkdir(exist_ok=True)
    deliver([encode(document("SR", "2.25.2", when))], folder / f"{{hour}}")
"""
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", program]
        writers = [stack.enter_context(subprocess.Popen([*command, str(n)], cwd=ROOT)) for n in range(2)]
        while any(writer.poll() is None for writer in writers):
            for path in tmp_path.glob("*/*.dcm"):
                assert len(path.read_bytes()) == len(DOCUMENTS[-1].content)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["SR-2.25.2.dcm"] * 150
    seconds = {pydicom.dcmread(path).ContentTime[4:6] for path in tmp_path.glob("*/*")}
    assert seconds <= {"00", "01"}


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
