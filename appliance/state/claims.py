"""Jobs being processed: claimed with a lease, answered, delivered or released.

The first claim of a content with a bundle fixes the report's date and its predecessor. So a report that is made again
is the same, byte for byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.state import audit_entries as entries
from lungstage.appliance.state.job import IN_HAND_STATES, Job, JobState
from lungstage.appliance.state.jobs import among, job_of
from lungstage.appliance.state.ledger import Ledger


class Claims:
    """The jobs of one ledger that are being processed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._db = ledger, ledger.database

    def claim(
        self,
        lease: timedelta,
        bundle_digest: str | None = None,
        former: Callable[[Job], Predecessor | None] = lambda _: None,
    ) -> Job | None:
        """Claim the ready job whose last attempt is the oldest; None if there is no ready job.

        Parameters
        ----------
        lease
            How long the job may be processed.
        bundle_digest
            The bundle for which the job must have been planned; None for any.
        former
            Returns the predecessor of its report from an older ledger, if this ledger knows none.
        """
        now = self._ledger.now()
        sql = (
            "UPDATE jobs SET state = :claimed, attempts = attempts + 1, claimed_at = :now, updated_at = :now,"
            " lease_until = :until, created_at = coalesce((SELECT created_at FROM reports WHERE"
            " reports.fingerprint = jobs.fingerprint AND reports.bundle_digest = jobs.bundle_digest), :here)"
            " WHERE id = (SELECT id FROM jobs WHERE state = :ready"
            " AND (:bundle IS NULL OR bundle_digest = :bundle) ORDER BY claimed_at NULLS FIRST, id LIMIT 1)"
            " RETURNING *"
        )
        values = {
            "claimed": JobState.CLAIMED,
            "ready": JobState.READY,
            "bundle": bundle_digest,
            "now": now.isoformat(),
            # A DICOM date is local; stored with its offset, it stays the same when the time zone changes.
            "here": now.astimezone().isoformat(),
            "until": (now + lease).isoformat(),
        }
        with self._db.transaction():
            claimed = self._db.read(lambda row: (job_of(row), row["created_at"]), sql, values)
            if not claimed:
                return None
            ((job, created_at),) = claimed
            # If the job itself delivered a report before it was requeued, content or bundle were different then.
            before = _report(job) if job.sr_path is not None else self._older(job) or former(job)
            fixed = (job.fingerprint, job.bundle_digest, created_at, before and json.dumps(astuple(before)))
            self._db.query(
                "INSERT OR IGNORE INTO reports (fingerprint, bundle_digest, created_at, predecessor)"
                " VALUES (?, ?, ?, ?)",
                fixed,
            )
        return job

    def predecessor(self, job: Job) -> Predecessor | None:
        """Return the predecessor of a claimed job's report; it is the same each time the report is made."""
        sql = "SELECT predecessor FROM reports WHERE fingerprint = ? AND bundle_digest = ? AND predecessor IS NOT NULL"
        values = (job.fingerprint, job.bundle_digest)
        fixed = self._db.read(lambda row: Predecessor(*json.loads(row[0])), sql, values)
        return fixed[0] if fixed else self._older(job)

    def beyond(self, job: Job, here: tuple[str, ...]) -> tuple[str, ...]:
        """Fix the further slices that a claimed job's report may use: those that were there at the first claim.

        More slices may have arrived since, but a report that is made again after a kill must be the same.
        """
        sql = (
            "UPDATE reports SET beyond = coalesce(beyond, ?) WHERE fingerprint = ? AND bundle_digest = ?"
            " RETURNING beyond"
        )
        values = (json.dumps(here), job.fingerprint, job.bundle_digest)
        with self._db.transaction():
            fixed = self._db.read(lambda row: tuple(json.loads(row[0])), sql, values)
        return fixed[0] if fixed else here

    def _older(self, job: Job) -> Predecessor | None:
        older = self._ledger.jobs.delivered_before(job)
        return None if older is None else _report(older)

    def report_ready(
        self,
        job_id: int,
        outcome: Mapping[str, Any],
        sr_sop_instance_uid: str,
        sr_series_instance_uid: str,
        documents: Mapping[str, str] = MappingProxyType({}),
    ) -> Job:
        """Store the answer, and the SHA-256 of each document by name, before delivery."""
        before = self._ledger.jobs.get(job_id)
        columns = {
            "outcome": json.dumps(outcome, allow_nan=False),
            "sr_sop_instance_uid": sr_sop_instance_uid,
            "sr_series_instance_uid": sr_series_instance_uid,
            "sr_path": before.sr_path if before and before.sr_sop_instance_uid == sr_sop_instance_uid else None,
        }
        answer = entries.answer(outcome)
        return self._ledger.move(job_id, JobState.REPORT_READY, columns, answer=answer, documents=dict(documents))

    def delivered(self, job_id: int, sr_path: Path, documents: Mapping[str, str] = MappingProxyType({})) -> Job:
        """Record that the report is in the outbox, with the SHA-256 of each document by name."""
        columns = {"sr_path": os.fspath(sr_path), "attempts": 0}
        return self._ledger.move(job_id, JobState.DELIVERED, columns, documents=dict(documents))

    def release(self, job_id: int, *, counted: bool) -> Job:
        """Make a claimed job ready again; set ``counted`` if the attempt failed with an internal error."""
        with self._db.transaction():
            if not counted:
                self._db.query("UPDATE jobs SET attempts = max(attempts - 1, 0) WHERE id = ?", (job_id,))
            return self._ledger.move(job_id, JobState.READY, {}, "released", counted=counted)

    def release_all(self) -> int:
        """Make all claimed jobs ready again, uncounted, because their process is gone; return their number."""
        sql = f"SELECT id FROM jobs WHERE {among(IN_HAND_STATES)} ORDER BY id"  # noqa: S608
        return len([self.release(row[0], counted=False) for row in self._db.query(sql)])


def _report(job: Job) -> Predecessor | None:
    if job.sr_series_instance_uid is None or job.sr_sop_instance_uid is None:
        return None
    return Predecessor(job.study_instance_uid, job.sr_series_instance_uid, job.sr_sop_instance_uid)
