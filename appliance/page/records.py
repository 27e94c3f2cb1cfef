"""What the page reads about jobs, from ledger, audit log, heartbeat and outbox.

One thread reads the ledger over one connection. The connection writes nothing and keeps no transaction open, so it does
not block the daemon. If the ledger is missing, damaged or of another release, the request reports this, and the next
request tries again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.dicom.header import Header, RoiHeader
from lungstage.appliance.dicom.identity import patient_key
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.file_table import FileRecords
from lungstage.appliance.state.job import Job
from lungstage.appliance.state.job_history import JobHistory, job_history
from lungstage.appliance.state.jobs import Jobs
from lungstage.appliance.state.requests import TakenRequests
from lungstage.appliance.state.secret import identity_key

T = TypeVar("T")

_DOCUMENT: Final = re.compile(r"(SR|SEG|PDF|SC|HTML)-[0-9.]{1,64}\.(dcm|html|pdf)")
_MOST_BYTES: Final = 256 * 1024**2
_MOST_STUDIES: Final = 8  # studies with headers in memory; a thousand slices take some megabytes


@dataclass(frozen=True, slots=True)
class Ledger:
    """The tables of the ledger that the page reads."""

    jobs: Jobs
    files: FileRecords
    requests: TakenRequests
    version: tuple[int, ...]


class Records:
    """Reads ledger and audit log for the page.

    Parameters
    ----------
    state
        The state folder.
    """

    def __init__(self, state: Path) -> None:
        self._state, self._path = state, state / "ledger.sqlite"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._database: DatabaseReader | None = None
        self._identity: tuple[int, ...] = ()
        self._opened = 0
        self._headers: OrderedDict[tuple[int, datetime], tuple[Header, ...]] = OrderedDict()  # used by the thread only

    async def ask(self, question: Callable[[Ledger], T]) -> T:
        """Read something from the ledger.

        Raises
        ------
        Unavailable
            There is no ledger, it cannot be read at the moment, or it is damaged.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question)

    def _ask(self, question: Callable[[Ledger], T]) -> T:
        try:
            database = self._open()
            version = (*self._identity, self._opened, database.data_version())
            return question(Ledger(Jobs(database), FileRecords(database), TakenRequests(database), version))
        except Unavailable:
            self._drop()
            raise

    def _open(self) -> DatabaseReader:
        try:
            status = self._path.stat()
        except OSError as error:
            raise Unavailable("There is no ledger yet: no daemon has run with this state folder.") from error
        identity = (status.st_dev, status.st_ino)
        if self._database is None or self._identity != identity or self._database.is_copy:
            self._drop()
            self._database, self._identity = DatabaseReader(self._path), identity
            self._opened += 1  # the file's count of changes starts again
        return self._database

    def _drop(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
            self._headers.clear()

    async def headers(self, job: Job, *, afresh: bool) -> tuple[Header, ...]:
        """Return the headers of all recorded files that may belong to a job's case.

        Parameters
        ----------
        job
            The current job.
        afresh
            Whether to read them again in any case. Pictures use the headers with which the study was last shown.
        """
        key = (job.id, job.updated_at)

        def find(ledger: Ledger) -> tuple[Header, ...]:
            if afresh or key not in self._headers:
                self._headers[key] = _headers_of(ledger, job)
            self._headers.move_to_end(key)
            while len(self._headers) > _MOST_STUDIES:
                self._headers.popitem(last=False)
            return self._headers[key]

        return await self.ask(find)

    def close(self) -> None:
        """Close the ledger."""
        self._thread.submit(self._drop).result()
        self._thread.shutdown()

    def key_of(self, patient_id: str) -> str:
        """Hash a Patient ID in the same way as the ledger."""
        return patient_key(patient_id.strip(), identity_key(self._state, make=False))

    def history(self, job: Job) -> JobHistory:
        """Return the entries of the audit log on a job."""
        return job_history(job, self._state)


def _headers_of(ledger: Ledger, job: Job) -> tuple[Header, ...]:
    paths = dict.fromkeys(ledger.files.of_study(job.study_instance_uid))
    found = [header for path in paths for header in ledger.files.headers(path)]
    named = job.series_instance_uid
    if named is not None and not any(isinstance(header, RoiHeader) for header in found):
        found += [header for path in ledger.files.regions_naming(named) for header in ledger.files.headers(path)]
    return tuple(header for header in found if os.path.lexists(header.path))


def first_file(files: FileRecords, job: Job) -> Path | None:
    """Return a file of a job's study, to read the patient from; None if there is none any more."""
    path = files.one_of_study(job.study_instance_uid)
    return None if path is None else Path(path)


class NotDeliveredError(Exception):
    """A document does not belong to this job, or is not what was delivered."""


def document(history: JobHistory, name: str, outbox: Path | None) -> bytes:
    """Return a document of a job, byte for byte as it was delivered.

    Raises
    ------
    NotDeliveredError
        The job has no document of this name, or the file has other content.
    OSError
        The file is missing.
    """
    expected = history.documents.get(name)
    if expected is None or not _DOCUMENT.fullmatch(name):
        raise NotDeliveredError("This job does not have this document.")
    folder = outbox or (Path(history.job.sr_path).parent if history.job.sr_path else None)
    if folder is None:
        raise NotDeliveredError("This job does not have this document.")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(folder / name, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise NotDeliveredError("The file of this name in the outbox is not the delivered document.")
        content = file.read()
    if hashlib.sha256(content).hexdigest() != expected:
        raise NotDeliveredError("The file of this name in the outbox is not the delivered document.")
    return content
