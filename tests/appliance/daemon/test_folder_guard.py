"""Inbox and outbox are recognised: nothing is delivered into the empty mount point of an unmounted share."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.config.disks import Place, place_of
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.daemon import folder_guard
from lungstage.appliance.daemon.folder_guard import FolderGuard, remembered
from lungstage.appliance.report import outbox
from lungstage.appliance.state import heartbeat
from tests.support.fake_steps import put_slice
from tests.support.simulated import House, put_study, with_stop

LOCAL = Place(1, 500, "ext4", "/dev/sda1", "/srv/outbox")
DISK = Place(2, 2, "ext4", "/dev/sdb1", "/")
SHARE = Place(40, 7, "nfs4", "pacs:/export", "/")


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (LOCAL, LOCAL, True),
        (LOCAL, replace(LOCAL, inode=501), False),
        (LOCAL, replace(LOCAL, device=3), False),
        (DISK, LOCAL, False),
        (SHARE, replace(SHARE, device=41, inode=9), True),  # mounted again
        (SHARE, replace(SHARE, source="other:/export"), False),
        (SHARE, LOCAL, False),
        (LOCAL, SHARE, False),
    ],
)
def test_device_and_inode_tell_folders_apart_and_on_the_network_the_share(
    before: Place, now: Place, same: bool
) -> None:
    assert before.is_same(now) is same


@pytest.mark.parametrize(
    ("before", "now", "unmounted"),
    [
        (SHARE, LOCAL, True),
        (DISK, LOCAL, True),
        (replace(SHARE, inside="/reports"), LOCAL, True),
        (DISK, replace(DISK, device=9, inode=3), False),  # another disk is mounted there
        (SHARE, replace(SHARE, source="new:/export"), False),
        (SHARE, DISK, False),
        (LOCAL, replace(LOCAL, inode=501), False),  # it was never a separate mount
        (LOCAL, replace(LOCAL, device=3), False),  # device numbers change when a machine starts
        (LOCAL, DISK, False),
        (DISK, replace(DISK, inside="/mnt/outbox"), False),  # the same folder, as another mount namespace shows it
    ],
)
def test_only_a_mount_that_has_gone_counts_over_a_restart(before: Place, now: Place, unmounted: bool) -> None:
    assert before.is_unmounted_at(now) is unmounted


def test_a_place_is_what_the_system_says(tmp_path: Path) -> None:
    place, status = place_of(tmp_path), tmp_path.stat()
    assert (place.device, place.inode) == (status.st_dev, status.st_ino)
    assert place_of(Path("/proc")).kind == "proc"
    assert place_of(Path("/proc")).inside == "/"
    assert place.inside.endswith(tmp_path.name)
    (tmp_path / "other").mkdir()
    assert place_of(tmp_path, place) is place
    assert place_of(tmp_path / "other", place) == place_of(tmp_path / "other") != place
    with pytest.raises(FileNotFoundError):
        place_of(tmp_path / "absent")


class Scene:
    """A guard of a folder; the test sets the place where the folder lies."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, strict: bool = True) -> None:
        self.now = LOCAL
        monkeypatch.setattr(folder_guard, "place_of", lambda *_: self.now)
        self.root, self.strict = root, strict
        self.start()

    def start(self) -> None:
        self.guard = FolderGuard("outbox", self.root / "outbox", self.root, strict=self.strict)


def test_within_a_run_another_folder_is_refused_until_the_first_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lungstage")
    scene = Scene(tmp_path, monkeypatch)
    scene.guard.prove()
    for other in (replace(LOCAL, inode=501), SHARE, DISK):
        scene.now = other
        for _ in range(2):
            with pytest.raises(Unavailable, match="not the same folder as before"):
                scene.guard.prove()
        assert scene.guard.is_replaced()
        scene.now = LOCAL
        assert not scene.guard.is_replaced()
        scene.guard.prove()
    assert [record.getMessage() for record in caplog.records] == ["outbox_replaced", "outbox_back"] * 3


def test_over_a_restart_only_one_whose_mount_has_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, monkeypatch)
    scene.guard.prove()
    scene.now = SHARE
    scene.start()
    scene.guard.prove()
    scene.now = LOCAL
    for _ in range(3):
        scene.start()
        with pytest.raises(Unavailable):
            scene.guard.prove()
    scene.now = replace(SHARE, device=99)  # mounted later, while the daemon waits
    scene.guard.prove()
    assert remembered("outbox", tmp_path / "outbox", tmp_path) == scene.now
    scene.now = LOCAL
    (tmp_path / "outbox-place.json").unlink()  # the operator intends the change
    scene.start()
    scene.guard.prove()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"folder": 3}', '{"folder": "FOLDER", "place": {"kind": 1}}'])
def test_a_memory_that_cannot_be_used_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "outbox-place.json").write_text(text.replace("FOLDER", str(tmp_path)))
    assert remembered("outbox", tmp_path, tmp_path) is None


def test_an_outbox_at_another_path_is_another_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, monkeypatch)
    scene.now = SHARE
    scene.guard.prove()
    scene.now = LOCAL
    FolderGuard("outbox", tmp_path / "elsewhere", tmp_path, strict=True).prove()


def test_a_folder_that_cannot_be_opened_is_away_and_not_another(tmp_path: Path) -> None:
    guard = FolderGuard("outbox", tmp_path / "absent", tmp_path, strict=True)
    with pytest.raises(Unavailable, match="cannot be opened: No such file"):
        guard.prove()
    assert not guard.is_replaced()


# In the daemon


@pytest.fixture
def house(tmp_path: Path) -> House:
    one = House(tmp_path)
    one.run(3)
    return one


def beat(house: House) -> heartbeat.Heartbeat:
    last = heartbeat.read(house.state)
    assert last is not None
    return last


def waits(house: House) -> bool:
    """Whether the only report is made and not delivered."""
    return house.steps.calls["stage"] == len(house.states()) == 1 and house.states() != ["delivered"]


def test_nothing_is_delivered_into_another_folder_and_everything_once_the_outbox_is_back(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lungstage")
    house.outbox.rename(house.root / "elsewhere")
    house.outbox.mkdir()
    house.run(5)
    assert beat(house).outbox_replaced, "it is shown although there is nothing to deliver"
    put_study(house.inbox)
    house.run(30)
    assert waits(house)
    assert list(house.outbox.iterdir()) == []
    assert [record.getMessage() for record in caplog.records].count("outbox_replaced") == 1
    house.outbox.rmdir()
    (house.root / "elsewhere").rename(house.outbox)
    house.run(65)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == house.steps.calls["stage"] == 1
    assert not beat(house).outbox_replaced


def test_a_restart_takes_the_folder_that_lies_there(house: House) -> None:
    (house.root / "another").mkdir()  # made while the first one exists, so that the inodes differ
    shutil.rmtree(house.outbox)
    (house.root / "another").rename(house.outbox)
    put_study(house.inbox)
    house.run(10)
    assert waits(house)
    house.restart()
    house.run(10)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1


def test_an_outbox_that_goes_while_a_report_is_written_gets_it_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver, elsewhere = outbox.deliver, house.root / "elsewhere"

    def deliver_beside(documents: Any, folder: Path) -> Any:
        house.outbox.rename(elsewhere)
        house.outbox.mkdir()
        monkeypatch.setattr(outbox, "deliver", deliver)
        return deliver(documents, folder)

    monkeypatch.setattr(outbox, "deliver", deliver_beside)
    put_study(house.inbox)
    house.run(3)
    assert waits(house)
    shutil.rmtree(house.outbox)
    elsewhere.rename(house.outbox)
    house.run(65)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1


def test_a_canary_goes_its_way_whatever_the_outbox_is(tmp_path: Path) -> None:
    house = House(tmp_path, canary_seconds=100, canary_patience_seconds=30)
    house.run(20)
    house.outbox.rename(house.root / "elsewhere")
    house.outbox.mkdir()
    house.run(120)
    assert beat(house).canary is True


def test_studies_in_an_inbox_that_is_not_mounted_are_not_gone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = True
    there = {house.inbox: SHARE, house.outbox: place_of(house.outbox)}
    bare = {house.inbox: LOCAL, house.outbox: there[house.outbox]}
    monkeypatch.setattr(folder_guard, "place_of", lambda folder, _: (there if mounted else bare)[folder])
    put_study(house.inbox / "study")
    spare = (house.inbox / "study" / "1.5-2.dcm").rename(house.root / "spare")
    house.run(10)
    before = house.job()
    assert before.reason is not None
    assert before.reason.code == "slices_missing"
    (house.inbox / "study").rename(house.root / "on the share")
    mounted = False
    with_stop(house, 30)
    for _ in range(2):  # the second time after a restart
        assert house.job().reason == before.reason
        house.restart()
        house.wake.stopping = False
        with_stop(house, 30)
    mounted = True
    (house.root / "on the share").rename(house.inbox / "study")
    spare.rename(house.inbox / "study" / "late.dcm")
    house.wake.stopping = False
    with_stop(house, 70)
    assert house.states() == ["delivered"]


def test_an_inbox_that_was_put_in_place_of_another_is_served(house: House) -> None:
    house.inbox.rename(house.root / "elsewhere")
    house.inbox.mkdir()
    put_study(house.inbox)
    house.run(5)
    assert house.states() == ["delivered"]
    put_slice(house.inbox, "1.5", 2, extra="corrected")
    house.run(10)
    assert house.states() == ["delivered", "delivered"]
    assert json.loads((house.state / "inbox-place.json").read_text())["place"]["inode"] == house.inbox.stat().st_ino
