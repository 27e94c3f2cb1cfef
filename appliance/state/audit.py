"""The audit log: one line of JSON for each event of a job or a daemon, appended and chained by hashes.

It records which data arrived, which bundle was used and which answer was given, only as UIDs and digests.
``docs/audit.md`` describes format, verification and retention; :mod:`state.chain` reads the log.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from lungstage.appliance.config.disks import give_to_owner
from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.errors import Unavailable

GENESIS: Final = "0" * 64
"""The previous hash in the first entry of the log."""

ROTATE_BYTES: Final = 8 * 1024**2
LOCK: Final = "audit.lock"
RECOVERED: Final = "recovered"

_REMEMBERED = 4096  # events of jobs, kept twice; about 350 bytes each

_NAME = re.compile(r"audit-(\d{6,})\.jsonl")
_LINE = re.compile(rb'(.+),"sha256":"([0-9a-f]{64})"\}', re.DOTALL)
_OWN = frozenset({"seq", "time", "repeats", "event", "previous", "sha256"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    Attributes
    ----------
    seq
        Number, ascending from 1 without a gap.
    time
        When it was written: ISO 8601, UTC.
    event
        Name of the event.
    fields
        Details of the event.
    repeats
        Number of an earlier entry with the same content about the same job; None if the content is new.
    previous
        Hash of the entry before.
    sha256
        Hash of this entry, `previous` included.
    """

    seq: int
    time: str
    event: str
    fields: Mapping[str, Any]
    repeats: int | None
    previous: str
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return the members of the line, in their order."""
        own = {"seq": self.seq, "time": self.time} | ({} if self.repeats is None else {"repeats": self.repeats})
        return {**own, "event": self.event, **self.fields, "previous": self.previous, "sha256": self.sha256}


def seal(seq: int, event: str, fields: Mapping[str, Any], repeats: int | None, previous: str) -> tuple[Entry, bytes]:
    """Make an entry and its line, without the line break.

    The hash is the SHA-256 of the line without its last member, ``sha256``. A verifier hashes these bytes and need not
    know how numbers are written.
    """
    entry = Entry(seq, datetime.now(UTC).isoformat(), event, fields, repeats, previous, "")
    text, _, _ = _json(entry.as_dict()).rpartition(b',"sha256":')
    entry = replace(entry, sha256=hashlib.sha256(text + b"}").hexdigest())
    return entry, _json(entry.as_dict())


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


def unseal(line: bytes) -> Entry | None:
    """Read a line; None if it is not an entry, or its bytes were changed."""
    found = _LINE.fullmatch(line)
    if found is None or hashlib.sha256(found[1] + b"}").hexdigest().encode("ascii") != found[2]:
        return None
    try:
        content = json.loads(found[1] + b"}")
        seq, time, event, previous = (content.pop(name) for name in ("seq", "time", "event", "previous"))
        repeats = content.pop("repeats", None)
    except (AttributeError, KeyError, TypeError, ValueError):  # a valid hash, but from another program
        return None
    return Entry(int(seq), time, event, MappingProxyType(content), repeats, previous, found[2].decode("ascii"))


def numbered(folder: Path) -> tuple[tuple[int, Path], ...]:
    """Return the log's files with their numbers, oldest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return tuple(sorted((int(match[1]), path) for match, path in found if match))


@dataclass(slots=True)
class _End:
    """The end of the log: file, its size in bytes, last entry, and the bytes of an incomplete entry after it."""

    number: int = 1
    size: int = 0
    seq: int = 0
    sha256: str = GENESIS
    torn: bytes = b""


class Audit:
    """The audit log of a state folder. Several processes may write to it; each continues at the present end.

    Parameters
    ----------
    folder
        The state folder, which must exist.
    rotate_bytes
        File size at which the chain continues in a new file.
    """

    def __init__(self, folder: Path, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._folder, self._rotate_bytes = folder, rotate_bytes
        self._end: _End | None = None
        # For each job and event, number and digest of the last entry; only the latest ones are kept. A repeat of a
        # dropped one is written without the mark `repeats`.
        self._said: dict[tuple[object, str], tuple[int, bytes]] = {}
        self._said_before: dict[tuple[object, str], tuple[int, bytes]] = {}

    def write(self, event: str, **fields: Any) -> None:
        """Append an entry; it is on the disk when this returns.

        Parameters
        ----------
        event
            Name of the event.
        **fields
            Plain JSON data: UIDs, digests, numbers and lungstage's own sentences; nothing that names a patient.

        Raises
        ------
        Unavailable
            It cannot be written at the moment. The event must not happen before its entry is written.
        """
        if taken := fields.keys() & _OWN:
            raise ValueError(f"an audit entry sets {', '.join(sorted(taken))} itself")
        try:
            with self._alone():
                end = self._catch_up()
                if end.torn:
                    torn = {"torn_bytes": len(end.torn), "torn_sha256": hashlib.sha256(end.torn).hexdigest()}
                    self._append(end, RECOVERED, torn)
                    logger.warning("audit_recovered", extra=torn)
                elif end.size >= self._rotate_bytes:
                    end.number, end.size = end.number + 1, 0
                self._append(end, event, fields)
        except OSError as error:
            raise Unavailable(
                f"The audit log cannot be written at the moment: {os.strerror(error.errno or 0)}. "
                "Check the disk and the permissions of the state folder."
            ) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / LOCK).open("ab") as file:
            give_to_owner(file.fileno(), self._folder)
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _catch_up(self) -> _End:
        """Read the entries written since this process last wrote; the first time, read the last two files."""
        files = numbered(self._folder)
        if self._end is None:
            files = files[-2:]
            self._end = _End(files[0][0] if files else 1)
        for number, path in files:
            if number > self._end.number:
                self._end.number, self._end.size, self._end.torn = number, 0, b""
            if number == self._end.number:
                self._read_on(self._end, path)
        return self._end

    def _read_on(self, end: _End, path: Path) -> None:
        size = path.stat().st_size
        if (
            size <= end.size
        ):  # if the file was cut, the chain continues from the cut entries, and a check shows the fault
            end.size = size
            return
        with path.open("rb") as file:
            file.seek(end.size)
            new = end.torn + file.read(size - end.size)
        end.size, end.torn = size, new
        at = 0
        for line in new.split(b"\n"):
            at += len(line) + 1
            if entry := unseal(line):
                self._remember(end, entry, line)
                end.torn = new[at:]

    def _append(self, end: _End, event: str, fields: Mapping[str, Any]) -> None:
        entry, line = seal(end.seq + 1, event, fields, None, end.sha256)
        topic = fields.get("job"), event
        first, said = self._said.get(topic) or self._said_before.get(topic) or (0, b"")
        if said == _statement(line):
            entry, line = seal(end.seq + 1, event, fields, first, end.sha256)
        end.size = _append_to(self._folder / f"audit-{end.number:06}.jsonl", line + b"\n")
        end.torn = b""
        self._remember(end, entry, line)

    def _remember(self, end: _End, entry: Entry, line: bytes) -> None:
        end.seq, end.sha256 = entry.seq, entry.sha256
        if isinstance(entry.fields.get("job"), int):
            first = entry.seq if entry.repeats is None else entry.repeats
            self._said[entry.fields["job"], entry.event] = (first, _statement(line))
            if len(self._said) >= _REMEMBERED:
                self._said_before, self._said = self._said, {}


def _statement(line: bytes) -> bytes:
    """Return the digest of a line's content without its time."""
    text = line[line.find(b'"event":') : line.rfind(b',"previous":')]
    return hashlib.blake2b(text, digest_size=16).digest()


def _append_to(path: Path, content: bytes) -> int:
    """Append to a file that may be new and may end in half a line; return its size once all of it is on the disk."""
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            content = b"\n" + content
        while content:
            content = content[os.write(descriptor, content) :]
        os.fdatasync(descriptor)
        if is_new:
            give_to_owner(descriptor, path.parent)
            _sync_folder(path.parent)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
