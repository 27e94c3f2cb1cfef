"""What ends a sleep of the daemon: file events, due times and the wish to stop."""

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
        rang = self._reader in connection.wait([self._reader, *others], max(seconds, 0.0))
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


_DEAF_AFTER = 3  # looks in a row that found something of which no event had told


class Watcher:
    """Rings on file events below a folder, as long as they can be relied on; the scan finds what it does not tell.

    Events fail silently: a network file system has none, a queue overflows, a folder that was mounted anew is another
    one. So what the scan finds is held against what was told, and a watcher that has gone deaf is made anew once, and
    then given up for polling.

    Parameters
    ----------
    root
        The folder.
    wake
        The alarm.
    mode
        ``events``, ``poll``, or ``auto``: events unless the folder lies on a file system of the network.
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
        """Whether a change would ring."""
        return self._observer is not None and self._observer.is_alive()

    def start(self) -> None:
        """Begin to watch; where the system refuses, say so in the log and leave all to the scan."""
        if self._by_events:
            self._observe()
        logger.info("watching", extra={"by": "events" if self.events_come() else "poll", "file_system": self._kind})

    def stop(self) -> None:
        """End watching."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(timeout=5)

    def looked(self, *, found: bool) -> None:
        """Take note of a look at the folder, and mend what it shows to be broken.

        Parameters
        ----------
        found
            Whether it found files that were new or had changed.
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
        """Watch anew; a watcher that goes deaf or dies again at once is given up."""
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
        observer = Observer()
        try:
            self._identity = _identity(self._root)
            observer.schedule(_Ringer(self), os.fspath(self._root), recursive=True)
            observer.start()
        except OSError as error:  # no more watches, or the folder is away: the next look tries again
            logger.warning("no_file_events", extra={"error": type(error).__name__, "errno": error.errno})
            self._identity = None
        else:
            self._observer = observer

    def told(self) -> None:
        """Ring; called by the observer's thread."""
        self._told_at = self._clock()
        self._was_restarted = False  # it hears again
        self._wake.ring()


class _Ringer(FileSystemEventHandler):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "modified", "moved", "deleted", "closed"):  # not our own opening to read
            self._watcher.told()


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        status = root.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
