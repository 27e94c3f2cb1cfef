"""The fields of a job in the audit log: identifiers, digests and answers; no field names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lungstage.appliance import __version__
from lungstage.appliance.state.job import Job, JobState

_ANSWER: Final = (
    "stage",
    "probability_advanced",
    "endpoint",
    "features",
    "domain",
    "decision",
    "predictive_value",
    "warnings",
)
"""The fields of an outcome for the log: only those that are equal when an answer is repeated, and no ROI text."""


def is_news(before: Job, after: Job) -> bool:
    """Whether a change gets an entry; a case that waits for fewer slices than before gets none."""
    codes = [job.reason and job.reason.code for job in (before, after)]
    same = before.state is after.state and codes[0] == codes[1] and before.fingerprint == after.fingerprint
    return not same or (after.state is not JobState.WAITING and before.content != after.content)


def about(job: Job) -> dict[str, Any]:
    """Return the known fields of a job for every entry about it."""
    known: dict[str, Any] = {
        "job": job.id,
        "study": job.study_instance_uid,
        "series": job.series_instance_uid,
        "fingerprint": job.fingerprint,
        "reason": None if job.reason is None else {"code": str(job.reason.code), "message": job.reason.message},
    }
    if job.fingerprint is not None:
        known |= {"bundle": job.bundle_digest, "software": __version__}
    if job.created_at is not None and job.state in (JobState.REPORT_READY, JobState.DELIVERED):
        known |= {"created": job.created_at.isoformat(), "sr": job.sr_sop_instance_uid}
    return {key: value for key, value in known.items() if value is not None}


def answer(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an outcome for an entry."""
    return {key: outcome[key] for key in _ANSWER if key in outcome}
