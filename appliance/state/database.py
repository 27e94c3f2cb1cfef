"""The state folder's SQLite file: its schema, its migrations, and what a full or missing disk means."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from lungstage.appliance import __version__
from lungstage.appliance.contract.errors import Unavailable

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

# What leads from each version of the schema to the next; none is ever changed once it was released.
_MIGRATIONS = (
    _FIRST_SCHEMA,
    # A report that follows another names it, by series too.
    "ALTER TABLE jobs ADD COLUMN sr_series_instance_uid TEXT",
    # Synthetic studies by which the daemon tries itself.
    "ALTER TABLE jobs ADD COLUMN canary INTEGER NOT NULL DEFAULT 0",
    # Since when a job waits, which no other column says once it was examined again; and whether that was told of.
    "ALTER TABLE jobs ADD COLUMN waiting_since TEXT; ALTER TABLE jobs ADD COLUMN alerted_at TEXT",
    # Which code content and fingerprint follow from: another's are no other study.
    "ALTER TABLE jobs ADD COLUMN reader TEXT",
    # What a report names as the one before it, fixed with its date.
    "ALTER TABLE reports ADD COLUMN predecessor TEXT",
    # A canary under way is looked for by its study, and often before there is a job.
    "CREATE INDEX jobs_by_study ON jobs (study_instance_uid)",
    # A stage is a cancer's.
    "UPDATE jobs SET state = 'report_ready' WHERE state = 'staged'",
)

# Which release brought the ledger to a version, for an older one to name.
_WRITERS = "CREATE TABLE IF NOT EXISTS migrations (schema_version INTEGER PRIMARY KEY, software TEXT NOT NULL)"

SCHEMA_VERSION = len(_MIGRATIONS)


class DatabaseReader:
    """The state folder's SQLite file, looked at from beside the daemon: never made, migrated or written to.

    A file that an older release made is looked at in memory, as this release's daemon would migrate it.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    Unavailable
        When the file is not there, cannot be read, or was written by a newer release.
    """

    def __init__(self, path: Path) -> None:
        with _disk_errors():
            self._connect(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0))
            if self._version() < SCHEMA_VERSION:
                copy = sqlite3.connect(":memory:")
                self._connection.backup(copy)
                self.close()
                self._connect(copy)
                self._migrate()

    def _connect(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.isolation_level = None
        connection.row_factory = sqlite3.Row

    def _version(self) -> int:
        version = int(self.query("PRAGMA user_version")[0][0])
        if version > SCHEMA_VERSION:
            ((software,),) = self.query("SELECT software FROM migrations ORDER BY schema_version DESC LIMIT 1")
            raise Unavailable(
                f"The ledger has schema version {version}, of release {software}; this one, {__version__}, knows"
                f" {SCHEMA_VERSION}. Install release {software} again, or restore the backup that was taken before it"
                " was installed: docs/maintenance.md, Roll back."
            )
        return version

    def _migrate(self) -> None:
        version = self._version()
        for migration in _MIGRATIONS[version:]:
            for statement in migration.split(";"):
                self.query(statement)
        if version < SCHEMA_VERSION:  # to look writes nothing
            self.query(_WRITERS)
            self.query("INSERT OR REPLACE INTO migrations VALUES (?, ?)", (SCHEMA_VERSION, __version__))
            self.query(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def query(self, sql: str, values: Iterable[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        """Run one statement; committed on return unless a transaction is open."""
        # fetchall: a statement with RETURNING commits only once it has been stepped to its end.
        with _disk_errors():
            return self._connection.execute(sql, values if isinstance(values, Mapping) else tuple(values)).fetchall()

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
    """The same file to write to: made when absent, and migrated.

    Commits survive a power cut (write-ahead log, ``synchronous=FULL``), and readers never block the writer.

    Raises
    ------
    Unavailable
        When the file cannot be opened, or was written by a newer release. So do all methods while the disk is full,
        read-only or gone.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        """The state folder."""
        with _disk_errors():
            self._connect(sqlite3.connect(path, timeout=10.0))
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 10000"):
                self._connection.execute(f"PRAGMA {pragma}")
        with self.transaction():
            self._migrate()

    def prove_writable(self) -> None:
        """Write something that changes nothing.

        Where SQLite may not write to the file, it opens it to read, without a word; such a connection would stay of no
        use when the fault is long gone.

        Raises
        ------
        Unavailable
            The file was opened to read only, or the disk takes nothing.
        """
        self.query(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements of the block, or none; within another transaction, a part of that."""
        if self._connection.in_transaction:
            yield
            return
        self.query("BEGIN IMMEDIATE")
        try:
            yield
            self.query("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(f"The ledger cannot be used at the moment: {error}.") from error
