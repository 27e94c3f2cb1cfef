"""The ledger behaves like a simple model of itself, and ensures what a restart needs."""

from __future__ import annotations

import copy
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import Reason, ReasonCode, Unavailable
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import _FIRST_SCHEMA, _MIGRATIONS, SCHEMA_VERSION, Database, DatabaseReader
from lungstage.appliance.state.file_table import FileRecord, FileTable
from lungstage.appliance.state.job import IN_HAND_STATES, RESTING_STATES, TRANSITIONS, Job, JobState
from lungstage.appliance.state.jobs import Jobs
from lungstage.appliance.state.ledger import IllegalTransitionError, Ledger, RequeueError

LEASE = timedelta(seconds=60)
HELD = Reason(ReasonCode.SLICES_MISSING, "2 slices are missing.")
BAD = Reason(ReasonCode.ROI_EMPTY, "The region of interest is empty.")
WAL = "ledger.sqlite-wal"
MEMORY = "/dev/shm"  # thousands of commits would be slow on a disk


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database(tmp_path / "ledger.sqlite"))


def ready(ledger: Ledger, key: str = "a", fingerprint: str = "f", bundle: str = "b") -> Job:
    job = ledger.open_job(key, "1.2", None, "1.2.3")
    return ledger.ready(job.id, content="c", fingerprint=fingerprint, bundle_digest=bundle)


def finish(ledger: Ledger) -> Job:
    job = Claims(ledger).claim(LEASE)
    assert job is not None
    Claims(ledger).report_ready(job.id, {"stage": "early"}, "2.25.1", "2.25.2")
    return Claims(ledger).delivered(job.id, Path("SR-2.25.1.dcm"))


class LedgerMachine(RuleBasedStateMachine):
    """The ledger does the same as the model for any order of events, also with crashes and power cuts."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None)
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.model: dict[int, dict[str, Any]] = {}
        self.dates: dict[tuple[str, str], datetime] = {}
        self.reopen()

    def reopen(self) -> None:
        self.database = Database(Path(self.folder.name) / "ledger.sqlite")
        self.ledger = Ledger(self.database, now=lambda: self.now)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    def pick(self, data: st.DataObject, to: JobState | None = None) -> tuple[int, dict[str, Any]]:
        """Any job, most of the time one that may move to the state."""
        fit = [i for i, row in self.model.items() if to in TRANSITIONS[row["state"]]]
        strict = fit and data.draw(st.integers(0, 4)) > 0
        job_id = data.draw(st.sampled_from(sorted(fit if strict else self.model)))
        return job_id, self.model[job_id]

    def in_hand(self) -> list[dict[str, Any]]:
        return [row for row in self.model.values() if row["state"] in IN_HAND_STATES]

    def are_ready(self) -> set[int]:
        return {i for i, row in self.model.items() if row["state"] is JobState.READY}

    def attempt(self, job_id: int, to: JobState, call: Callable[[], Job]) -> bool:
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

    # Actions of a daemon

    @rule(key=st.sampled_from("xyz"))
    def open(self, key: str) -> None:
        job = self.ledger.open_job(key, "1.2", None, f"anchor-{key}")
        assert job.id not in self.model
        self.model[job.id] = {
            "key": key, "state": JobState.WAITING, "content": None, "fingerprint": None, "bundle": None,
            "attempts": 0,
        }  # fmt: skip

    @rule(key=st.sampled_from("xyz"), fingerprint=st.sampled_from("fg"))
    def arrives_whole(self, key: str, fingerprint: str) -> None:
        self.open(key)
        job_id = max(self.model)
        self.ledger.ready(job_id, content="p", fingerprint=fingerprint, bundle_digest="m")
        self.now_has(job_id, "p", fingerprint)
        self.model[job_id].update(state=JobState.READY, bundle="m")

    @precondition(lambda self: self.model)
    @rule(data=st.data(), content=st.sampled_from("pq"), state=st.sampled_from(["wait", "hold", "refuse"]))
    def not_ready(self, data: st.DataObject, content: str, state: str) -> None:
        to = {"wait": JobState.WAITING, "hold": JobState.HELD, "refuse": JobState.REFUSED}[state]
        job_id, _ = self.pick(data, to)
        if self.attempt(job_id, to, lambda: getattr(self.ledger, state)(job_id, HELD, content=content)):
            self.now_has(job_id, content, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), fingerprint=st.sampled_from("fg"), bundle=st.sampled_from("mn"))
    def ready(self, data: st.DataObject, fingerprint: str, bundle: str) -> None:
        job_id, row = self.pick(data, JobState.READY)

        def call() -> Job:
            return self.ledger.ready(job_id, content="p", fingerprint=fingerprint, bundle_digest=bundle)

        # claimed and staged jobs become ready only by being released
        if self.attempt(job_id, JobState.READY, call):
            self.now_has(job_id, "p", fingerprint)
            row["bundle"] = bundle

    @precondition(lambda self: self.are_ready())
    @rule()
    def claim(self) -> None:
        job = Claims(self.ledger).claim(LEASE)
        assert job is not None
        assert job.id in self.are_ready()
        row = self.model[job.id]
        row["attempts"] += 1
        row.update(state=JobState.CLAIMED, lease=self.now + LEASE)
        expected = self.dates.setdefault((row["fingerprint"], row["bundle"]), self.now)
        assert job.created_at == expected  # a rerun has the date of the first run

    @precondition(lambda self: self.in_hand())
    @rule(data=st.data())
    def staged(self, data: st.DataObject) -> None:
        job_id, _ = self.pick(data, JobState.REPORT_READY)
        answer = {"stage": "early"}, "2.25.1", "2.25.2"
        self.attempt(job_id, JobState.REPORT_READY, lambda: Claims(self.ledger).report_ready(job_id, *answer))

    @precondition(lambda self: self.in_hand())
    @rule(data=st.data())
    def delivered(self, data: st.DataObject) -> None:
        job_id, row = self.pick(data, JobState.DELIVERED)
        if self.attempt(job_id, JobState.DELIVERED, lambda: Claims(self.ledger).delivered(job_id, Path("SR.dcm"))):
            row["attempts"] = 0

    @precondition(lambda self: self.in_hand())
    @rule(data=st.data(), counted=st.booleans())
    def release(self, data: st.DataObject, counted: bool) -> None:
        in_hand = self.in_hand()
        job_id = data.draw(st.sampled_from([i for i, row in self.model.items() if row in in_hand]))
        assert Claims(self.ledger).release(job_id, counted=counted).state is JobState.READY
        self.model_release(self.model[job_id], counted=counted)

    def model_release(self, row: dict[str, Any], *, counted: bool) -> None:
        row["state"] = JobState.READY
        row["attempts"] -= not counted

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        job_id, row = self.pick(data)
        newest = max(i for i, other in self.model.items() if other["key"] == row["key"])
        if row["state"] in RESTING_STATES and newest == job_id:
            assert self.ledger.requeue(job_id).state is JobState.WAITING
            row.update(state=JobState.WAITING, content=None, fingerprint=None, attempts=0)
        else:
            with pytest.raises(RequeueError):
                self.ledger.requeue(job_id)

    # External events

    @rule(seconds=st.sampled_from([-7200, 1, 61]))
    def time_passes_or_is_set_back(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.in_hand())
    @rule(clean=st.booleans())
    def ends_and_restarts(self, clean: bool) -> None:
        """A killed daemon leaves its claims to the next one, and no study is at fault; a stopped one leaves none."""
        for step in (self.release_all, self.reconnect) if clean else (self.reconnect, self.release_all):
            step()
        self.ledger.unready()
        for job_id in self.are_ready():
            self.model[job_id]["state"] = JobState.WAITING
        assert Claims(self.ledger).claim(LEASE) is None

    def release_all(self) -> None:
        in_hand = self.in_hand()
        assert Claims(self.ledger).release_all() == len(in_hand)
        for row in in_hand:
            self.model_release(row, counted=False)

    @rule()
    def reconnect(self) -> None:
        self.database.close()
        self.reopen()

    @rule(data=st.data(), share=st.floats(0, 1))
    def power_fails(self, data: st.DataObject, share: float) -> None:
        """The write is cut off anywhere: the change is complete or absent, and nothing else changes."""
        before, tables = self.on_disk(), copy.deepcopy((self.model, self.dates))
        steps: list[Callable[[], None]] = [self.claim] if self.are_ready() else [lambda: self.open("x")]
        if self.in_hand():
            steps += [lambda: self.staged(data), lambda: self.delivered(data), lambda: self.release(data, True)]
        data.draw(st.sampled_from(steps))()
        after = self.on_disk()
        assume(before["ledger.sqlite"] == after["ledger.sqlite"])  # otherwise it was a checkpoint
        pairs = zip(before.get(WAL, b""), after[WAL], strict=False)
        at_least = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        left = after | {WAL: after[WAL][: at_least + round(share * (len(after[WAL]) - at_least))]}
        self.database.close()
        folder = Path(self.folder.name)
        for path in folder.iterdir():
            path.unlink()
        for name, content in left.items():
            (folder / name).write_bytes(content)
        self.reopen()
        if self.kept() != self.told():
            assert share < 1, "a change that was committed is lost"
            self.model, self.dates = tables

    def on_disk(self) -> dict[str, bytes]:
        paths = Path(self.folder.name).iterdir()
        return {path.name: path.read_bytes() for path in paths if not path.name.endswith("-shm")}

    def kept(self) -> dict[int, tuple[Any, ...]]:
        return {
            job.id: (job.case_key, job.state, job.content, job.fingerprint, job.attempts)
            for job in self.ledger.jobs.find()
        }

    def told(self) -> dict[int, tuple[Any, ...]]:
        columns = ("key", "state", "content", "fingerprint", "attempts")
        return {i: tuple(row[column] for column in columns) for i, row in self.model.items()}

    @invariant()
    def both_agree(self) -> None:
        if hasattr(self, "ledger"):
            assert self.kept() == self.told()
            assert self.ledger.jobs.overdue() == sum(row["lease"] < self.now for row in self.in_hand())


LedgerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerAgainstModel = pytest.mark.slow(LedgerMachine.TestCase)


def test_a_claim_takes_the_least_recently_tried_job(ledger: Ledger) -> None:
    first, second = ready(ledger, "a", "f"), ready(ledger, "b", "g")
    tried = Claims(ledger).claim(LEASE)
    assert tried is not None
    assert tried.id == first.id
    Claims(ledger).release(first.id, counted=False)
    following = Claims(ledger).claim(LEASE)
    assert following is not None
    assert following.id == second.id


def test_two_connections_never_claim_the_same_job(tmp_path: Path) -> None:
    one, two = (Ledger(Database(tmp_path / "ledger.sqlite")) for _ in range(2))
    for n in range(6):
        ready(one, f"case-{n}", f"f-{n}")
    claimed = [Claims(ledger).claim(LEASE) for _ in range(3) for ledger in (one, two)]
    assert sorted(job.id for job in claimed if job is not None) == [1, 2, 3, 4, 5, 6]
    assert Claims(one).claim(LEASE) is None


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


def test_a_daemon_that_is_killed_again_and_again_is_no_study_s_fault(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ready(Ledger(Database(path)))
    for life in range(20):
        ledger = Ledger(Database(path))
        Claims(ledger).release_all()
        ledger.unready()
        (job,) = ledger.jobs.find()
        assert (job.state, job.attempts) == (JobState.WAITING, 0), life
        ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="b")  # examined again with the same content
        assert Claims(ledger).claim(LEASE) is not None


def test_what_was_in_hand_when_the_daemon_was_killed_is_tried_again_after_all_others(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    first = Ledger(Database(path))
    suspect, others = ready(first, "a", "f"), {ready(first, key, key).id for key in "bcd"}
    assert Claims(first).claim(LEASE) == first.jobs.get(suspect.id)
    second = Ledger(Database(path))
    Claims(second).release_all()
    claims = [Claims(second).claim(LEASE) for _ in range(4)]
    assert {job.id for job in claims[:3] if job} == others


def test_a_superseded_job_names_its_successor_and_does_not_answer(ledger: Ledger) -> None:
    old, new = ready(ledger, "roi"), ready(ledger, "series")
    closed = ledger.supersede(old.id, new.id)
    assert closed.superseded
    assert closed.closed
    assert closed.reason is not None
    assert f"Job {new.id}" in closed.reason.message
    answering = ledger.jobs.answering("f")
    assert answering is not None
    assert answering.id == new.id
    with pytest.raises(RequeueError):
        ledger.requeue(old.id)


def test_only_an_answer_about_definite_content_closes_a_job(ledger: Ledger) -> None:
    job = ledger.open_job("a", "1.2", None, "1.2.3")
    assert not ledger.refuse(job.id, BAD, content="c").closed
    ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="b")
    assert Claims(ledger).claim(LEASE) is not None
    assert ledger.refuse(job.id, BAD, content="c", fingerprint="f").closed


def life_of_a_job(database: Database, key: str) -> None:
    """The daemon's calls to the ledger for a study that is answered at once."""
    ledger, files = Ledger(database), FileTable(database, "1")
    files.update([FileRecord(f"/inbox/{key}", 1, 1, "[]", None)], [], [])
    files.find(f"/inbox/{key}", 1, 1)
    files.headers(f"/inbox/{key}")
    files.read_at(f"/inbox/{key}")
    assert ledger.jobs.of_case(key) is None
    assert ledger.jobs.newest_of_study(key) is None
    job = ledger.open_job(key, key, None, "1.2.3")
    ledger.jobs.requeued()
    ledger.jobs.unanswered()
    ledger.jobs.oldest_waiting()
    ledger.jobs.long_waiting(timedelta(hours=1))
    assert ledger.jobs.answering(key) is None
    job = ledger.ready(job.id, content="c", fingerprint=key, bundle_digest="b")
    assert ledger.jobs.newest_of_study(key) == job
    assert ledger.jobs.any_ready()
    claimed = Claims(ledger).claim(LEASE)
    assert claimed is not None
    assert claimed.id == job.id
    assert Claims(ledger).predecessor(claimed) is None
    ledger.jobs.overdue()
    Claims(ledger).report_ready(job.id, {"stage": "early"}, "2.25.1", "2.25.2")
    Claims(ledger).delivered(job.id, Path("SR-2.25.1.dcm"))
    files.update([], [], [f"/inbox/{key}"])
    files.forget(Path("/canary"))


def test_what_a_job_costs_does_not_grow_with_the_jobs_of_the_past(tmp_path: Path) -> None:
    database = Database(tmp_path / "ledger.sqlite")
    life_of_a_job(database, "first")

    def fill(start: int, stop: int) -> None:
        for table in ("jobs", "reports", "files"):
            columns = [row["name"] for row in database.query(f"PRAGMA table_info({table})")]
            own = {
                "case_key": "n",
                "study_instance_uid": "n",
                "fingerprint": "n",
                "path": "CAST('/inbox/' || n AS BLOB)",
            }
            kept = [name for name in columns if name != "id"]
            database.query(
                f"INSERT INTO {table} ({', '.join(kept)}) WITH RECURSIVE many (n) AS "
                f"(SELECT {start} UNION ALL SELECT n + 1 FROM many WHERE n < {stop - 1}) "
                f"SELECT {', '.join(own.get(name, name) for name in kept)} FROM many, (SELECT * FROM {table} LIMIT 1)"
            )

    def steps(key: str) -> int:
        count = itertools.count()
        database._connection.set_progress_handler(lambda: next(count) < 0, 1)
        life_of_a_job(database, key)
        database._connection.set_progress_handler(None, 1)
        return next(count)

    fill(0, 100)
    few = steps("after 100")
    fill(100, 5000)
    assert steps("after 5000") < 1.02 * few


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
    assert ledger.jobs.find()[0].state is JobState.READY


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
    (old,) = ledger.jobs.find()
    assert (old.case_key, old.sr_sop_instance_uid, old.sr_series_instance_uid) == ("old", "2.25.7", None)
    assert (
        Claims(ledger).predecessor(ledger.open_job("old", "1.2", "1.2.5", "1.2.3")) is None
    )  # the series of the old job is not known
    assert Database(path).query("PRAGMA user_version")[0][0] == SCHEMA_VERSION


def test_jobs_of_an_older_release_are_found_by_the_patient_that_their_files_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    older = next(n for n, text in enumerate(_MIGRATIONS) if "patient_key" in text)
    with sqlite3.connect(path) as connection:
        for migration in _MIGRATIONS[:older]:
            for statement in migration.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {older}")
        job = "INSERT INTO jobs (case_key, study_instance_uid, anchor, state, opened_at, updated_at)"
        then = "2026-01-01T00:00:00+00:00"
        for study in ("1.1", "1.2", "1.3"):
            connection.execute(f"{job} VALUES (?, ?, '1', 'delivered', ?, ?)", (study, study, then, then))
        headers = [
            [{"study_instance_uid": "1.1", "patient_key": "a"}, {"study_instance_uid": "1.1", "patient_key": "a"}],
            [{"study_instance_uid": "1.2", "patient_key": ""}],
            [{"study_instance_uid": "1.2", "patient_key": "b"}],
        ]
        files = [json.dumps(header) for header in headers] + [None, "torn {"]
        for n, header in enumerate(files):
            row = (f"/in/{n}".encode(), 1, 1, "r", header, None, None, True, then)
            connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    jobs = Ledger(Database(path)).jobs
    assert [job.patient_key for job in jobs.find()] == ["a", "b", None]
    assert [job.study_instance_uid for job in jobs.find(patient_key="b")] == ["1.2"]


def test_the_slices_beside_a_report_are_those_of_its_first_run(ledger: Ledger) -> None:
    """Otherwise a daemon that is killed before it records a delivery would deliver a second report."""
    ready(ledger)
    claims = Claims(ledger)
    first = claims.claim(LEASE)
    assert first is not None
    assert claims.beyond(first, ("1.2.9",)) == ("1.2.9",)
    claims.release_all()
    again = claims.claim(LEASE)
    assert again is not None
    assert claims.beyond(again, ("1.2.8", "1.2.9")) == ("1.2.9",)
    other = ready(ledger, "b", "other content")
    assert Claims(ledger).claim(LEASE) == ledger.jobs.get(other.id)
    assert claims.beyond(ledger.jobs.get(other.id) or other, ()) == ()
    assert claims.beyond(ledger.jobs.get(other.id) or other, ("1.2.8",)) == ()


def test_a_report_s_predecessor_is_the_last_that_was_delivered_for_the_case(ledger: Ledger) -> None:
    jobs = []
    for number, key in enumerate(("a", "b", "a", "a")):
        job = ledger.open_job(key, "1.2", "1.2.5", "1.2.3")
        jobs.append(job)
        if number == 2:
            ledger.refuse(job.id, BAD, content="c", fingerprint="f")
            continue
        ledger.ready(job.id, content="c", fingerprint=f"f{number}", bundle_digest="b")
        assert Claims(ledger).claim(LEASE) is not None
        Claims(ledger).report_ready(job.id, {}, f"2.25.{number}", f"2.25.1{number}")
        Claims(ledger).delivered(job.id, Path("sr.dcm"))
    assert Claims(ledger).predecessor(jobs[0]) is None
    assert Claims(ledger).predecessor(jobs[1]) is None
    older = Claims(ledger).predecessor(jobs[3])
    assert older == Predecessor("1.2", "2.25.10", "2.25.0")
    ledger.requeue(jobs[3].id)
    assert Claims(ledger).predecessor(jobs[3]) == older  # so that the report is repeated with the same bytes


def test_a_report_follows_the_one_that_its_own_job_delivered_under_another_bundle(ledger: Ledger) -> None:
    job = ledger.open_job("a", "1.2", "1.2.5", "1.2.3")

    def answer(bundle: str, *, deliver: bool = True) -> Predecessor | None:
        ledger.ready(job.id, content="c", fingerprint="f", bundle_digest=bundle)
        claimed = Claims(ledger).claim(LEASE)
        assert claimed is not None
        before = Claims(ledger).predecessor(claimed)
        Claims(ledger).report_ready(job.id, {}, f"2.25.{bundle}", f"2.25.1{bundle}")
        if deliver:
            Claims(ledger).delivered(job.id, Path("sr.dcm"))
            ledger.requeue(job.id)
        else:
            Claims(ledger).release(job.id, counted=False)
        return before

    first, second, third = (Predecessor("1.2", f"2.25.1{n}", f"2.25.{n}") for n in (1, 2, 3))
    assert answer("1") is None
    assert answer("2", deliver=False) == first
    assert answer("2") == first  # although it was staged before
    assert answer("1") is None  # each report is repeated with the same bytes
    assert answer("2") == first
    assert answer("3") == second
    assert answer("3", deliver=False) == second
    assert answer("4", deliver=False) == third
    assert answer("5") is None  # a report that was not delivered has no successor


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO migrations VALUES (?, '9.9.9')", (SCHEMA_VERSION + 1,))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(Unavailable, match="schema version"):
        Database(path)


def test_another_process_s_writing_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    daemon = Database(path)
    before = daemon.data_version()
    command_line = Database(path)
    assert daemon.data_version() == before  # opening the ledger does not write to it
    Ledger(daemon).open_job("a", "1.2", None, "1.2.3")
    assert daemon.data_version() == before
    Ledger(command_line).hold(1, HELD, content="c")
    Ledger(command_line).requeue(1)
    assert daemon.data_version() != before
    assert Ledger(daemon).jobs.requeued() == {"a"}


def test_a_ledger_that_could_be_opened_to_read_only_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, connect = tmp_path / "ledger.sqlite", sqlite3.connect
    Database(path).close()
    Database(path).prove_writable()

    def to_read(where: Path, **options: Any) -> sqlite3.Connection:  # SQLite does this where it may not write
        return connect(f"file:{where}?mode=ro", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", to_read)
    with pytest.raises(Unavailable, match="read-only"):
        Database(path).prove_writable()


def test_a_full_disk_is_unavailable_not_a_defect(tmp_path: Path) -> None:
    database = Database(tmp_path / "ledger.sqlite")
    database.query("PRAGMA max_page_count = 1")
    ledger = Ledger(database)

    def fill() -> None:
        for n in range(1000):
            ledger.open_job(f"case-{n}" * 20, "1.2", None, "1.2.3")

    with pytest.raises(Unavailable):
        fill()


def test_a_reader_makes_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a ledger?mode=rwc.sqlite"
    with pytest.raises(Unavailable):
        DatabaseReader(path)
    assert not list(tmp_path.iterdir())
    with Database(path) as database, DatabaseReader(path) as reader:
        Ledger(database).open_job("a", "1.2", None, "1.2.3")
        assert len(Jobs(reader).find()) == 1
        with pytest.raises(Unavailable, match="read-only"):
            reader.query("UPDATE jobs SET state = 'waiting'")
        database.query("INSERT INTO migrations VALUES (?, '9.9.9')", (SCHEMA_VERSION + 1,))
        database.query(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with pytest.raises(Unavailable, match=f"schema version {SCHEMA_VERSION + 1}"):
            DatabaseReader(path)


def test_one_file_of_a_study_is_one_that_is_there(ledger: Ledger) -> None:
    files = FileTable(ledger.database, "r")
    header = '[{"study_instance_uid": "1.2"}]'
    files.update([FileRecord(f"/inbox/{n}", 1, 1, header, None) for n in range(3)], [], [])
    assert files.one_of_study("1.2") == "/inbox/0"
    files.update([], [], ["/inbox/0", "/inbox/1"])
    assert files.one_of_study("1.2") == "/inbox/2"
    assert files.count_of_study("1.2") == 1
    files.update([], [], ["/inbox/2"])
    assert files.one_of_study("1.2") is None
    assert len(files.of_study("1.2")) == 3
