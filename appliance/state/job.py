"""A job: the processing of one case to one report, and its possible states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Reason, ReasonCode


class JobState(StrEnum):
    """State of a job."""

    WAITING = "waiting"  # something needed has not arrived
    READY = "ready"  # everything needed is there
    CLAIMED = "claimed"  # being processed, with a lease
    REPORT_READY = "report_ready"  # answered; the documents are not in the outbox yet
    DELIVERED = "delivered"  # the report is in the outbox
    HELD = "held"  # waiting so long that a person should know; it continues by itself
    REFUSED = "refused"  # the data are the cause


_S = JobState

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _S.WAITING: frozenset({_S.WAITING, _S.READY, _S.HELD, _S.REFUSED}),
        _S.READY: frozenset({_S.READY, _S.CLAIMED, _S.WAITING, _S.HELD, _S.REFUSED}),
        _S.CLAIMED: frozenset({_S.REPORT_READY, _S.READY, _S.WAITING, _S.REFUSED}),
        _S.REPORT_READY: frozenset({_S.DELIVERED, _S.READY, _S.REFUSED}),
        _S.DELIVERED: frozenset({_S.WAITING}),
        _S.HELD: frozenset({_S.HELD, _S.WAITING, _S.READY, _S.REFUSED}),
        _S.REFUSED: frozenset({_S.REFUSED, _S.WAITING, _S.READY, _S.HELD}),
    }
)
"""The states that may follow each state. A delivered job changes only by a requeue; a refused job also by new data."""

OPEN_STATES = (JobState.WAITING, JobState.READY, JobState.HELD)
"""States in which the next step depends on the files in the inbox."""

IN_HAND_STATES = (JobState.CLAIMED, JobState.REPORT_READY)
"""States in which a running process is responsible for the job."""

WAITING_STATES = (JobState.WAITING, JobState.HELD)
"""States in which a job depends on something that has not arrived."""

RESTING_STATES = (JobState.DELIVERED, JobState.REFUSED, JobState.HELD)
"""States from which a person may requeue a job."""


_LEFT_OPEN = frozenset({ReasonCode.ROI_AMBIGUOUS, ReasonCode.ROI_NOT_FOUND})


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the ledger.

    Attributes
    ----------
    id
        Job number, ascending.
    case_key
        Key of the job's case in the inbox.
    study_instance_uid, series_instance_uid
        The case's study and CT series; the series is None while only the ROI is known.
    anchor
        SOP Instance UID by which the case is found after its key has changed.
    content
        Digest of the case's content at the last examination; None requests a new examination.
    fingerprint
        Digest of the needed content; None while it is incomplete.
    reader
        Version of the code that made content and fingerprint; None for an early release.
    bundle_digest
        Digest of the bundle that answers or answered.
    state
        The state of the job.
    reason
        Why it waits, is held or was refused.
    attempts
        How often this content has been claimed without a result.
    opened_at, updated_at
        First and last change of the row (UTC).
    waiting_since
        Since when it is waiting or held (UTC); None in other states.
    created_at
        Content date and time of the report (local, with its offset), fixed when this content is first claimed under
        this bundle.
    sr_path, sr_sop_instance_uid, sr_series_instance_uid
        The report, if there is one.
    outcome
        The answer, with the keys of the command contract.
    canary
        Whether the study is a canary.
    study_date
        Date of the study as YYYY-MM-DD, if its files contain one.
    patient_key
        Keyed hash of the Patient ID (:mod:`dicom.identity`), if the files contain one.
    choice
        The region that a person chose for the case.
    """

    id: int
    case_key: str
    study_instance_uid: str
    series_instance_uid: str | None
    anchor: str
    content: str | None
    fingerprint: str | None
    reader: str | None
    bundle_digest: str | None
    state: JobState
    reason: Reason | None
    attempts: int
    opened_at: datetime
    created_at: datetime | None
    updated_at: datetime
    waiting_since: datetime | None
    sr_path: str | None
    sr_sop_instance_uid: str | None
    sr_series_instance_uid: str | None
    outcome: Mapping[str, Any] | None
    canary: bool
    study_date: str | None = None
    patient_key: str | None = None
    choice: RegionChoice | None = None

    @property
    def superseded(self) -> bool:
        """Whether another job has replaced this one."""
        return self.reason is not None and self.reason.code is ReasonCode.SUPERSEDED

    @property
    def region_is_open(self) -> bool:
        """Whether a person may choose the region: no rule could choose it, or a person has chosen before."""
        return self.choice is not None or (self.reason is not None and self.reason.code in _LEFT_OPEN)

    @property
    def closed(self) -> bool:
        """Whether the job is the final result for its content, so that new content makes a new job."""
        if self.state is JobState.REFUSED:
            return self.superseded or self.fingerprint is not None
        return self.state is JobState.DELIVERED

    @property
    def uids(self) -> dict[str, object]:
        """Number and UIDs of the job for a log line."""
        return {"job": self.id, "study": self.study_instance_uid, "series": self.series_instance_uid}

    def waits_longer_than(self, age: timedelta, now: datetime) -> bool:
        """Whether the job has waited, or been held, for longer than `age`."""
        return self.waiting_since is not None and now - self.waiting_since > age
