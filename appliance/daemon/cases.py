"""The cases of an inbox, and when each is examined.

An unchanged case is not examined twice. :mod:`daemon.examination` contains the examination itself, and
:mod:`daemon.absence` the treatment of cases that are no longer in the inbox.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

from lungstage.appliance.config.logs import logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.source import Source
from lungstage.appliance.daemon.absence import Absence
from lungstage.appliance.daemon.examination import Examiner, Prepare
from lungstage.appliance.daemon.open_cases import OpenCase, OpenCases
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import Ledger

EXAMINATION_BUDGET_SECONDS = 0.5
"""After this time a round of examinations makes room for other work."""

_ARRIVING_SECONDS = 0.5  # until the next look at a case that is still being sent


class Cases(Source):
    """The cases on one index.

    Parameters
    ----------
    ledger, bundle_digest, settings
        The record of the jobs, the digest of the bundle in use, and the waiting times.
    index
        The index of the cases in the inbox.
    prepare
        The step that makes the plan of a case.
    clock
        A monotonic clock.
    is_canary
        Says whether a case is a canary.

    Attributes
    ----------
    open
        The open cases.
    behind
        Whether :meth:`tick` had no time for all due cases, so that ready jobs do not wait for them.
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
        self.open = OpenCases(bundle_digest)
        self._ledger, self._settings, self._index, self._clock = ledger, settings, index, clock
        self._examiner = Examiner(ledger, self.open, settings, index, prepare, clock, is_canary)
        self._absence = Absence(ledger, self.open, index)
        self.behind = False

    def answer_by(self, bundle_digest: str) -> None:
        """Change to another bundle: :meth:`tick` then examines every open case again.

        The bundle decides which region and which slices are measured. So plans of the former bundle are dropped, and
        their jobs are not claimed before they have a new plan.
        """
        self.open.bundle_digest = bundle_digest
        for entry in self.open.values():
            entry.plan, entry.due, entry.waits_until = None, self._clock(), None

    def forget(self) -> None:
        """Start again: :meth:`tick` examines every open case again, and answers being computed are ignored."""
        self._ledger.unready()
        keys = self.open.keys() | {key for _, key, _ in self._ledger.jobs.unanswered()}
        now = self._clock()
        self.open.clear()
        self.open.update((key, OpenCase(key, now, due=now)) for key in keys)
        self._absence.forget()

    def next_due(self) -> float | None:
        """When :meth:`tick` has the next thing to do."""
        return min((t for e in self.open.values() for t in (e.due, e.report_at) if t is not None), default=None)

    def update(self, unread_since: float | None) -> bool:
        """Examine the changed cases of the index, now or in the next :meth:`tick`; True if a job became ready.

        Parameters
        ----------
        unread_since
            As for :meth:`tick`.
        """
        now = self._clock()
        became_ready = False
        for cases in self._index.changed():
            for case in cases:
                known = self.open.get(case.key)
                if known is None or known.version != hash(case):
                    became_ready |= self._meet(case, now + EXAMINATION_BUDGET_SECONDS)
        gone = [key for key, e in self.open.items() if key not in self._index and e.plan is None and e.in_hand is None]
        for key in gone:
            del self.open[key]
        self._absence.settle(now, unread_since)
        return became_ready

    def requeue(self) -> bool:
        """Examine the cases that a person requeued; True if a job became ready."""
        wanted = [self.open.wake(key) for key in self._ledger.jobs.requeued() if key in self._index]
        became_ready = [self._examiner.examine(entry, settled=False) for entry in wanted]
        self._absence.is_open = True
        return any(became_ready)

    def tick(self, unread_since: float | None, arriving: frozenset[str] = frozenset()) -> bool:
        """Examine the cases that are due; True if a job became ready.

        Parameters
        ----------
        unread_since
            When the oldest unread file of the inbox was first seen. It may belong to any case, so no case counts as
            complete that would have waited for it.
        arriving
            Folders to which files are still being sent. A case with a file in such a folder does not count as complete.
        """
        became_ready = self.behind = False
        now = self._clock()
        for due, entry in sorted(((e.due, e) for e in self.open.values() if e.due is not None), key=itemgetter(0)):
            self.behind = due <= now < self._clock() - EXAMINATION_BUDGET_SECONDS
            if self.behind or due > now:
                break
            waits = entry.waits_until is not None
            rests_at = entry.changed_at + self._settings.case_settle_seconds
            if entry.waits_until is not None:
                rests_at = max(rests_at, entry.waits_until)
            comes = self._comes(entry, arriving)
            rested = rests_at <= now and not comes and (unread_since is None or unread_since > rests_at)
            if rested or now < rests_at or entry.examined_at < entry.changed_at:
                became_ready |= self._examiner.examine(entry, settled=rested, waited=rested and waits)
            else:
                entry.due = now + (_ARRIVING_SECONDS if comes else self._settings.poll_seconds)
        for entry in self.open.values():
            if entry.report_at is not None and entry.report_at <= now:
                if self._comes(entry, arriving):
                    entry.report_at = now + _ARRIVING_SECONDS
                else:
                    self._report(entry)
            entry.case = None  # the index still has it
        if self._absence.is_open:
            self._absence.settle(now, unread_since)
        return became_ready

    def _comes(self, entry: OpenCase, arriving: frozenset[str]) -> bool:
        return bool(arriving) and not arriving.isdisjoint(self._index.folders(entry.key))

    def _meet(self, case: Case, until: float) -> bool:
        """Register a new or changed case, and examine it at once unless that is delayed."""
        now = self._clock()
        entry = self.open.setdefault(case.key, OpenCase(case.key, now))
        former = entry.content
        entry.take(case)
        if entry.content != former:
            entry.changed_at = now
        entry.due, entry.waits_until, entry.failures = None, None, 0
        if self._examiner.is_answered(entry, self._ledger.jobs.of_case(case.key)):
            del self.open[case.key]
            return False
        if now < entry.examined_at + entry.cost:
            # A case with a slow examination must not be examined again for each slice that arrives.
            entry.due = entry.examined_at + entry.cost
            return False
        entry.report_at, entry.examined_at, entry.cost = None, float("-inf"), 0.0
        if now > until:
            entry.due, entry.case = now, None
            return False
        return self._examiner.examine(entry, settled=False)

    def _report(self, entry: OpenCase) -> None:
        entry.report_at = None
        job = self._ledger.jobs.of_case(entry.key)
        if job is not None and job.state is JobState.WAITING and job.reason is not None:
            case = self._index.case(entry.key)  # unreadable files may have arrived after the examination
            reason = job.reason if case is None else self._index.with_unreadable(job.reason, case)
            self._ledger.hold(job.id, reason, content=job.content)
            logger.warning("held", extra=job.uids | {"code": job.reason.code})
