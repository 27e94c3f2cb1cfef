"""What the page knows of jobs, all of it read: from ledger, audit log, heartbeat and outbox.

The ledger is looked at in one thread, over one connection that writes nothing and holds no transaction open, so that it
stands in nobody's way. Where it is away, damaged or of another release, whoever asks is told so, and the next one looks
again.
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
_MOST_STUDIES: Final = 8  # whose headers are at hand; those of a thousand slices take some megabytes


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger as it is looked at."""

    jobs: Jobs
    files: FileRecords
    requests: TakenRequests
    version: tuple[int, ...]


class Records:
    """Looks things up for the page.

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
        self._headers: OrderedDict[tuple[int, datetime], tuple[Header, ...]] = OrderedDict()  # the thread's alone

    async def ask(self, question: Callable[[Ledger], T]) -> T:
        """Put a question to the ledger.

        Raises
        ------
        Unavailable
            There is none, it cannot be read at the moment, or it is damaged.
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
            raise Unavailable("There is no ledger yet: no daemon has been at work on this state folder.") from error
        identity = (status.st_dev, status.st_ino)
        if self._database is None or self._identity != identity or self._database.is_copy:
            self._drop()
            self._database, self._identity = DatabaseReader(self._path), identity
            self._opened += 1  # the file's own count of changes begins anew
        return self._database

    def _drop(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
            self._headers.clear()

    async def headers(self, job: Job, *, afresh: bool) -> tuple[Header, ...]:
        """Return the headers of everything on record that may belong to a job's case.

        Parameters
        ----------
        job
            The job, as it is now.
        afresh
            Whether they are looked up in any case; a picture is drawn of what the study was last shown with.
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
        """Let go of the ledger."""
        self._thread.submit(self._drop).result()
        self._thread.shutdown()

    def key_of(self, patient_id: str) -> str:
        """Hash a Patient ID as the ledger's are."""
        return patient_key(patient_id.strip(), identity_key(self._state, make=False))

    def history(self, job: Job) -> JobHistory:
        """Return what the audit log says of a job."""
        return job_history(job, self._state)


def _headers_of(ledger: Ledger, job: Job) -> tuple[Header, ...]:
    paths = dict.fromkeys(ledger.files.of_study(job.study_instance_uid))
    found = [header for path in paths for header in ledger.files.headers(path)]
    named = job.series_instance_uid
    if named is not None and not any(isinstance(header, RoiHeader) for header in found):
        found += [header for path in ledger.files.regions_naming(named) for header in ledger.files.headers(path)]
    return tuple(header for header in found if os.path.lexists(header.path))


def first_file(files: FileRecords, job: Job) -> Path | None:
    """Return a file that says whose a job's study is; None where none is left."""
    path = files.one_of_study(job.study_instance_uid)
    return None if path is None else Path(path)


class NotDeliveredError(Exception):
    """A document is none of this job's, or not what was delivered."""


def document(history: JobHistory, name: str, outbox: Path | None) -> bytes:
    """Return a document of a job, byte for byte as it was delivered.

    Raises
    ------
    NotDeliveredError
        The name is none of the job's documents, or the file holds something else.
    OSError
        It is not there.
    """
    expected = history.documents.get(name)
    if expected is None or not _DOCUMENT.fullmatch(name):
        raise NotDeliveredError("This job has no such document.")
    folder = outbox or (Path(history.job.sr_path).parent if history.job.sr_path else None)
    if folder is None:
        raise NotDeliveredError("This job has no such document.")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(folder / name, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise NotDeliveredError("What lies in the outbox under this name is not what was delivered.")
        content = file.read()
    if hashlib.sha256(content).hexdigest() != expected:
        raise NotDeliveredError("What lies in the outbox under this name is not what was delivered.")
    return content
