"""The dispatcher: gives ready jobs to the processes that stage them, and delivers the answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import ExhaustedError, Held, LungstageError, Refused, Unavailable
from lungstage.appliance.contract.source import Source, next_due
from lungstage.appliance.daemon.examination import given_up
from lungstage.appliance.daemon.former_reports import FormerReports
from lungstage.appliance.daemon.obstacles import Obstacles
from lungstage.appliance.daemon.open_cases import InHand, OpenCases
from lungstage.appliance.dicom.names import may_be_told
from lungstage.appliance.report import outbox
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.job import Job
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.workers.messages import Answer, SealedPlan

_NONE = FormerReports()


class Stagers(Source, Protocol):
    """The processes that stage plans, several at a time: :class:`workers.bundle_workers.Workers`."""

    def free(self) -> bool:
        """Whether another plan can be started now."""

    def start(
        self,
        ticket: int,
        plan: SealedPlan,
        *,
        created: datetime,
        site: Site,
        predecessor: Predecessor | None,
        beyond: tuple[str, ...],
    ) -> None:
        """Start to stage a plan."""

    def finished(self) -> Iterable[tuple[int, Future[Answer]]]:
        """Give each finished plan: its ticket and its result."""


class Dispatcher(Source):
    """Has ready jobs staged and delivers their documents.

    Parameters
    ----------
    ledger, cases
        The record of the jobs, and the open cases with their plans and the jobs being processed.
    settings
        Where to deliver, and how long to wait before a retry.
    stagers
        The processes that stage the plans.
    clock
        A monotonic clock.
    canary_outbox
        Folder for the reports of canaries.
    prove_outbox
        Raises Unavailable if the outbox is no longer the same folder.
    former
        Reports of an older ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        cases: OpenCases,
        settings: Settings,
        stagers: Stagers,
        clock: Callable[[], float],
        canary_outbox: Path | None = None,
        prove_outbox: Callable[[], None] = lambda: None,
        former: FormerReports = _NONE,
    ) -> None:
        self._former = former
        self._prove_outbox = prove_outbox
        self._canary_outbox = canary_outbox or settings.outbox
        self._ledger, self._claims, self._cases = ledger, Claims(ledger), cases
        self._settings, self._stagers, self._clock = settings, stagers, clock
        self._obstacles = Obstacles(cases, clock)
        self._tickets = 0
        self._failures = 0
        self._resume_at = -1e9  # after something was unavailable

    def next_due(self) -> float | None:
        """When a pause ends, a plan has taken too long, or an obstacle is checked again: the earliest of these."""
        due = next_due((self._stagers, self._obstacles))
        if self._clock() >= self._resume_at:
            return due
        return self._resume_at if due is None else min(due, self._resume_at)

    def descriptors(self) -> Sequence[int]:
        """File descriptors that become readable when a plan has been staged."""
        return self._stagers.descriptors()

    def encourage(self) -> None:
        """End the pause, so that a new job does not wait for the retry of an older one."""
        self._resume_at = -1e9

    def in_hand(self) -> int:
        """Return the number of jobs that are being staged."""
        return sum(one.answer is None for one in self._cases.in_hand())

    def work(self, *, claim: bool = True) -> bool:
        """Collect answers, deliver reports and start ready jobs; False if there was nothing to do.

        Parameters
        ----------
        claim
            Whether to start new jobs.
        """
        progress = False
        self._obstacles.tick()
        for ticket, became in self._stagers.finished():
            done = next((one for one in self._cases.in_hand() if one.ticket == ticket), None)
            if done is not None:
                self._take_in(done, became)
                progress = True
        if self._clock() < self._resume_at:
            return progress
        for one in self._cases.in_hand():
            if one.answer is not None:
                if not self._deliver(one.job, one.answer):
                    return progress
                progress = True
        while claim and self._clock() >= self._resume_at and self._ledger.jobs.any_ready() and self._stagers.free():
            lease = timedelta(seconds=self._settings.lease_seconds)
            job = self._claims.claim(lease, self._cases.bundle_digest, self._predecessor)
            if job is None:
                break
            self._hand_out(job)
            progress = True
        return progress

    def _predecessor(self, job: Job) -> Predecessor | None:
        plan = self._cases[job.case_key].plan
        return None if plan is None or job.canary else self._former.predecessor(plan.instances, job.bundle_digest)

    def _hand_out(self, job: Job) -> None:
        case = self._cases[job.case_key]
        if job.created_at is None or case.plan is None:
            raise RuntimeError("a claimed job has no date or no plan")
        self._tickets += 1
        predecessor = self._claims.predecessor(job)
        try:
            self._stagers.start(
                self._tickets,
                case.plan,
                created=job.created_at,
                site=self._site(job),
                predecessor=predecessor,
                beyond=self._claims.beyond(job, case.plan.beyond),
            )
        except Exception as error:
            self._failed(job, error)
        else:
            case.in_hand = InHand(job, self._tickets)

    def _site(self, job: Job) -> Site:
        """Read the covariates again, because rows are added while the daemon runs; a bad file refuses no study."""
        try:
            site = Site.read(self._settings.prevalence, self._settings.covariates)
        except Refused as refused:
            raise Unavailable(str(refused)) from refused
        return site.of_study(job.study_instance_uid)

    def _take_in(self, done: InHand, became: Future[Answer]) -> None:
        case = self._cases[done.job.case_key]
        case.in_hand = None
        error = became.exception()
        if error is not None:
            self._failed(done.job, error)
            return
        answer = became.result()
        sr = answer.documents[-1]
        documents = {document.name: document.sha256 for document in answer.documents}
        job = self._claims.report_ready(
            done.job.id, _discreet(answer.outcome), sr.sop_instance_uid, sr.series_instance_uid, documents
        )
        case.in_hand = InHand(job, done.ticket, answer)

    def _failed(self, job: Job, error: BaseException) -> None:
        if isinstance(error, Refused):
            self._ledger.refuse(job.id, error.reason, content=job.content, fingerprint=job.fingerprint)
            self._cases.close(job)
            logger.warning("refused", extra=job.uids | {"code": error.reason.code})
        elif isinstance(error, Held):
            self._wait(job, error)
        elif isinstance(error, (Unavailable, OSError)):
            self._claims.release(job.id, counted=False)
            self._back_off(job, error)
        else:
            self._give_up(job, error)

    def _wait(self, job: Job, held: Held) -> None:
        self._ledger.wait(job.id, held.reason, content=job.content)
        self._cases[job.case_key].report_at = self._clock() + self._settings.report_after_seconds

    def _deliver(self, job: Job, answer: Answer) -> bool:
        """Deliver an answer; False if delivery has to be tried again."""
        try:
            folder = self._canary_outbox if job.canary else self._settings.outbox
            if not job.canary:
                self._prove_outbox()
            paths = outbox.deliver(answer.documents, folder)
            if not job.canary:  # the outbox may have changed during delivery; a second delivery does no harm
                self._prove_outbox()
        except (Unavailable, OSError) as error:
            self._back_off(job, error)  # the report stays ready and keeps its documents
            return False
        except outbox.OutboxConflictError as error:
            self._meet(job, error)
            return True
        except Exception as error:
            self._cases[job.case_key].in_hand = None
            self._give_up(job, error)
            return True
        self._claims.delivered(job.id, paths[-1], outbox.digests(answer.documents, folder))
        self._failures = 0
        self._cases.close(job)
        logger.info("delivered", extra=job.uids | {"sr": job.sr_sop_instance_uid})
        return True

    def _meet(self, job: Job, obstacle: outbox.OutboxConflictError) -> None:
        """Let a job wait until its name in the outbox is free; its answer is dropped and can be made again."""
        case = self._cases[job.case_key]
        case.in_hand = case.plan = None
        self._claims.release(job.id, counted=False)
        self._wait(job, obstacle)
        self._obstacles.met(job.case_key, obstacle.path)
        logger.warning("outbox_occupied", extra=job.uids | {"why": str(obstacle)})

    def _back_off(self, job: Job, error: BaseException) -> None:
        self._failures += 1
        self._resume_at = self._clock() + pause_after(self._failures, self._settings)
        logger.warning("unavailable", extra=job.uids | {"error": type(error).__name__, "why": told(error)})

    def _give_up(self, job: Job, error: BaseException) -> None:
        about = job.uids | {"attempt": job.attempts}
        if isinstance(error, ExhaustedError):
            logger.error("limits_exceeded", extra=about | {"why": str(error)})
        else:
            logger.error("job_defect", extra=about | defect(error))
        if job.attempts < self._settings.max_attempts:
            self._claims.release(job.id, counted=True)
            return
        reason = given_up(job.attempts, error)
        self._ledger.refuse(job.id, reason, content=job.content, fingerprint=job.fingerprint)
        self._cases.close(job)


def _discreet(outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out a region name that may be a person's name, and all other regions' names; the report contains them."""
    roi = outcome.get("roi")
    if not roi:
        return outcome
    others = [{**other, "name": None} for other in roi.get("others", ())]
    return {**outcome, "roi": {**roi, "name": roi["name"] if may_be_told(roi["name"]) else None, "others": others}}


def pause_after(failures: int, settings: Settings) -> float:
    """Return the pause after a number of failures in a row, in seconds."""
    return float(min(settings.retry_seconds * 2 ** min(failures - 1, 30), settings.retry_max_seconds))


def told(error: BaseException) -> str | None:
    """Return the part of an error that may be logged: lungstage's own message, or the system's text for its number."""
    if isinstance(error, LungstageError):
        return str(error)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else None
