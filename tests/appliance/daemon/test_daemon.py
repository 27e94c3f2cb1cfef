"""What the daemon ensures, with steps that answer at once: in simulated time, and as a process that is killed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest

from lungstage.appliance.config import logs
from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import ReasonCode, Unavailable
from lungstage.appliance.daemon.examination import given_up
from lungstage.appliance.daemon.start import sole_daemon
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.state import chain
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import Jobs
from lungstage.appliance.state.ledger import Ledger
from tests.support.fake_daemon import FORKS, KILLS, TIMERS, serve
from tests.support.fake_steps import BUNDLE, SECRET, put_roi, put_slice
from tests.support.seconds import PATIENCE, until
from tests.support.simulated import House, put_study, with_stop

REPOSITORY = Path(__file__).resolve().parents[3]
Launch = Callable[..., BaseProcess]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_study_becomes_one_report(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    assert house.states() == ["delivered"]
    (report,) = house.reports()
    dataset = pydicom.dcmread(report)
    job = house.job()
    assert job.created_at is not None
    assert job.sr_path == str(report)
    assert job.sr_sop_instance_uid == dataset.SOPInstanceUID
    assert dataset.ContentTime == f"{job.created_at:%H%M%S.%f}"
    assert job.outcome == {"status": "staged", "stage": "early", "probability_advanced": 0.25}
    assert job.bundle_digest == BUNDLE.digest


def test_the_report_comes_soon_after_the_last_needed_file(house: House) -> None:
    put_roi(house.inbox, "1.5.99", "1.5", range(5))
    for n in range(4):
        put_slice(house.inbox, "1.5", n)
    house.run(3)
    put_slice(house.inbox, "1.5", 4)
    arrived = house.wake.now
    while not house.reports():
        house.daemon.step()
    assert house.wake.now - arrived <= 0.5


@pytest.mark.slow
def test_files_one_by_one_cost_one_reading_each_and_few_examinations(house: House) -> None:
    put_roi(house.inbox, "1.5.99", "1.5", range(100))
    for n in range(100):
        put_slice(house.inbox, "1.5", n)
        if n % 5 == 4:
            house.run(0.1)
    house.run(2)
    assert house.states() == ["delivered"]
    assert house.steps.calls["read"] == 101
    assert house.steps.calls["prepare"] <= 25
    before = house.steps.calls["prepare"]
    house.run(60)
    assert house.steps.calls["prepare"] == before
    assert house.steps.calls["stage"] == 1


def test_a_backlog_is_read_without_long_pauses(house: House) -> None:
    def slowly() -> None:
        house.wake.now += 0.25

    house.steps.during_read = slowly
    put_study(house.inbox, "1.5", 40)
    started = house.wake.now
    while not house.reports():
        house.daemon.step()
    assert house.wake.now - started < 1.5 * 41 * 0.25


def test_a_case_that_is_slow_to_examine_is_not_examined_for_each_file(house: House) -> None:
    def slowly() -> None:
        house.wake.now += 1.0

    house.steps.during_prepare = slowly
    put_roi(house.inbox, "1.5.99", "1.5", range(100))
    for n in range(100):
        put_slice(house.inbox, "1.5", n)
        house.run(0.05)
    house.run(6)
    assert house.states() == ["delivered"]
    assert house.steps.calls["prepare"] < 20


def test_the_first_report_of_a_backlog_does_not_wait_until_all_is_examined(house: House) -> None:
    def slowly() -> None:
        house.wake.now += 0.2

    house.steps.during_prepare = slowly
    for n in range(10, 30):
        put_study(house.inbox / str(n), f"1.{n}")
    while not house.reports():
        house.daemon.step()
    assert house.steps.calls["prepare"] < 10
    started = house.wake.now
    house.run(20 * 0.2 + 2)
    assert house.states() == ["delivered"] * 20
    assert house.steps.calls["prepare"] == 20
    assert house.wake.now - started < 20 * 0.2 + 4


def test_what_was_put_off_is_examined_although_other_files_are_still_unread(house: House) -> None:
    def slowly() -> None:
        house.wake.now += 0.5

    house.steps.during_prepare = slowly
    house.steps.during_read = lambda: slowly() if house.steps.calls["read"] > 12 else None
    for n in range(10, 16):
        put_study(house.inbox / str(n), f"1.{n}", 1)
    for n in range(200):
        put_slice(house.inbox / "z", "1.9", n)
    while len(house.reports()) < 6:
        house.daemon.step()
    assert house.steps.calls["read"] < 100


@pytest.mark.parametrize("missing", [0, 2, 4])
def test_a_missing_slice_waits_is_held_and_goes_on_by_itself(house: House, missing: int) -> None:
    put_study(house.inbox)
    spare = (house.inbox / f"1.5-{missing}.dcm").rename(house.root / "spare")
    house.run(1)
    assert house.states() == ["waiting"]
    house.run(3.5)
    assert house.states() == ["waiting"]
    house.run(2)
    job = house.job()
    assert job.state is JobState.HELD
    assert job.reason is not None
    assert job.reason.code is ReasonCode.SLICES_MISSING
    assert job.reason.message == "1 slices are missing."
    house.run(60)
    spare.rename(house.inbox / "late.dcm")
    house.run(2)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1


def test_a_job_that_waits_tells_of_files_beside_it_that_cannot_be_read(house: House) -> None:
    put_study(house.inbox / "a")
    whole = (house.inbox / "a" / "1.5-2.dcm").read_text()
    (house.inbox / "a" / "1.5-2.dcm").write_text(whole.removesuffix("END"))
    (house.inbox / "a" / "notes.txt").write_text("no DICOM")
    (house.inbox / "b").mkdir()
    (house.inbox / "b" / "other.dcm").write_text("CT 1.6 1 ")
    house.run(2)
    assert house.states() == ["waiting"]
    assert "1 DICOM file cannot be read" in str(house.job().reason)
    house.run(4)
    job = house.job()
    assert job.state is JobState.HELD
    assert job.reason is not None
    assert job.reason.message == (
        "1 slices are missing. In the folders of this case, 1 DICOM file cannot be read. "
        "The command lungstage jobs --files --paths lists them with the reasons."
    )
    (house.inbox / "a" / "1.5-2.dcm").write_text(whole)
    house.run(3)
    assert house.states() == ["delivered"]


def test_a_job_is_told_of_an_unreadable_file_that_comes_while_it_waits(house: House) -> None:
    put_study(house.inbox / "a")
    (house.inbox / "a" / "1.5-2.dcm").unlink()
    house.run(4)
    assert house.states() == ["waiting"]
    (house.inbox / "a" / "late.dcm").write_text("CT 1.5 2 ")
    house.run(6)
    assert "1 DICOM file cannot be read" in str(house.job().reason)


def test_an_end_counts_as_one_only_once_the_case_rests(house: House) -> None:
    put_study(house.inbox, "1.5", 5, "margin")
    house.run(1.5)
    assert house.states() == ["waiting"]
    put_slice(house.inbox, "1.5", 7)
    house.run(1.5)
    assert house.states() == ["waiting"]
    house.run(2)
    assert house.states() == ["delivered"]
    assert house.steps.settled_calls[-1]
    assert house.steps.settled_calls.count(True) == 1


def test_an_end_does_not_count_while_files_lie_unread(house: House) -> None:
    def slowly() -> None:
        house.wake.now += 0.4

    house.steps.during_read = slowly
    put_study(house.inbox / "a", "1.5", 5, "margin")
    for n in range(30):
        put_slice(house.inbox / "b", "1.6", n)
    put_slice(house.inbox / "c", "1.5", 6)
    while house.steps.calls["read"] < 37:
        assert True not in house.steps.settled_calls
        house.daemon.step()
    house.run(5)
    assert house.states() == ["delivered", "held"]


def test_a_file_that_never_rests_does_not_keep_a_case_from_settling(house: House) -> None:
    put_study(house.inbox, "1.5", 5, "margin")
    path = put_slice(house.inbox, "1.6", 6)
    for n in range(40):
        os.utime(path, ns=(n, n))
        house.run(0.1)
    assert house.states() == ["delivered"]


@pytest.mark.parametrize("parts", ["roi", "ct"])
def test_half_a_study_waits(house: House, parts: str) -> None:
    if parts == "roi":
        put_roi(house.inbox, "1.5.99", "1.5", range(5))
    else:
        put_slice(house.inbox, "1.5", 1)
    house.run(8)
    assert house.states() == ["held"]
    put_study(house.inbox)
    house.run(2)
    assert house.states() == ["delivered"]


def test_a_second_copy_of_a_study_makes_no_second_report(house: House) -> None:
    put_study(house.inbox / "first")
    house.run(2)
    examined = house.steps.calls["prepare"]
    put_study(house.inbox / "second")
    house.run(10)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1
    assert house.steps.calls["prepare"] == examined
    shutil.rmtree(house.inbox / "first")
    house.run(10)
    house.restart()
    house.run(10)
    assert house.states() == ["delivered"]
    assert house.steps.calls["prepare"] == examined
    assert house.steps.calls["stage"] == 1


def test_other_slices_of_the_series_make_no_second_report(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    put_slice(house.inbox, "1.5", 50)
    house.run(10)
    assert house.states() == ["delivered"]
    assert house.steps.calls["stage"] == 1


def test_a_new_slice_in_the_margin_of_an_answered_case_opens_no_job_in_between(house: House) -> None:
    put_study(house.inbox, "1.5", 5, "margin")
    house.run(4)
    put_slice(house.inbox, "1.5", 50)
    house.run(1)
    assert house.states() == ["delivered"]
    house.run(10)
    assert house.states() == ["delivered"]


def test_changed_content_makes_a_new_job_and_a_new_report(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    put_slice(house.inbox, "1.5", 2, extra="corrected")
    house.run(10)
    assert house.states() == ["delivered", "delivered"]
    assert len(house.reports()) == 2
    first = house.ledger.jobs.find()[0]
    assert first.sr_sop_instance_uid is not None
    assert house.steps.predecessors == [None, Predecessor("1", "2.25.5", first.sr_sop_instance_uid)]


def test_a_refusal_is_pronounced_at_rest_and_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    put_study(house.inbox, "1.5", 5, "refuse")
    house.run(1)
    assert house.states() == ["waiting"]
    house.run(3)
    job = house.job()
    assert job.state is JobState.REFUSED
    assert job.reason is not None
    assert job.reason.code is ReasonCode.ROI_EMPTY
    house.run(30)
    for _ in range(2):
        house.restart()
        house.run(10)
    assert house.job() == job
    assert house.steps.calls["stage"] == 0


def test_a_refused_case_goes_on_when_its_content_changes(house: House) -> None:
    put_study(house.inbox, "1.5", 5, "refuse")
    house.run(4)
    assert house.states() == ["refused"]
    put_roi(house.inbox, "1.5.99", "1.5", range(5))
    house.run(2)
    assert house.states() == ["delivered"]


def test_a_refusal_in_staging_is_final_for_that_content(house: House) -> None:
    put_study(house.inbox, "1.5", 5, "stage-refuse")
    house.run(3)
    assert house.job().reason is not None
    put_slice(house.inbox, "1.5", 50)
    house.run(10)
    house.restart()
    house.run(10)
    assert house.states() == ["refused"]
    assert house.steps.calls["stage"] == 1
    put_roi(house.inbox, "1.5.99", "1.5", range(5))
    house.run(3)
    assert house.states() == ["refused", "delivered"]


def test_a_defect_of_ours_is_tried_three_times_then_told_and_the_next_study_is_served(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("text")
    put_study(house.inbox / "bad", "1.5", 5, "broken")
    put_study(house.inbox / "good", "1.6")
    house.run(10)
    assert sorted(house.states()) == ["delivered", "refused"]
    bad = next(job for job in house.ledger.jobs.find() if job.state is JobState.REFUSED)
    assert bad.reason is not None
    assert bad.reason.code is ReasonCode.INTERNAL_ERROR
    assert house.steps.calls["stage"] == 4
    err = capsys.readouterr().err
    assert err.count("job_defect") == 3
    assert "ValueError" in err
    assert "fake_steps.py" in err
    assert SECRET not in err + bad.reason.message


def test_a_defect_in_examination_is_told_too(house: House) -> None:
    put_study(house.inbox, "1.5", 5, "broken-prepare")
    house.run(15)
    job = house.job()
    assert job.state is JobState.REFUSED
    assert job.reason is not None
    assert job.reason.code is ReasonCode.INTERNAL_ERROR
    assert house.steps.calls["prepare"] >= 3
    before = house.steps.calls["prepare"]
    house.run(60)
    assert house.steps.calls["prepare"] == before


def test_what_is_unavailable_is_retried_with_growing_pauses_and_no_count(house: House) -> None:
    put_study(house.inbox, "1.5", 5, "away")
    house.run(35)
    assert house.states() == ["ready"]
    assert house.job().attempts == 0
    assert 4 <= house.steps.calls["stage"] <= 8
    put_study(house.inbox, "1.6")
    house.run(2)  # shorter than the pause of the first job by now
    assert house.states() == ["ready", "delivered"]


def test_rows_that_join_the_covariates_count_from_the_next_study_on(tmp_path: Path) -> None:
    table = tmp_path / "covariates.csv"
    table.write_text("study_instance_uid,age\n")
    house = House(tmp_path, covariates=table, prevalence=0.3)
    put_study(house.inbox)
    house.run(2)
    table.write_text("study_instance_uid,age\n1,63\n")
    put_study(house.inbox, series="1.6")
    house.run(2)
    assert house.states() == ["delivered", "delivered"]
    assert [(site.prevalence, dict(site.covariates)) for site in house.steps.sites] == [
        (0.3, {}), (0.3, {"1": {"age": 63.0}}),
    ]  # fmt: skip


def test_covariates_in_disorder_refuse_no_study_and_are_told_without_their_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="lungstage")
    table = tmp_path / "covariates.csv"
    house = House(tmp_path, covariates=table)
    put_study(house.inbox)
    house.run(3)
    assert house.states() == ["ready"], "the table is missing"
    table.write_text("study_instance_uid,age\n1,sixty-three\n")
    house.run(30)
    assert (house.states(), house.job().attempts) == (["ready"], 0)
    told = [record.why for record in caplog.records if record.msg == "unavailable" and record.why]  # type: ignore[attr-defined]
    assert any("line 2: column age" in why for why in told)
    assert "sixty-three" not in " ".join(map(str, (record.__dict__ for record in caplog.records)))
    table.write_text("study_instance_uid,age\n1,63\n")
    house.run(70)
    assert house.states() == ["delivered"]


def test_an_outbox_that_is_away_keeps_the_answer_and_delivers_it_once_it_is_back(house: House) -> None:
    house.outbox.rename(house.root / "elsewhere")
    put_study(house.inbox)
    house.run(20)
    assert house.states() == ["report_ready"]
    assert house.steps.calls["stage"] == 1
    put_slice(house.inbox, "1.5", 50)
    put_study(house.inbox, "1.6")
    house.run(5)
    assert sorted(house.states()) == ["ready", "report_ready"]
    (house.root / "elsewhere").rename(house.outbox)
    house.run(65)
    assert house.states() == ["delivered", "delivered"]
    assert house.steps.calls["stage"] == 2
    assert len(house.reports()) == 2


def test_a_ledger_that_cannot_be_written_loses_and_doubles_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered, failures = Claims.delivered, iter(range(4))

    def fail(self: Claims, *args: Any) -> Job:
        if next(failures, None) is not None:
            raise Unavailable("disk full")
        return delivered(self, *args)

    monkeypatch.setattr(Claims, "delivered", fail)
    put_study(house.inbox)
    with_stop(house, 60)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1


def test_an_inbox_that_is_away_for_a_while_does_no_harm(house: House) -> None:
    put_study(house.inbox / "a", "1.5")
    put_roi(house.inbox / "b", "1.6.99", "1.6", range(5))
    house.run(10)
    assert sorted(house.states()) == ["delivered", "held"]
    house.inbox.rename(house.root / "unmounted")
    with_stop(house, 30)
    (house.root / "unmounted").rename(house.inbox)
    put_study(house.inbox / "b", "1.6")
    house.wake.stopping = False
    with_stop(house, 30)
    assert house.states() == ["delivered", "delivered"]
    assert house.steps.calls["stage"] == 2


def test_the_loop_survives_what_nobody_foresaw(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stop(house, 2)
    house.wake.stopping = False
    update, failures = house.daemon._cases.update, iter(range(3))

    def fail(unread_since: float | None) -> bool:
        if next(failures, None) is not None:
            raise RuntimeError(SECRET)
        return update(unread_since)

    monkeypatch.setattr(house.daemon._cases, "update", fail)
    put_study(house.inbox)
    with_stop(house, 30)
    assert house.states() == ["delivered"]


def test_a_case_whose_files_are_taken_away_is_held_and_resumes(house: House) -> None:
    put_study(house.inbox / "a")
    (house.inbox / "a" / "1.5-2.dcm").unlink()
    house.run(1)
    (house.inbox / "a").rename(house.root / "aside")
    house.run(2)
    job = house.job()
    assert job.state is JobState.HELD
    assert job.reason is not None
    assert job.reason.code is ReasonCode.NO_DICOM
    (house.root / "aside").rename(house.inbox / "a")
    put_study(house.inbox / "a")
    house.run(2)
    assert house.states() == ["delivered"]


def test_a_study_in_hand_whose_files_are_taken_away_is_delivered(house: House) -> None:
    put_study(house.inbox / "a")
    house.steps.during_stage = lambda: shutil.rmtree(house.inbox / "a")
    house.run(5)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1
    assert not house.daemon._cases.open


def test_a_ready_study_whose_files_are_taken_away_is_held(house: House) -> None:
    house.outbox.rename(house.root / "elsewhere")
    put_study(house.inbox / "a")
    house.run(3)
    put_study(house.inbox / "b", "1.6")
    house.run(3)
    assert house.states() == ["report_ready", "ready"]
    shutil.rmtree(house.inbox / "b")
    house.run(3)
    assert house.states() == ["report_ready", "held"]
    assert list(house.daemon._cases.open) == ["1.5"]
    (house.root / "elsewhere").rename(house.outbox)
    house.run(65)
    assert house.states() == ["delivered", "held"]
    assert house.steps.calls["stage"] == 1


def test_a_ready_study_whose_files_are_taken_away_is_held_although_the_start_is_not_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While files from before the start are unread, no file counts as removed, so a ready job may be claimed."""

    def slowly() -> None:
        house.wake.now += 0.6

    house.steps.during_read = slowly
    put_study(house.inbox / "a", "1.5", 1)
    for n in range(20):
        put_slice(house.inbox / "b", "1.6", n)
    with monkeypatch.context() as busy:
        busy.setattr(house.daemon._dispatcher._stagers, "free", lambda: False)
        house.run(3)
        shutil.rmtree(house.inbox / "a")
        house.run(2)
        assert house.states()[0] == "ready"
    house.run(2)  # it is claimed, and its files cannot be read
    assert house.steps.calls["stage"] > 0
    assert house.states()[0] != "held"
    assert house.steps.calls["read"] < 20
    house.run(30)
    job = house.ledger.jobs.find()[0]
    assert job.state is JobState.HELD
    assert job.reason is not None
    assert job.reason.code is ReasonCode.NO_DICOM


def test_a_job_whose_case_got_another_key_is_superseded(house: House) -> None:
    put_roi(house.inbox, "1.5.99", "1.5", range(5), "unlisted")
    house.run(8)
    assert house.states() == ["held"]
    assert house.job().case_key == "1.5.99"
    for n in range(5):
        put_slice(house.inbox, "1.5", n)
    house.run(3)
    old, new = house.ledger.jobs.find()
    assert old.superseded
    assert old.reason is not None
    assert f"Job {new.id}" in old.reason.message
    assert new.state is JobState.DELIVERED


def test_a_job_whose_case_got_another_key_waits_until_that_case_can_be_examined(house: House) -> None:
    put_roi(house.inbox, "1.5.99", "1.5", range(5), "unlisted")
    house.run(8)

    def away() -> None:
        if house.wake.now < returns:
            raise Unavailable("A disk is away.")

    returns = house.wake.now + 10
    house.steps.during_prepare = away
    for n in range(5):
        put_slice(house.inbox, "1.5", n)
    house.run(5)
    assert house.states() == ["held"]
    house.run(10)
    old, new = house.ledger.jobs.find()
    assert old.superseded
    assert new.state is JobState.DELIVERED


@pytest.mark.parametrize("other", ["1.4", "1.6"])
@pytest.mark.parametrize("pause", [0, 8])
@pytest.mark.parametrize("other_first", [True, False])
def test_a_region_that_lists_two_series_is_answered_by_the_job_of_its_own(
    house: House, other: str, pause: int, other_first: bool
) -> None:
    """The region arrives before both series, so at first its case can only be named after the region's file."""
    put_roi(house.inbox, "1.5.99", "1.5", range(5), f"ALSO={other}")
    house.run(8)
    assert house.states() == ["held"]
    sent = [lambda: put_slice(house.inbox, other, 0), lambda: [put_slice(house.inbox, "1.5", n) for n in range(5)]]
    for send in sent if other_first else sent[::-1]:
        send()
        house.run(pause)
    house.run(8)
    first, *others = house.ledger.jobs.find()
    (own,) = (job for job in others if job.series_instance_uid == "1.5")
    assert own.state is JobState.DELIVERED
    assert first.reason is not None
    assert first.reason.message == f"Job {own.id} answers for this case."
    before = (house.state / "audit-000001.jsonl").read_text().count("superseded")
    house.restart()
    house.ledger.requeue(own.id)
    house.run(8)
    assert (house.state / "audit-000001.jsonl").read_text().count("superseded") == before


def test_a_region_with_a_study_of_its_own_that_came_first_leaves_the_job_to_the_study_of_the_images(
    tmp_path: Path,
) -> None:
    table = tmp_path / "covariates.csv"
    table.write_text("study_instance_uid,age\n7,63\n8,36\n")
    house = House(tmp_path, covariates=table)
    put_roi(house.inbox, "1.5.99", "1.5", range(5), "STUDY=8")
    house.run(8)
    assert house.job().study_instance_uid == "8"
    for n in range(4):
        put_slice(house.inbox, "1.5", n, extra="STUDY=7")
    house.run(8)
    assert (house.job().state, house.job().study_instance_uid) == (JobState.HELD, "7")
    put_slice(house.inbox, "1.5", 4, extra="STUDY=7")
    house.run(8)
    assert house.job().state is JobState.DELIVERED
    assert [dict(site.covariates) for site in house.steps.sites] == [{"7": {"age": 63.0}}]


def test_a_restart_takes_up_every_job_where_it_was(house: House) -> None:
    put_study(house.inbox / "a", "1.5")
    put_roi(house.inbox / "b", "1.6.99", "1.6", range(5))
    put_study(house.inbox / "c", "1.7", 5, "refuse")
    house.run(10)
    before = house.ledger.jobs.find()
    read = house.steps.calls["read"]
    house.restart()
    house.run(10)
    assert [(j.id, j.state, j.reason) for j in house.ledger.jobs.find()] == [(j.id, j.state, j.reason) for j in before]
    assert house.steps.calls["read"] == read
    assert house.steps.calls["stage"] == 1


def upgrade(house: House, monkeypatch: pytest.MonkeyPatch, version: str = "99") -> None:
    """Start a release that slowly reads every file again and computes other digests."""
    read = house.steps.read_headers

    def otherwise(path: Path) -> tuple[Header, ...]:
        house.wake.now += 0.2
        return tuple(replace(header, digest=header.digest[::-1]) for header in read(path))

    monkeypatch.setattr("lungstage.appliance.daemon.loop.__version__", version)
    monkeypatch.setattr(house.steps, "read_headers", otherwise)
    house.restart()


def test_an_upgrade_leaves_what_is_answered_and_answers_what_comes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_study(house.inbox / "a")
    put_study(house.inbox / "b", "1.6", 5, "stage-refuse")
    house.run(20)
    assert house.states() == ["delivered", "refused"]
    upgrade(house, monkeypatch)
    house.run(60)
    assert house.steps.calls["read"] == 24
    assert house.states() == ["delivered", "refused"]
    house.restart()
    house.run(20)
    assert house.states() == ["delivered", "refused"]
    assert house.steps.calls["stage"] == 2
    put_slice(house.inbox / "a", "1.5", 2, extra="replaced")
    house.run(20)
    assert house.states() == ["delivered", "refused", "delivered"]


def test_a_study_that_changed_during_an_upgrade_is_answered_anew(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    put_study(house.inbox)
    house.run(20)
    put_slice(house.inbox, "1.5", 2, extra="replaced")
    upgrade(house, monkeypatch)
    house.run(60)
    assert house.states() == ["delivered", "delivered"]


def test_nothing_is_called_absent_while_another_release_reads_it_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_study(house.inbox)
    (house.inbox / "1.5-2.dcm").unlink()
    put_study(house.inbox / "other", "1.6")
    house.run(60)
    assert house.states() == ["held", "delivered"]
    told: list[str] = []
    hold = Ledger.hold
    monkeypatch.setattr(Ledger, "hold", lambda *a, **k: (told.append(a[2].code), hold(*a, **k))[1])
    upgrade(house, monkeypatch)
    house.run(60)
    assert set(told) <= {ReasonCode.SLICES_MISSING}
    assert house.states() == ["held", "delivered"]
    shutil.rmtree(house.inbox / "other")
    for file in house.inbox.iterdir():
        file.unlink()
    house.run(60)
    assert told[-1] == ReasonCode.NO_DICOM


def test_a_requeued_job_repeats_itself_byte_for_byte(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    (report,) = house.reports()
    content = report.read_bytes()
    report.unlink()
    with Database(house.state / "ledger.sqlite") as command_line:
        Ledger(command_line).requeue(house.job().id)
    house.run(3)
    assert house.states() == ["delivered"]
    assert report.read_bytes() == content
    assert house.steps.calls["stage"] == 2


def test_a_requeued_job_without_files_is_held(house: House) -> None:
    put_study(house.inbox / "a")
    house.run(2)
    shutil.rmtree(house.inbox / "a")
    house.run(2)
    with Database(house.state / "ledger.sqlite") as command_line:
        Ledger(command_line).requeue(house.job().id)
    house.run(3)
    assert house.states() == ["held"]


def test_a_request_is_not_lost_where_the_ledger_fails_in_its_midst(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_study(house.inbox)
    with_stop(house, 2)
    house.wake.stopping = False
    with Database(house.state / "ledger.sqlite") as command_line:
        Ledger(command_line).requeue(house.job().id)

    def fail() -> None:
        monkeypatch.undo()
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(house.daemon._ledger.jobs, "requeued", fail)
    with_stop(house, 10)
    assert house.states() == ["delivered"]
    assert house.steps.calls["stage"] == 2


def test_what_is_answered_leaves_nothing_in_memory_and_what_waits_no_headers(house: House) -> None:
    put_study(house.inbox / "a", "1.5")
    put_study(house.inbox / "b", "1.6", 5, "stage-refuse")
    put_roi(house.inbox / "c", "1.7.99", "1.7", range(5))
    put_study(house.inbox / "d", "1.8", 5, "refuse")
    house.run(3)
    kept = house.daemon._cases.open
    assert kept["1.7"].report_at is not None
    assert all(entry.case is None for entry in kept.values())
    house.run(10)
    assert house.states() == ["delivered", "refused", "held", "refused"]
    assert sorted(kept) == ["1.7", "1.8"]
    assert all(entry.case is None for entry in kept.values())
    assert all(entry.plan is None and entry.in_hand is None for entry in kept.values())
    for n in range(5):
        put_slice(house.inbox / "c", "1.7", n)
    put_roi(house.inbox / "d", "1.8.98", "1.8", range(5))
    house.run(3)
    assert house.states()[2] == "delivered"
    assert sorted(kept) == ["1.8"]


def test_one_file_has_only_its_own_study_looked_at(house: House) -> None:
    for number in range(20):
        put_roi(house.inbox / str(number), f"1.{number}.99", f"1.{number}", range(5))
        put_slice(house.inbox / str(number), f"1.{number}", 0)
    house.run(12)
    assert house.states() == ["held"] * 20
    prepared = house.steps.calls["prepare"]
    for n in range(1, 5):
        put_slice(house.inbox / "7", "1.7", n)
    house.run(3)
    assert sorted(house.states()) == ["delivered"] + ["held"] * 19
    assert house.steps.calls["prepare"] - prepared <= 5


def test_a_new_bundle_answers_anew_only_when_asked(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    house.bundle = SimpleNamespace(digest="c" * 64)
    house.restart()
    house.run(5)
    assert house.job().bundle_digest == BUNDLE.digest
    house.ledger.requeue(1)
    house.restart()
    house.run(5)
    assert house.job().bundle_digest == "c" * 64
    first, second = house.steps.predecessors
    assert first is None
    assert isinstance(second, Predecessor)
    assert (house.outbox / f"SR-{second.sop_instance_uid}.dcm").exists()


def test_junk_beside_a_study_does_no_harm(house: House) -> None:
    put_study(house.inbox)
    (house.inbox / "junk.txt").write_text("not DICOM")
    (house.inbox / "empty").touch()
    house.run(5)
    assert house.states() == ["delivered"]


def test_one_daemon_per_state_folder(tmp_path: Path) -> None:
    with sole_daemon(tmp_path), pytest.raises(Unavailable, match="Another daemon"), sole_daemon(tmp_path):
        pass
    with sole_daemon(tmp_path):
        pass


@pytest.mark.parametrize("style", ["text", "json"])
def test_log_lines_quote_what_they_must_and_others_are_silent(capsys: pytest.CaptureFixture[str], style: Any) -> None:
    logs.configure(style)
    logs.logger.info("delivered", extra={"job": 3, "study": "1.2", "why": 'a "b"\nc', "series": None})
    logging.getLogger("pydicom").warning("Invalid value for PatientName: %s", SECRET)
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert SECRET not in err
    if style == "json":
        assert json.loads(err)["why"] == 'a "b"\nc'
    else:
        assert "event=delivered job=3 study=1.2 " in err
    logging.captureWarnings(False)


def test_a_log_that_cannot_be_written_tells_nothing_instead(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    logs.configure("text")
    (handler,) = logs.logger.handlers
    handler.stream = io.StringIO()  # type: ignore[attr-defined]
    handler.stream.close()  # type: ignore[attr-defined]
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        logs.logger.error("defect", extra=logs.defect(error))
    logs.configure("text")
    logging.captureWarnings(False)
    assert SECRET not in capfd.readouterr().err


# As a process


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    for name in ("inbox", "outbox"):
        (tmp_path / name).mkdir()
    started: list[tuple[BaseProcess, Connection]] = []

    def start(kill_at: str | None = None) -> BaseProcess:
        told, tell = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=serve, args=(tmp_path, kill_at, tell))
        process.start()
        started.append((process, told))
        tell.close()
        if kill_at is None:
            assert told.recv() == "ready"
        return process

    yield start
    for process, told in started:
        process.kill()
        process.join()
        told.close()


def ended(process: BaseProcess) -> int | None:
    """Wait until a process ends, and return its exit status."""
    process.join(PATIENCE)
    return process.exitcode


def stopped(process: BaseProcess) -> int | None:
    process.terminate()
    return ended(process)


def jobs_in(folder: Path) -> tuple[Job, ...]:
    with Database(folder / "state" / "ledger.sqlite") as database:
        return Jobs(database).find()


@pytest.mark.slow
@pytest.mark.parametrize("moment", sorted(KILLS))
def test_a_kill_at_any_moment_leaves_exactly_one_whole_report(tmp_path: Path, launch: Launch, moment: str) -> None:
    put_study(tmp_path / "inbox")
    assert ended(launch(moment)) == -signal.SIGKILL
    left = {path.name: path.read_bytes() for path in (tmp_path / "outbox").glob("[!.]*")}
    assert_audited(tmp_path, left)
    process = launch()
    until(lambda: [job.state for job in jobs_in(tmp_path)] == [JobState.DELIVERED])
    assert stopped(process) == 0
    documents = {path.name: path.read_bytes() for path in (tmp_path / "outbox").iterdir()}
    assert sorted(name.split("-")[0] for name in documents) == ["SEG", "SR"]
    assert all(documents[name] == content for name, content in left.items())
    for path in (tmp_path / "outbox").iterdir():
        assert pydicom.dcmread(path).SOPInstanceUID in path.name
    assert_audited(tmp_path, documents)
    log = [entry for entry in chain.entries(tmp_path / "state") if entry.repeats is None]
    assert [e.event for e in log].count("job_report_ready") == [e.event for e in log].count("job_delivered") == 1


def assert_audited(folder: Path, documents: dict[str, bytes]) -> None:
    """The chain is whole, agrees with the ledger on what was delivered, and names every document."""
    verdict = chain.verify(folder / "state", jobs_in(folder))
    assert verdict.fault is None, verdict.fault
    told: dict[str, str] = {}
    for entry in chain.entries(folder / "state"):
        told |= entry.fields.get("documents", {})
    assert {name: hashlib.sha256(content).hexdigest() for name, content in documents.items()}.items() <= told.items()


def test_sigterm_finishes_the_job_in_hand(tmp_path: Path, launch: Launch) -> None:
    (tmp_path / "slow").touch()
    process = launch()
    put_study(tmp_path / "inbox")
    until((tmp_path / "staging").exists)
    assert stopped(process) == 0
    assert [job.state for job in jobs_in(tmp_path)] == [JobState.DELIVERED]


def test_sigterm_gives_back_what_cannot_be_delivered(tmp_path: Path, launch: Launch) -> None:
    process = launch()
    (tmp_path / "outbox").rename(tmp_path / "elsewhere")
    put_study(tmp_path / "inbox")
    until(lambda: [job.state for job in jobs_in(tmp_path)] == [JobState.REPORT_READY])
    assert stopped(process) == 0
    (job,) = jobs_in(tmp_path)
    assert (job.state, job.attempts) == (JobState.READY, 0)


def test_a_study_copied_in_pieces_by_events_alone(tmp_path: Path, launch: Launch) -> None:
    process = launch()
    inbox = tmp_path / "inbox" / "new" / "deeper"
    put_roi(inbox, "1.5.99", "1.5", range(5))
    for n in (3, 0, 4, 1, 2):
        with (inbox / f"{n}.dcm").open("w") as file:
            for chunk in (f"CT 1.5 {n} ", "x" * 100, " END"):
                file.write(chunk)
                file.flush()
                time.sleep(TIMERS["settle_seconds"] / 2)
    finished = time.monotonic()
    until(lambda: list((tmp_path / "outbox").glob("SR-*.dcm")))
    assert time.monotonic() - finished < 1.5
    assert process.is_alive()


def test_the_daemon_s_modules_are_free_of_training_weight() -> None:
    code = (
        "import lungstage.appliance.daemon.loop, sys; print(sorted({'torch', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


def test_another_key_has_every_file_read_anew_and_changes_no_answer(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    read = house.steps.calls["read"]
    (house.state / "identity.key").unlink()
    house.restart()
    house.run(5)
    assert house.steps.calls["read"] == 2 * read
    assert house.states() == ["delivered"]
    house.restart()
    house.run(5)
    assert house.steps.calls["read"] == 2 * read


def test_a_case_given_up_for_a_defect_says_what_to_do_to_the_end() -> None:
    assert given_up(3, ValueError("who it was")).message == (
        "lungstage failed 3 times on this case (ValueError): an internal error. Please report it, with the line of the "
        "log that names this job or study."
    )
