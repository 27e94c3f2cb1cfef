"""Requests of people to the daemon: one small file each, which the daemon executes once.

A request file appears complete: it is written under another name, flushed to the disk and renamed. The ledger notes
each executed request under its file name. So a crash between execution and deletion does not execute it twice.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from lungstage.appliance.config.disks import write_private
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.state.database import DatabaseReader

FOLDER: Final = "requests"
"""Folder of the requests, in the state folder."""

MOST_WAITING: Final = 200
"""Most requests that may wait at the same time; if more wait, no daemon takes them."""

_MOST_BYTES = 4096
_NAME = re.compile(r"[0-9]{19}-[0-9a-f]{16}\.json")

UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
_Uid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment


_Moment = Annotated[datetime, AfterValidator(_aware)]


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a person.

    Attributes
    ----------
    kind
        ``process_again``: process the case again; ``choose_region``: also measure the given region.
    job
        Number of the job.
    seen
        The job's last change that the user has seen; a later change was not made by this user.
    user
        Name of the user.
    roi, number
        The chosen region, if any: SOP Instance UID of its RTSTRUCT or SEG, and its number there.
    """

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    kind: Literal["process_again", "choose_region"]
    job: Annotated[int, Field(ge=1, lt=2**63)]
    seen: _Moment
    user: UserName
    roi: _Uid | None = None
    number: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @property
    def choice(self) -> RegionChoice | None:
        """The chosen region."""
        return None if self.roi is None or self.number is None else RegionChoice(self.roi, self.number)


_REQUESTS: TypeAdapter[Request] = TypeAdapter(Request)


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of a request.

    Attributes
    ----------
    id
        The name of its file.
    kind, user
        As in the request.
    at
        When the daemon took it (UTC).
    refusal
        Why it was refused, as a sentence; None if it was executed.
    """

    id: str
    kind: str
    user: str
    at: datetime
    refusal: str | None


def put(state: Path, request: Request) -> str:
    """Write a request for the daemon of a state folder; return its name.

    Raises
    ------
    Unavailable
        It cannot be written, or too many requests wait already.
    """
    folder = state / FOLDER
    name = f"{time.time_ns():019}-{secrets.token_hex(8)}.json"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if len(waiting(state)) >= MOST_WAITING:
            raise Unavailable(f"{MOST_WAITING} requests wait already. Check that the daemon is running.")
        write_private(folder / name, _REQUESTS.dump_json(request))
    except OSError as error:
        raise Unavailable(
            f"The request cannot be written to {folder}: {error.strerror}. Check the disk and the folder's permissions."
        ) from error
    return name


def waiting(state: Path) -> tuple[str, ...]:
    """Return the names of the waiting requests, oldest first."""
    try:
        return tuple(sorted(name for name in os.listdir(state / FOLDER) if _NAME.fullmatch(name)))
    except FileNotFoundError:
        return ()


def read(state: Path, name: str) -> Request:
    """Read a request.

    Raises
    ------
    ValueError
        The file is no valid request.
    OSError
        It cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(state / FOLDER / name, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("the request is not a file")
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("the request is too large")
    request = _REQUESTS.validate_json(content)
    if (request.kind == "choose_region") != (request.choice is not None):
        raise ValueError("only choose_region has a region")
    return request


def about(request: Request) -> dict[str, object]:
    """Return the fields of a request for the audit log."""
    told = asdict(request) | {"seen": request.seen.astimezone(UTC).isoformat()}
    return {name: value for name, value in told.items() if value is not None}


class TakenRequests:
    """The executed and refused requests, newest first."""

    def __init__(self, database: DatabaseReader) -> None:
        self._db = database

    def of_job(self, job: int, most: int = 20) -> tuple[Taken, ...]:
        """Return the results of the latest requests about a job."""
        sql = "SELECT * FROM requests WHERE job = ? ORDER BY id DESC LIMIT ?"
        return tuple(
            self._db.read(
                lambda row: Taken(
                    str(row["id"]), str(row["kind"]), str(row["user"]), datetime.fromisoformat(row["taken_at"]),
                    row["refusal"],
                ),
                sql,
                (job, most),
            )
        )  # fmt: skip
