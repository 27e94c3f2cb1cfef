"""Journal of a long run: one JSON line per piece, so that an interrupted run can continue."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from lungstage.appliance.contract.errors import Unavailable

_SYNC_SECONDS: Final = 1.0


class Lines:
    """The lines of a journal; see :func:`open_lines`.

    Attributes
    ----------
    found
        The lines of the file when it was opened, without incomplete lines of an interrupted run.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._synced = file, time.monotonic()
        self.found: list[Any] = []
        content = file.read()
        for line in content.splitlines():
            with suppress(ValueError):
                self.found.append(json.loads(line))
        if content and not content.endswith(b"\n"):
            file.write(b"\n")

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line. It survives a crash of this process at once, and one of the machine about a second later."""
        # JSON uses Python's shortest decimal that reads back as the same number. So results from a journal have the
        # same bytes as those of an uninterrupted run.
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Force the written lines to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


@contextmanager
def open_lines(path: Path, *, fresh: bool = False) -> Iterator[Lines]:
    """Open a journal, for one run at a time.

    Parameters
    ----------
    path
        Its file. It is created if missing, and deleted again if nothing was written.
    fresh
        Delete its content.

    Raises
    ------
    Unavailable
        Another run is writing to the file.
    OSError
        The file cannot be written.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                f"Another run is using {path.name}. Wait until it has finished, or write to another folder."
            ) from error
        if fresh:
            file.truncate(0)
        file.seek(0)
        lines = Lines(file)
        try:
            yield lines
        finally:
            lines.sync()
            if not file.tell():
                path.unlink()  # there is nothing to continue from
