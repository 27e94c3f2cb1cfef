"""The ledger: which cases came, and what became of each. No row is ever deleted.

Every change of state is a single statement that names the states it may start from, so a crash between two
statements leaves a state that start-up knows how to go on from. It is told to the audit log within its transaction,
before that is committed: what the ledger says, the log has said.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import LungstageError, Reason, ReasonCode
from lungstage.appliance.state import audit_entries as entries
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import (
    IN_HAND_STATES,
    OPEN_STATES,
    RESTING_STATES,
    TRANSITIONS,
    WAITING_STATES,
    Job,
    JobState,
)


class IllegalTransitionError(Exception):
    """A job was moved between states that do not follow each other: a defect of ours."""


class RequeueError(LungstageError):
    """The job that was to be requeued does not exist or is not at rest."""


def utc_now() -> datetime:
    """Return the present moment, with its time zone."""
    return datetime.now(UTC)


_WAITING = "state IN ('waiting', 'held')"
# What was taken away again will not arrive; nobody need be told of it for ever.
_MAY_ARRIVE = f"NOT canary AND {_WAITING} AND reason_code IS NOT '{ReasonCode.NO_DICOM}'"
_WAITS_SINCE = "coalesce(waiting_since, opened_at)"  # before the column was there, and for a new row


class Ledger:
    """The jobs of one state folder.

    Parameters
    ----------
    database
        Where they are kept.
    now
        Source of the time of day.
    moved
        Told of each job that has come into another state.

    Attributes
    ----------
    audit
        The audit log of the same state folder, which every change of state is told to first.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime] = utc_now,
        moved: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._db = database
        self._now = now
        self._moved = moved
        self.audit = Audit(database.folder)

    # Looking

    def job(self, job_id: int) -> Job | None:
        """Return the job of that number."""
        return _first(self._db.query("SELECT * FROM jobs WHERE id = ?", (job_id,)))

    def jobs(
        self,
        *,
        states: Sequence[JobState] = (),
        study: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> tuple[Job, ...]:
        """Return jobs but the daemon's own canaries, oldest first.

        Parameters
        ----------
        states
            Only those in one of them; all where none is named.
        study
            Only those of this Study Instance UID.
        since
            Only those that have changed since then; with its time zone.
        limit
            The newest so many of these.
        """
        where = ["NOT canary"]
        values: list[object] = []
        if states:
            where.append(_among(states))
            values += states
        if study is not None:
            where.append("study_instance_uid = ?")
            values.append(study)
        if since is not None:
            where.append("updated_at >= ?")
            values.append(since.astimezone(UTC).isoformat())
        sql = f"SELECT * FROM jobs WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"  # noqa: S608
        rows = self._db.query(sql, (*values, -1 if limit is None else limit))
        return tuple(_job(row) for row in reversed(rows))

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs there are in each state that any is in."""
        rows = self._db.query("SELECT state, count(*) FROM jobs WHERE NOT canary GROUP BY state")
        return {JobState(state): n for state, n in rows}

    def newest_change(self) -> datetime | None:
        """Return when a job changed last."""
        ((moment,),) = self._db.query("SELECT max(updated_at) FROM jobs")
        return None if moment is None else datetime.fromisoformat(moment)

    def oldest_waiting(self) -> Job | None:
        """Return the job that has waited longest for something that may still arrive."""
        sql = f"SELECT * FROM jobs WHERE {_MAY_ARRIVE} ORDER BY {_WAITS_SINCE}, id LIMIT 1"  # noqa: S608
        return _first(self._db.query(sql))

    def long_waiting(self, age: timedelta) -> tuple[Job, ...]:
        """Return the jobs that have waited for longer than `age` without being told of; see :meth:`alerted`."""
        sql = f"SELECT * FROM jobs WHERE {_MAY_ARRIVE} AND alerted_at IS NULL AND {_WAITS_SINCE} < ? ORDER BY id"  # noqa: S608
        return tuple(_job(row) for row in self._db.query(sql, ((self._now() - age).isoformat(),)))

    def newest_of_study(self, study_instance_uid: str) -> Job | None:
        """Return the newest job of a study."""
        sql = "SELECT * FROM jobs WHERE study_instance_uid = ? ORDER BY id DESC LIMIT 1"
        return _first(self._db.query(sql, (study_instance_uid,)))

    def latest(self, case_key: str) -> Job | None:
        """Return the newest job of a case."""
        return _first(self._db.query("SELECT * FROM jobs WHERE case_key = ? ORDER BY id DESC LIMIT 1", (case_key,)))

    def answering(self, fingerprint: str, *, other_than: int | None = None) -> Job | None:
        """Return the job that has answered a content, or is about to."""
        states = (JobState.DELIVERED, JobState.REFUSED, JobState.READY, *IN_HAND_STATES)
        sql = f"SELECT * FROM jobs WHERE fingerprint = ? AND id IS NOT ? AND {_among(states)} ORDER BY id"  # noqa: S608
        found = (_job(row) for row in self._db.query(sql, (fingerprint, other_than, *states)))
        return next((job for job in found if not job.superseded), None)

    def overdue(self) -> int:
        """Count the jobs that have been in hand for longer than their lease."""
        sql = f"SELECT count(*) FROM jobs WHERE {_among(IN_HAND_STATES)} AND lease_until < ?"  # noqa: S608
        return int(self._db.query(sql, (*IN_HAND_STATES, self._now().isoformat()))[0][0])

    def unanswered(self) -> tuple[tuple[int, str, str], ...]:
        """Return number, case key and anchor of every job that depends on what lies in the inbox."""
        sql = f"SELECT id, case_key, anchor FROM jobs WHERE {_among(OPEN_STATES)} ORDER BY id"  # noqa: S608
        return tuple((row[0], row[1], row[2]) for row in self._db.query(sql, OPEN_STATES))

    def any_ready(self) -> bool:
        """Whether a job waits to be claimed."""
        return bool(self._db.query("SELECT EXISTS (SELECT 1 FROM jobs WHERE state = ?)", (JobState.READY,))[0][0])

    def requeued(self) -> frozenset[str]:
        """Return the keys of the cases that somebody asked to have examined afresh."""
        sql = "SELECT case_key FROM jobs WHERE content IS NULL AND state = ?"
        return frozenset(row[0] for row in self._db.query(sql, (JobState.WAITING,)))

    def predecessor(self, job: Job) -> Predecessor | None:
        """Return the report that a claimed job's report follows, the same whenever it is made again."""
        sql = "SELECT predecessor FROM reports WHERE fingerprint = ? AND bundle_digest = ? AND predecessor IS NOT NULL"
        fixed = self._db.query(sql, (job.fingerprint, job.bundle_digest))
        return Predecessor(*json.loads(fixed[0][0])) if fixed else self._older(job)

    def _older(self, job: Job) -> Predecessor | None:
        """Find the report that the case's last job before this one delivered."""
        sql = (  # the plus keeps SQLite from going through all that were ever delivered instead of the case's own
            "SELECT * FROM jobs WHERE case_key = ? AND id < ? AND +state = ? AND sr_series_instance_uid IS NOT NULL"
            " ORDER BY id DESC LIMIT 1"
        )
        older = _first(self._db.query(sql, (job.case_key, job.id, JobState.DELIVERED)))
        return None if older is None else _report(older)

    # Moving

    def open_job(
        self,
        case_key: str,
        study_instance_uid: str,
        series_instance_uid: str | None,
        anchor: str,
        *,
        canary: bool = False,
    ) -> Job:
        """Make a new job, waiting to be examined."""
        now = self._now().isoformat()
        sql = (
            "INSERT INTO jobs (case_key, study_instance_uid, series_instance_uid, anchor, state, opened_at, updated_at,"
            " canary) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING *"
        )
        values = (case_key, study_instance_uid, series_instance_uid, anchor, JobState.WAITING, now, now, canary)
        with self._db.transaction():
            job = _job(self._db.query(sql, values)[0])
            self._tell("opened", job)
        return job

    def wait(self, job_id: int, reason: Reason, *, content: str | None) -> Job:
        """Something needed has not arrived."""
        return self._move(job_id, JobState.WAITING, {**_reason(reason), "content": content, "fingerprint": None})

    def hold(self, job_id: int, reason: Reason, *, content: str | None) -> Job:
        """Something needed has not arrived for so long that a person should know."""
        return self._move(job_id, JobState.HELD, {**_reason(reason), "content": content, "fingerprint": None})

    def ready(
        self,
        job_id: int,
        *,
        content: str,
        fingerprint: str,
        bundle_digest: str,
        reader: str | None = None,
        instances: Sequence[Mapping[str, str]] = (),
    ) -> Job:
        """Everything needed is there: `instances`, as :attr:`staging.pipeline.Plan.instances` has them."""
        columns = {"content": content, "fingerprint": fingerprint, "reader": reader, "bundle_digest": bundle_digest}
        columns |= _reason(None)
        return self._move(job_id, JobState.READY, columns, instances=list(instances))

    def refuse(self, job_id: int, reason: Reason, *, content: str | None, fingerprint: str | None = None) -> Job:
        """Refuse the data as it stands; ``fingerprint`` where it is the complete needed content that is refused."""
        return self._move(job_id, JobState.REFUSED, {**_reason(reason), "content": content, "fingerprint": fingerprint})

    def supersede(self, job_id: int, successor: int) -> Job:
        """Close a job whose case is answered by another job."""
        reason = Reason(ReasonCode.SUPERSEDED, f"Job {successor} answers for this case.")
        return self._move(job_id, JobState.REFUSED, _reason(reason), "superseded", successor=successor)

    def note_content(self, job_id: int, content: str) -> None:
        """Remember that a closed job's case was examined again and needs nothing new."""
        self._db.query("UPDATE jobs SET content = ? WHERE id = ?", (content, job_id))

    def alerted(self, job_id: int) -> None:
        """Remember that a job was told of as waiting too long, so that it is told of once for as long as it waits."""
        self._db.query("UPDATE jobs SET alerted_at = ? WHERE id = ?", (self._now().isoformat(), job_id))

    def claim(self, lease: timedelta, bundle_digest: str | None = None) -> Job | None:
        """Take the ready job that was tried least recently, or None.

        The report's date and time are fixed here, and which one it follows.

        Parameters
        ----------
        lease
            How long it belongs to whoever takes it.
        bundle_digest
            The bundle that it must have been planned for; None where that does not matter.
        """
        now = self._now().isoformat()
        # A DICOM date is a local one; kept with its offset, it stays the same when the zone changes.
        here = self._now().astimezone().isoformat()
        until = (self._now() + lease).isoformat()
        with self._db.transaction():
            rows = self._db.query(
                "UPDATE jobs SET state = :state, attempts = attempts + 1, claimed_at = :now, updated_at = :now,"
                " lease_until = :until, created_at = coalesce((SELECT created_at FROM reports WHERE"
                " reports.fingerprint = jobs.fingerprint AND reports.bundle_digest = jobs.bundle_digest), :here)"
                " WHERE id = (SELECT id FROM jobs WHERE state = :ready"
                " AND (:bundle IS NULL OR bundle_digest = :bundle) ORDER BY claimed_at NULLS FIRST, id LIMIT 1)"
                " RETURNING *",
                {
                    "state": JobState.CLAIMED,
                    "ready": JobState.READY,
                    "bundle": bundle_digest,
                    "now": now,
                    "here": here,
                    "until": until,
                },
            )
            claimed = _first(rows)
            if claimed is not None:
                # What it delivered itself, before it was requeued, it did for other content or under another bundle.
                former = _report(claimed) if claimed.sr_path is not None else self._older(claimed)
                fixed = (rows[0]["fingerprint"], rows[0]["bundle_digest"], rows[0]["created_at"])
                sql = "INSERT OR IGNORE INTO reports VALUES (?, ?, ?, ?)"
                self._db.query(sql, (*fixed, None if former is None else json.dumps(astuple(former))))
        return claimed

    def staged(
        self,
        job_id: int,
        outcome: Mapping[str, Any],
        sr_sop_instance_uid: str,
        sr_series_instance_uid: str,
        documents: Mapping[str, str] = MappingProxyType({}),
    ) -> Job:
        """Keep the answer; its documents, SHA-256 by name, are about to be delivered."""
        before = self.job(job_id)
        columns = {
            "outcome": json.dumps(outcome, allow_nan=False),
            "sr_sop_instance_uid": sr_sop_instance_uid,
            "sr_series_instance_uid": sr_series_instance_uid,
            "sr_path": before.sr_path if before and before.sr_sop_instance_uid == sr_sop_instance_uid else None,
        }
        answer = entries.answer(outcome)
        return self._move(job_id, JobState.STAGED, columns, answer=answer, documents=dict(documents))

    def delivered(self, job_id: int, sr_path: Path, documents: Mapping[str, str] = MappingProxyType({})) -> Job:
        """Record that the report lies in the outbox, with the SHA-256 of each document by name."""
        columns = {"sr_path": os.fspath(sr_path), "attempts": 0}
        return self._move(job_id, JobState.DELIVERED, columns, documents=dict(documents))

    def release(self, job_id: int, *, counted: bool) -> Job:
        """Give a claimed or staged job back; ``counted`` where the attempt failed by a defect of ours."""
        with self._db.transaction():
            if not counted:
                self._db.query("UPDATE jobs SET attempts = max(attempts - 1, 0) WHERE id = ?", (job_id,))
            return self._move(job_id, JobState.READY, {}, "released", counted=counted)

    def release_claims(self) -> tuple[Job, ...]:
        """Give back every claimed and staged job, uncounted: whoever held them is gone, and that is no job's doing."""
        sql = f"SELECT id FROM jobs WHERE {_among(IN_HAND_STATES)} ORDER BY id"  # noqa: S608
        return tuple(self.release(row[0], counted=False) for row in self._db.query(sql, IN_HAND_STATES))

    def unready(self) -> None:
        """Have every ready job examined again: a plan does not outlive the process that made it."""
        now = self._now().isoformat()
        sql = "UPDATE jobs SET state = ?, updated_at = ?, waiting_since = ? WHERE state = ?"
        self._db.query(sql, (JobState.WAITING, now, now, JobState.READY))

    def requeue(self, job_id: int) -> Job:
        """Have the case of a delivered, refused or held job examined afresh.

        The same content under the same bundle gives the same documents again, byte for byte, so nothing is doubled.

        Raises
        ------
        RequeueError
            When there is no such job, it is not at rest, or another job has taken its place.
        """
        job = self.job(job_id)
        if job is None:
            raise RequeueError(f"There is no job {job_id}.")
        if job.state not in RESTING_STATES:
            raise RequeueError(f"Job {job_id} is {job.state}; only delivered, refused and held jobs are requeued.")
        newest = self.latest(job.case_key)
        if job.superseded or (newest is not None and newest.id != job_id):
            raise RequeueError(f"Another job has taken the place of job {job_id}; requeue that one.")
        columns = {"content": None, "fingerprint": None, "claimed_at": None, **_reason(None)}
        return self._move(job_id, JobState.WAITING, columns, "requeued")

    def _move(
        self, job_id: int, to: JobState, columns: Mapping[str, object], event: str | None = None, **told: object
    ) -> Job:
        sources = [state for state, targets in TRANSITIONS.items() if to in targets]
        columns = {"state": to, "updated_at": self._now().isoformat(), **columns}
        sets = [f"{name} = :{name}" for name in columns]
        if to is not JobState.STAGED:
            sets.append("lease_until = NULL")
        if to not in WAITING_STATES:
            sets.append("waiting_since = NULL, alerted_at = NULL")
        else:  # from waiting to held and back it is the same wait
            sets.append(f"waiting_since = CASE WHEN {_WAITING} THEN {_WAITS_SINCE} ELSE :updated_at END")
        if "content" in columns:  # other content has not been tried yet
            sets.append("attempts = CASE WHEN content IS :content THEN attempts ELSE 0 END")
        among = ", ".join(f"'{state}'" for state in sources)
        sql = f"UPDATE jobs SET {', '.join(sets)} WHERE id = :id AND state IN ({among}) RETURNING *"  # noqa: S608
        values: dict[str, object] = {**columns, "id": job_id}
        with self._db.transaction():
            before = self.job(job_id)
            rows = self._db.query(sql, values)
            if before is None or not rows:
                raise IllegalTransitionError(f"job {job_id}: {before.state if before else 'absent'} -> {to}")
            job = _job(rows[0])
            if event or entries.is_news(before, job):
                self._tell(event or job.state, job, **told)
        if before.state is not job.state:
            self._moved(job)
        return job

    def _tell(self, event: str, job: Job, **told: object) -> None:
        if job.canary:  # the daemon's own, and many
            return
        if event == "released":
            told["attempts"] = job.attempts
        self.audit.write(f"job_{event}", **entries.about(job), **told)


def _among(states: Iterable[JobState]) -> str:
    return f"state IN ({', '.join('?' for _ in states)})"


def _reason(reason: Reason | None) -> dict[str, str | None]:
    code, message = (None, None) if reason is None else (reason.code, reason.message)
    return {"reason_code": code, "reason_message": message}


def _report(job: Job) -> Predecessor | None:
    if job.sr_series_instance_uid is None or job.sr_sop_instance_uid is None:
        return None
    return Predecessor(job.study_instance_uid, job.sr_series_instance_uid, job.sr_sop_instance_uid)


def _first(rows: list[sqlite3.Row]) -> Job | None:
    return _job(rows[0]) if rows else None


def _job(row: sqlite3.Row) -> Job:
    code, created_at, outcome = row["reason_code"], row["created_at"], row["outcome"]
    state = JobState(row["state"])
    waiting_since = (row["waiting_since"] or row["opened_at"]) if state in WAITING_STATES else None
    return Job(
        id=row["id"],
        case_key=row["case_key"],
        study_instance_uid=row["study_instance_uid"],
        series_instance_uid=row["series_instance_uid"],
        anchor=row["anchor"],
        content=row["content"],
        fingerprint=row["fingerprint"],
        reader=row["reader"],
        bundle_digest=row["bundle_digest"],
        state=state,
        reason=None if code is None else Reason(ReasonCode(code), row["reason_message"]),
        attempts=row["attempts"],
        opened_at=datetime.fromisoformat(row["opened_at"]),
        created_at=None if created_at is None else datetime.fromisoformat(created_at),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        waiting_since=None if waiting_since is None else datetime.fromisoformat(waiting_since),
        sr_path=row["sr_path"],
        sr_sop_instance_uid=row["sr_sop_instance_uid"],
        sr_series_instance_uid=row["sr_series_instance_uid"],
        outcome=None if outcome is None else json.loads(outcome),
        canary=bool(row["canary"]),
    )
