"""Reading of the ledger: its jobs and their states."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.job import IN_HAND_STATES, OPEN_STATES, WAITING_STATES, Job, JobState


def utc_now() -> datetime:
    """Return the present time, with its time zone."""
    return datetime.now(UTC)


WAITS_SINCE = "coalesce(waiting_since, opened_at)"
"""SQL for the time since which a job waits: a job may be older than the column."""

_FIELDS = frozenset(field.name for field in fields(Job))
_NEVER_EMPTY = ("case_key", "study_instance_uid", "anchor")


def among(states: Iterable[JobState]) -> str:
    """Return the SQL condition that a job is in one of some states."""
    return "state IN ({})".format(", ".join(f"'{state}'" for state in states))


# The files of such a job were deleted and will not arrive, so it raises no alert.
_MAY_ARRIVE = f"NOT canary AND {among(WAITING_STATES)} AND reason_code IS NOT '{ReasonCode.NO_DICOM}'"


class Jobs:
    """The jobs of one state folder, for reading.

    Parameters
    ----------
    database
        The database that contains them.
    now
        Source of the time of day.
    """

    def __init__(self, database: DatabaseReader, now: Callable[[], datetime] = utc_now) -> None:
        self._db, self._now = database, now

    # For reports to people

    def get(self, job_id: int) -> Job | None:
        """Return the job of that number."""
        return self._first("id = ?", job_id)

    def find(
        self,
        *,
        states: Sequence[JobState] = (),
        study: str | None = None,
        patient_key: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> tuple[Job, ...]:
        """Return jobs except canaries, oldest first.

        Parameters
        ----------
        states
            Only jobs in one of these states; if empty, jobs in all states.
        study
            Only jobs of this Study Instance UID.
        patient_key
            Only jobs of the patient with this keyed hash (:attr:`state.job.Job.patient_key`).
        since
            Only jobs that have changed since this time, which has a time zone.
        before
            Only jobs with a lower number.
        limit
            Only this number of jobs, the newest ones.
        """
        where = ["NOT canary"]
        values: list[object] = []
        if states:
            where.append(among(states))
        if study is not None:
            where.append("study_instance_uid = ?")
            values.append(study)
        if patient_key is not None:
            where.append("patient_key = ?")
            values.append(patient_key)
        if since is not None:
            where.append("updated_at >= ?")
            values.append(since.astimezone(UTC).isoformat())
        if before is not None:
            where.append("id < ?")
            values.append(before)
        return self._all(f"{' AND '.join(where)} ORDER BY id DESC LIMIT ?", *values, -1 if limit is None else limit)[
            ::-1
        ]

    def newest_of_study(self, study_instance_uid: str) -> Job | None:
        """Return the newest job of a study."""
        return self._first("study_instance_uid = ? ORDER BY id DESC", study_instance_uid)

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in each state that occurs."""
        sql = "SELECT state, count(*) FROM jobs WHERE NOT canary GROUP BY state"
        return dict(self._db.read(lambda row: (JobState(row[0]), int(row[1])), sql))

    def began(self) -> datetime:
        """Return when the first job was opened; the present time if there is none."""
        sql = "SELECT opened_at FROM jobs ORDER BY id LIMIT 1"
        return next(filter(None, self._db.read(lambda row: _moment(row[0]), sql)), self._now())

    def newest_change(self) -> datetime | None:
        """Return the time of the last change of any job."""
        return self._db.read(lambda row: _moment(row[0]), "SELECT max(updated_at) FROM jobs")[0]

    def oldest_waiting(self) -> Job | None:
        """Return the job that has waited longest for files that may still arrive."""
        return self._first(f"{_MAY_ARRIVE} ORDER BY {WAITS_SINCE}, id")

    def long_waiting(self, age: timedelta) -> tuple[Job, ...]:
        """Return the jobs that have waited longer than `age` and have raised no alert yet."""
        before = (self._now() - age).isoformat()
        return self._all(f"{_MAY_ARRIVE} AND alerted_at IS NULL AND {WAITS_SINCE} < ? ORDER BY id", before)

    def waiting_longer_than(self, age: timedelta) -> tuple[Job, ...]:
        """Return the jobs that have waited longer than `age`, with or without an alert."""
        before = (self._now() - age).isoformat()
        return self._all(f"{_MAY_ARRIVE} AND {WAITS_SINCE} < ? ORDER BY id", before)

    def overdue(self) -> int:
        """Count the jobs that are being processed longer than their lease."""
        sql = f"SELECT count(*) FROM jobs WHERE {among(IN_HAND_STATES)} AND lease_until < ?"  # noqa: S608
        return int(self._db.query(sql, (self._now().isoformat(),))[0][0])

    # For the daemon's decisions

    def of_case(self, case_key: str) -> Job | None:
        """Return the newest job of a case."""
        return self._first("case_key = ? ORDER BY id DESC", case_key)

    def answering(self, fingerprint: str, *, other_than: int | None = None) -> Job | None:
        """Return the job that has answered a content, or will answer it."""
        states = (JobState.DELIVERED, JobState.REFUSED, JobState.READY, *IN_HAND_STATES)
        found = self._all(f"fingerprint = ? AND id IS NOT ? AND {among(states)} ORDER BY id", fingerprint, other_than)
        return next((job for job in found if not job.superseded), None)

    def unanswered(self) -> tuple[tuple[int, str, str], ...]:
        """Return number, case key and anchor of every job that depends on files in the inbox."""
        sql = f"SELECT id, case_key, anchor FROM jobs WHERE {among(OPEN_STATES)} ORDER BY id"  # noqa: S608
        return tuple((row[0], row[1], row[2]) for row in self._db.query(sql))

    def requeued(self) -> frozenset[str]:
        """Return the keys of the cases that a person requeued."""
        sql = "SELECT case_key FROM jobs WHERE content IS NULL AND state = ?"
        return frozenset(row[0] for row in self._db.query(sql, (JobState.WAITING,)))

    def any_ready(self) -> bool:
        """Whether a job waits to be claimed."""
        return bool(self._db.query("SELECT EXISTS (SELECT 1 FROM jobs WHERE state = ?)", (JobState.READY,))[0][0])

    def delivered_before(self, job: Job) -> Job | None:
        """Return the last job of the case before this one that delivered a report."""
        # Because of the plus, SQLite reads only the jobs of the case, and not all delivered jobs.
        where = "case_key = ? AND id < ? AND +state = ? AND sr_series_instance_uid IS NOT NULL ORDER BY id DESC"
        return self._first(where, job.case_key, job.id, JobState.DELIVERED)

    def _all(self, where: str, *values: object) -> tuple[Job, ...]:
        return tuple(self._db.read(job_of, f"SELECT * FROM jobs WHERE {where}", values))  # noqa: S608

    def _first(self, where: str, *values: object) -> Job | None:
        return next(iter(self._all(f"{where} LIMIT 1", *values)), None)


def job_of(row: sqlite3.Row) -> Job:
    """Make a job of a row; ValueError or TypeError if the row contains values that lungstage never writes."""
    state, code, outcome = JobState(row["state"]), row["reason_code"], row["outcome"]
    since = (row["waiting_since"] or row["opened_at"]) if state in WAITING_STATES else None
    read: dict[str, Any] = {
        "state": state,
        "reason": None if code is None else Reason(ReasonCode(code), row["reason_message"]),
        **{name: _moment(row[name]) for name in ("opened_at", "created_at", "updated_at")},
        "waiting_since": _moment(since),
        "outcome": None if outcome is None else json.loads(outcome),
        "canary": bool(row["canary"]),
        "choice": _choice(row),
    }
    if not isinstance(read["outcome"], dict | None):
        raise TypeError("an outcome must be a JSON object")
    plain: dict[str, Any] = {name: _plain(name, row[name]) for name in _FIELDS - read.keys()}
    return Job(**plain, **read)


def _choice(row: sqlite3.Row) -> RegionChoice | None:
    roi, number = row["region_roi"], row["region_number"]
    if roi is None:
        return None
    if not isinstance(roi, str) or not isinstance(number, int):
        raise TypeError("a choice must be a UID and a number")
    return RegionChoice(roi, number)


def _plain(name: str, value: object) -> object:
    """Check the type of a value: SQLite stores any type in any column."""
    kind = int if name in ("id", "attempts") else str if name in _NEVER_EMPTY else str | None
    if not isinstance(value, kind):
        raise TypeError(f"{name} has another type")
    return value


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment
