"""Records of the inbox's files, so that a restart does not read them again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.dicom.header import Header, headers_from_json
from lungstage.appliance.state.database import Database, DatabaseReader
from lungstage.appliance.state.jobs import utc_now

# If another release reads an unchanged file again, its first reading time stays.
_REMEMBER = """
INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET
    read_at = iif(size = excluded.size AND mtime_ns = excluded.mtime_ns, read_at, excluded.read_at),
    size = excluded.size, mtime_ns = excluded.mtime_ns, reader = excluded.reader, header = excluded.header,
    reason_code = excluded.reason_code, reason_message = excluded.reason_message, present = excluded.present
"""
_STUDY = "iif(json_valid(header), json_extract(header, '$[0].study_instance_uid'), NULL)"  # as the index has it
_BELOW = "path > ? AND path < ?"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The result of reading one file.

    Attributes
    ----------
    path
        Path of the file; bytes that are not UTF-8 are kept as surrogates.
    size, mtime_ns
        Size in bytes and modification time in ns when it was read.
    headers
        Its headers as JSON; None if the file is not needed or could not be read.
    reason
        Why it could not be read.
    """

    path: str
    size: int
    mtime_ns: int
    headers: str | None
    reason: Reason | None


class FileRecords:
    """The records of files, for reading.

    Parameters
    ----------
    database
        The database that contains them.
    """

    def __init__(self, database: DatabaseReader) -> None:
        self._db = database

    def headers(self, path: str) -> tuple[Header, ...]:
        """Return the headers of a file when it was last read; () without a record."""
        sql = "SELECT header FROM files WHERE path = ? AND header IS NOT NULL"
        found = self._db.read(lambda row: headers_from_json(row[0], Path(path)), sql, (os.fsencode(path),))
        return found[0] if found else ()

    def unreadable(self) -> tuple[FileRecord, ...]:
        """Return the files now in the inbox that could not be read."""
        sql = "SELECT * FROM files WHERE present AND reason_code IS NOT NULL ORDER BY path"
        return tuple(self._db.read(_record, sql))

    def of_study(self, study_instance_uid: str) -> tuple[str, ...]:
        """Return the paths of all files that belonged to a study, also of deleted ones."""
        sql = f"SELECT path FROM files WHERE {_STUDY} = ? ORDER BY path"  # noqa: S608
        return tuple(self._db.read(_path, sql, (study_instance_uid,)))

    def one_of_study(self, study_instance_uid: str) -> str | None:
        """Return the path of one file of a study that is in the inbox; None if there is none."""
        sql = f"SELECT path FROM files WHERE {_STUDY} = ? AND present LIMIT 1"  # noqa: S608
        return next(iter(self._db.read(_path, sql, (study_instance_uid,))), None)

    def count_of_study(self, study_instance_uid: str) -> int:
        """Count the files of a study that are in the inbox."""
        sql = f"SELECT count(*) FROM files WHERE {_STUDY} = ? AND present"  # noqa: S608
        return int(self._db.query(sql, (study_instance_uid,))[0][0])

    def regions_naming(self, series_instance_uid: str) -> tuple[str, ...]:
        """Return the paths of the ROI objects of any study that name a series.

        This reads all records, so use it only if the series' own study contains no such object.
        """
        sql = "SELECT path FROM files WHERE header LIKE ? AND instr(header, ?) ORDER BY path"
        return tuple(self._db.read(_path, sql, ('[{"type": "RoiHeader"%', f'"{series_instance_uid}"')))


class FileTable(FileRecords):
    """Records of files by path, size and modification time. They contain whole headers: keep the state folder private.

    Parameters
    ----------
    database
        The database that contains them.
    reader
        Version of the code that reads headers; a record of another version is not used.
    """

    def __init__(self, database: Database, reader: str) -> None:
        self._db: Database = database
        self.reader = reader

    def find(self, path: str, size: int, mtime_ns: int) -> FileRecord | None:
        """Return the record of a file if the file has not changed since."""
        sql = "SELECT * FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND reader = ?"
        found = self._db.read(_record, sql, (os.fsencode(path), size, mtime_ns, self.reader))
        return found[0] if found else None

    def update(self, read: Iterable[FileRecord], came_back: Iterable[str], gone: Iterable[str]) -> None:
        """Record files that were read, came back or are gone, in one transaction; gone files keep their records."""
        now = utc_now().isoformat()
        with self._db.transaction():
            for record in read:
                code, message = (None, None) if record.reason is None else (record.reason.code, record.reason.message)
                values = (record.size, record.mtime_ns, self.reader, record.headers, code, message, True, now)
                self._db.query(_REMEMBER, (os.fsencode(record.path), *values))
            sql = "UPDATE files SET present = ? WHERE path = ? AND present != ?"  # an unchanged record is not written
            for present, paths in ((True, came_back), (False, gone)):
                for path in paths:
                    self._db.query(sql, (present, os.fsencode(path), present))

    def read_at(self, path: str) -> datetime | None:
        """Return when the present version of a file was first read, by any release; None without a record."""
        sql = "SELECT read_at FROM files WHERE path = ?"
        found = self._db.read(lambda row: datetime.fromisoformat(row[0]), sql, (os.fsencode(path),))
        return found[0] if found else None

    def present(self, folder: str) -> Iterator[str]:
        """Give the recorded paths of files that are present in a folder, at any depth."""
        sql = f"SELECT path FROM files WHERE present AND {_BELOW}"  # noqa: S608
        return iter(self._db.read(_path, sql, _below(folder)))

    def forget(self, folder: Path) -> None:
        """Delete the records of all files in a folder, at any depth."""
        self._db.query(f"DELETE FROM files WHERE {_BELOW}", _below(folder))  # noqa: S608


def _below(folder: str | Path) -> tuple[bytes, bytes]:
    """Values of :data:`_BELOW`: ``0`` is the byte after ``/``, so the range contains all paths in the folder."""
    path = os.fsencode(folder)
    return path + b"/", path + b"0"


def _path(row: sqlite3.Row) -> str:
    return os.fsdecode(row["path"])


def _record(row: sqlite3.Row) -> FileRecord:
    code = row["reason_code"]
    reason = None if code is None else Reason(ReasonCode(code), row["reason_message"])
    return FileRecord(_path(row), row["size"], row["mtime_ns"], row["header"], reason)
