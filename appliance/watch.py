"""What ends a sleep of the daemon: file events, due times and the wish to stop."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from appliance.logs import logger


class Wake:
    """An alarm that threads and signal handlers may ring: a pipe, because an Event is not safe to set in a handler."""

    def __init__(self) -> None:
        self.stopping = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def ring(self) -> None:
        """End the current or the next :meth:`wait`."""
        with contextlib.suppress(BlockingIOError, OSError):  # a full pipe rings already; a closed one needs not
            os.write(self._writer, b"!")

    def wait(self, seconds: float, others: Sequence[int] = ()) -> bool:
        """Wait for the alarm, or until another file descriptor is readable; True when it rang."""
        readable, _, _ = select.select([self._reader, *others], [], [], max(seconds, 0.0))
        rang = self._reader in readable
        if rang:
            os.read(self._reader, 65536)
        return rang

    def stop(self) -> None:
        """Ask for the end; fit to be called by a signal handler."""
        self.stopping = True
        self.ring()

    def pause(self, seconds: float) -> None:
        """Wait for that long whatever rings, unless it is the end."""
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            self.wait(left)

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._reader)
        os.close(self._writer)


class _Ringer(FileSystemEventHandler):
    def __init__(self, wake: Wake) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "modified", "moved", "deleted", "closed"):  # not our own opening to read
            self._wake.ring()


@contextlib.contextmanager
def watching(root: Path, wake: Wake) -> Iterator[Callable[[], bool]]:
    """Ring `wake` on file events below `root`; yields a function that tells whether events still come.

    Where the system offers no events (or no more watches), it says so in the log and the scan does all the work.
    """
    observer = Observer()
    try:
        observer.schedule(_Ringer(wake), os.fspath(root), recursive=True)
        observer.start()
    except OSError as error:
        logger.warning("no_file_events", extra={"error": type(error).__name__, "errno": error.errno})
        yield lambda: False
        return
    try:
        yield observer.is_alive
    finally:
        observer.stop()
        observer.join(timeout=5)
