"""The ledger: the record of all cases and their states. No row is ever deleted.

Every change of state is one statement that names the allowed earlier states. So the daemon can continue after a crash
between two statements. Each change is written to the audit log within its transaction, before the commit. So the log
contains every change that is in the ledger.
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
    """A job was moved between states that do not follow each other: an internal error."""


class RequeueError(LungstageError):
    """The job to be requeued does not exist, or is in a state from which it cannot be requeued."""


class Ledger:
    """Changes the states of the jobs of one state folder; :mod:`state.claims` does so for jobs being processed.

    Parameters
    ----------
    database
        The database that contains the jobs.
    now
        Source of the time of day.
    moved
        Called for each job that has changed its state.

    Attributes
    ----------
    database, now
        As given.
    jobs
        The same jobs, for reading.
    audit
        The audit log of the same state folder; every change of state is written there first.
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
        """Make a new job that waits for its examination; `choice` is the region that a person chose earlier."""
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
        """Note the study date and patient of a job; an empty value changes nothing."""
        sql = (
            "UPDATE jobs SET study_date = coalesce(nullif(?, ''), study_date),"
            " patient_key = coalesce(nullif(?, ''), patient_key) WHERE id = ?"
        )
        self.database.query(sql, (study_date, patient_key, job_id))

    def wait(self, job_id: int, reason: Reason, *, content: str | None) -> Job:
        """Let a job wait: something needed has not arrived."""
        return self.move(job_id, JobState.WAITING, {**_reason(reason), "content": content, "fingerprint": None})

    def hold(self, job_id: int, reason: Reason, *, content: str | None) -> Job:
        """Hold a job: something needed has been missing so long that a person should know."""
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
        """Make a job ready: everything needed is there. `instances`: see :attr:`staging.pipeline.Plan.instances`."""
        columns = {"content": content, "fingerprint": fingerprint, "reader": reader, "bundle_digest": bundle_digest}
        columns |= _reason(None)
        return self.move(job_id, JobState.READY, columns, instances=list(instances))

    def refuse(self, job_id: int, reason: Reason, *, content: str | None, fingerprint: str | None = None) -> Job:
        """Refuse the present data; give ``fingerprint`` if the complete needed content is refused."""
        return self.move(job_id, JobState.REFUSED, {**_reason(reason), "content": content, "fingerprint": fingerprint})

    def supersede(self, job_id: int, successor: int) -> Job:
        """Close a job because another job answers for its case."""
        columns = _reason(superseded_by(successor))
        return self.move(job_id, JobState.REFUSED, columns, "superseded", successor=successor)

    def question(self, job_id: int, reason: Reason) -> None:
        """Note why later data make a delivered report doubtful; the report itself is not changed."""
        values = (reason.code, reason.message, self.now().isoformat(), job_id, JobState.DELIVERED, reason.code)
        sql = (
            "UPDATE jobs SET reason_code = ?, reason_message = ?, updated_at = ?"
            " WHERE id = ? AND state = ? AND reason_code IS NOT ? RETURNING *"
        )
        with self.database.transaction():
            for row in self.database.query(sql, values):
                self._tell("questioned", job_of(row))

    def correct_study(self, job_id: int, study: str) -> None:
        """Correct the study of a job that was opened before its images arrived."""
        self.database.query("UPDATE jobs SET study_instance_uid = ? WHERE id = ?", (study, job_id))

    def note_content(self, job_id: int, content: str) -> None:
        """Note the content of a closed job's case that was examined again without a new result."""
        self.database.query("UPDATE jobs SET content = ? WHERE id = ?", (content, job_id))

    def alerted(self, job_id: int) -> None:
        """Note that a job has raised its alert, so that each wait raises only one."""
        sql = "UPDATE jobs SET alerted_at = ? WHERE id = ? RETURNING *"
        with self.database.transaction():
            for job in self.database.read(job_of, sql, (self.now().isoformat(), job_id)):
                self._tell("alerted", job)

    def unready(self) -> None:
        """Let every ready job be examined again: its plan was lost with the process that made it."""
        now = self.now().isoformat()
        sql = "UPDATE jobs SET state = ?, updated_at = ?, waiting_since = ? WHERE state = ?"
        self.database.query(sql, (JobState.WAITING, now, now, JobState.READY))

    def requeue(self, job_id: int, choice: RegionChoice | None = None) -> Job:
        """Let the case of a delivered, refused or held job be processed again; a chosen region is kept.

        The same content with the same bundle gives the same documents, byte for byte, so there is no second report.

        Raises
        ------
        RequeueError
            There is no such job, its state does not allow this, or another job has replaced it.
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
            raise RequeueError(f"Job {job_id} is {job.state}; only delivered, refused and held jobs can be requeued.")
        newest = self.jobs.of_case(job.case_key)
        if job.superseded or (newest is not None and newest.id != job_id):
            raise RequeueError(
                f"Another job has replaced job {job_id}. Requeue that job instead; "
                f"lungstage jobs --study {job.study_instance_uid} shows its number."
            )

    def take_request(self, name: str, request: Request, why_not: Callable[[Request, Job | None], str | None]) -> bool:
        """Execute a request, or note why it is refused; only once for each file. True if it was executed.

        Parameters
        ----------
        name
            Name of the request's file.
        request
            The request.
        why_not
            Returns why it is refused, given its job, as a sentence.
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
        """Change a job's state and `columns`, and write `event` (default: the new state) to the audit log.

        Raises
        ------
        IllegalTransitionError
            There is no such job, or the new state does not follow the present one.
        """
        sources = [state for state, targets in TRANSITIONS.items() if to in targets]
        columns = {"state": to, "updated_at": self.now().isoformat(), **columns}
        sets = [f"{name} = :{name}" for name in columns]
        if to is not JobState.REPORT_READY:
            sets.append("lease_until = NULL")
        if to not in WAITING_STATES:
            sets.append("waiting_since = NULL, alerted_at = NULL")
        else:  # waiting and held belong to the same wait
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
        if job.canary:  # canaries are too many for the audit log
            return
        if event == "released":
            told["attempts"] = job.attempts
        self.audit.write(f"job_{event}", **entries.about(job), **told)


def superseded_by(successor: int) -> Reason:
    """Return the reason of a job that another job has replaced."""
    return Reason(ReasonCode.SUPERSEDED, f"Job {successor} answers for this case.")


def _columns_of(choice: RegionChoice | None) -> dict[str, str | int | None]:
    roi, number = (None, None) if choice is None else (choice.roi, choice.number)
    return {"region_roi": roi, "region_number": number}


def _reason(reason: Reason | None) -> dict[str, str | None]:
    code, message = (None, None) if reason is None else (reason.code, reason.message)
    return {"reason_code": code, "reason_message": message}
