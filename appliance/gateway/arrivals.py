"""Received objects: each is complete in the inbox and flushed to the disk before its sender gets success."""

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
    """Writes received objects into one inbox, for DIMSE and STOW-RS, in all their threads.

    Parameters
    ----------
    inbox
        The folder.
    queue
        Records the sender of each study.
    min_free_mb
        Least free disk space in MB; with less, nothing is accepted.

    Raises
    ------
    Unavailable
        The inbox cannot be written, or another gateway receives into it.
    """

    def __init__(self, inbox: Path, queue: Queue, min_free_mb: int) -> None:
        self._inbox, self._queue, self._min_free_mb = inbox, queue, min_free_mb
        self.folder = inbox / FOLDER
        """Folder for incomplete files."""
        self._lock = threading.Lock()
        self._known: set[tuple[str, str]] = set()
        try:
            self.folder.mkdir(exist_ok=True)
            self._alone = (self.folder / "lock").open("ab")
            with contextlib.suppress(OSError):  # some file systems have no locks
                self._take_alone(self._alone)
            for leftover in self.folder.iterdir():
                if leftover.name != "lock":  # of a killed gateway: its sender got no success
                    leftover.unlink()
        except OSError as error:
            raise Unavailable(
                f"The inbox {inbox} cannot be written to: {error.strerror}. Make the folder, or give the gateway's "
                "user the right to write there."
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
                "Another gateway receives into this inbox. Stop that gateway first, or set another inbox."
            ) from error

    def has_room(self) -> bool:
        """Whether the inbox's disk has enough free space."""
        free = free_mb(self._inbox)
        return free is not None and free >= self._min_free_mb

    def draft(self) -> Path:
        """Return a name for an incomplete file."""
        return self.folder / f"{secrets.token_hex(12)}.part"

    def take(self, part: Path, sender: int, calling: str, study: str | None = None) -> Head:
        """Move a file into its study's folder and flush it to the disk; `part` is gone afterwards, also on an error.

        Parameters
        ----------
        part
            The file, in :attr:`folder`.
        sender
            Identifies the sender; its marks stay until :meth:`Marks.close`.
        calling
            AE title of the sender.
        study
            Study that the object must belong to; None for any.

        Raises
        ------
        NotTakenError
            Contains the status for the sender.
        """
        try:
            head = read_head(part)
            if study not in (None, head.study_instance_uid):
                raise NotTakenError(CONTRADICTS, "its Study Instance UID differs from that of the request")
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
        part.chmod(self._mode)  # only its writer may read a temporary file
        flush(part)
        folder = self._inbox / head.study_instance_uid
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            flush(self._inbox)
        with self._lock:  # if two senders send the same object, the second must see the first one's file
            target = folder / f"{head.sop_instance_uid}.dcm"
            if os.path.lexists(target):
                own = digest(part, head.begins)
                if _is_same(target, head, own):
                    return
                # Another content with the same UID is kept as a second file, and the appliance refuses the study.
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
