"""What the daemon reports by itself: a wait that is too long, once, and a full disk."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lungstage.appliance.config import disks
from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.daemon import upkeep
from lungstage.appliance.daemon.upkeep import Upkeep
from lungstage.appliance.state import database
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import _MIGRATIONS, Database
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import Ledger
from tests.support.simulated import House, put_study

MISSING = Reason(ReasonCode.SLICES_MISSING, "2 slices are missing.")
HOUR = timedelta(hours=1)


class Clock:
    """The time of day and the monotonic clock; the test sets both."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return Ledger(Database(tmp_path / "ledger.sqlite"), now=clock)


@pytest.fixture
def keeper(tmp_path: Path, clock: Clock, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> Upkeep:
    caplog.set_level(logging.DEBUG, logger="lungstage")
    paths = {name: tmp_path / name for name in ("inbox", "outbox", "bundle", "state")}
    for folder in paths.values():
        folder.mkdir()
    settings = load_settings(None, {**paths, "alert_after_seconds": 3600}, {})
    return Upkeep(ledger, settings, clock.monotonic)


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if record.msg == event]


def wait(ledger: Ledger, key: str = "1.5") -> int:
    job = ledger.open_job(key, "1.2", key, f"{key}.1")
    return ledger.wait(job.id, MISSING, content="c").id


def test_a_job_that_waits_too_long_is_told_of_once(
    keeper: Upkeep, ledger: Ledger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = wait(ledger)
    clock.now += HOUR - timedelta(seconds=1)
    keeper.tick()
    assert not said(caplog, "alert")
    # Neither a hold, nor another look, nor another file starts the wait again.
    ledger.hold(job_id, MISSING, content="c")
    ledger.wait(job_id, MISSING, content="d")
    ledger.hold(job_id, MISSING, content="d")
    clock.now += timedelta(minutes=1)
    keeper.tick()
    (alert,) = said(caplog, "alert")
    assert (alert["job"], alert["study"], alert["code"], alert["state"]) == (job_id, "1.2", "slices_missing", "held")
    assert alert["since"] == "2026-01-01T00:00:00+00:00"
    assert MISSING.message not in str(alert), "a message may contain a ROI's name, which is free text"
    clock.now += timedelta(days=3)
    keeper.tick()
    assert len(said(caplog, "alert")) == 1


def test_not_even_a_new_daemon_repeats_it(
    keeper: Upkeep, ledger: Ledger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    wait(ledger)
    clock.now += 2 * HOUR
    keeper.tick()
    Upkeep(ledger, keeper._settings, clock.monotonic).tick()
    assert len(said(caplog, "alert")) == 1


def test_a_wait_of_its_own_is_told_of_again(
    keeper: Upkeep, ledger: Ledger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = wait(ledger)
    clock.now += 2 * HOUR
    keeper.tick()
    ledger.ready(job_id, content="c", fingerprint="f", bundle_digest="b")
    clock.now += 2 * HOUR
    keeper.tick()
    assert ledger.jobs.get(job_id).waiting_since is None  # type: ignore[union-attr]
    ledger.wait(job_id, MISSING, content="e")
    assert ledger.jobs.get(job_id).waiting_since == clock.now  # type: ignore[union-attr]
    keeper.tick()
    assert len(said(caplog, "alert")) == 1
    clock.now += HOUR + timedelta(seconds=1)
    keeper.tick()
    assert len(said(caplog, "alert")) == 2


def test_a_job_that_is_requeued_after_a_year_is_not_overdue_at_once(ledger: Ledger, clock: Clock) -> None:
    job_id = wait(ledger)
    ledger.ready(job_id, content="c", fingerprint="f", bundle_digest="b")
    Claims(ledger).claim(HOUR)
    Claims(ledger).report_ready(job_id, {}, "2.25.1", "2.25.2")
    Claims(ledger).delivered(job_id, Path("SR.dcm"))
    clock.now += timedelta(days=365)
    ledger.requeue(job_id)
    assert ledger.jobs.long_waiting(HOUR) == ()
    assert ledger.jobs.get(job_id).waiting_since == clock.now  # type: ignore[union-attr]


def test_what_was_taken_away_is_waited_for_by_nobody(ledger: Ledger, clock: Clock) -> None:
    job_id = wait(ledger)
    ledger.hold(job_id, Reason(ReasonCode.NO_DICOM, "The files of this case are no longer in the inbox."), content=None)
    clock.now += 2 * HOUR
    assert ledger.jobs.long_waiting(HOUR) == ()
    assert ledger.jobs.oldest_waiting() is None
    ledger.hold(job_id, MISSING, content="c")
    assert [job.id for job in ledger.jobs.long_waiting(HOUR)] == [job_id]
    assert ledger.jobs.oldest_waiting() == ledger.jobs.get(job_id)


def test_jobs_that_an_older_release_left_waiting_count_from_their_beginning(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        version = next(n for n, text in enumerate(_MIGRATIONS) if "waiting_since" in text)
        older.setattr(database, "_MIGRATIONS", _MIGRATIONS[:version])
        older.setattr(database, "SCHEMA_VERSION", version)
        with Database(tmp_path / "new.sqlite") as made:
            made.query(
                "INSERT INTO jobs (case_key, study_instance_uid, anchor, state, opened_at, updated_at)"
                " VALUES ('1', '2', '3', 'held', ?, ?)",
                (clock.now.isoformat(), clock.now.isoformat()),
            )
    clock.now += 2 * HOUR
    with Database(tmp_path / "new.sqlite") as migrated:
        ledger = Ledger(migrated, now=clock)
        (job,) = ledger.jobs.long_waiting(HOUR)
        assert job.waiting_since == clock.now - 2 * HOUR
        assert ledger.hold(job.id, MISSING, content="c").waiting_since == clock.now - 2 * HOUR


def test_a_canary_is_nobody_s_study(ledger: Ledger, clock: Clock) -> None:
    job = ledger.open_job("1.5", "1.2", None, "1", canary=True)
    ledger.wait(job.id, MISSING, content="c")
    clock.now += 2 * HOUR
    assert ledger.jobs.long_waiting(HOUR) == ledger.jobs.find(states=[JobState.WAITING]) == ()
    assert ledger.jobs.oldest_waiting() is None
    assert ledger.jobs.counts() == {}


def test_the_daemon_looks_after_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="lungstage")
    house = House(tmp_path, alert_after_seconds=0.001)
    put_study(house.inbox)
    spare = (house.inbox / "1.5-2.dcm").rename(tmp_path / "spare")
    house.run(40)
    house.restart()
    house.run(40)
    assert house.states() == ["held"]
    assert [alert["job"] for alert in said(caplog, "alert")] == [1]
    spare.rename(house.inbox / "late.dcm")
    house.run(2)
    assert house.states() == ["delivered"]


def test_a_full_disk_is_told_of_when_it_begins_and_when_it_ends(
    keeper: Upkeep, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = 499
    monkeypatch.setattr(disks.os, "statvfs", lambda _: SimpleNamespace(f_bavail=blocks * 1024, f_frsize=1024))
    for _ in range(3):
        keeper.tick()
        clock.now += timedelta(seconds=11)
    low = said(caplog, "low_space")
    assert sorted((line["folder"], line["free_mb"]) for line in low) == [("outbox", 499), ("state", 499)]
    assert all(line["levelname"] == "WARNING" for line in low)
    blocks = 500
    keeper.tick()
    assert len(said(caplog, "space_regained")) == 2
    assert len(said(caplog, "low_space")) == 2


def test_a_disk_that_is_away_is_no_full_disk(tmp_path: Path) -> None:
    assert upkeep.free_mb(tmp_path / "absent") is None
    assert upkeep.free_mb(tmp_path) == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 1024**2, rel=0.05
    )


def test_filters_of_the_ledger(ledger: Ledger, clock: Clock) -> None:
    ids = [wait(ledger, f"1.{n}") for n in range(6)]
    clock.now += HOUR
    ledger.hold(ids[1], MISSING, content="c")
    ledger.refuse(ids[4], MISSING, content="c")
    every = ledger.jobs.find()
    assert [job.id for job in every] == ids
    assert [job.id for job in ledger.jobs.find(states=[JobState.HELD, JobState.REFUSED])] == [ids[1], ids[4]]
    assert [job.id for job in ledger.jobs.find(since=clock.now)] == [ids[1], ids[4]]
    assert ledger.jobs.find(since=clock.now + timedelta(microseconds=1)) == ()
    assert [job.id for job in ledger.jobs.find(limit=2)] == ids[-2:]
    assert [job.id for job in ledger.jobs.find(states=[JobState.WAITING], limit=2)] == [ids[3], ids[5]]
    assert ledger.jobs.find(study="1.2") == every
    assert ledger.jobs.find(study="1.2' OR '1'='1") == ()
    assert ledger.jobs.counts() == {JobState.WAITING: 4, JobState.HELD: 1, JobState.REFUSED: 1}


def test_a_report_that_was_taken_from_the_outbox_is_not_missed(tmp_path: Path) -> None:
    house = House(tmp_path)
    put_study(house.inbox)
    house.run(2)
    (report,) = house.reports()
    content = report.read_bytes()
    for path in house.outbox.iterdir():
        path.unlink()
    house.run(30)
    house.restart()
    house.run(30)
    assert house.states() == ["delivered"]
    assert not list(house.outbox.iterdir())
    house.ledger.requeue(1)
    house.restart()
    house.run(5)
    assert report.read_bytes() == content
