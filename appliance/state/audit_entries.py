"""What the audit log is told of a job: identifiers, digests and answers, and nothing that names a patient."""

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
"""What is repeated of an outcome: nothing that differs when the same is answered again, and no free text of a ROI."""


def is_news(before: Job, after: Job) -> bool:
    """Whether a change is worth an entry; that a case waits for fewer slices than before is not."""
    codes = [job.reason and job.reason.code for job in (before, after)]
    same = before.state is after.state and codes[0] == codes[1] and before.fingerprint == after.fingerprint
    return not same or (after.state is not JobState.WAITING and before.content != after.content)


def about(job: Job) -> dict[str, Any]:
    """Return what every entry says of its job, as far as it is known."""
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
    """Return what an entry says of an outcome."""
    return {key: outcome[key] for key in _ANSWER if key in outcome}
