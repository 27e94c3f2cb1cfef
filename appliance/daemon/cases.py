"""The cases: every case in the inbox that is not closed, when it was examined, and when to look at it again.

It turns what has arrived into jobs: waiting, held, refused, or ready with a plan to be staged. Nothing is examined
twice as long as it has not changed, and a refusal is pronounced only on a case that has come to rest. What a case holds
is taken from the index for as long as it is worked on; a closed one leaves nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import (
    DefectError,
    ExhaustedError,
    Held,
    Reason,
    ReasonCode,
    Refused,
    Unavailable,
)
from lungstage.appliance.state.job import IN_HAND_STATES, Job, JobState

if TYPE_CHECKING:
    from lungstage.appliance.config.settings import Settings
    from lungstage.appliance.dicom.cases import Case
    from lungstage.appliance.intake.study_index import StudyIndex
    from lungstage.appliance.state.ledger import Ledger
    from lungstage.appliance.workers.messages import SealedPlan


EXAMINATION_BUDGET_SECONDS = 0.5
"""After so long a round of examinations makes room for other work."""


class Prepare(Protocol):
    """Shape of :func:`staging.pipeline.prepare`, over the bundle in use, and its plan sealed."""

    def __call__(  # noqa: D102
        self, case: Case, *, settled: bool, roi_name: str | None, match_by_geometry: bool
    ) -> SealedPlan: ...


def content_digest(case: Case) -> str:
    """Digest of everything known of a case's instances but where they lie; equal for any number of copies."""
    parts = {
        "\0".join(
            repr(getattr(header, field.name)) for field in fields(header) if field.name not in ("path", "pixel_span")
        )
        for header in case.headers
    }
    return hashlib.sha256("\n".join(sorted(parts)).encode(errors="surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Entry:
    key: str
    changed_at: float
    version: int | None = None  # of the case as it was met, with the places of its files
    content: str = ""
    case: Case | None = None  # while it is worked on
    due: float | None = None  # when to examine it again although nothing came
    report_at: float | None = None  # when to report that it waits
    examined_at: float = float("-inf")
    cost: float = 0.0  # seconds that the last examination took
    failures: int = 0

    @property
    def at_hand(self) -> Case:
        """The case, which is being examined."""
        if self.case is None:
            raise RuntimeError("a case was not fetched")
        return self.case

    @property
    def rests(self) -> bool:
        """Whether nothing will be done about it unless something comes."""
        return self.due is None and self.report_at is None


class Cases:
    """The cases on one index.

    Parameters
    ----------
    ledger, bundle_digest, settings
        What the jobs are kept in, answered by and timed by.
    index
        Where the cases are found.
    prepare
        The step that says what a case needs.
    clock
        A monotonic clock.
    is_canary
        Tells the daemon's own studies from those that came.

    Attributes
    ----------
    behind
        Whether cases are due that :meth:`tick` had no time for: what is ready is not kept waiting for all others.
    """

    def __init__(
        self,
        ledger: Ledger,
        bundle_digest: str,
        settings: Settings,
        index: StudyIndex,
        prepare: Prepare,
        clock: Callable[[], float],
        is_canary: Callable[[Case], bool] = lambda _: False,
    ) -> None:
        self._is_canary = is_canary
        self._ledger = ledger
        self._bundle_digest = bundle_digest
        self._settings, self._index = settings, index
        self._prepare = prepare
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._plans: dict[int, SealedPlan] = {}
        self._gone: set[int] = set()
        self._moving = False  # a job waits for the one that takes its place, or for what was there at the start
        self._began: float | None = None  # when what was there at the start had been seen
        self.behind = False

    @property
    def bundle_digest(self) -> str:
        """Digest of the bundle that cases are examined and answered by."""
        return self._bundle_digest

    def answer_by(self, bundle_digest: str) -> None:
        """Go over to another bundle: every case that is not closed is examined again by :meth:`tick`.

        What is needed and where the region is follow from the bundle, so plans made with the former one are dropped;
        their jobs are not claimed until they have been planned anew.
        """
        self._bundle_digest = bundle_digest
        self._plans.clear()
        for entry in self._entries.values():
            entry.due = self._clock()

    def forget(self) -> None:
        """Begin anew: every case that is not closed is examined again by :meth:`tick`."""
        self._ledger.unready()
        now, open_ones = self._clock(), {key for _, key, _ in self._ledger.unanswered()}
        self._entries = {key: _Entry(key, now, due=now) for key in self._entries.keys() | open_ones}
        self._plans.clear()
        self._gone.clear()
        self._began = None

    def plan(self, job: Job) -> SealedPlan:
        """Return the plan of a ready job."""
        return self._plans[job.id]

    def close(self, job: Job) -> None:
        """Drop what is kept of a job that has come to its end."""
        self._plans.pop(job.id, None)
        entry = self._entries.get(job.case_key)
        if entry is not None and entry.rests and entry.content == job.content:
            del self._entries[job.case_key]

    def next_due(self) -> float | None:
        """When :meth:`tick` next has something to do."""
        return min((t for e in self._entries.values() for t in (e.due, e.report_at) if t is not None), default=None)

    def update(self, unread_since: float | None) -> bool:
        """Examine what has changed in the index, or have the next :meth:`tick` do it; True when a job became ready.

        Parameters
        ----------
        unread_since
            As of :meth:`tick`.
        """
        now = self._clock()
        self._began = now if self._began is None else self._began
        until = now + EXAMINATION_BUDGET_SECONDS
        became_ready = False
        for cases in self._index.changed():
            for case in cases:
                known = self._entries.get(case.key)
                if known is None or known.version != hash(case):
                    became_ready |= self._meet(case, known, until)
        for key in [key for key in self._entries if key not in self._index]:
            del self._entries[key]
        self._settle_absent(unread_since)
        return became_ready

    def requeue(self) -> bool:
        """Examine the cases that somebody requeued; True when a job became ready."""
        wanted = [self._wake(key) for key in self._ledger.requeued() if key in self._index]
        became_ready = [self._examine(entry, settled=False) for entry in wanted]
        self._moving = True
        return any(became_ready)

    def _wake(self, key: str) -> _Entry:
        """Return the entry of a case, which has rested for long where there is none."""
        return self._entries.setdefault(key, _Entry(key, float("-inf")))

    def tick(self, unread_since: float | None) -> bool:
        """Do what is due; True when a job became ready.

        Parameters
        ----------
        unread_since
            When the longest unread file of the inbox was first seen; it may belong to any case, so none is settled
            that would still have waited for it.
        """
        became_ready = self.behind = False
        now = self._clock()
        for due, entry in sorted(((e.due, e) for e in self._entries.values() if e.due is not None), key=itemgetter(0)):
            self.behind = due <= now < self._clock() - EXAMINATION_BUDGET_SECONDS
            if self.behind or due > now:
                break
            settles_at = entry.changed_at + self._settings.case_settle_seconds
            settled = settles_at <= now and (unread_since is None or unread_since > settles_at)
            if settled or now < settles_at or entry.examined_at < entry.changed_at:
                became_ready |= self._examine(entry, settled=settled)
            else:
                entry.due = now + self._settings.poll_seconds
        for entry in self._entries.values():
            if entry.report_at is not None and entry.report_at <= now:
                self._report(entry)
            entry.case = None  # in the index again: a hundred cases that wait are many headers
        if self._moving:
            self._settle_absent(unread_since)
        return became_ready

    def watch(self, job: Job) -> None:
        """Report a job that fell back to waiting if it waits for long."""
        if job.case_key in self._index:
            self._wake(job.case_key).report_at = self._clock() + self._settings.report_after_seconds

    def _meet(self, case: Case, known: _Entry | None, until: float) -> bool:
        content = content_digest(case)
        same = known is not None and known.content == content
        now = self._clock()
        changed_at = known.changed_at if known is not None and same else now
        entry = _Entry(case.key, changed_at, hash(case), content, case)
        self._entries[case.key] = entry
        if self._is_answered(entry, self._ledger.latest(case.key)):
            del self._entries[case.key]
            return False
        if known is not None and now < known.examined_at + known.cost:
            # A case that is slow to examine must not be examined for each slice that arrives.
            entry.due, entry.report_at = known.examined_at + known.cost, known.report_at
            entry.examined_at, entry.cost = known.examined_at, known.cost
            return False
        if now > until:
            entry.due, entry.case = now, None
            return False
        return self._examine(entry, settled=False)

    def _examine(self, entry: _Entry, *, settled: bool) -> bool:
        now = self._clock()
        job = self._ledger.latest(entry.key)
        if job is not None and job.state in IN_HAND_STATES:
            entry.due = now + self._settings.retry_seconds
            return False
        case = self._fetch(entry)
        if case is None:  # the next look will find it gone
            entry.due = None
            return False
        if self._is_answered(entry, job):
            del self._entries[entry.key]
            return False
        try:
            plan = self._prepare(
                case,
                settled=settled,
                roi_name=self._settings.roi_name,
                match_by_geometry=self._settings.match_by_geometry,
            )
        except (Held, Refused) as error:
            entry.examined_at = self._clock()
            entry.cost = entry.examined_at - now
            entry.due = None if settled else entry.changed_at + self._settings.case_settle_seconds
            self._not_ready(entry, job, error, settled)
        except (Unavailable, OSError) as error:
            logger.warning("examination_unavailable", extra=_about(entry.at_hand) | {"error": type(error).__name__})
            entry.due = now + self._settings.retry_seconds
        except Exception as error:
            self._failed(entry, job, error)
        else:
            entry.due = entry.report_at = None
            return self._ready(entry, job, plan)
        return False

    def _is_answered(self, entry: _Entry, job: Job | None) -> bool:
        """Whether the last word about a case was about what it holds now.

        Another release may read the same files otherwise, and so have another digest for them. What it answered stands
        all the same, as long as nothing has come since.
        """
        if job is None or not job.closed:
            return False
        if job.content == entry.content:
            return True
        moment = job.created_at if job.reader != self._index.reader else None
        return moment is not None and not self._index.came_after(entry.at_hand, moment)

    def _fetch(self, entry: _Entry) -> Case | None:
        if entry.case is None:
            entry.case = self._index.case(entry.key)
            if entry.case is not None:
                entry.version, entry.content = hash(entry.case), content_digest(entry.case)
        return entry.case

    def _open(self, entry: _Entry) -> Job:
        case = entry.at_hand
        anchor = case.headers[0].sop_instance_uid
        return self._ledger.open_job(
            case.key, case.study_instance_uid, case.series_instance_uid, anchor, canary=self._is_canary(case)
        )

    def _ready(self, entry: _Entry, job: Job | None, plan: SealedPlan) -> bool:
        own = job if job is not None and not job.closed else None
        twin = self._ledger.answering(plan.fingerprint, other_than=None if own is None else own.id)
        if twin is not None:
            if own is not None:
                self._ledger.supersede(own.id, twin.id)
                self._plans.pop(own.id, None)
            elif job is not None and job.id == twin.id:
                self._ledger.note_content(job.id, entry.content)
                del self._entries[entry.key]
            return False
        own = own or self._open(entry)
        self._ledger.ready(
            own.id,
            content=entry.content,
            fingerprint=plan.fingerprint,
            reader=self._index.reader,
            bundle_digest=self._bundle_digest,
            instances=plan.instances,
        )
        self._plans[own.id] = plan
        logger.info("ready", extra=_about(entry.at_hand) | {"job": own.id})
        return True

    def _not_ready(self, entry: _Entry, job: Job | None, error: Held | Refused, settled: bool) -> None:
        if job is not None and not settled:
            answered = job.state is JobState.REFUSED and job.content == entry.content
            if job.closed or answered:
                return  # what was said stands until the case has come to rest
        if job is None or job.closed:
            job = self._open(entry)
        self._plans.pop(job.id, None)
        waits_for = self._index.with_unreadable(error.reason, entry.at_hand)
        if settled and isinstance(error, Refused):
            entry.report_at = None
            self._refuse(entry, job, error.reason)
        elif job.state is JobState.HELD and job.content == entry.content:
            self._ledger.hold(job.id, waits_for, content=entry.content)
        else:
            self._ledger.wait(job.id, waits_for, content=entry.content)
            entry.report_at = entry.changed_at + self._settings.report_after_seconds

    def _refuse(self, entry: _Entry, job: Job, reason: Reason) -> None:
        if (job.state, job.content, job.reason) != (JobState.REFUSED, entry.content, reason):
            self._ledger.refuse(job.id, reason, content=entry.content)
            logger.warning("refused", extra=_about(entry.at_hand) | {"job": job.id, "code": reason.code})

    def _failed(self, entry: _Entry, job: Job | None, error: Exception) -> None:
        entry.failures += 1
        if isinstance(error, ExhaustedError):
            logger.error("limits_exceeded", extra=_about(entry.at_hand) | {"why": str(error)})
        else:
            logger.error("examination_defect", extra=_about(entry.at_hand) | defect(error))
        if entry.failures < self._settings.max_attempts:
            entry.due = self._clock() + self._settings.retry_seconds * 2**entry.failures
            return
        entry.due = entry.report_at = None
        job = self._open(entry) if job is None or job.closed else job
        self._plans.pop(job.id, None)
        self._refuse(entry, job, given_up(entry.failures, error))

    def _report(self, entry: _Entry) -> None:
        entry.report_at = None
        job = self._ledger.latest(entry.key)
        if job is not None and job.state is JobState.WAITING and job.reason is not None:
            case = self._fetch(entry)
            reason = job.reason if case is None else self._index.with_unreadable(job.reason, case)
            self._ledger.hold(job.id, reason, content=job.content)
            logger.warning("held", extra=_about(job) | {"job": job.id, "code": job.reason.code})

    def _settle_absent(self, unread_since: float | None) -> None:
        """Close or hold the jobs whose case is no longer there under its old key.

        Nothing is absent as long as files that were there at the start are still to be read: all of them are, where
        another release must read them anew.
        """
        self._moving = unread_since is not None and self._began is not None and unread_since <= self._began
        if self._moving:
            return
        absent = [row for row in self._ledger.unanswered() if row[1] not in self._index]
        self._gone &= {job_id for job_id, _, _ in absent}
        absent = [row for row in absent if row[0] not in self._gone]
        for job_id, _, anchor in absent:
            self._plans.pop(job_id, None)
            home = self._index.home(anchor)
            if home is not None:
                successor = self._ledger.latest(home)
                if successor is None:  # its case could not be examined yet
                    self._moving = True
                else:
                    self._ledger.supersede(job_id, successor.id)
                continue
            reason = Reason(ReasonCode.NO_DICOM, "The files of this case are no longer in the inbox.")
            self._ledger.hold(job_id, reason, content=None)
            self._gone.add(job_id)
            logger.warning("held", extra={"job": job_id, "code": reason.code})


def given_up(attempts: int, error: BaseException) -> Reason:
    """Why a job is given up that never came to an answer: over its limits, or by a defect of ours."""
    if isinstance(error, ExhaustedError):
        return Reason(ReasonCode.LIMITS_EXCEEDED, f"This case was given up after {attempts} attempts. {error}")
    name = error.defect["error"] if isinstance(error, DefectError) else type(error).__name__
    sentence = f"lungstage failed {attempts} times over this case ({name}); the log says where."
    return Reason(ReasonCode.INTERNAL_ERROR, sentence)


def _about(case: Case | Job) -> dict[str, object]:
    return {"study": case.study_instance_uid, "series": case.series_instance_uid}
