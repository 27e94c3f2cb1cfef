"""The inbox: which headers lie in it now. The periodic scan is the truth; file events only say when to look.

File events are lost on network file systems and on overflow, and they fire in mid-copy, so nothing here depends
on them (docs/decisions.md). Nothing in the inbox is moved, changed or followed by symbolic link.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from appliance.dicom.files import read_headers
from appliance.dicom.header import Header, headers_from_json, headers_to_json
from appliance.errors import ExhaustedError, KilledError, Reason, ReasonCode, Refused, Unavailable
from appliance.filetable import FileRecord, FileTable
from appliance.logs import defect, logger

READ_BUDGET_SECONDS = 0.5
RETRY_SECONDS = 5.0
MAX_KILLS = 3  # of the process that reads, over one file, before that file is given up


def _stamp(status: os.stat_result) -> int:
    """Change with the file's times, that of its inode included: another file may bear the same size and date."""
    return status.st_mtime_ns + status.st_ctime_ns


@dataclass(slots=True)
class _Entry:
    size: int
    stamp: int
    seen: float  # when these bytes were first seen, on the monotonic clock
    resting: bool = False  # read, or known from before
    headers: tuple[Header, ...] = ()
    kills: int = 0  # of the process that was reading it


class Inbox:
    """The headers of the files that lie in a folder and have come to rest.

    Parameters
    ----------
    root
        The folder, watched with all its subfolders.
    files
        Records of what was read before.
    settle_seconds
        How long size and time of modification must stay the same before a file is read.
    read, clock
        Reader of one file's headers, and a monotonic clock; replaced in tests.
    """

    def __init__(
        self,
        root: Path,
        files: FileTable,
        settle_seconds: float,
        *,
        read: Callable[[Path], tuple[Header, ...]] = read_headers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = os.fspath(root)
        self._files = files
        self._settle = settle_seconds
        self._read = read
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._closed_folders: frozenset[str] = frozenset()
        self._last: Header | None = None
        self.scan_cost = 0.0
        """Seconds that the last scan took, without the reading."""
        self.found = False
        """Whether the last scan found files that were new or had changed."""

    def headers(self) -> tuple[Header, ...]:
        """Return the headers of all resting files of interest, in order of their paths."""
        return tuple(header for _, entry in sorted(self._entries.items()) for header in entry.headers)

    def __len__(self) -> int:
        """Files that the last scan found."""
        return len(self._entries)

    def unsettled_since(self) -> float | None:
        """Return when the longest waiting of the files that are not read yet was first seen; None when all are read."""
        return min((e.seen for e in self._entries.values() if not e.resting), default=None)

    def next_due(self) -> float | None:
        """Return when the next file can be read."""
        oldest = self.unsettled_since()
        return None if oldest is None else oldest + self._settle

    def look(self) -> bool:
        """Scan the folder once and read what has come to rest; True when the headers have changed.

        Raises
        ------
        Unavailable
            When the folder itself cannot be listed; what is known of it stays known.
        """
        started = self._clock()
        found, closed = self._scan()
        now = self._clock()
        self.scan_cost = now - started
        gone = [p for p in self._entries if p not in found and not any(p.startswith(folder) for folder in closed)]
        changed = any(self._entries[path].headers for path in gone)
        for path in gone:
            del self._entries[path]
        came_back: list[str] = []
        self.found = False
        for path, (size, stamp) in found.items():
            entry = self._entries.get(path)
            if entry is not None and (entry.size, entry.stamp) == (size, stamp):
                continue
            self.found = True
            changed = changed or (entry is not None and bool(entry.headers))
            self._entries[path] = fresh = _Entry(size, stamp, now)
            if self._recall(path, fresh):
                came_back.append(path)
                changed = changed or bool(fresh.headers)
        records = self._read_resting(now)
        if records or came_back or gone:
            self._files.update(records, came_back, gone)
        return changed or any(record.headers is not None for record in records)

    def _recall(self, path: str, entry: _Entry) -> bool:
        record = self._files.find(path, entry.size, entry.stamp)
        if record is None:
            return False
        try:
            headers = () if record.headers is None else headers_from_json(record.headers, Path(path))
            entry.headers = tuple(map(self._slim, headers))
        except (KeyError, TypeError, ValueError):  # recorded by other code: read it again
            return False
        entry.resting = True
        return True

    def _read_resting(self, now: float) -> list[FileRecord]:
        due = [(path, e) for path, e in self._entries.items() if not e.resting and now >= e.seen + self._settle]
        records = []
        for path, entry in sorted(due, key=lambda item: (item[1].seen, item[0])):
            if self._clock() - now > READ_BUDGET_SECONDS:
                break
            record = self._read_one(path, entry)
            if record is not None:
                records.append(record)
        return records

    def _read_one(self, path: str, entry: _Entry) -> FileRecord | None:
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
            reason, after = Reason(ReasonCode.LIMITS_EXCEEDED, f"This file was given up unread. {error}"), None
        except (Unavailable, OSError) as error:
            self._put_off(path, entry, error)
            return None
        except Exception as error:
            logger.error("file_defect", extra={"file": path_hash(path), **defect(error)})
            reason, after = Reason(ReasonCode.INTERNAL_ERROR, "lungstage failed to read this file."), None
        if after is not None and (after.st_size, _stamp(after)) != (entry.size, entry.stamp):
            return None  # it changed while it was read; the next look starts it anew
        entry.resting, entry.headers = True, tuple(map(self._slim, headers))
        if reason is not None:
            logger.warning("file_refused", extra={"file": path_hash(path), "code": reason.code})
        return FileRecord(path, entry.size, entry.stamp, headers_to_json(headers) if headers else None, reason)

    def _slim(self, header: Header) -> Header:
        """Have a header share with the one before it what is equal in both: most of it, within a series."""
        last, self._last = self._last, header
        if not isinstance(last, type(header)):
            return header
        known = ((field.name, getattr(last, field.name), getattr(header, field.name)) for field in fields(header))
        self._last = replace(header, **{name: theirs for name, theirs, ours in known if theirs == ours})
        return self._last

    def _put_off(self, path: str, entry: _Entry, error: Exception) -> None:
        """Read the file later: not its bytes but the way to them is at fault, so nothing is recorded against it."""
        logger.warning("file_unavailable", extra={"file": path_hash(path), "error": type(error).__name__})
        entry.seen = self._clock() + RETRY_SECONDS - self._settle

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
                            folders.append(entry.path)
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            if stat.S_ISREG(status.st_mode):
                                found[entry.path] = (status.st_size, _stamp(status))
            except FileNotFoundError as error:
                if folder == self._root:
                    raise Unavailable("The inbox is not there.") from error
            except OSError as error:
                if folder == self._root:
                    raise Unavailable(f"The inbox cannot be listed ({type(error).__name__}).") from error
                closed.add(folder + os.sep)  # unknown is not gone: what was found in it before stays
        for folder in closed - self._closed_folders:
            logger.warning("folder_unavailable", extra={"folder": path_hash(folder)})
        self._closed_folders = frozenset(closed)
        return found, self._closed_folders


def path_hash(path: str) -> str:
    """Return a short hash that names a file in a log; its own name may be a patient's."""
    return hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
