"""What ends a wait of the daemon: file events, due times, and requests to stop."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Literal

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from lungstage.appliance.config.disks import file_system, is_networked
from lungstage.appliance.config.logs import logger


class Wake:
    """A wake-up call for threads and signal handlers. It uses a pipe, because an Event is not safe in a handler."""

    def __init__(self) -> None:
        self.stopping = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def ring(self) -> None:
        """End the current or the next :meth:`wait`."""
        with contextlib.suppress(BlockingIOError, OSError):  # a full pipe is already ringing; a closed one need not
            os.write(self._writer, b"!")

    def wait(self, seconds: float, others: Sequence[int] = ()) -> bool:
        """Wait for :meth:`ring`, or until another file descriptor is readable; True after a ring."""
        rang = self._reader in connection.wait([self._reader, *others], max(seconds, 0.0))
        if rang:
            os.read(self._reader, 65536)
        return rang

    def stop(self) -> None:
        """Request the end; a signal handler may call this."""
        self.stopping = True
        self.ring()

    def pause(self, seconds: float) -> None:
        """Wait for that time, even if :meth:`ring` is called; only :meth:`stop` ends it earlier."""
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            self.wait(left)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._reader)
        os.close(self._writer)


_DEAF_AFTER = 3  # consecutive scans that found changes without an event


class Watcher:
    """Wakes the daemon on file events in a folder, as long as they are reliable; scans find the other changes.

    Events can fail without an error: a network file system has none, a queue overflows, or the folder was mounted
    again. So the results of scans are compared with the events. A watcher that misses changes is started again once.
    If it fails again, only polling is used.

    Parameters
    ----------
    root
        The folder.
    wake
        The wake-up call.
    mode
        ``events``, ``poll``, or ``auto``: events unless the folder lies on a network file system.
    clock
        A monotonic clock.
    """

    def __init__(
        self,
        root: Path,
        wake: Wake,
        mode: Literal["auto", "events", "poll"] = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._wake, self._clock = root, wake, clock
        self._kind = file_system(root)
        self._by_events = mode == "events" or (mode == "auto" and not is_networked(self._kind))
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._told_at, self._looked_at = -1e9, clock()
        self._deaf_looks = 0
        self._was_restarted = False

    def events_come(self) -> bool:
        """Whether a change causes an event."""
        return self._observer is not None and self._observer.is_alive()

    def start(self) -> None:
        """Begin to watch; if the system does not allow it, write this to the log and use scans only."""
        if self._by_events:
            self._observe()
        logger.info("watching", extra={"by": "events" if self.events_come() else "poll", "file_system": self._kind})

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(timeout=5)

    def looked(self, *, found: bool) -> None:
        """Record a scan of the folder, and restart the watcher if the scan shows that it fails.

        Parameters
        ----------
        found
            Whether the scan found new or changed files.
        """
        was_told, self._looked_at = self._told_at >= self._looked_at, self._clock()
        if not self._by_events:
            return
        if self._identity != _identity(self._root):
            self._mend("folder_replaced")
        elif not self.events_come():
            self._mend("watcher_died")
        elif found:
            self._deaf_looks = 0 if was_told else self._deaf_looks + 1
            if self._deaf_looks >= _DEAF_AFTER:
                self._mend("watcher_deaf")

    def _mend(self, why: str) -> None:
        """Watch again; a watcher that fails again without any event in between is given up."""
        self.stop()
        self._deaf_looks = 0
        if why != "folder_replaced" and self._was_restarted:
            self._by_events = False
            logger.warning(why, extra={"now": "poll"})
            return
        self._was_restarted = why != "folder_replaced"
        self._observe()
        logger.warning(why, extra={"now": "events" if self.events_come() else "poll"})

    def _observe(self) -> None:
        try:
            observer = Observer()
            self._identity = _identity(self._root)
            observer.schedule(_Ringer(self), os.fspath(self._root), recursive=True)
            observer.start()
        except OSError as error:  # no more instances or watches, or the folder is missing: the next scan tries again
            logger.warning("no_file_events", extra={"error": type(error).__name__, "errno": error.errno})
            self._identity = None
        else:
            self._observer = observer

    def told(self) -> None:
        """Wake the daemon; called by the observer's thread."""
        self._told_at = self._clock()
        self._was_restarted = False  # events arrive again
        self._wake.ring()


class _Ringer(FileSystemEventHandler):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "modified", "moved", "deleted", "closed"):  # not "opened": reading does that
            self._watcher.told()


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        status = root.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
