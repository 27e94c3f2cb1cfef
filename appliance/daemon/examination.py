"""The examination of a case and its result for the job: waiting, held, refused, or ready with a plan.

A case is refused only after its files have been unchanged for a time (``case_settle_seconds``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import (
    DefectError,
    ExhaustedError,
    Held,
    Reason,
    ReasonCode,
    Refused,
    Unavailable,
)
from lungstage.appliance.daemon.open_cases import OpenCase, OpenCases
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.dicom.linking import BY_POSITION, POSITION_ALONE
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.state.job import IN_HAND_STATES, Job, JobState
from lungstage.appliance.state.ledger import Ledger, superseded_by
from lungstage.appliance.workers.messages import SealedPlan

_DOUBTFUL = Reason(
    ReasonCode.AMBIGUOUS_INPUT,
    "The region of this report was matched by position alone. CT slices of another series that fit it equally well "
    "arrived later, so it is not certain on which series it was drawn. Export the region again from the series on "
    "which it was drawn, so that it names that series' images.",
)


class Prepare(Protocol):
    """Signature of :func:`staging.pipeline.prepare` for the bundle in use; it returns the plan sealed."""

    def __call__(  # noqa: D102
        self,
        case: Case,
        *,
        settled: bool,
        waited: bool,
        roi_name: str | None,
        match_by_geometry: bool,
        strict_frame_of_reference: bool,
        choice: RegionChoice | None,
    ) -> SealedPlan: ...


class Examiner:
    """Examines the cases of one index, one at a time. Parameters: see :class:`daemon.cases.Cases`."""

    def __init__(
        self,
        ledger: Ledger,
        cases: OpenCases,
        settings: Settings,
        index: StudyIndex,
        prepare: Prepare,
        clock: Callable[[], float],
        is_canary: Callable[[Case], bool],
    ) -> None:
        self._ledger, self._cases, self._settings, self._index = ledger, cases, settings, index
        self._prepare, self._clock, self._is_canary = prepare, clock, is_canary

    def examine(self, entry: OpenCase, *, settled: bool, waited: bool = False) -> bool:
        """Examine a case; True when its job became ready.

        Parameters
        ----------
        entry
            The case.
        settled
            No file has arrived for so long that the case counts as complete.
        waited
            The wait for slices that may still arrive is over as well: they count as missing.
        """
        now = self._clock()
        job = self._ledger.jobs.of_case(entry.key)
        if job is not None and job.state in IN_HAND_STATES:
            entry.due = now + self._settings.retry_seconds
            return False
        if entry.case is None:
            case = self._index.case(entry.key)
            if case is None:  # the next look finds that it is gone
                entry.due = None
                return False
            entry.take(case)
        if self.is_answered(entry, job):
            del self._cases[entry.key]
            return False
        try:
            plan = self._prepare(
                entry.at_hand,
                settled=settled,
                waited=waited,
                roi_name=self._settings.roi_name,
                match_by_geometry=self._settings.match_by_geometry,
                strict_frame_of_reference=self._settings.strict_frame_of_reference,
                choice=_choice(entry, job),
            )
        except (Held, Refused) as error:
            entry.examined_at = self._clock()
            entry.cost = entry.examined_at - now
            entry.due = None if settled else entry.changed_at + self._settings.case_settle_seconds
            entry.waits_until = None
            if error.reason.code is ReasonCode.MORE_MAY_COME:
                error = self._wait(entry, error, settled)
            self._not_ready(entry, job, error, settled)
        except (Unavailable, OSError) as error:
            logger.warning("examination_unavailable", extra=_about(entry) | {"error": type(error).__name__})
            entry.due = now + self._settings.retry_seconds
        except Exception as error:
            self._failed(entry, job, error)
        else:
            entry.due = entry.report_at = entry.waits_until = None
            return self._ready(entry, job, plan)
        return False

    def _wait(self, entry: OpenCase, error: Held | Refused, settled: bool) -> Held | Refused:
        """Schedule the examination after the wait, and add its time to the message: no person has to act.

        The wait counts from the newest file on record, so a restart of the daemon does not begin it again.
        """
        now, newest = self._ledger.now(), self._index.newest(entry.at_hand)
        rested = timedelta() if newest is None else max(now - newest, timedelta())
        left = timedelta(seconds=self._settings.missing_neighbour_wait) - rested
        until = (now + left).astimezone().isoformat(" ", "seconds")
        if settled:
            entry.due = entry.waits_until = self._clock() + left.total_seconds()
        return Held(
            error.reason.code,
            f"{error.reason.message} You need not do anything: the case continues by itself, at the latest at {until}.",
        )

    def is_answered(self, entry: OpenCase, job: Job | None) -> bool:
        """Whether the last result of a case still applies to its present content.

        Another release may read the same files differently and compute another digest. Its result stays valid if no
        file has arrived since.
        """
        if job is None or not job.closed:
            return False
        if job.content == entry.content:
            return True
        moment = job.created_at if job.reader != self._index.reader else None
        return moment is not None and not self._index.came_after(entry.at_hand, moment)

    def _open(self, entry: OpenCase, job: Job | None) -> Job:
        """Return the case's job; make a new one if there is none or it is closed."""
        case = entry.at_hand
        if job is None or job.closed:
            anchor = case.headers[0].sop_instance_uid
            job = self._ledger.open_job(
                case.key, case.study_instance_uid, case.series_instance_uid, anchor,
                canary=self._is_canary(case), choice=_choice(entry, job),
            )  # fmt: skip
        elif job.study_instance_uid != case.study_instance_uid:  # a region arrived first, under another study UID
            self._ledger.correct_study(job.id, case.study_instance_uid)
        date, patient = _known_by(case)
        if (date and date != job.study_date) or (patient and patient != job.patient_key):
            self._ledger.note_study(job.id, date, patient)
        return job

    def _ready(self, entry: OpenCase, job: Job | None, plan: SealedPlan) -> bool:
        own = job if job is not None and not job.closed else None
        twin = self._ledger.jobs.answering(plan.fingerprint, other_than=None if own is None else own.id)
        if twin is not None:
            if own is not None:
                self._ledger.supersede(own.id, twin.id)
                entry.plan = None
            elif job is not None and job.id == twin.id:
                self._ledger.note_content(job.id, entry.content)
                del self._cases[entry.key]
            return False
        own = self._open(entry, job)
        self._ledger.ready(
            own.id,
            content=entry.content,
            fingerprint=plan.fingerprint,
            reader=self._index.reader,
            bundle_digest=self._cases.bundle_digest,
            instances=plan.instances,
        )
        entry.plan = plan
        self._succeed(entry, own)
        logger.info("ready", extra=_about(entry) | {"job": own.id})
        return True

    def _succeed(self, entry: OpenCase, job: Job) -> None:
        """Make this job the successor of a job that was opened by the region alone, before any series arrived.

        If the region's file lists several series, the job of another series may already be the successor.
        """
        for roi in entry.at_hand.rois:
            first = self._ledger.jobs.of_case(roi.sop_instance_uid)
            if first is not None and first.superseded and first.reason != superseded_by(job.id):
                self._ledger.supersede(first.id, job.id)

    def _not_ready(self, entry: OpenCase, job: Job | None, error: Held | Refused, settled: bool) -> None:
        if job is not None and not settled:
            answered = job.state is JobState.REFUSED and job.content == entry.content
            if job.closed or answered:
                return  # the earlier result stays until the case's files are unchanged for long enough
        job = self._open(entry, job)
        entry.plan = None
        if settled:
            self._question_earlier(entry.at_hand, error.reason)
        waits_for = self._index.with_unreadable(error.reason, entry.at_hand)
        if settled and isinstance(error, Refused):
            entry.report_at = None
            self._refuse(entry, job, error.reason)
        elif job.state is JobState.HELD and job.content == entry.content:
            self._ledger.hold(job.id, waits_for, content=entry.content)
        else:
            self._ledger.wait(job.id, waits_for, content=entry.content)
            may_come = error.reason.code is ReasonCode.MORE_MAY_COME
            entry.report_at = None if may_come else entry.changed_at + self._settings.report_after_seconds

    def _question_earlier(self, case: Case, reason: Reason) -> None:
        """Question a report that was matched by position if other slices arrived that its region fits equally well."""
        rivals = {*case.candidates, *case.neighbours}
        if case.images:  # other slices at the same positions, under the UID of the series itself
            own = case.images[0].series_instance_uid
            rivals = {own} if reason.code is ReasonCode.DUPLICATE_POSITION else set()
        for series in rivals:
            newest = self._ledger.jobs.of_case(series)
            if newest is not None and newest.state is not JobState.DELIVERED:
                newest = self._ledger.jobs.delivered_before(newest)
            if newest is None or newest.outcome is None:
                continue
            if {POSITION_ALONE, BY_POSITION}.intersection(newest.outcome.get("warnings", ())):
                self._ledger.question(newest.id, _DOUBTFUL)
                logger.warning("questioned", extra=newest.uids | {"code": _DOUBTFUL.code})

    def _refuse(self, entry: OpenCase, job: Job, reason: Reason) -> None:
        if (job.state, job.content, job.reason) != (JobState.REFUSED, entry.content, reason):
            self._ledger.refuse(job.id, reason, content=entry.content)
            logger.warning("refused", extra=_about(entry) | {"job": job.id, "code": reason.code})

    def _failed(self, entry: OpenCase, job: Job | None, error: Exception) -> None:
        entry.failures += 1
        if isinstance(error, ExhaustedError):
            logger.error("limits_exceeded", extra=_about(entry) | {"why": str(error)})
        else:
            logger.error("examination_defect", extra=_about(entry) | defect(error))
        if entry.failures < self._settings.max_attempts:
            entry.due = self._clock() + self._settings.retry_seconds * 2**entry.failures
            return
        entry.due = entry.report_at = entry.plan = None
        self._refuse(entry, self._open(entry, job), given_up(entry.failures, error))


def given_up(attempts: int, error: BaseException) -> Reason:
    """Return why a job is given up without an answer: it exceeds its limits, or lungstage has an internal error."""
    if isinstance(error, ExhaustedError):
        return Reason(
            ReasonCode.LIMITS_EXCEEDED,
            f"lungstage gave this case up after {attempts} attempts. {error} Raise the limits in the settings "
            "(work_seconds, work_memory_mb). Then process the job again (lungstage requeue).",
        )
    name = error.defect["error"] if isinstance(error, DefectError) else type(error).__name__
    return Reason(
        ReasonCode.INTERNAL_ERROR,
        f"lungstage failed {attempts} times on this case ({name}): an internal error. Please report it, with the "
        "line of the log that names this job or study.",
    )


def _known_by(case: Case) -> tuple[str, str]:
    """Return study date and keyed hash of the patient: from the images, or else from the region objects."""
    headers: tuple[Header, ...] = (*case.images, *case.rois)
    date = next((header.study_date for header in headers if header.study_date), "")
    return date, next((header.patient_key for header in headers if header.patient_key), "")


def _choice(entry: OpenCase, job: Job | None) -> RegionChoice | None:
    """Return the region that a person chose for a case, if its ROI object is still there."""
    choice = None if job is None else job.choice
    uids = {roi.sop_instance_uid for roi in entry.at_hand.rois}
    return choice if choice is not None and choice.roi in uids else None


def _about(entry: OpenCase) -> dict[str, object]:
    return {"study": entry.at_hand.study_instance_uid, "series": entry.at_hand.series_instance_uid}
