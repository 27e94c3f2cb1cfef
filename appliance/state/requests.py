"""What a person asks of the daemon from beside it: one small file a request, which the daemon takes once.

A request is whole or not there: it is written under another name, flushed to the disk and renamed. Whether it was taken
stands in the ledger, under the name of its file, so that a crash between taking and removing it has nothing done twice.
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
"""Of the requests, below the state folder."""

MOST_WAITING: Final = 200
"""Requests that may wait at the same time; more than that, nobody is taking them."""

_MOST_BYTES = 4096
_NAME = re.compile(r"[0-9]{19}-[0-9a-f]{16}\.json")

UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
_Uid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment without its zone")
    return moment


_Moment = Annotated[datetime, AfterValidator(_aware)]


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for.

    Attributes
    ----------
    kind
        ``process_again``: have the case examined afresh; ``choose_region``: and measure this region of it.
    job
        Number of the job.
    seen
        When the job had changed last, as whoever asks saw it: what has changed since then was another's doing.
    user
        Who asks.
    roi, number
        The region, where one is chosen: SOP Instance UID of its RTSTRUCT or SEG, and its number there.
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
        """The region that is chosen."""
        return None if self.roi is None or self.number is None else RegionChoice(self.roi, self.number)


_REQUESTS: TypeAdapter[Request] = TypeAdapter(Request)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request.

    Attributes
    ----------
    id
        The name of its file.
    kind, user
        As of the request.
    at
        When the daemon took it (UTC).
    refusal
        Why it was not done, in a sentence; None where it was.
    """

    id: str
    kind: str
    user: str
    at: datetime
    refusal: str | None


def put(state: Path, request: Request) -> str:
    """Put a request before the daemon of a state folder; return its name.

    Raises
    ------
    Unavailable
        It cannot be written, or too many wait already.
    """
    folder = state / FOLDER
    name = f"{time.time_ns():019}-{secrets.token_hex(8)}.json"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if len(waiting(state)) >= MOST_WAITING:
            raise Unavailable(f"{MOST_WAITING} requests wait already. Is a daemon at work?")
        write_private(folder / name, _REQUESTS.dump_json(request))
    except OSError as error:
        raise Unavailable(f"The request cannot be written to {folder}: {error.strerror}.") from error
    return name


def waiting(state: Path) -> tuple[str, ...]:
    """Return the names of the requests that wait, the oldest first."""
    try:
        return tuple(sorted(name for name in os.listdir(state / FOLDER) if _NAME.fullmatch(name)))
    except FileNotFoundError:
        return ()


def read(state: Path, name: str) -> Request:
    """Read a request.

    Raises
    ------
    ValueError
        It is none.
    OSError
        It cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(state / FOLDER / name, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("a request is a file")
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("a request is small")
    request = _REQUESTS.validate_json(content)
    if (request.kind == "choose_region") != (request.choice is not None):
        raise ValueError("a region belongs to a choice, and to nothing else")
    return request


def about(request: Request) -> dict[str, object]:
    """Return what the audit log is told of a request."""
    told = asdict(request) | {"seen": request.seen.astimezone(UTC).isoformat()}
    return {name: value for name, value in told.items() if value is not None}


class TakenRequests:
    """The requests that were taken, to be looked at; newest first."""

    def __init__(self, database: DatabaseReader) -> None:
        self._db = database

    def of_job(self, job: int, most: int = 20) -> tuple[Taken, ...]:
        """Return what became of the latest requests about a job."""
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
