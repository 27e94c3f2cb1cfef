"""Marks that tell the daemon that a study is still being sent (:mod:`contract.arrival`)."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from lungstage.appliance.config.boot import boot_id, boot_seconds
from lungstage.appliance.contract.arrival import SUFFIX, Mark


class Marks:
    """The marks of one inbox; each stays while a sender sends to its folder.

    Parameters
    ----------
    folder
        Folder of the marks.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._senders: dict[str, set[int]] = {}  # by name of the study's folder
        self._lock = threading.Lock()

    def open(self, sender: int, study_folder: str) -> None:
        """Mark a folder; `sender` identifies the association or request that sends to it.

        Raises
        ------
        OSError
            The mark cannot be written, so no file may be moved into the folder.
        """
        with self._lock:
            if study_folder not in self._senders:
                self._write(study_folder)
            self._senders.setdefault(study_folder, set()).add(sender)

    def close(self, sender: int) -> None:
        """Delete the marks of a sender that has finished, unless another one sends to the same folder."""
        with self._lock:
            for folder in [folder for folder, senders in self._senders.items() if sender in senders]:
                self._senders[folder].discard(sender)
                if not self._senders[folder]:
                    del self._senders[folder]
                    with contextlib.suppress(OSError):  # it becomes invalid soon
                        self._path(folder).unlink()

    def renew(self) -> None:
        """Write every mark again; a mark that cannot be written is tried again the next time."""
        with self._lock:
            for folder in self._senders:
                with contextlib.suppress(OSError):
                    self._write(folder)

    def is_open(self, study_folder: str) -> bool:
        """Whether a sender sends to a folder."""
        with self._lock:
            return study_folder in self._senders

    def _path(self, study_folder: str) -> Path:
        return self._folder / f"{study_folder}{SUFFIX}"

    def _write(self, study_folder: str) -> None:
        target = self._path(study_folder)
        draft = target.with_suffix(".draft")
        draft.write_text(Mark(study_folder, boot_id(), boot_seconds()).as_text(), encoding="utf-8")
        os.replace(draft, target)
