"""Received objects on their way into the inbox: whole and on the disk before anybody is told that they were taken."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import threading
from pathlib import Path
from typing import IO

from lungstage.appliance.config.disks import flush, free_mb
from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.arrival import FOLDER
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.head import CONTRADICTS, NO_SPACE, Head, NotTakenError, digest, read_head
from lungstage.appliance.gateway.marks import Marks
from lungstage.appliance.gateway.queue import Queue


class Arrivals:
    """The way into one inbox; for all doors, and in all their threads.

    Parameters
    ----------
    inbox
        The folder.
    queue
        Where it is noted whom a study came from.
    min_free_mb
        Space below which nothing more is accepted.

    Raises
    ------
    Unavailable
        The inbox cannot be written to, or another gateway receives into it.
    """

    def __init__(self, inbox: Path, queue: Queue, min_free_mb: int) -> None:
        self._inbox, self._queue, self._min_free_mb = inbox, queue, min_free_mb
        self.folder = inbox / FOLDER
        """Where files lie that are not whole yet."""
        self._lock = threading.Lock()
        self._known: set[tuple[str, str]] = set()
        try:
            self.folder.mkdir(exist_ok=True)
            self._alone = (self.folder / "lock").open("ab")
            with contextlib.suppress(OSError):  # some file systems know no locks
                self._take_alone(self._alone)
            for leftover in self.folder.iterdir():
                if leftover.name != "lock":  # of a gateway that was killed: nobody was told that it was taken
                    leftover.unlink()
        except OSError as error:
            raise Unavailable(
                f"The inbox {inbox} cannot be written to: {error.strerror}. Make it, or give it to the gateway's user."
            ) from error
        self.marks = Marks(self.folder)
        os.umask(mask := os.umask(0o077))
        self._mode = 0o666 & ~mask

    @staticmethod
    def _take_alone(file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                "Another gateway receives into this inbox. Stop it first, or name another inbox."
            ) from error

    def has_room(self) -> bool:
        """Whether the inbox's disk has as much space as is wanted."""
        free = free_mb(self._inbox)
        return free is not None and free >= self._min_free_mb

    def draft(self) -> Path:
        """Return a name for a file that is not whole yet."""
        return self.folder / f"{secrets.token_hex(12)}.part"

    def take(self, part: Path, sender: int, calling: str, study: str | None = None) -> Head:
        """Put a file into its study's folder, flushed to the disk; `part` is gone afterwards, whatever happens.

        Parameters
        ----------
        part
            The file, below :attr:`folder`.
        sender
            Whoever sends, whose marks stay until :meth:`Marks.close`.
        calling
            What the sender calls itself.
        study
            The study that it must be of; None: any.

        Raises
        ------
        NotTakenError
            With the status for whoever sent it.
        """
        try:
            head = read_head(part)
            if study not in (None, head.study_instance_uid):
                raise NotTakenError(CONTRADICTS, "it is of another study")
            self.marks.open(sender, head.study_instance_uid)
            self._place(part, head)
            self._note(head.study_instance_uid, calling)
        except (OSError, Unavailable) as error:
            number = getattr(error, "errno", None)
            why = "the disk is full" if number in (errno.ENOSPC, errno.EDQUOT) else type(error).__name__
            logger.error("not_stored", extra={"why": why})
            raise NotTakenError(NO_SPACE, "it could not be written") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return head

    def _place(self, part: Path, head: Head) -> None:
        part.chmod(self._mode)  # a temporary file is its writer's alone
        flush(part)
        folder = self._inbox / head.study_instance_uid
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            flush(self._inbox)
        with self._lock:  # of two who send the same, the second must meet what the first has put there
            target = folder / f"{head.sop_instance_uid}.dcm"
            if os.path.lexists(target):
                own = digest(part, head.begins)
                if _is_same(target, head, own):
                    return
                # Another content under the same UID is kept beside the first, and the appliance says so.
                target = folder / f"{head.sop_instance_uid}-{own[:16]}.dcm"
            part.rename(target)
        flush(folder)

    def _note(self, study: str, calling: str) -> None:
        if (study, calling) not in self._known:
            self._queue.received(study, calling)
            self._known.add((study, calling))


def _is_same(target: Path, head: Head, own: str) -> bool:
    try:
        there = read_head(target)
    except (OSError, NotTakenError):
        return False
    same = (there.sop_class_uid, there.transfer_syntax_uid) == (head.sop_class_uid, head.transfer_syntax_uid)
    return same and digest(target, there.begins) == own
