"""Received files are deleted only when every daemon has finished and the report is safe at all destinations."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungstage.appliance.config.disks import held
from lungstage.appliance.gateway.marks import Marks
from lungstage.appliance.gateway.queue import Document, Queue
from lungstage.appliance.gateway.retention import Retention
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.jobs import utc_now

STUDY, SR, TO = "1.2", "1.9", "dicom://A@h:1"
DAY = 86400.0


class Scene:
    """One study that was received, answered and delivered; each test changes one thing."""

    def __init__(self, root: Path, daemons: int = 1) -> None:
        self.inbox, self.marks = root / "inbox", root / "marks"
        self.states = [root / f"state{number}" for number in range(daemons)]
        for folder in (self.inbox / STUDY, self.marks, *self.states):
            folder.mkdir(parents=True)
        for name in ("1.5.dcm", f"1.6-{'a' * 16}.dcm"):
            (self.inbox / STUDY / name).write_bytes(b"")
        self.queue = Queue(root / "q")
        self.queue.received(STUDY, "CT1")
        for state in self.states:
            self.job(state, "delivered")
        self.queue.put(Document(f"SR-{SR}.dcm", "sr", "1.1", SR, STUDY), [TO])
        self.deliver(committed=True)
        self.open = Marks(self.marks)
        self.retention = Retention(self.inbox, self.states, 2.0, self.queue, self.open)

    def job(self, state: Path, stands: str, number: int = 1) -> None:
        with Database(state / "ledger.sqlite") as database:
            now = utc_now().isoformat()
            database.query(
                "INSERT OR REPLACE INTO jobs (id, case_key, study_instance_uid, anchor, state, opened_at, updated_at,"
                " sr_sop_instance_uid, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (number, f"c{number}", STUDY, "a", stands, now, now, SR if stands == "delivered" else None, now),
            )

    def deliver(self, *, committed: bool) -> None:
        (delivery,) = self.queue.deliveries_of(f"SR-{SR}.dcm")
        self.queue.delivered(delivery, committed=committed)

    def gone_after(self, days: float) -> bool:
        for _ in range(int(days * 4)):
            self.retention.step(DAY / 4)
        return not (self.inbox / STUDY).exists()


def test_they_go_after_so_many_days_and_not_before(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert not scene.gone_after(1.75)
    assert scene.gone_after(0.25)
    assert scene.queue.studies() == frozenset()


@pytest.mark.parametrize("stands", ["waiting", "held", "ready", "claimed", "report_ready"])
def test_never_while_a_daemon_has_work_with_them(tmp_path: Path, stands: str) -> None:
    scene = Scene(tmp_path, daemons=2)
    scene.job(scene.states[1], stands, number=2)
    assert not scene.gone_after(10)
    scene.job(scene.states[1], "refused", number=2)
    assert not scene.gone_after(1.75), "the days count from the refusal"
    assert scene.gone_after(0.25)


def test_never_where_one_daemon_does_not_know_them(tmp_path: Path) -> None:
    scene = Scene(tmp_path, daemons=2)
    (scene.states[1] / "ledger.sqlite").unlink()
    assert not scene.gone_after(10)
    Database(scene.states[1] / "ledger.sqlite").close()
    assert not scene.gone_after(10)


def test_never_while_the_report_has_not_arrived_for_good(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.deliver(committed=False)
    assert not scene.gone_after(10)
    scene.queue.put(Document(f"SR-{SR}.dcm", "sr", "1.1", SR, STUDY), ["file:///x"])
    (first, second) = scene.queue.deliveries_of(f"SR-{SR}.dcm")
    scene.queue.delivered(first, committed=True)
    assert not scene.gone_after(10), "one of two destinations still waits"
    scene.queue.delivered(second, committed=False)
    assert scene.gone_after(2)


def test_never_where_nothing_but_a_refusal_came_of_them(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.job(scene.states[0], "refused")
    assert not scene.gone_after(10)


def test_never_under_replay(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with held(scene.states[0], shared=True) as is_held:
        assert is_held
        assert not scene.gone_after(10)
    assert scene.gone_after(1)


def test_never_while_a_person_has_asked_for_something(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (scene.states[0] / "requests").mkdir()
    (scene.states[0] / "requests" / "one").write_text("")
    assert not scene.gone_after(10)


def test_never_while_they_are_still_being_sent(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.open.open(1, STUDY)
    assert not scene.gone_after(10)


def test_what_the_gateway_did_not_put_there_is_left(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (scene.inbox / STUDY / "notes.txt").write_text("")
    (scene.inbox / "1.3").mkdir()
    assert not scene.gone_after(10)
    assert [path.name for path in (scene.inbox / STUDY).iterdir()] == ["notes.txt"]
    assert (scene.inbox / "1.3").exists()
