"""What has been measured so far: one JSON line a study, so that a run that is killed can be taken up where it ended.

Each line bears the study as its list names it, a digest of how it was measured, and a fingerprint of its files. A line
whose study, spec or software has changed since says nothing any more, so a journal may outlive its run.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from lungstage.appliance.contract.errors import Unavailable

_SYNC_SECONDS: Final = 1.0

Key = tuple[str, str, str]
"""Patient, path and region as the list has them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a study.

    Attributes
    ----------
    files
        Fingerprint of its files, taken before they were read.
    code, message
        Why there are no features; empty where there are.
    features
        Values in the spec's order, None for one that could not be computed; None where the study was not measured.
    """

    files: str
    code: str = ""
    message: str = ""
    features: tuple[float | None, ...] | None = None


class Journal:
    """The entries that hold for one way of measuring; see :func:`open_journal`."""

    def __init__(self, file: IO[bytes], method: str) -> None:
        self._file, self._method, self._synced = file, method, time.monotonic()
        self._entries: dict[Key, Entry] = {}
        content = file.read()
        for line in content.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # cut short, by whatever ended that run
                self._recall(json.loads(line))
        if content and not content.endswith(b"\n"):
            file.write(b"\n")

    def _recall(self, line: dict[str, Any]) -> None:
        patient, path, roi = line["study"]
        if line["method"] == self._method:
            features = line["features"]
            self._entries[patient, path, roi] = Entry(
                line["files"], line["code"], line["message"], None if features is None else tuple(features)
            )

    def get(self, key: Key) -> Entry | None:
        """Return the newest entry of a study, if there is one."""
        return self._entries.get(key)

    def add(self, key: Key, entry: Entry) -> None:
        """Write an entry; it survives the end of this process at once, and that of the machine soon after."""
        # JSON has Python's shortest decimal that reads back as the same number, so a table that is put together from
        # a journal has the same bytes as one that was never interrupted.
        line = {"study": key, "method": self._method} | asdict(entry)
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have the disk hold what was written."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


@contextmanager
def open_journal(path: Path, method: str, *, fresh: bool) -> Iterator[Journal]:
    """Open a journal, for one run at a time.

    Parameters
    ----------
    path
        Its file; made where there is none.
    method
        Digest of how is measured now; lines of another one are left alone.
    fresh
        Forget all that it holds.

    Raises
    ------
    Unavailable
        Another run is writing to it.
    OSError
        It cannot be written to.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"Another run is at work on this table; it holds {path.name}.") from error
        if fresh:
            file.truncate(0)
        file.seek(0)
        journal = Journal(file, method)
        try:
            yield journal
        finally:
            journal.sync()
            if not file.tell():
                path.unlink()  # there is nothing to take up
