"""Deletion of received files: days after confirmed delivery of the report, and only if every daemon has finished."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lungstage.appliance.config.disks import held
from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.head import is_uid
from lungstage.appliance.gateway.marks import Marks
from lungstage.appliance.gateway.queue import Queue
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import Jobs
from lungstage.appliance.state.requests import FOLDER as REQUESTS

_OURS: Final = re.compile(r"[0-9.]{1,64}(-[0-9a-f]{16})?\.dcm")
_DAY: Final = 86400.0


class Retention:
    """Deletes received files when their time is over.

    Days are counted while the gateway runs, with a monotonic clock: a wrong date deletes nothing too soon.

    Parameters
    ----------
    inbox
        Folder of the received files.
    daemons
        State folders of all daemons that read the inbox.
    days
        How many days files are kept after they are finished.
    queue
        Received studies and deliveries.
    marks
        Marks of the studies that are still being sent.
    """

    def __init__(self, inbox: Path, daemons: Sequence[Path], days: float, queue: Queue, marks: Marks) -> None:
        self._inbox, self._daemons, self._days, self._queue, self._marks = inbox, daemons, days, queue, marks

    def step(self, passed: float) -> int:
        """Delete the files that are due; return the number of studies.

        Parameters
        ----------
        passed
            Seconds since the last step.
        """
        removed = 0
        with contextlib.ExitStack() as stack:
            try:
                ledgers = [stack.enter_context(DatabaseReader(state / "ledger.sqlite")) for state in self._daemons]
            except Unavailable:
                return 0  # the state of the studies is unknown, so nothing is deleted
            for study in sorted(self._queue.studies()):
                if self._marks.is_open(study) or not self._is_done(study, [Jobs(ledger) for ledger in ledgers]):
                    self._queue.not_at_rest(study)
                elif self._queue.rested(study, passed) >= self._days * _DAY:
                    removed += self._remove(study)
        return removed

    def _is_done(self, study: str, ledgers: Sequence[Jobs]) -> bool:
        """Whether every daemon has finished with a study, and all its reports were delivered."""
        reports: list[Job] = []
        for jobs in ledgers:
            found = [job for job in jobs.find(study=study) if not job.superseded]
            if not found or any(job.state not in (JobState.DELIVERED, JobState.REFUSED) for job in found):
                return False
            reports += [job for job in found if job.state is JobState.DELIVERED]
        return bool(reports) and all(self._was_sent(job) for job in reports)

    def _was_sent(self, job: Job) -> bool:
        deliveries = self._queue.deliveries_of(f"SR-{job.sr_sop_instance_uid}.dcm")
        return any(one.committed for one in deliveries) and all(one.state == "delivered" for one in deliveries)

    def _remove(self, study: str) -> bool:
        """Delete a study's files if no replay reads them and no request waits."""
        assert is_uid(study)
        with contextlib.ExitStack() as stack:
            for state in self._daemons:
                if not stack.enter_context(held(state, shared=False)) or _has_requests(state):
                    return False
            folder = self._inbox / study
            try:
                names = os.listdir(folder)
                if folder.is_symlink():
                    return False
                for name in names:
                    if _OURS.fullmatch(name):
                        (folder / name).unlink()
                with contextlib.suppress(OSError):  # foreign files stay, and so does their folder
                    folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("not_removed", extra={"error": type(error).__name__})
                return False
        self._queue.forget(study)
        logger.info("received_removed", extra={"study": study})
        return True


def _has_requests(state: Path) -> bool:
    try:
        return any(os.scandir(state / REQUESTS))
    except FileNotFoundError:
        return False
    except OSError:
        return True
