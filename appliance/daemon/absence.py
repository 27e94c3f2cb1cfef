"""Jobs whose case is no longer in the inbox under its key: held, or closed in favour of a successor."""

from __future__ import annotations

from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.daemon.open_cases import OpenCases
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.state.ledger import Ledger

_GONE = Reason(
    ReasonCode.NO_DICOM,
    "The files of this case are no longer in the inbox. To have it processed, send the study again.",
)


class Absence:
    """Closes or holds the jobs of missing cases.

    Parameters
    ----------
    ledger, cases, index
        The jobs, the open cases, and the cases in the inbox.

    Attributes
    ----------
    is_open
        Whether a job still waits for its successor, or for the files that were there at the start to be read.
    """

    def __init__(self, ledger: Ledger, cases: OpenCases, index: StudyIndex) -> None:
        self._ledger, self._cases, self._index = ledger, cases, index
        self._held: set[int] = set()
        self._began: float | None = None  # when the files that were there at the start had been listed
        self.is_open = False

    def forget(self) -> None:
        """Start from the beginning."""
        self._held.clear()
        self._began = None

    def settle(self, now: float, unread_since: float | None) -> None:
        """Close or hold the jobs whose case is no longer there under its old key.

        No case counts as missing before all files that were there at the start have been read. After an upgrade, the
        new release reads all of them again.
        """
        self._began = now if self._began is None else self._began
        self.is_open = unread_since is not None and unread_since <= self._began
        if self.is_open:
            return
        absent = [row for row in self._ledger.jobs.unanswered() if row[1] not in self._index]
        self._held &= {job_id for job_id, _, _ in absent}
        for job_id, key, anchor in absent:
            if job_id in self._held:
                continue
            jobs = [self._ledger.jobs.of_case(home) for home in self._index.homes(anchor)]
            successors = [job for job in jobs if job is not None]
            if len(successors) < len(jobs):  # a case could not be examined yet
                self.is_open = True
                continue
            self._cases.pop(key, None)
            if successors:  # if several: the one with an answer, because the region was drawn on its series
                successor = next((job for job in successors if job.fingerprint is not None), successors[0])
                self._ledger.supersede(job_id, successor.id)
                continue
            self._ledger.hold(job_id, _GONE, content=None)
            self._held.add(job_id)
            logger.warning("held", extra={"job": job_id, "code": _GONE.code})
