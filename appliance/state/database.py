"""The state folder's SQLite file: its schema, its migrations, and its errors (full or missing disk, damage).

SQLite's own messages are never shown: they may quote the content of a row.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeVar

from lungstage.appliance import __version__
from lungstage.appliance.contract.errors import Damaged, Unavailable

_FIRST_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    case_key TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT,
    anchor TEXT NOT NULL,
    content TEXT,
    fingerprint TEXT,
    bundle_digest TEXT,
    state TEXT NOT NULL,
    reason_code TEXT,
    reason_message TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    opened_at TEXT NOT NULL,
    created_at TEXT,
    updated_at TEXT NOT NULL,
    claimed_at TEXT,
    lease_until TEXT,
    sr_path TEXT,
    sr_sop_instance_uid TEXT,
    outcome TEXT
);
CREATE INDEX jobs_by_case ON jobs (case_key);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_fingerprint ON jobs (fingerprint);
CREATE TABLE reports (
    fingerprint TEXT NOT NULL,
    bundle_digest TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (fingerprint, bundle_digest)
) WITHOUT ROWID;
CREATE TABLE files (
    path BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    reader TEXT NOT NULL,
    header TEXT,
    reason_code TEXT,
    reason_message TEXT,
    present INTEGER NOT NULL,
    read_at TEXT NOT NULL
)
"""

# The migrations from each version of the schema to the next; a released one is never changed.
_MIGRATIONS = (
    _FIRST_SCHEMA,
    # A report names its predecessor, also by series.
    "ALTER TABLE jobs ADD COLUMN sr_series_instance_uid TEXT",
    # Synthetic studies by which the daemon tests itself.
    "ALTER TABLE jobs ADD COLUMN canary INTEGER NOT NULL DEFAULT 0",
    # Since when a job waits (other columns change with each examination), and when its alert was raised.
    "ALTER TABLE jobs ADD COLUMN waiting_since TEXT; ALTER TABLE jobs ADD COLUMN alerted_at TEXT",
    # Version of the code that made content and fingerprint: a different value by another version is no new study.
    "ALTER TABLE jobs ADD COLUMN reader TEXT",
    # The predecessor of a report, fixed with its date.
    "ALTER TABLE reports ADD COLUMN predecessor TEXT",
    # A canary is looked up by its study, often before it has a job.
    "CREATE INDEX jobs_by_study ON jobs (study_instance_uid)",
    # "Stage" means only the stage of a cancer.
    "UPDATE jobs SET state = 'report_ready' WHERE state = 'staged'",
    # Study date and patient, by which a person finds a study. The patient is stored as the keyed hash of the files.
    """
    ALTER TABLE jobs ADD COLUMN study_date TEXT;
    ALTER TABLE jobs ADD COLUMN patient_key TEXT;
    UPDATE jobs SET patient_key = known.patient FROM (
        SELECT json_extract(header, '$[0].study_instance_uid') AS study,
            max(json_extract(header, '$[0].patient_key')) AS patient
        FROM files WHERE json_valid(header) GROUP BY study
    ) AS known WHERE known.study = jobs.study_instance_uid;
    CREATE INDEX jobs_by_patient ON jobs (patient_key)
    """,
    # Requests of page users and their chosen regions. The page looks up a study's files.
    """
    ALTER TABLE jobs ADD COLUMN region_roi TEXT;
    ALTER TABLE jobs ADD COLUMN region_number INTEGER;
    CREATE TABLE requests (
        id TEXT PRIMARY KEY,
        job INTEGER NOT NULL,
        kind TEXT NOT NULL,
        user TEXT NOT NULL,
        taken_at TEXT NOT NULL,
        refusal TEXT
    ) WITHOUT ROWID;
    CREATE INDEX requests_by_job ON requests (job);
    CREATE INDEX files_by_study ON files
        (iif(json_valid(header), json_extract(header, '$[0].study_instance_uid'), NULL))
    """,
    # Further slices that a report uses, fixed with its date: slices that arrive later must not change it.
    "ALTER TABLE reports ADD COLUMN beyond TEXT",
)

# The release that migrated the ledger to a version; an older release names it in its error.
_WRITERS = "CREATE TABLE IF NOT EXISTS migrations (schema_version INTEGER PRIMARY KEY, software TEXT NOT NULL)"

SCHEMA_VERSION = len(_MIGRATIONS)

T = TypeVar("T")

_PASSING = {
    sqlite3.SQLITE_FULL: "its disk is full",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_PERM: "this user has no permission to open it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_BUSY: "another process keeps it locked",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked",
    sqlite3.SQLITE_PROTOCOL: "another process keeps it locked",
    sqlite3.SQLITE_IOERR: "its disk cannot be read or written",
    sqlite3.SQLITE_NOLFS: "its disk cannot store a file of that size",
}


class DatabaseReader:
    """Read-only access to the state folder's SQLite file by other processes: it is never made, migrated or written.

    A file of an older release is copied to memory and migrated there.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    Unavailable
        The file is missing, cannot be read, or was written by a newer release.
    Damaged
        The file is damaged. All methods may raise this too.
    """

    is_copy = False
    """Whether the data are a copy in memory, which does not change with the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with in_own_words(path):
            self._connect(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0))
            self._prove_sound()
            if self._version() < SCHEMA_VERSION:
                copy = sqlite3.connect(":memory:")
                self._connection.backup(copy)
                self.close()
                self._connect(copy)
                self._migrate()
                self.is_copy = True

    def _connect(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.isolation_level = None
        connection.row_factory = sqlite3.Row

    def _prove_sound(self) -> None:
        """Check that all pages and indexes agree; this takes 0.1 s of a core for 100 MB."""
        version = self.query("PRAGMA user_version")[0][0]
        was_emptied = version == 0 and any(self._path.parent.glob("audit-*.jsonl"))
        if was_emptied or version < 0 or self.query("PRAGMA integrity_check(1)")[0][0] != "ok":
            raise damaged(self._path)

    def _version(self) -> int:
        version = int(self.query("PRAGMA user_version")[0][0])
        if version > SCHEMA_VERSION:
            writers = self.read(
                lambda row: str(row[0]), "SELECT software FROM migrations WHERE schema_version = ?", (version,)
            )
            if not writers:  # every release writes its own name
                raise damaged(self._path)
            (software,) = writers
            raise Unavailable(
                f"The ledger has schema version {version} of release {software}, but this release, {__version__}, knows"
                f" only version {SCHEMA_VERSION}. Install release {software} again, or restore the backup from before"
                " its installation (docs/maintenance.md, Roll back)."
            )
        return version

    def _migrate(self) -> None:
        version = self._version()
        for migration in _MIGRATIONS[version:]:
            for statement in migration.split(";"):
                self.query(statement)
        if version < SCHEMA_VERSION:  # an up-to-date file is not written
            self.query(_WRITERS)
            self.query("INSERT OR REPLACE INTO migrations VALUES (?, ?)", (SCHEMA_VERSION, __version__))
            self.query(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def query(self, sql: str, values: Iterable[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        """Run one statement; it is committed on return unless a transaction is open."""
        # fetchall: a statement with RETURNING commits only after its last row has been read.
        with in_own_words(self._path):
            return self._connection.execute(sql, values if isinstance(values, Mapping) else tuple(values)).fetchall()

    def read(
        self, make: Callable[[sqlite3.Row], T], sql: str, values: Iterable[object] | Mapping[str, object] = ()
    ) -> list[T]:
        """Run one statement and convert each row; a row that cannot be converted is damaged."""
        rows = self.query(sql, values)
        try:
            return [make(row) for row in rows]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise damaged(self._path) from error

    def data_version(self) -> int:
        """Return a number that changes when another process has written."""
        return int(self.query("PRAGMA data_version")[0][0])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Database(DatabaseReader):
    """The same file with write access: it is made if missing, and migrated.

    Commits survive a power cut (write-ahead log, ``synchronous=FULL``), and readers never block the writer.

    Raises
    ------
    Unavailable
        The file cannot be opened, or was written by a newer release. All methods raise this while the disk is full,
        read-only or gone.
    Damaged
        The file is damaged, or it is empty although there is an audit log. All methods may raise this too.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.folder = path, path.parent
        """The state folder."""
        with in_own_words(path):
            self._connect(sqlite3.connect(path, timeout=10.0))
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 10000"):
                self._connection.execute(f"PRAGMA {pragma}")
        self._prove_sound()
        with self.transaction():
            self._migrate()

    def prove_writable(self) -> None:
        """Check that the file can be written, by a write that changes nothing.

        If SQLite may not write to a file, it opens it read-only without an error. Such a connection would stay unusable
        after the fault is corrected.

        Raises
        ------
        Unavailable
            The file was opened read-only, or the disk cannot be written.
        """
        self.query(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all statements of the block, or none; within another transaction, the block is a part of it."""
        if self._connection.in_transaction:
            yield
            return
        self.query("BEGIN IMMEDIATE")
        try:
            yield
            self.query("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self.query("ROLLBACK")
            raise


def damaged(path: Path) -> Damaged:
    """Return the error for a damaged ledger."""
    return Damaged(
        f"The ledger {path} is damaged. Stop the daemon, and restore the state folder from its last backup"
        " (docs/maintenance.md, Restore)."
    )


@contextlib.contextmanager
def in_own_words(path: Path) -> Iterator[None]:
    """Replace SQLite's errors by lungstage's own messages.

    Raises
    ------
    Unavailable
        A temporary cause: a full disk, a locked file.
    Damaged
        All other errors, because the statements are correct and so the file is the cause. A violated constraint or a
        wrong call is an internal error and is raised unchanged.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # without a code: text that is not UTF-8
        why = _PASSING.get(code & 0xFF)
        if why is None:
            raise damaged(path) from error
        raise Unavailable(f"The ledger {path} cannot be used at the moment: {why}.") from error
