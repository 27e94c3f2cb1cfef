"""A watcher that stops receiving events is noticed."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.config.disks import file_system
from lungstage.appliance.intake import watch as watch_module
from lungstage.appliance.intake.watch import Wake, Watcher
from tests.support.fake_steps import put_slice


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    """Starts watchers of ``tmp_path``/inbox, and stops them."""
    made: list[Watcher] = []
    (tmp_path / "inbox").mkdir()

    def one(mode: Any = "events", wake: Wake | None = None) -> Watcher:
        made.append(Watcher(tmp_path / "inbox", wake or Wake(), mode))
        made[-1].start()
        return made[-1]

    yield one
    for watcher in made:
        watcher.stop()


class _Deaf:
    """An observer that is alive and receives no events."""

    started = 0

    def schedule(self, *_: object, **__: object) -> None: ...

    def start(self) -> None:
        _Deaf.started += 1

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None: ...

    def join(self, timeout: float) -> None: ...


def test_events_ring_and_reading_does_not(make: Callable[..., Watcher], tmp_path: Path) -> None:
    wake, inbox = Wake(), tmp_path / "inbox"
    inbox.mkdir(exist_ok=True)
    path = put_slice(inbox, "1.5", 1)
    watcher = make(wake=wake)
    assert watcher.events_come()
    assert not wake.wait(0.1)
    path.read_bytes()
    assert not wake.wait(0.2)
    (inbox / "new").mkdir()
    assert wake.wait(2.0)
    time.sleep(0.2)
    wake.wait(0.0)
    put_slice(inbox / "new", "1.5", 2)
    assert wake.wait(2.0)
    watcher.stop()
    assert not watcher.events_come()


def test_a_descriptor_beyond_a_thousand_ends_a_wait() -> None:
    wake = Wake()
    reader, writer = os.pipe()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most > 1500
    descriptor = fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, 1500)  # select() supports no more than 1,024
    os.write(writer, b"!")
    began = time.monotonic()
    assert not wake.wait(60.0, [descriptor])
    assert time.monotonic() - began < 30
    for each in (reader, writer, descriptor):
        os.close(each)
    wake.close()


class _NoWatches:
    def schedule(self, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")


class _NoInstances:
    def __init__(self) -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")


@pytest.mark.parametrize("observer", [_NoWatches, _NoInstances])
def test_no_watch_or_instance_left_means_the_scan_alone(
    observer: type, make: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch_module, "Observer", observer)
    assert not make().events_come()
    assert "no_file_events" in caplog.messages


def test_polling_starts_no_observer(make: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "Observer", None)
    watcher = make("poll")
    watcher.looked(found=True)
    assert not watcher.events_come()


@pytest.mark.parametrize(("kind", "come"), [("nfs4", False), ("cifs", False), ("fuse.sshfs", False), ("ext4", True)])
def test_auto_polls_where_no_events_can_come(
    kind: str, come: bool, make: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "file_system", lambda _: kind)
    assert make("auto").events_come() is come
    assert make("events").events_come()


def test_a_deaf_watcher_is_made_anew_once_and_then_given_up(
    make: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch_module, "Observer", _Deaf)
    monkeypatch.setattr(_Deaf, "started", 0)
    watcher = make()
    with caplog.at_level(logging.WARNING, "lungstage"):
        for _ in range(3):
            assert watcher.events_come()
            watcher.looked(found=True)
        assert _Deaf.started == 2
        for _ in range(5):
            watcher.looked(found=False)  # nothing was found, so no event is expected
        for _ in range(3):
            assert watcher.events_come()
            watcher.looked(found=True)
    assert not watcher.events_come()
    assert [record.getMessage() for record in caplog.records] == ["watcher_deaf", "watcher_deaf"]


def test_what_was_told_is_no_deafness(make: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "Observer", _Deaf)
    monkeypatch.setattr(_Deaf, "started", 0)
    watcher = make()
    for _ in range(10):
        watcher.told()
        watcher.looked(found=True)
    assert _Deaf.started == 1


def test_a_folder_that_was_replaced_is_watched_again(make: Callable[..., Watcher], tmp_path: Path) -> None:
    wake, inbox = Wake(), tmp_path / "inbox"
    watcher = make(wake=wake)
    inbox.rename(tmp_path / "unmounted")
    watcher.looked(found=False)
    inbox.mkdir()
    watcher.looked(found=False)
    assert watcher.events_come()
    time.sleep(0.2)
    wake.wait(0.0)
    put_slice(inbox, "1.5", 1)
    assert wake.wait(2.0)


def test_a_dead_observer_is_started_again(make: Callable[..., Watcher], tmp_path: Path) -> None:
    watcher = make()
    assert watcher._observer is not None
    watcher._observer.stop()
    watcher._observer.join(5)
    assert not watcher.events_come()
    watcher.looked(found=False)
    assert watcher.events_come()


def test_the_file_system_of_a_folder_is_known(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(tmp_path)
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    assert file_system(tmp_path / "gone") == file_system(tmp_path)
