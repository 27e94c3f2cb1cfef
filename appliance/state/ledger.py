"""The ledger: which cases came, and what became of each. No row is ever deleted.

Every change of state is a single statement that names the states it may start from, so a crash between two
statements leaves a state that start-up knows how to go on from. It is told to the audit log within its transaction,
before that is committed: what the ledger says, the log has said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import LungstageError, Reason, ReasonCode
from lungstage.appliance.state import audit_entries as entries
from lungstage.appliance.state import requests
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import RESTING_STATES, TRANSITIONS, WAITING_STATES, Job, JobState
from lungstage.appliance.state.jobs import WAITS_SINCE, Jobs, among, job_of, utc_now
from lungstage.appliance.state.requests import Request


class IllegalTransitionError(Exception):
    """A job was moved between states that do not follow each other: a defect of ours."""


class RequeueError(LungstageError):
    """The job that was to be requeued does not exist or is not at rest."""


class Ledger:
    """The jobs of one state folder, to be moved from state to state; :mod:`state.claims` moves those in hand.

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
    database, now
        As given.
    jobs
        The same jobs, to be looked at.
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
        self.database, self.now, self._moved = database, now, moved
        self.jobs = Jobs(database, now)
        self.audit = Audit(database.folder)

    def open_job(
        self,
        case_key: str,
        study: str,
        series: str | None,
        anchor: str,
        *,
        canary: bool = False,
        choice: RegionChoice | None = None,
    ) -> Job:
        """Make a new job, waiting to be examined; `choice` is what a person chose for its case before."""
        now = self.now().isoformat()
        sql = (
            "INSERT INTO jobs (case_key, study_instance_uid, series_instance_uid, anchor, state, opened_at, updated_at,"
            " canary, region_roi, region_number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *"
        )
        values = (case_key, study, series, anchor, JobState.WAITING, now, now, canary, *_columns_of(choice).values())
        with self.database.transaction():
            (job,) = self.database.read(job_of, sql, values)
            self._tell("opened", job)
        return job

    def note_study(self, job_id: int, study_date: str, patient_key: str) -> None:
        """Remember by what a person knows a job's study; what is empty changes nothing."""
        sql = (
            "UPDATE jobs SET study_date = coalesce(nullif(?, ''), study_date),"
            " patient_key = coalesce(nullif(?, ''), patient_key) WHERE id = ?"
        )
        self.database.query(sql, (study_date, patient_key, job_id))

    def wait(self, job_id: int, reason: Reason, *, content: str | None) -> Job:
        """Something needed has not arrived."""
        return self.move(job_id, JobState.WAITING, {**_reason(reason), "content": content, "fingerprint": None})

    def hold(self, job_id: int, reason: Reason, *, content: str | None) -> Job:
        """Something needed has not arrived for so long that a person should know."""
        return self.move(job_id, JobState.HELD, {**_reason(reason), "content": content, "fingerprint": None})

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
        return self.move(job_id, JobState.READY, columns, instances=list(instances))

    def refuse(self, job_id: int, reason: Reason, *, content: str | None, fingerprint: str | None = None) -> Job:
        """Refuse the data as it stands; ``fingerprint`` where it is the complete needed content that is refused."""
        return self.move(job_id, JobState.REFUSED, {**_reason(reason), "content": content, "fingerprint": fingerprint})

    def supersede(self, job_id: int, successor: int) -> Job:
        """Close a job whose case is answered by another job."""
        columns = _reason(superseded_by(successor))
        return self.move(job_id, JobState.REFUSED, columns, "superseded", successor=successor)

    def question(self, job_id: int, reason: Reason) -> None:
        """Say of a delivered report what has come since that makes it doubtful; it stays as it was delivered."""
        values = (reason.code, reason.message, self.now().isoformat(), job_id, JobState.DELIVERED, reason.code)
        sql = (
            "UPDATE jobs SET reason_code = ?, reason_message = ?, updated_at = ?"
            " WHERE id = ? AND state = ? AND reason_code IS NOT ? RETURNING *"
        )
        with self.database.transaction():
            for row in self.database.query(sql, values):
                self._tell("questioned", job_of(row))

    def correct_study(self, job_id: int, study: str) -> None:
        """Correct the study of a job that was opened before its images came."""
        self.database.query("UPDATE jobs SET study_instance_uid = ? WHERE id = ?", (study, job_id))

    def note_content(self, job_id: int, content: str) -> None:
        """Remember that a closed job's case was examined again and needs nothing new."""
        self.database.query("UPDATE jobs SET content = ? WHERE id = ?", (content, job_id))

    def alerted(self, job_id: int) -> None:
        """Remember that a job was told of as waiting too long, so that it is told of once for as long as it waits."""
        sql = "UPDATE jobs SET alerted_at = ? WHERE id = ? RETURNING *"
        with self.database.transaction():
            for job in self.database.read(job_of, sql, (self.now().isoformat(), job_id)):
                self._tell("alerted", job)

    def unready(self) -> None:
        """Have every ready job examined again: a plan does not outlive the process that made it."""
        now = self.now().isoformat()
        sql = "UPDATE jobs SET state = ?, updated_at = ?, waiting_since = ? WHERE state = ?"
        self.database.query(sql, (JobState.WAITING, now, now, JobState.READY))

    def requeue(self, job_id: int, choice: RegionChoice | None = None) -> Job:
        """Have the case of a delivered, refused or held job examined afresh, and keep what a person chose for it.

        The same content under the same bundle gives the same documents again, byte for byte, so nothing is doubled.

        Raises
        ------
        RequeueError
            When there is no such job, it is not at rest, or another job has taken its place.
        """
        self._prove_at_rest(job_id)
        columns: dict[str, object] = {"content": None, "fingerprint": None, "claimed_at": None, **_reason(None)}
        if choice is None:
            return self.move(job_id, JobState.WAITING, columns, "requeued")
        columns |= _columns_of(choice)
        return self.move(job_id, JobState.WAITING, columns, "requeued", region=asdict(choice))

    def _prove_at_rest(self, job_id: int) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            raise RequeueError(f"There is no job {job_id}.")
        if job.state not in RESTING_STATES:
            raise RequeueError(f"Job {job_id} is {job.state}; only delivered, refused and held jobs are requeued.")
        newest = self.jobs.of_case(job.case_key)
        if job.superseded or (newest is not None and newest.id != job_id):
            raise RequeueError(f"Another job has taken the place of job {job_id}; requeue that one.")

    def take_request(self, name: str, request: Request, why_not: Callable[[Request, Job | None], str | None]) -> bool:
        """Do what a request asks for, or note why not; once, however often it is found. True where it was done.

        Parameters
        ----------
        name
            Of the request's file.
        request
            What is asked for.
        why_not
            Says why it is not granted, given its job, in a sentence.
        """
        with self.database.transaction():
            if self.database.query("SELECT 1 FROM requests WHERE id = ?", (name,)):
                return False
            job = self.jobs.get(request.job)
            refusal = why_not(request, job)
            told = {"request": name, **requests.about(request)} | ({} if job is None else entries.about(job))
            if refusal is None:
                try:
                    self._prove_at_rest(request.job)
                except RequeueError as error:
                    refusal = str(error)
            if refusal is None:
                self.audit.write("request_granted", **told)
                self.requeue(request.job, request.choice)
            else:
                self.audit.write("request_refused", **told, why=refusal)
            values = (name, request.job, request.kind, request.user, self.now().isoformat(), refusal)
            self.database.query("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?)", values)
        return refusal is None

    def move(
        self, job_id: int, to: JobState, columns: Mapping[str, object], event: str | None = None, **told: object
    ) -> Job:
        """Move a job, whose `columns` change with it, and tell the audit log of `event`, by default the new state.

        Raises
        ------
        IllegalTransitionError
            There is no such job, or the state does not follow the one that it is in.
        """
        sources = [state for state, targets in TRANSITIONS.items() if to in targets]
        columns = {"state": to, "updated_at": self.now().isoformat(), **columns}
        sets = [f"{name} = :{name}" for name in columns]
        if to is not JobState.REPORT_READY:
            sets.append("lease_until = NULL")
        if to not in WAITING_STATES:
            sets.append("waiting_since = NULL, alerted_at = NULL")
        else:  # from waiting to held and back it is the same wait
            sets.append(f"waiting_since = CASE WHEN {among(WAITING_STATES)} THEN {WAITS_SINCE} ELSE :updated_at END")
        if "content" in columns:  # other content has not been tried yet
            sets.append("attempts = CASE WHEN content IS :content THEN attempts ELSE 0 END")
        sql = f"UPDATE jobs SET {', '.join(sets)} WHERE id = :id AND {among(sources)} RETURNING *"  # noqa: S608
        values: dict[str, object] = {**columns, "id": job_id}
        with self.database.transaction():
            before = self.jobs.get(job_id)
            moved = self.database.read(job_of, sql, values)
            if before is None or not moved:
                raise IllegalTransitionError(f"job {job_id}: {before.state if before else 'absent'} -> {to}")
            (job,) = moved
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


def superseded_by(successor: int) -> Reason:
    """Why a job is closed that another one has taken the place of."""
    return Reason(ReasonCode.SUPERSEDED, f"Job {successor} answers for this case.")


def _columns_of(choice: RegionChoice | None) -> dict[str, str | int | None]:
    roi, number = (None, None) if choice is None else (choice.roi, choice.number)
    return {"region_roi": roi, "region_number": number}


def _reason(reason: Reason | None) -> dict[str, str | None]:
    code, message = (None, None) if reason is None else (reason.code, reason.message)
    return {"reason_code": code, "reason_message": message}
