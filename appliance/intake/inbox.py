"""The inbox: the files that are in it now. The periodic scan decides; file events only start a scan earlier.

File events can get lost on network file systems or when a queue overflows, and they occur during copying. So nothing
here depends on them (docs/decisions.md). Nothing in the inbox is moved or changed, and no symbolic link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance.config.boot import boot_id, boot_seconds
from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.config.text import path_hash
from lungstage.appliance.contract import arrival
from lungstage.appliance.contract.errors import ExhaustedError, KilledError, Reason, ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.source import Source
from lungstage.appliance.dicom.files import NOT_DICOM, read_headers
from lungstage.appliance.dicom.header import Header, headers_from_json, headers_to_json
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.state.file_table import FileRecord, FileTable

READ_BUDGET_SECONDS = 0.5
RETRY_SECONDS = 5.0
MAX_KILLS = 3  # times that the reading process is killed on one file before the file is given up
_LONGEST_MARK = 4096  # bytes


def _stamp(status: os.stat_result) -> int:
    """Value that changes with the file's times, including that of the inode: another file may have the same date."""
    return status.st_mtime_ns + status.st_ctime_ns


@dataclass(slots=True)
class _Entry:
    size: int
    stamp: int
    seen: float  # time on the monotonic clock when these bytes were first seen
    resting: bool = False  # whether it was read, or is known from before
    on_index: bool = False
    kills: int = 0  # times that the reading process was killed on it


class Inbox(Source):
    """The files in a folder. Files that no longer change are read, recorded and added to the index.

    Parameters
    ----------
    root
        The folder; all its subfolders are included.
    files
        Records of files that were read before.
    index
        Index for files with headers.
    settle_seconds
        Time for which size and modification time must be unchanged before a file is read.
    read, clock
        Reader of one file's headers, and a monotonic clock; replaced in tests.
    """

    def __init__(
        self,
        root: Path,
        files: FileTable,
        index: StudyIndex,
        settle_seconds: float,
        *,
        read: Callable[[Path], tuple[Header, ...]] = read_headers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = os.fspath(root)
        self._files, self._index = files, index
        self._settle = settle_seconds
        self._read = read
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._closed_folders: frozenset[str] = frozenset()
        self._in_step = False  # whether the records match the files in the folder
        self._marks: tuple[arrival.Mark, ...] = ()
        self.scan_cost = 0.0
        """Duration of the last scan in seconds, without reading of files."""
        self.found = False
        """Whether the last scan found new or changed files."""

    def __len__(self) -> int:
        """Return the number of files that the last scan found."""
        return len(self._entries)

    def unsettled_since(self) -> float | None:
        """Return when the first of the files not read yet was seen; None if all are read."""
        return min((e.seen for e in self._entries.values() if not e.resting), default=None)

    def next_due(self) -> float | None:
        """Return the time when the next file can be read."""
        oldest = self.unsettled_since()
        return None if oldest is None else oldest + self._settle

    def arriving(self) -> frozenset[str]:
        """Return the folders that are still receiving files, according to the marks of the receivers."""
        if not self._marks:
            return frozenset()
        boot, now = boot_id(), boot_seconds()
        return frozenset(os.path.join(self._root, mark.folder) for mark in self._marks if mark.holds(boot, now))

    def look(self) -> bool:
        """Scan the folder once and read files that no longer change; True if the index has changed.

        Raises
        ------
        Unavailable
            The folder itself cannot be listed; the known files are kept. Or the records cannot be used; the next scan
            repairs them.
        """
        started = self._clock()
        self._marks = self._read_marks()  # before the files: when a mark is gone, all its files are present
        found, closed = self._scan()
        now = self._clock()
        self.scan_cost = now - started
        was_in_step, self._in_step = self._in_step, False
        gone = _unless_closed((path for path in self._entries if path not in found), closed)
        came_back: list[str] = []
        changed = self.found = False
        for path in gone:
            changed |= self._let_go(self._entries.pop(path), path)
        for path, (size, stamp) in found.items():
            entry = self._entries.get(path)
            if entry is not None and (entry.size, entry.stamp) == (size, stamp):
                continue
            self.found = True
            changed |= entry is not None and self._let_go(entry, path)
            self._entries[path] = fresh = _Entry(size, stamp, now)
            if self._recall(path, fresh):
                came_back.append(path)
                changed |= fresh.on_index
        if not was_in_step:  # at the start, or after an error before the last scan was recorded
            gone = _unless_closed((path for path in self._files.present(self._root) if path not in found), closed)
            came_back = [path for path, entry in self._entries.items() if entry.resting]
        read = self._read_resting(now)
        if read or came_back or gone:
            self._files.update([record for record, _ in read], came_back, gone)
        self._in_step = True
        for record, headers in read:
            self._settle_in(record, self._entries[record.path], headers)
            if record.reason is not None:
                logger.warning("file_refused", extra={"file": path_hash(record.path), "code": record.reason.code})
        return changed or any(headers for _, headers in read)

    def _let_go(self, entry: _Entry, path: str) -> bool:
        self._index.drop(path)
        return entry.on_index

    def _settle_in(self, record: FileRecord, entry: _Entry, headers: tuple[Header, ...]) -> None:
        entry.resting, entry.on_index = True, bool(headers)
        self._index.put(record.path, headers)
        if record.reason is not None and record.reason.message != NOT_DICOM:
            self._index.put_unreadable(record.path)

    def _recall(self, path: str, entry: _Entry) -> bool:
        record = self._files.find(path, entry.size, entry.stamp)
        if record is None:
            return False
        try:
            headers = () if record.headers is None else headers_from_json(record.headers, Path(path))
        except (KeyError, TypeError, ValueError):  # recorded by another version of the code: read it again
            return False
        self._settle_in(record, entry, headers)
        return True

    def _read_resting(self, now: float) -> list[tuple[FileRecord, tuple[Header, ...]]]:
        due = [(path, e) for path, e in self._entries.items() if not e.resting and now >= e.seen + self._settle]
        read = []
        for path, entry in sorted(due, key=lambda item: (item[1].seen, item[0])):
            if self._clock() - now > READ_BUDGET_SECONDS:
                break
            result = self._read_one(path, entry)
            if result is not None:
                read.append(result)
        return read

    def _read_one(self, path: str, entry: _Entry) -> tuple[FileRecord, tuple[Header, ...]] | None:
        reason = None
        headers: tuple[Header, ...] = ()
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
            headers = self._read(Path(path))
            after = os.lstat(path)
        except Refused as refused:
            reason, after = refused.reason, None
        except ExhaustedError as error:
            entry.kills += isinstance(error, KilledError)
            if isinstance(error, KilledError) and entry.kills < MAX_KILLS:
                self._put_off(path, entry, error)
                return None
            reason, after = (
                Reason(
                    ReasonCode.LIMITS_EXCEEDED,
                    f"This file could not be read within the limits. {error} Increase work_seconds or work_memory_mb "
                    "in the settings, and send the file again.",
                ),
                None,
            )
        except (Unavailable, OSError) as error:
            self._put_off(path, entry, error)
            return None
        except Exception as error:
            logger.error("file_defect", extra={"file": path_hash(path), **defect(error)})
            reason, after = (
                Reason(
                    ReasonCode.INTERNAL_ERROR,
                    "This file could not be read because of an internal error in lungstage. Please report it: send the "
                    "line file_defect of the log to the maintainers.",
                ),
                None,
            )
        if after is not None and (after.st_size, _stamp(after)) != (entry.size, entry.stamp):
            return None  # it changed while it was read; the next scan starts again
        text = headers_to_json(headers) if headers else None
        return FileRecord(path, entry.size, entry.stamp, text, reason), headers

    def _put_off(self, path: str, entry: _Entry, error: Exception) -> None:
        """Read the file later: the disk is the cause, not the file, so no refusal is recorded."""
        logger.warning("file_unavailable", extra={"file": path_hash(path), "error": type(error).__name__})
        entry.seen = self._clock() + RETRY_SECONDS - self._settle

    def _read_marks(self) -> tuple[arrival.Mark, ...]:
        marks = []
        with contextlib.suppress(OSError), os.scandir(os.path.join(self._root, arrival.FOLDER)) as entries:
            for path in [entry.path for entry in entries if entry.name.endswith(arrival.SUFFIX)]:
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                    with os.fdopen(descriptor, "rb") as file:
                        marks.append(arrival.Mark.read(file.read(_LONGEST_MARK).decode()))
        return tuple(mark for mark in marks if mark is not None)

    def _scan(self) -> tuple[dict[str, tuple[int, int]], frozenset[str]]:
        found: dict[str, tuple[int, int]] = {}
        closed: set[str] = set()
        folders = [self._root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name != arrival.FOLDER or folder != self._root:
                                folders.append(entry.path)
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            if stat.S_ISREG(status.st_mode):
                                found[entry.path] = (status.st_size, _stamp(status))
            except FileNotFoundError as error:
                if folder == self._root:
                    raise Unavailable(
                        "The inbox folder is missing. Mount its disk or network share again; the daemon waits for it."
                    ) from error
            except OSError as error:
                if folder == self._root:
                    raise Unavailable(
                        f"The inbox folder cannot be listed ({type(error).__name__}). Check its disk and permissions; "
                        "the daemon tries again by itself."
                    ) from error
                closed.add(folder + os.sep)  # its files are unknown, not deleted: the known ones stay
        for folder in closed - self._closed_folders:
            logger.warning("folder_unavailable", extra={"folder": path_hash(folder)})
        self._closed_folders = frozenset(closed)
        return found, self._closed_folders


def _unless_closed(paths: Iterable[str], closed: Iterable[str]) -> list[str]:
    """Leave out files in folders that cannot be listed: they may still exist."""
    folders = tuple(closed)
    return [path for path in paths if not path.startswith(folders)]
