"""The ledger against a simple model of itself, and the promises that a restart relies on."""

from __future__ import annotations

import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appliance.database import _FIRST_SCHEMA, SCHEMA_VERSION, Database
from appliance.errors import Reason, ReasonCode, Unavailable
from appliance.job import TRANSITIONS, Job, JobState
from appliance.ledger import IllegalTransitionError, Ledger, RequeueError

LEASE = timedelta(seconds=60)
HELD = Reason(ReasonCode.SLICES_MISSING, "2 slices are missing.")
BAD = Reason(ReasonCode.ROI_EMPTY, "The region of interest is empty.")
MAX_ATTEMPTS = 3


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database(tmp_path / "ledger.sqlite"))


def ready(ledger: Ledger, key: str = "a", fingerprint: str = "f", bundle: str = "b") -> Job:
    job = ledger.open_job(key, "1.2", None, "1.2.3")
    return ledger.ready(job.id, content="c", fingerprint=fingerprint, bundle_digest=bundle)


def finish(ledger: Ledger) -> Job:
    job = ledger.claim(LEASE)
    assert job is not None
    ledger.staged(job.id, {"stage": "early"}, "2.25.1", "2.25.2")
    return ledger.delivered(job.id, Path("SR-2.25.1.dcm"))


class LedgerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, crashes and expired leases included, the ledger does what the model does."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.model: dict[int, dict[str, Any]] = {}
        self.dates: dict[tuple[str, str], datetime] = {}
        self.tries = 0
        self.reopen()

    def reopen(self) -> None:
        self.database = Database(Path(self.folder.name) / "ledger.sqlite")
        self.ledger = Ledger(self.database, now=lambda: self.now)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    def pick(self, data: st.DataObject) -> tuple[int, dict[str, Any]]:
        job_id = data.draw(st.sampled_from(sorted(self.model)))
        return job_id, self.model[job_id]

    def attempt(self, job_id: int, to: JobState, call: Any) -> bool:
        if to in TRANSITIONS[self.model[job_id]["state"]]:
            assert call().state is to
            self.model[job_id]["state"] = to
            return True
        with pytest.raises(IllegalTransitionError):
            call()
        return False

    def now_has(self, job_id: int, content: str | None, fingerprint: str | None) -> None:
        row = self.model[job_id]
        if content != row["content"]:
            row["attempts"] = 0
        row.update(content=content, fingerprint=fingerprint)

    @rule(seconds=st.sampled_from([-7200, 1, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(key=st.sampled_from("xyz"))
    def open(self, key: str) -> None:
        job = self.ledger.open_job(key, "1.2", None, f"anchor-{key}")
        assert job.id not in self.model
        self.model[job.id] = {
            "key": key, "state": JobState.WAITING, "content": None, "fingerprint": None, "bundle": None,
            "attempts": 0, "tried": -1,
        }  # fmt: skip

    @precondition(lambda self: self.model)
    @rule(data=st.data(), content=st.sampled_from("pq"), state=st.sampled_from(["wait", "hold", "refuse"]))
    def not_ready(self, data: st.DataObject, content: str, state: str) -> None:
        job_id, _ = self.pick(data)
        to = {"wait": JobState.WAITING, "hold": JobState.HELD, "refuse": JobState.REFUSED}[state]
        if self.attempt(job_id, to, lambda: getattr(self.ledger, state)(job_id, HELD, content=content)):
            self.now_has(job_id, content, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), fingerprint=st.sampled_from("fg"), bundle=st.sampled_from("mn"))
    def ready(self, data: st.DataObject, fingerprint: str, bundle: str) -> None:
        job_id, row = self.pick(data)

        def call() -> Job:
            return self.ledger.ready(job_id, content="p", fingerprint=fingerprint, bundle_digest=bundle)

        # claimed and staged jobs become ready only by being released
        if self.attempt(job_id, JobState.READY, call):
            self.now_has(job_id, "p", fingerprint)
            row["bundle"] = bundle

    @rule()
    def claim(self) -> None:
        job = self.ledger.claim(LEASE)
        waiting = {i: row for i, row in self.model.items() if row["state"] is JobState.READY}
        if job is None:
            assert not waiting
            return
        assert job.id in waiting
        row = self.model[job.id]
        row["attempts"] += 1
        row.update(state=JobState.CLAIMED, lease=self.now + LEASE)
        expected = self.dates.setdefault((row["fingerprint"], row["bundle"]), self.now)
        assert job.created_at == expected  # a rerun bears the date of the first run

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def staged(self, data: st.DataObject) -> None:
        job_id, _ = self.pick(data)
        self.attempt(
            job_id, JobState.STAGED, lambda: self.ledger.staged(job_id, {"stage": "early"}, "2.25.1", "2.25.2")
        )

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delivered(self, data: st.DataObject) -> None:
        job_id, row = self.pick(data)
        if self.attempt(job_id, JobState.DELIVERED, lambda: self.ledger.delivered(job_id, Path("SR.dcm"))):
            row["attempts"] = 0

    @rule()
    def crash_and_restart(self) -> None:
        self.database.close()
        self.reopen()
        self.ledger.release_claims(max_attempts=MAX_ATTEMPTS, counted=True)
        for row in self.model.values():
            self.model_release(row, counted=True)

    @rule()
    def stop_and_restart(self) -> None:
        self.ledger.release_claims(max_attempts=MAX_ATTEMPTS, counted=False)
        self.database.close()
        self.reopen()
        for row in self.model.values():
            self.model_release(row, counted=False)

    @rule()
    def leases_expire(self) -> None:
        released = self.ledger.release_claims(max_attempts=MAX_ATTEMPTS, counted=True, expired_only=True)
        in_hand = {i for i, row in self.model.items() if row["state"] in (JobState.CLAIMED, JobState.STAGED)}
        expired = {i for i in in_hand if self.model[i]["lease"] < self.now}
        assert {job.id for job in released} == expired
        for job_id in expired:
            self.model_release(self.model[job_id], counted=True)

    def model_release(self, row: dict[str, Any], *, counted: bool) -> None:
        if row["state"] not in (JobState.CLAIMED, JobState.STAGED):
            return
        if counted and row["attempts"] >= MAX_ATTEMPTS:
            row["state"] = JobState.REFUSED
            return
        row["state"] = JobState.READY
        if not counted:
            row["attempts"] = max(row["attempts"] - 1, 0)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        job_id, row = self.pick(data)
        newest = max(i for i, other in self.model.items() if other["key"] == row["key"])
        if row["state"] in (JobState.DELIVERED, JobState.REFUSED, JobState.HELD) and newest == job_id:
            assert self.ledger.requeue(job_id).state is JobState.WAITING
            row.update(state=JobState.WAITING, content=None, fingerprint=None, attempts=0)
        else:
            with pytest.raises(RequeueError):
                self.ledger.requeue(job_id)

    @invariant()
    def rows_agree(self) -> None:
        if not hasattr(self, "ledger"):
            return
        kept = {
            job.id: (job.case_key, job.state, job.content, job.fingerprint, job.attempts) for job in self.ledger.jobs()
        }
        told = {
            i: (row["key"], row["state"], row["content"], row["fingerprint"], row["attempts"])
            for i, row in self.model.items()
        }
        assert kept == told


LedgerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerAgainstModel = LedgerMachine.TestCase


def test_a_claim_takes_the_least_recently_tried_job(ledger: Ledger) -> None:
    first, second = ready(ledger, "a", "f"), ready(ledger, "b", "g")
    tried = ledger.claim(LEASE)
    assert tried is not None
    assert tried.id == first.id
    ledger.release(first.id, counted=False)
    following = ledger.claim(LEASE)
    assert following is not None
    assert following.id == second.id


def test_two_connections_never_claim_the_same_job(tmp_path: Path) -> None:
    one, two = (Ledger(Database(tmp_path / "ledger.sqlite")) for _ in range(2))
    for n in range(6):
        ready(one, f"case-{n}", f"f-{n}")
    claimed = [ledger.claim(LEASE) for _ in range(3) for ledger in (one, two)]
    assert sorted(job.id for job in claimed if job is not None) == [1, 2, 3, 4, 5, 6]
    assert one.claim(LEASE) is None


def test_a_rerun_bears_the_date_of_the_first_run_and_another_bundle_a_new_one(tmp_path: Path) -> None:
    moments = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(100))
    ledger = Ledger(Database(tmp_path / "ledger.sqlite"), now=lambda: next(moments))
    job = ready(ledger)
    first = finish(ledger)
    ledger.requeue(job.id)
    ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="b")
    again = finish(ledger)
    ledger.requeue(job.id)
    ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="another")
    other = finish(ledger)
    assert again.created_at == first.created_at
    assert first.created_at is not None
    assert other.created_at is not None
    assert other.created_at > first.created_at


def test_a_study_that_kills_the_process_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ready(Ledger(Database(path)))
    for life in range(1, MAX_ATTEMPTS + 1):
        ledger = Ledger(Database(path))
        ledger.unready()
        job = ledger.jobs()[0]
        ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="b")  # examined afresh: same content
        assert ledger.claim(LEASE) is not None, life
        Ledger(Database(path)).release_claims(max_attempts=MAX_ATTEMPTS, counted=True)
    (job,) = Ledger(Database(path)).jobs()
    assert job.state is JobState.REFUSED
    assert job.reason is not None
    assert job.reason.code is ReasonCode.INTERNAL_ERROR


def test_a_superseded_job_names_its_successor_and_does_not_answer(ledger: Ledger) -> None:
    old, new = ready(ledger, "roi"), ready(ledger, "series")
    closed = ledger.supersede(old.id, new.id)
    assert closed.superseded
    assert closed.closed
    assert closed.reason is not None
    assert f"Job {new.id}" in closed.reason.message
    answering = ledger.answering("f")
    assert answering is not None
    assert answering.id == new.id
    with pytest.raises(RequeueError):
        ledger.requeue(old.id)


def test_only_an_answer_about_definite_content_closes_a_job(ledger: Ledger) -> None:
    job = ledger.open_job("a", "1.2", None, "1.2.3")
    assert not ledger.refuse(job.id, BAD, content="c").closed
    ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="b")
    assert ledger.claim(LEASE) is not None
    assert ledger.refuse(job.id, BAD, content="c", fingerprint="f").closed


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "ledger.sqlite")
    ledger = Ledger(database)
    job = ready(ledger)

    def broken_off() -> None:
        with database.transaction():
            ledger.hold(job.id, HELD, content="c")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        broken_off()
    assert ledger.jobs()[0].state is JobState.READY


def test_commits_are_synchronous_and_logged_ahead(tmp_path: Path) -> None:
    database = Database(tmp_path / "ledger.sqlite")
    assert database.query("PRAGMA journal_mode")[0][0] == "wal"
    assert database.query("PRAGMA synchronous")[0][0] == 2
    assert database.query("PRAGMA user_version")[0][0] == SCHEMA_VERSION


def test_a_ledger_of_the_first_release_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        for statement in _FIRST_SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO jobs (case_key, study_instance_uid, anchor, state, opened_at, updated_at, sr_sop_instance_uid)"
            " VALUES ('old', '1.2', '1.2.3', 'delivered', :then, :then, '2.25.7')",
            {"then": "2026-01-01T00:00:00+00:00"},
        )
        connection.execute("PRAGMA user_version = 1")
    ledger = Ledger(Database(path))
    (old,) = ledger.jobs()
    assert (old.case_key, old.sr_sop_instance_uid, old.sr_series_instance_uid) == ("old", "2.25.7", None)
    assert ledger.predecessor(ledger.open_job("old", "1.2", "1.2.5", "1.2.3")) is None  # its series is not known
    assert Database(path).query("PRAGMA user_version")[0][0] == SCHEMA_VERSION


def test_a_report_s_predecessor_is_the_last_that_was_delivered_for_the_case(ledger: Ledger) -> None:
    jobs = []
    for number, key in enumerate(("a", "b", "a", "a")):
        job = ledger.open_job(key, "1.2", "1.2.5", "1.2.3")
        jobs.append(job)
        if number == 2:
            ledger.refuse(job.id, BAD, content="c", fingerprint="f")
            continue
        ledger.ready(job.id, content="c", fingerprint=f"f{number}", bundle_digest="b")
        assert ledger.claim(LEASE) is not None
        ledger.staged(job.id, {}, f"2.25.{number}", f"2.25.1{number}")
        ledger.delivered(job.id, Path("sr.dcm"))
    assert ledger.predecessor(jobs[0]) is None
    assert ledger.predecessor(jobs[1]) is None
    older = ledger.predecessor(jobs[3])
    assert older is not None
    assert (older.id, older.sr_sop_instance_uid, older.sr_series_instance_uid) == (jobs[0].id, "2.25.0", "2.25.10")
    ledger.requeue(jobs[3].id)
    assert ledger.predecessor(jobs[3]) == older  # so that it repeats itself


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(Unavailable, match="schema version"):
        Database(path)


def test_another_process_s_writing_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    daemon, command_line = Database(path), Database(path)
    before = daemon.data_version()
    Ledger(daemon).open_job("a", "1.2", None, "1.2.3")
    assert daemon.data_version() == before
    Ledger(command_line).hold(1, HELD, content="c")
    Ledger(command_line).requeue(1)
    assert daemon.data_version() != before
    assert Ledger(daemon).requeued() == {"a"}


def test_a_full_disk_is_unavailable_not_a_defect(tmp_path: Path) -> None:
    database = Database(tmp_path / "ledger.sqlite")
    database.query("PRAGMA max_page_count = 1")
    ledger = Ledger(database)

    def fill() -> None:
        for n in range(1000):
            ledger.open_job(f"case-{n}" * 20, "1.2", None, "1.2.3")

    with pytest.raises(Unavailable):
        fill()
