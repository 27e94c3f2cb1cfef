"""What a long run has done so far: one JSON line a piece, so that a run that is killed is taken up where it ended."""

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
        What the file held when it was opened, but for lines that were cut short by whatever ended that run.
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
        """Write a line; it survives the end of this process at once, and that of the machine soon after."""
        # JSON has Python's shortest decimal that reads back as the same number, so what is put together from a journal
        # has the same bytes as what was never interrupted.
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
def open_lines(path: Path, *, fresh: bool = False) -> Iterator[Lines]:
    """Open a journal, for one run at a time.

    Parameters
    ----------
    path
        Its file; made where there is none, and taken away again where nothing was written.
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
            raise Unavailable(f"Another run is at work here; it holds {path.name}.") from error
        if fresh:
            file.truncate(0)
        file.seek(0)
        lines = Lines(file)
        try:
            yield lines
        finally:
            lines.sync()
            if not file.tell():
                path.unlink()  # there is nothing to take up
