"""An inbox that another program manipulates: nothing outside it is read, nothing hangs, nothing crashes.

The scan and the reader are the real ones; an alarm ends a test that hangs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lungstage.appliance.contract.errors import Refused, Unavailable
from lungstage.appliance.dicom import files
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.intake import inbox as inbox_module
from lungstage.appliance.intake.inbox import Inbox
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileTable
from tests.appliance.intake.test_inbox import Clock
from tests.support.seconds import within_seconds
from tests.support.studies import rtstruct_study

SETTLE = 0.3
NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


class Scene:
    """The real inbox, with a study inside and one outside, and with a clock that the test moves."""

    def __init__(self, tmp_path: Path) -> None:
        self.root, self.outside = tmp_path / "inbox", tmp_path / "outside"
        rtstruct_study().write(self.outside)
        self.root.mkdir()
        shutil.copytree(self.outside, self.root / "study")
        self.clock = Clock()
        self.read: list[Path] = []
        self.before_reading: Callable[[Path], None] = lambda _: None
        self.files = FileTable(Database(tmp_path / "ledger.sqlite"), "1")
        self.index = StudyIndex(self.files, assemble)
        self.inbox = Inbox(self.root, self.files, self.index, SETTLE, read=self._read, clock=self.clock)

    def _read(self, path: Path) -> tuple[Header, ...]:
        self.before_reading(path)
        self.read.append(path)
        return read_headers(path)

    def look(self, times: int = 3) -> list[str]:
        """Look until all files are unchanged for long enough; return the files with headers, below the inbox."""
        for _ in range(times):
            self.clock.now += SETTLE
            with within_seconds():
                self.inbox.look()
        return [str(Path(path).relative_to(self.root)) for path in self.index.paths()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


STUDY = [f"study/{number:04}" for number in range(13)]


def _links_out(scene: Scene) -> None:
    (scene.root / "file").symlink_to(scene.outside / "0003")
    (scene.root / "folder").symlink_to(scene.outside)
    (scene.root / "study" / "up").symlink_to("../../outside")
    (scene.root / "dangling").symlink_to(scene.outside / "none")


def _loops(scene: Scene) -> None:
    (scene.root / "study" / "loop").symlink_to(scene.root)
    (scene.root / "itself").symlink_to("itself")


def _pipes_and_sockets(scene: Scene) -> None:
    os.mkfifo(scene.root / "fifo.dcm")
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(scene.root):  # a short path, because the path of a socket is limited
        listener.bind("socket.dcm")
    listener.close()


def _names(scene: Scene) -> None:
    for name in (b"a\nb", b"\xff\xfe.dcm", b"\x1b[2J", b" ", b"...", b"Doe^Jane", b"x" * 255):
        os.mkdir(os.path.join(os.fsencode(scene.root), name))
    with open(os.path.join(os.fsencode(scene.root), b"\xff\xfe.dcm", b"\n"), "wb") as file:
        file.write(b"not DICOM")


def _depth(scene: Scene) -> None:
    """Nest folders until the path to the last one is too long for the system."""
    at = os.open(scene.root, os.O_DIRECTORY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=at)
        inner = os.open("d" * 200, os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


TRICKS = {"links out": _links_out, "loops": _loops, "pipes and sockets": _pipes_and_sockets, "names": _names,
          "depth": _depth}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_the_study_is_found_and_nothing_else(trick: str, scene: Scene) -> None:
    TRICKS[trick](scene)
    assert scene.look() == STUDY
    assert all(path.is_relative_to(scene.root) for path in scene.read)
    assert {path.resolve() for path in scene.read} == {path.absolute() for path in scene.read}
    assert scene.inbox.next_due() is None


@AS_ROOT
@pytest.mark.parametrize("device", [(1, 5), (1, 8), (1, 9)], ids=["zero", "random", "urandom"])
def test_a_device_is_not_opened(device: tuple[int, int], scene: Scene) -> None:
    try:
        os.mknod(scene.root / "device.dcm", 0o666 | stat.S_IFCHR, os.makedev(*device))
    except PermissionError:
        pytest.skip("no devices may be made here")
    assert scene.look() == STUDY
    with pytest.raises(Refused):
        read_headers(scene.root / "device.dcm")


def test_hard_links_are_copies_of_the_same(scene: Scene) -> None:
    """A hard link is a file of the inbox, also if the file exists outside; only a user who may read it can make one."""
    for path in (scene.root / "study").iterdir():
        os.link(path, scene.root / f"again-{path.name}")
    found = scene.look()
    assert len(found) == 26
    assert len({h.sop_instance_uid for path in scene.index.paths() for h in scene.files.headers(path)}) == 13


def _fifo_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link_instead(path: Path) -> None:
    outside = path.parents[2] / "outside" / path.name
    path.unlink()
    path.symlink_to(outside)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _nothing_instead(path: Path) -> None:
    path.unlink()


def _shorter(path: Path) -> None:
    os.truncate(path, 200)


REPLACEMENTS = [_fifo_instead, _link_instead, _folder_instead, _nothing_instead, _shorter]


@pytest.mark.parametrize("replace", REPLACEMENTS, ids=lambda one: one.__name__.strip("_"))
def test_a_file_replaced_between_scan_and_reading(replace: Callable[[Path], None], scene: Scene) -> None:
    victim = scene.root / "study" / "0005"
    scene.before_reading = lambda path: replace(path) if path == victim else None
    scene.look(2)
    scene.before_reading = lambda _: None
    assert scene.look() == [name for name in STUDY if name != "study/0005"]


@pytest.mark.parametrize("replace", [_fifo_instead, _link_instead], ids=["fifo", "link"])
def test_a_file_replaced_between_being_looked_at_and_opened(
    replace: Callable[[Path], None], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the reader: the file is replaced after the check for a regular file and before it is opened."""
    victim = scene.root / "study" / "0005"
    really = os.open

    def open_late(path: object, flags: int, *rest: object, **more: object) -> int:
        if os.fspath(path) == str(victim) and victim.is_file() and not victim.is_symlink():  # type: ignore[call-overload]
            replace(victim)
        return really(path, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(files.os, "open", open_late)
    with within_seconds(), pytest.raises((Refused, OSError)):
        read_headers(victim)


def test_a_folder_replaced_by_a_link_to_others_gives_nothing_of_theirs(scene: Scene) -> None:
    """The files behind the link have other times than the scanned files, so their headers are not used."""
    scene.inbox.look()
    shutil.move(scene.root / "study", scene.root.parent / "aside")
    (scene.root / "study").symlink_to(scene.outside)
    scene.clock.now += SETTLE
    scene.inbox._scan = lambda: (  # type: ignore[method-assign]  # as if it had been replaced just after the scan
        {path: (e.size, e.stamp) for path, e in scene.inbox._entries.items()},
        frozenset(),
    )
    with within_seconds():
        scene.inbox.look()
    assert scene.index.paths() == []


def test_folders_renamed_in_mid_scan(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is renamed while another is listed; the next look finds it under its new name."""
    shutil.copytree(scene.outside, scene.root / "b")
    really, moved = os.scandir, []

    @contextlib.contextmanager
    def scandir(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with really(folder) as entries:
            yield entries
        if folder == str(scene.root) and not moved:
            moved.append((scene.root / "b").rename(scene.root / "c"))

    monkeypatch.setattr(inbox_module.os, "scandir", scandir)
    scene.look(1)
    assert moved
    assert scene.look() == [f"c/{number:04}" for number in range(13)] + STUDY


def test_an_inbox_that_becomes_a_link_is_still_the_inbox_that_was_named(tmp_path: Path) -> None:
    """A site may name a link as its inbox, because this is the site's decision."""
    scene = Scene(tmp_path)
    (tmp_path / "link").symlink_to(scene.root)
    inbox = Inbox(tmp_path / "link", scene.files, scene.index, SETTLE, clock=scene.clock)
    inbox.look()
    scene.clock.now += SETTLE
    inbox.look()
    assert len(scene.index.paths()) == 13


def test_an_inbox_that_becomes_a_file(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.look() == STUDY
    scene.root.rename(tmp_path / "aside")
    scene.root.write_text("a file")
    with pytest.raises(Unavailable):
        scene.inbox.look()
    assert len(scene.index.paths()) == 13


# --- without permission --------------------------------------------------------------------------------------------


def _as_nobody(root: Path, state: Path, answers: multiprocessing.queues.Queue[object]) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    clock = Clock()
    records = FileTable(Database(state / "ledger.sqlite"), "1")
    index = StudyIndex(records, assemble)
    inbox = Inbox(root, records, index, SETTLE, clock=clock)
    for _ in range(3):
        inbox.look()
        clock.now += SETTLE
    refused = [record.reason.code for record in records.unreadable() if record.reason]
    answers.put((index.paths(), refused))
    try:
        scan([root])
    except OSError as error:
        answers.put(type(error).__name__)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's folders."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@AS_ROOT
def test_what_may_not_be_read_is_passed_over_and_blamed_on_nothing(open_folder: Path) -> None:
    root, state = open_folder / "inbox", open_folder / "state"
    study = rtstruct_study().write(root / "study")
    shutil.copytree(study, root / "shut")
    (study / "0005").chmod(0)
    (root / "shut").chmod(0)
    (study / "listed").mkdir(mode=0o744)  # may be listed, but its files may not be opened
    (study / "listed" / "file").write_bytes((study / "0004").read_bytes())
    (study / "listed").chmod(0o744)
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    answers: multiprocessing.queues.Queue[object] = multiprocessing.get_context("fork").Queue()
    child = multiprocessing.get_context("fork").Process(target=_as_nobody, args=(root, state, answers))
    child.start()
    found, refused = answers.get(timeout=60)  # type: ignore[misc]
    assert found == [str(study / f"{number:04}") for number in range(13) if number != 5]
    assert refused == []
    assert answers.get(timeout=60) == "PermissionError"  # a single command fails: the unreadable file could be needed
    child.join(20)
    assert child.exitcode == 0


# --- one shot ------------------------------------------------------------------------------------------------------


def test_one_shot_takes_files_behind_links_and_leaves_the_rest(tmp_path: Path) -> None:
    """For a command, the user names what to read, so links are followed; pipes, sockets and loops are not files."""
    scene = Scene(tmp_path)
    shutil.rmtree(scene.root / "study")
    for trick in (_loops_only, _pipes_and_sockets, _names):
        trick(scene)
    for path in scene.outside.iterdir():
        (scene.root / path.name).symlink_to(path)
    with within_seconds():
        assert len(scan([scene.root]).headers) == 13


def _loops_only(scene: Scene) -> None:
    (scene.root / "loop").symlink_to(scene.root)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "fifo"])
def test_one_shot_over_what_never_ends(name: str, tmp_path: Path) -> None:
    path = Path(name) if name.startswith("/") else tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    with within_seconds():
        found = scan([path])
    assert (found.headers, found.ignored) == ((), 1)


def test_a_link_that_leads_to_itself_is_passed_over_by_one_shot(tmp_path: Path) -> None:
    rtstruct_study().write(tmp_path / "study")
    (tmp_path / "study" / "itself").symlink_to("itself")
    assert len(scan([tmp_path]).headers) == 13
