"""The canary: a synthetic study that goes through all steps at an interval; an alarm if it is not delivered in time.

It is scanned, read, planned, staged and delivered like any study. Its inbox and outbox are in the state folder, and
nothing is sent from that outbox.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.contract.source import Source
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import Jobs

OUTSIDE = ReasonCode.OUTSIDE_INTENDED_USE


class Canary(Source):
    """The canaries of one daemon, one after the other.

    Parameters
    ----------
    folder
        Contains their folders ``inbox`` and ``outbox``.
    write
        Writes the phantom study with UIDs made from a name, and returns its Study Instance UID.
    jobs
        The jobs of the ledger.
    forget
        Deletes the records of the files of a folder.
    every, patience
        Seconds from one canary to the next, and until the alarm.
    clock
        A monotonic clock.
    tell
        Called at each alarm.

    Attributes
    ----------
    well
        Whether the last canary was delivered in time; None before the first result.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[Path, str], str],
        jobs: Jobs,
        forget: Callable[[Path], None],
        every: float,
        patience: float,
        clock: Callable[[], float],
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self._tell = tell
        self.inbox, self.outbox = folder / "inbox", folder / "outbox"
        self._write, self._jobs, self._forget = write, jobs, forget
        self._every, self._patience, self._clock = every, patience, clock
        self._study: str | None = None
        self._sent_at = -1e9
        self.well: bool | None = None
        self._clear()

    def is_one(self, case: Case) -> bool:
        """Whether a case is a canary: all its files are in the canaries' inbox."""
        return bool(case.headers) and all(header.path.is_relative_to(self.inbox) for header in case.headers)

    def next_due(self) -> float:
        """When :meth:`tick` next has something to do."""
        return self._sent_at + (self._every if self._study is None else self._patience)

    def tick(self) -> None:
        """Send a canary if one is due, or check the one that is being processed."""
        if self._study is not None:
            self._look_after(self._study)
        elif self._clock() >= self.next_due():
            self._sent_at = self._clock()
            self._study = self._write(self.inbox, f"canary {uuid.uuid4()}")

    def _look_after(self, study: str) -> None:
        job = self._jobs.newest_of_study(study)
        arrived = job is not None and (
            (job.state is JobState.DELIVERED and any(self.outbox.glob("SR-*.dcm"))) or _is_not_meant(job)
        )
        if not arrived and self._clock() < self.next_due():
            return
        self._study, self.well = None, arrived
        if not arrived:
            logger.error("canary_alarm", extra={"job": job and job.id, "state": job and job.state})
            self._tell()
        self._clear()

    def _clear(self) -> None:
        for folder in (self.inbox, self.outbox):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
        self._forget(self.inbox)


def _is_not_meant(job: Job) -> bool:
    """Whether the model refused the phantom as outside its intended use, for example as another body part."""
    return job.state is JobState.REFUSED and job.reason is not None and job.reason.code is OUTSIDE
