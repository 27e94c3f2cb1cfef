"""An entry in a document's place in the outbox holds that job with a message, and no other job."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.daemon.obstacles import Obstacles
from lungstage.appliance.daemon.open_cases import OpenCase, OpenCases
from lungstage.appliance.report import outbox
from lungstage.appliance.state.job import JobState
from tests.support.simulated import House, put_study


def _folder(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    path.symlink_to("/nowhere")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _foreign(path: Path) -> None:
    path.write_bytes(b"somebody else's")


OBSTACLES = {"a folder": _folder, "a link": _link, "a named pipe": _pipe, "other content": _foreign}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def _obstruct(house: House, put: Callable[[Path], None]) -> tuple[Path, bytes]:
    """Deliver a report, replace it with something else, and requeue its job."""
    put_study(house.inbox / "a")
    house.run(3)
    (report,) = house.reports()
    content = report.read_bytes()
    report.unlink()
    put(report)
    house.ledger.requeue(1)
    house.restart()
    return report, content


def _identity(path: Path) -> tuple[int, int, int, int]:
    """Values that change when a file is replaced or written to, and not when it is read."""
    at = path.lstat()
    return at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns


def _clear(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize("kind", OBSTACLES)
def test_it_holds_its_own_job_alone_until_it_is_taken_away(
    house: House, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    report, content = _obstruct(house, OBSTACLES[kind])
    before = _identity(report)
    with caplog.at_level(logging.WARNING, "lungstage"):
        house.run(1)
        put_study(house.inbox / "b", "1.6")
        house.run(120)
    assert house.states() == ["held", "delivered"]
    reason = house.ledger.jobs.find()[0].reason
    assert reason is not None
    assert reason.code is ReasonCode.OUTBOX_OCCUPIED
    assert str(report) in reason.message
    assert kind in reason.message
    assert "Move it to another folder" in reason.message
    assert [record.why for record in caplog.records if record.msg == "outbox_occupied"] == [reason.message]  # type: ignore[attr-defined]
    assert _identity(report) == before
    staged = house.steps.calls["stage"]
    _clear(report)
    house.run(10)
    assert house.states() == ["delivered", "delivered"]
    assert report.read_bytes() == content
    assert house.steps.calls["stage"] == staged + 1


def test_a_person_need_not_wait_for_the_next_look(house: House) -> None:
    report, content = _obstruct(house, _folder)
    house.run(10)
    report.rmdir()
    house.ledger.requeue(1)
    house.restart()
    house.run(2)
    assert house.states() == ["delivered"]
    assert report.read_bytes() == content


def test_a_report_that_cannot_be_read_is_an_obstacle_until_it_can(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates a file that was written under another account, because root may read every file."""
    really, access = os.open, os.access
    closed: set[str] = set()

    def open_but_that(path: Any, *rest: Any, **more: Any) -> int:
        if os.fspath(path) in closed:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return really(path, *rest, **more)

    monkeypatch.setattr(outbox.os, "open", open_but_that)
    monkeypatch.setattr(outbox.os, "access", lambda path, mode: os.fspath(path) not in closed and access(path, mode))
    put_study(house.inbox / "a")
    house.run(3)
    (report,) = house.reports()
    closed.add(str(report))
    house.ledger.requeue(1)
    house.restart()
    put_study(house.inbox / "b", "1.6")
    house.run(30)
    assert house.states() == ["held", "delivered"]
    reason = house.ledger.jobs.find()[0].reason
    assert reason is not None
    assert f"{report} is a file that this account may not read" in reason.message
    closed.clear()
    house.run(10)
    assert house.states() == ["delivered", "delivered"]


def test_attempts_are_not_counted_and_the_audit_log_is_told_once(house: House) -> None:
    _obstruct(house, _folder)
    house.run(600)
    job = house.job()
    assert (job.state, job.attempts) == (JobState.HELD, 0)
    lines = (house.state / "audit-000001.jsonl").read_text().splitlines()
    assert sum(ReasonCode.OUTBOX_OCCUPIED in line for line in lines) == 2  # first waiting, then held


def test_only_what_has_changed_has_its_case_examined(tmp_path: Path) -> None:
    now = [0.0]
    cases = OpenCases("b")
    for key in "ab":
        cases[key] = OpenCase(key, 0.0)
        (tmp_path / key).mkdir()
    obstacles = Obstacles(cases, lambda: now[0])
    assert obstacles.next_due() is None
    for key in "ab":
        obstacles.met(key, tmp_path / key)
    (tmp_path / "a").rmdir()
    obstacles.tick()
    assert cases["a"].due is None  # not before it is time to look
    due = obstacles.next_due()
    assert due is not None
    now[0] = due
    obstacles.tick()
    assert (cases["a"].due, cases["b"].due) == (due, None)
    (tmp_path / "b").rename(tmp_path / "c")
    now[0] = due + 10
    obstacles.tick()
    assert cases["b"].due == now[0]
    assert obstacles.next_due() is None
