"""Pages about refused studies (an option): they tell the reader who waits for an answer why there is none.

Ledger and audit log contain the refusal before the page is made. The page is an extra. If the outbox is not available,
delivery is tried again. If its file name is taken, or the daemon stops before delivery, there is no page.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import Reason, Unavailable
from lungstage.appliance.contract.source import Source
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.report import outbox
from lungstage.appliance.report.outbox import Document, OutboxConflictError
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.ledger import Ledger

Explain = Callable[[Case, Reason, datetime], tuple[Document, ...]]
"""Signature of :func:`staging.refusal.explain` for the bundle in use and the chosen documents."""


class RefusalPages(Source):
    """Makes and delivers the pages.

    Parameters
    ----------
    ledger
        Its audit log gets an entry before a page appears in the outbox.
    find
        Returns the case of a key; None if its files are gone.
    explain
        Makes a page.
    folder
        The outbox.
    prove_outbox
        Raises Unavailable if the outbox is no longer the same folder.
    retry_seconds
        Pause before the next attempt if the outbox is not available, in seconds.
    clock
        A monotonic clock.
    """

    def __init__(
        self,
        ledger: Ledger,
        find: Callable[[str], Case | None],
        explain: Explain,
        folder: Path,
        prove_outbox: Callable[[], None],
        retry_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._find, self._explain, self._folder = ledger, find, explain, folder
        self._prove_outbox, self._retry_seconds, self._clock = prove_outbox, retry_seconds, clock
        self._due: dict[int, Job] = {}
        self._resume_at = float("-inf")

    def note(self, job: Job) -> None:
        """Note a job that was refused; drop one that continues."""
        self._due.pop(job.id, None)
        if job.state is JobState.REFUSED and not job.superseded and not job.canary:
            self._due[job.id] = job

    def next_due(self) -> float | None:
        """When to try again."""
        return self._resume_at if self._due else None

    def tick(self) -> None:
        """Make and deliver the pages that are due."""
        if self._clock() < self._resume_at:
            return
        for job in list(self._due.values()):
            try:
                self._deliver(job)
            except (Unavailable, OSError) as error:
                logger.warning("refusal_page_waits", extra=job.uids | {"error": type(error).__name__})
                self._resume_at = self._clock() + self._retry_seconds
                return
            except OutboxConflictError as error:  # the file name is taken; no report depends on this page
                logger.warning("no_refusal_page", extra=job.uids | {"code": error.reason.code, "why": str(error)})
            except Exception as error:  # the study's files may be unreadable
                logger.warning("no_refusal_page", extra=job.uids | defect(error))
            self._due.pop(job.id, None)

    def _deliver(self, job: Job) -> None:
        case = self._find(job.case_key)
        if case is None or job.reason is None:
            return
        documents = self._explain(case, job.reason, job.updated_at.astimezone())
        if not documents:
            return
        self._prove_outbox()
        digests = {document.name: document.sha256 for document in documents}
        self._ledger.audit.write("refusal_page", job=job.id, study=job.study_instance_uid, documents=digests)
        outbox.deliver(documents, self._folder)
        logger.info("refusal_page", extra=job.uids | {"code": job.reason.code})
