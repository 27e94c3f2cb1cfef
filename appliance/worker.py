"""The worker: one job at a time from its plan to the outbox, whatever becomes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from appliance import outbox
from appliance.casebook import Casebook, internal_error
from appliance.covariates import Site
from appliance.errors import Held, LungstageError, Refused, Unavailable
from appliance.job import Job
from appliance.ledger import Ledger
from appliance.logs import defect, logger
from appliance.settings import Settings

if TYPE_CHECKING:
    from appliance.bundle import Bundle
    from appliance.pipeline import Plan, Staged


class Stage(Protocol):
    """Shape of :func:`appliance.pipeline.stage`."""

    def __call__(self, plan: Plan, bundle: Bundle, *, created: datetime, site: Site) -> Staged: ...  # noqa: D102


class Worker:
    """Stages ready jobs and delivers their documents.

    Parameters
    ----------
    ledger, casebook
        Where jobs come from and what becomes of them, and their plans.
    bundle, settings
        What to answer with, and where to.
    stage
        The step that measures, predicts and reports.
    clock
        A monotonic clock.

    Attributes
    ----------
    resume_at
        When to go on after something was unavailable.
    """

    def __init__(
        self,
        ledger: Ledger,
        casebook: Casebook,
        bundle: Bundle,
        settings: Settings,
        stage: Stage,
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._casebook, self._bundle, self._settings = ledger, casebook, bundle, settings
        self._run, self._clock = stage, clock
        self._undelivered: tuple[Job, Staged] | None = None
        self._failures = 0
        self.resume_at = -1e9

    def forget(self) -> None:
        """Drop what is in hand; the ledger's claims are released by who calls this."""
        self._undelivered = None

    def encourage(self) -> None:
        """End the pause: a new job is not made to wait because an older one met a disk that was away."""
        self.resume_at = -1e9

    def work(self) -> bool:
        """Bring one job to its end, or to a pause; False when there is nothing to do now."""
        if self._clock() < self.resume_at:
            return False
        if self._undelivered is None:
            job = self._ledger.claim(timedelta(seconds=self._settings.lease_seconds))
            if job is None:
                return False
            self._undelivered = self._stage(job)
        if self._undelivered is not None:
            self._deliver(*self._undelivered)
        return True

    def _stage(self, job: Job) -> tuple[Job, Staged] | None:
        if job.created_at is None:
            raise RuntimeError("a claimed job bears no date")
        try:
            staged = self._run(self._casebook.plan(job), self._bundle, created=job.created_at, site=self._site())
        except Refused as refused:
            self._ledger.refuse(job.id, refused.reason, content=job.content, fingerprint=job.fingerprint)
            self._casebook.close(job)
            logger.warning("refused", extra=_about(job) | {"code": refused.reason.code})
        except Held as held:
            self._ledger.wait(job.id, held.reason, content=job.content)
            self._casebook.watch(job)
        except (Unavailable, OSError) as error:
            self._ledger.release(job.id, counted=False)
            self._back_off(job, error)
        except Exception as error:
            self._give_up(job, error)
        else:
            sr = str(staged.documents[-1].SOPInstanceUID)
            return self._ledger.staged(job.id, staged.outcome, sr), staged
        return None

    def _site(self) -> Site:
        """Read the covariates anew, because rows join while the daemon runs; a file in disorder is no study's fault."""
        try:
            return Site.read(self._settings.prevalence, self._settings.covariates)
        except Refused as refused:
            raise Unavailable(str(refused)) from refused

    def _deliver(self, job: Job, staged: Staged) -> None:
        try:
            paths = outbox.deliver(staged.documents, self._settings.outbox)
        except (Unavailable, OSError) as error:
            self._back_off(job, error)  # it stays staged, with its documents in hand
            return
        except Exception as error:
            self._undelivered = None
            self._give_up(job, error)
            return
        self._ledger.delivered(job.id, paths[-1])
        self._undelivered = None
        self._failures = 0
        self._casebook.close(job)
        logger.info("delivered", extra=_about(job) | {"sr": job.sr_sop_instance_uid})

    def _back_off(self, job: Job, error: Exception) -> None:
        self._failures += 1
        self.resume_at = self._clock() + pause_after(self._failures, self._settings)
        logger.warning("unavailable", extra=_about(job) | {"error": type(error).__name__, "why": told(error)})

    def _give_up(self, job: Job, error: Exception) -> None:
        logger.error("job_defect", extra=_about(job) | {"attempt": job.attempts} | defect(error))
        if job.attempts < self._settings.max_attempts:
            self._ledger.release(job.id, counted=True)
            return
        reason = internal_error(job.attempts, error)
        self._ledger.refuse(job.id, reason, content=job.content, fingerprint=job.fingerprint)
        self._casebook.close(job)


def pause_after(failures: int, settings: Settings) -> float:
    """Return how long to pause after so many failures in a row, in seconds."""
    return float(min(settings.retry_seconds * 2 ** min(failures - 1, 30), settings.retry_max_seconds))


def _about(job: Job) -> dict[str, object]:
    return {"job": job.id, "study": job.study_instance_uid, "series": job.series_instance_uid}


def told(error: Exception) -> str | None:
    """Return what may be logged of an error: our own sentence, or the system's word for its number."""
    if isinstance(error, LungstageError):
        return str(error)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else None
