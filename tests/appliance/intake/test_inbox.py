"""The inbox: when a file counts as arrived, and how rarely files are read for it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lungstage.appliance.config.text import path_hash
from lungstage.appliance.contract.errors import ExhaustedError, KilledError, ReasonCode, Unavailable
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.intake import inbox as inbox_module
from lungstage.appliance.intake.inbox import MAX_KILLS, RETRY_SECONDS, Inbox
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.intake.watch import Wake
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileTable
from tests.support.fake_steps import FakeSteps, put_roi, put_slice

SETTLE = 0.3


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """One inbox with a clock that the test moves."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "inbox"
        self.root.mkdir(exist_ok=True)
        self.state = tmp_path / "ledger.sqlite"
        self.clock = Clock()
        self.steps = FakeSteps()
        self.reader = "1"
        self.restart()

    def restart(self) -> None:
        self.files = FileTable(Database(self.state), self.reader)
        self.watch(self.steps.read_headers)

    def watch(self, read: Callable[[Path], tuple[Header, ...]]) -> None:
        self.index = StudyIndex(self.files, assemble)
        self.inbox = Inbox(self.root, self.files, self.index, SETTLE, read=read, clock=self.clock)

    def look(self, after: float = 0.0) -> bool:
        self.clock.now += after
        return self.inbox.look()

    def names(self) -> list[str]:
        return [header.path.name for header in self.headers()]

    def headers(self) -> list[Header]:
        return [header for path in self.index.paths() for header in self.files.headers(path)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_file_counts_once_it_has_rested(scene: Scene) -> None:
    put_slice(scene.root / "a" / "b", "1.5", 1)
    assert not scene.look()
    assert not scene.look(SETTLE / 2)
    assert scene.steps.calls["read"] == 0
    assert scene.look(SETTLE)
    assert scene.names() == ["1.5-1.dcm"]
    assert not scene.look(SETTLE)


def test_a_file_in_mid_copy_is_not_read_while_it_grows(scene: Scene) -> None:
    path = scene.root / "slow.dcm"
    for n, chunk in enumerate(("CT 1.5 1 ", "more ", "and ", "more ", "END")):
        with path.open("a") as file:
            file.write(chunk)
        os.utime(path, ns=(n, n))
        scene.look(SETTLE * 0.9)
    assert scene.steps.calls["read"] == 0
    assert scene.look(SETTLE)
    assert scene.names() == ["slow.dcm"]


def test_a_copy_that_stalled_is_refused_and_read_again_once_it_goes_on(scene: Scene) -> None:
    path = scene.root / "stalled.dcm"
    path.write_text("CT 1.5 1 ")
    scene.look()
    assert not scene.look(SETTLE)
    assert [record.reason.code for record in scene.files.unreadable() if record.reason] == [ReasonCode.DICOM_UNREADABLE]
    for _ in range(5):
        scene.look(SETTLE)
    assert scene.steps.calls["read"] == 1
    path.write_text("CT 1.5 1 END")
    scene.look()
    assert scene.look(SETTLE)
    assert scene.names() == ["stalled.dcm"]
    assert scene.files.unreadable() == ()


def test_a_file_that_changes_while_it_is_read_is_not_taken(scene: Scene) -> None:
    path = put_slice(scene.root, "1.5", 1)

    def read(where: Path) -> tuple[Header, ...]:
        headers = scene.steps.read_headers(where)
        if scene.steps.calls["read"] == 1:
            path.write_text("CT 1.5 2 after all END")
        return headers

    scene.watch(read)
    scene.look()
    assert not scene.look(SETTLE)
    scene.look()
    assert scene.look(SETTLE)
    assert [header.sop_instance_uid for header in scene.headers()] == ["1.5.2"]


def test_a_replaced_file_leaves_at_once_and_comes_back_anew(scene: Scene) -> None:
    path = put_slice(scene.root, "1.5", 1)
    scene.look()
    scene.look(SETTLE)
    path.write_text("CT 1.5 7 quite another END")
    assert scene.look()
    assert scene.names() == []
    assert scene.look(SETTLE)
    assert [header.sop_instance_uid for header in scene.headers()] == ["1.5.7"]


def test_vanished_files_leave_all_of_them_and_reading_them_again_costs_nothing(scene: Scene, tmp_path: Path) -> None:
    for n in range(5):
        put_slice(scene.root / "study", "1.5", n)
    scene.look()
    scene.look(SETTLE)
    (scene.root / "study").rename(tmp_path / "aside")
    assert scene.look()
    assert scene.names() == []
    (tmp_path / "aside").rename(scene.root / "study")
    assert scene.look()
    assert len(scene.names()) == 5
    assert scene.steps.calls["read"] == 5


def there(scene: Scene) -> list[str]:
    """Names of the files that the ledger lists as present in the inbox."""
    return sorted(Path(path).name for path in scene.files.present(str(scene.root)))


def test_what_was_taken_away_while_nobody_looked_is_gone_on_record_too(scene: Scene) -> None:
    for name in ("kept.txt", "gone.txt", "moved.txt"):
        (scene.root / name).write_text(f"junk {name}")
    put_slice(scene.root, "1.5", 1)
    scene.look()
    scene.look(SETTLE)
    assert len(scene.files.unreadable()) == 3
    (scene.root / "gone.txt").unlink()
    (scene.root / "1.5-1.dcm").unlink()
    (scene.root / "moved.txt").rename(scene.root / "other.txt")
    scene.restart()
    scene.look()
    assert there(scene) == ["kept.txt"]
    scene.look(SETTLE)
    assert there(scene) == ["kept.txt", "other.txt"]
    assert [Path(record.path).name for record in scene.files.unreadable()] == there(scene)


def test_another_inbox_s_files_are_not_gone(scene: Scene, tmp_path: Path) -> None:
    aside = tmp_path / "inbox2"
    put_slice(aside, "1.6", 1)
    put_slice(scene.root, "1.5", 1)
    scene.look()
    scene.look(SETTLE)
    scene.inbox = Inbox(aside, scene.files, scene.index, SETTLE, read=scene.steps.read_headers, clock=scene.clock)
    scene.look()
    assert scene.look(SETTLE)
    assert there(scene) == ["1.5-1.dcm"]


def test_a_folder_that_cannot_be_listed_at_the_start_keeps_its_records(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_slice(scene.root / "closed", "1.5", 1)
    scene.look()
    scene.look(SETTLE)
    really = os.scandir

    def scandir(folder: str) -> Iterator[os.DirEntry[str]]:
        if folder.endswith("closed"):
            raise PermissionError
        return really(folder)

    monkeypatch.setattr(inbox_module.os, "scandir", scandir)
    scene.restart()
    scene.look()
    assert there(scene) == ["1.5-1.dcm"]


def test_a_look_that_could_not_be_recorded_is_made_good_by_the_next(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full, one file is new, one is gone and one has come back."""
    put_slice(scene.root / "a", "1.5", 0)
    for n in (1, 2):
        put_slice(scene.root, "1.5", n)
    scene.look()
    scene.look(SETTLE)
    (scene.root / "a").rename(tmp_path / "aside")
    scene.look()
    assert there(scene) == ["1.5-1.dcm", "1.5-2.dcm"]
    put_slice(scene.root, "1.5", 4)
    scene.look()
    (tmp_path / "aside").rename(scene.root / "a")
    (scene.root / "1.5-1.dcm").unlink()
    with monkeypatch.context() as broken:
        broken.setattr(scene.files, "update", _full)
        with pytest.raises(Unavailable):
            scene.look(SETTLE)
    assert "1.5-4.dcm" not in scene.names()
    scene.look()
    scene.look()
    assert there(scene) == sorted(scene.names()) == ["1.5-0.dcm", "1.5-2.dcm", "1.5-4.dcm"]


def _full(*_: object) -> None:
    raise Unavailable("The disk is full.")


def test_a_restart_reads_nothing_again_but_a_new_reader_does(scene: Scene) -> None:
    put_slice(scene.root, "1.5", 1)
    put_roi(scene.root, "1.8", "1.5", range(1, 4))
    (scene.root / "junk.txt").write_text("junk")
    (scene.root / "other.dcm").write_text("NONE of interest END")
    scene.look()
    scene.look(SETTLE)
    before = scene.headers()
    scene.restart()
    assert scene.look()
    assert scene.headers() == before
    assert len(before) == 2
    assert scene.inbox.next_due() is None
    assert scene.steps.calls["read"] == 4
    scene.reader = "2"
    scene.restart()
    scene.look()
    scene.look(SETTLE)
    assert scene.steps.calls["read"] == 8
    assert scene.headers() == before


@pytest.mark.parametrize("record", ['{"type": "ImageHeader"}', '[{"type": "ImageHeader", "colour": 3}]', "[3]", "3"])
def test_a_record_that_other_code_wrote_is_read_again(record: str, scene: Scene) -> None:
    put_slice(scene.root, "1.5", 1)
    scene.look()
    scene.look(SETTLE)
    Database(scene.state).query("UPDATE files SET header = ?", (record,))
    scene.restart()
    scene.look()
    scene.look(SETTLE)
    assert scene.steps.calls["read"] == 2
    assert len(scene.names()) == 1


@pytest.mark.slow
def test_500_slices_one_by_one_are_read_once_each(scene: Scene) -> None:
    for n in range(500):
        put_slice(scene.root, "1.5", n)
        scene.look(0.01)
    scene.look(SETTLE)
    assert scene.steps.calls["read"] == 500
    assert len(scene.names()) == 500


def test_nothing_but_regular_files_inside_the_inbox_is_opened(scene: Scene, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put_slice(outside, "1.5", 1)
    (scene.root / "folder").symlink_to(outside)
    (scene.root / "file.dcm").symlink_to(outside / "1.5-1.dcm")
    (scene.root / "loop").symlink_to(scene.root)
    os.mkfifo(scene.root / "fifo.dcm")
    scene.look()
    assert not scene.look(SETTLE)
    assert scene.steps.calls["read"] == 0
    assert scene.inbox.next_due() is None


@pytest.mark.parametrize("name", [b"caf\xe9.dcm", b"line\nbreak.dcm", b"\xff\xfe", "Müller^Hans.dcm".encode(), b" "])
def test_any_file_name_survives(scene: Scene, name: bytes) -> None:
    with open(os.path.join(os.fsencode(scene.root), name), "wb") as file:
        file.write(b"CT 1.5 1 END")
    scene.look()
    assert scene.look(SETTLE)
    scene.restart()
    assert scene.look()
    (header,) = scene.headers()
    assert os.path.basename(os.fsencode(header.path)) == name
    assert scene.steps.calls["read"] == 1


def test_a_folder_that_cannot_be_listed_keeps_what_was_found_in_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_slice(scene.root / "shut", "1.5", 1)
    put_slice(scene.root / "open", "1.6", 1)
    scene.look()
    scene.look(SETTLE)
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if os.path.basename(folder) == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(inbox_module.os, "scandir", refuse)
    (scene.root / "open" / "1.6-1.dcm").unlink()
    assert scene.look()
    assert scene.names() == ["1.5-1.dcm"]


def test_an_inbox_that_is_gone_is_unavailable_and_forgets_nothing(scene: Scene, tmp_path: Path) -> None:
    put_slice(scene.root, "1.5", 1)
    scene.look()
    scene.look(SETTLE)
    scene.root.rename(tmp_path / "unmounted")
    with pytest.raises(Unavailable):
        scene.look()
    assert scene.names() == ["1.5-1.dcm"]
    (tmp_path / "unmounted").rename(scene.root)
    assert not scene.look()


def test_a_file_that_cannot_be_opened_is_tried_again(scene: Scene) -> None:
    put_slice(scene.root, "1.5", 1)

    def read(where: Path) -> tuple[Header, ...]:
        if scene.clock.now < 1003:
            raise PermissionError(13, "Permission denied", str(where))
        return scene.steps.read_headers(where)

    scene.watch(read)
    scene.look()
    assert not scene.look(SETTLE)
    assert scene.files.unreadable() == ()
    assert scene.look(10.0)
    assert scene.names() == ["1.5-1.dcm"]


@pytest.mark.parametrize("error", [KilledError("by SIGKILL"), Unavailable("no process")], ids=["killed", "unavailable"])
def test_a_file_is_not_to_blame_for_a_reader_that_was_killed_or_does_not_come_up(
    scene: Scene, error: Exception
) -> None:
    put_slice(scene.root, "1.5", 1)
    errors = iter([error] * (MAX_KILLS - 1))

    def read(where: Path) -> Header | None:
        for one in errors:
            raise one
        return scene.steps.read_headers(where)

    scene.watch(read)
    scene.look()
    for _ in range(MAX_KILLS - 1):
        assert not scene.look(RETRY_SECONDS)
        assert scene.files.unreadable() == ()
        assert scene.inbox.unsettled_since() is not None
    assert scene.look(RETRY_SECONDS)
    assert scene.names() == ["1.5-1.dcm"]


@pytest.mark.parametrize(("error", "times"), [(KilledError("by SIGKILL"), MAX_KILLS), (ExhaustedError("slow"), 1)])
def test_a_file_that_exhausts_its_reader_is_given_up(scene: Scene, error: ExhaustedError, times: int) -> None:
    put_slice(scene.root, "1.5", 1)
    calls: list[Path] = []

    def read(where: Path) -> Header | None:
        calls.append(where)
        raise error

    scene.watch(read)
    scene.look()
    for _ in range(10):
        scene.look(RETRY_SECONDS)
    assert len(calls) == times
    assert [r.reason.code for r in scene.files.unreadable() if r.reason] == [ReasonCode.LIMITS_EXCEEDED]


def test_a_reader_that_breaks_costs_one_file_only(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    put_slice(scene.root, "1.5", 1)
    bad = put_slice(scene.root, "1.5", 2)

    def read(where: Path) -> tuple[Header, ...]:
        if where == bad:
            raise RuntimeError("the name is DOE^JANE")
        return scene.steps.read_headers(where)

    scene.watch(read)
    scene.look()
    assert scene.look(SETTLE)
    assert scene.names() == ["1.5-1.dcm"]
    assert [r.reason.code for r in scene.files.unreadable() if r.reason] == [ReasonCode.INTERNAL_ERROR]


def test_a_large_backlog_is_read_in_portions(scene: Scene) -> None:
    for n in range(10):
        put_slice(scene.root, "1.5", n)

    def read(where: Path) -> tuple[Header, ...]:
        scene.clock.now += 0.2
        return scene.steps.read_headers(where)

    scene.watch(read)
    scene.look()
    scene.look(SETTLE)
    assert 0 < scene.steps.calls["read"] < 10
    assert scene.inbox.unsettled_since() == 1000.0
    while scene.inbox.next_due() is not None:
        scene.look()
    assert scene.steps.calls["read"] == 10


def test_the_inbox_is_left_as_it_was(scene: Scene) -> None:
    put_slice(scene.root / "a", "1.5", 1)
    (scene.root / "junk").write_text("junk")

    def snapshot() -> Counter[tuple[str, int, int, bytes]]:
        files = [path for path in scene.root.rglob("*") if path.is_file()]
        return Counter((str(p), p.stat().st_mtime_ns, p.stat().st_mode, p.read_bytes()) for p in files)

    before = snapshot()
    scene.look()
    scene.look(SETTLE)
    assert snapshot() == before


def test_the_name_of_a_file_does_not_show_in_its_hash() -> None:
    assert path_hash("/inbox/DOE^JANE.dcm") != path_hash("/inbox/DOE^JOHN.dcm")
    assert len(path_hash("/inbox/\udcff")) == 12


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], None]], None]]:
    timers: list[threading.Timer] = []

    def start(seconds: float, call: Callable[[], None]) -> None:
        timers.append(threading.Timer(seconds, call))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.join()


def test_stopping_ends_a_pause_and_ringing_does_not(later: Callable[[float, Callable[[], None]], None]) -> None:
    wake = Wake()
    later(0.05, wake.ring)
    started = time.monotonic()
    wake.pause(0.3)
    assert time.monotonic() - started >= 0.3
    later(0.05, wake.stop)
    started = time.monotonic()
    wake.pause(30)
    assert time.monotonic() - started < 5
