"""The queue of documents to send and their results: an SQLite file of the gateway that survives every crash.

A delivery is the sending of one document to one destination. Its state is written before and after each message to the
destination. So after a crash the gateway knows which deliveries are *unsure*. It asks the destination whether it has
such a document before it sends the document again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lungstage.appliance.contract.errors import LungstageError, Unavailable

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS documents (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    name TEXT NOT NULL REFERENCES documents,
    study_instance_uid TEXT NOT NULL,
    goes_first INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    unsure INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '',
    due_at REAL NOT NULL,
    queued_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    commitment TEXT,
    committed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (destination, name)
);
CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (destination, id) WHERE state != 'delivered';
CREATE INDEX IF NOT EXISTS deliveries_of_document ON deliveries (name);
CREATE INDEX IF NOT EXISTS deliveries_asked ON deliveries (commitment) WHERE commitment IS NOT NULL;
CREATE TABLE IF NOT EXISTS studies (
    study_instance_uid TEXT NOT NULL,
    calling TEXT NOT NULL,
    PRIMARY KEY (study_instance_uid, calling)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rests (
    study_instance_uid TEXT PRIMARY KEY,
    seconds REAL NOT NULL
) WITHOUT ROWID
"""

LONGEST_PAUSE: Final = 86400.0
"""Longest pause in seconds; a later due time means that the clock was set back."""

_NEXT: Final = """
SELECT deliveries.*, documents.kind, documents.sop_class_uid, documents.sop_instance_uid
FROM deliveries JOIN documents USING (name)
WHERE destination = :destination AND state IN ('waiting', 'refused')
    AND (due_at <= :now OR due_at > :now + :longest)
    AND (goes_first OR NOT EXISTS (
        SELECT 1 FROM deliveries AS first WHERE first.destination = deliveries.destination
        AND first.study_instance_uid = deliveries.study_instance_uid AND first.goes_first AND first.state = 'waiting'))
ORDER BY id LIMIT 1
"""


class NoSuchDeliveryError(LungstageError):
    """There is no delivery with this number."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document in the outbox.

    Attributes
    ----------
    name
        Name of its file.
    kind
        ``sr``, ``seg``, ``pdf`` or ``sc``.
    sop_class_uid, sop_instance_uid, study_instance_uid
        UIDs of the document.
    """

    name: str
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """The sending of one document to one destination.

    Attributes
    ----------
    id
        Number of the delivery.
    destination
        Address of the destination.
    document
        The document.
    state
        ``waiting``; ``stored``: the destination took it, but has not confirmed the storage; ``delivered``;
        ``refused``: the destination refused it; the gateway tries again at an interval.
    unsure
        Whether the result of an attempt is unknown, so that the destination may have the document.
    attempts
        Number of attempts.
    why
        Why it was not delivered, or a remark of the destination.
    changed_at
        Time of the last change, in seconds since 1970.
    committed
        Whether the destination confirmed that it keeps the document.
    """

    id: int
    destination: str
    document: Document
    state: str
    unsure: bool
    attempts: int
    why: str
    changed_at: float
    committed: bool


class Queue:
    """The queue of one gateway, for all its threads.

    Parameters
    ----------
    path
        The file.
    clock
        The time of day in seconds.

    Raises
    ------
    Unavailable
        It cannot be used. All methods may raise this.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock, self._lock = path, clock, threading.RLock()
        with self._in_own_words():
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000"):
                self._db.execute(f"PRAGMA {pragma}")
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError
            self._db.executescript(_SCHEMA)

    @contextlib.contextmanager
    def _in_own_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise Unavailable(
                f"The gateway's queue {self._path} cannot be used ({type(error).__name__}). Check its disk and its "
                "permissions."
            ) from error

    def _run(self, sql: str, values: Any = ()) -> list[sqlite3.Row]:
        with self._lock, self._in_own_words():
            return self._db.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._run("BEGIN IMMEDIATE")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._run("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # Received studies

    def received(self, study: str, calling: str) -> None:
        """Record a sender of a study."""
        self._run("INSERT OR IGNORE INTO studies VALUES (?, ?)", (study, calling))

    def senders(self, study: str) -> frozenset[str]:
        """Return the senders of a study."""
        rows = self._run("SELECT calling FROM studies WHERE study_instance_uid = ?", (study,))
        return frozenset(row[0] for row in rows)

    def studies(self) -> frozenset[str]:
        """Return every received study that is still kept."""
        return frozenset(row[0] for row in self._run("SELECT DISTINCT study_instance_uid FROM studies"))

    def rested(self, study: str, seconds: float) -> float:
        """Add to the time since a study was finished, and return it; changes of the clock have no effect on it."""
        sql = (
            "INSERT INTO rests VALUES (?, ?) ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds"
            " RETURNING seconds"
        )
        return float(self._run(sql, (study, seconds))[0][0])

    def not_at_rest(self, study: str) -> None:
        """Start counting this time again from zero."""
        self._run("DELETE FROM rests WHERE study_instance_uid = ?", (study,))

    def forget(self, study: str) -> None:
        """Delete the records of a study whose files are gone."""
        with self._transaction():
            self._run("DELETE FROM rests WHERE study_instance_uid = ?", (study,))
            self._run("DELETE FROM studies WHERE study_instance_uid = ?", (study,))

    # Documents and their deliveries

    def known(self) -> frozenset[str]:
        """Return the names of all documents that were ever queued."""
        return frozenset(row[0] for row in self._run("SELECT name FROM documents"))

    def put(self, document: Document, destinations: Iterable[str]) -> None:
        """Queue a document for all destinations, in one transaction."""
        now = self._clock()
        with self._transaction():
            values = (document.name, document.kind, document.sop_class_uid, document.sop_instance_uid)
            self._run("INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?, ?)", (*values, document.study_instance_uid))
            for destination in destinations:
                self._run(
                    "INSERT OR IGNORE INTO deliveries (destination, name, study_instance_uid, goes_first, due_at,"
                    " queued_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (destination, document.name, document.study_instance_uid, document.kind == "seg", now, now, now),
                )

    def next(self, destination: str) -> Delivery | None:
        """Return the next delivery: in order of arrival, but an SR after the SEGs of its study."""
        values = {"destination": destination, "now": self._clock(), "longest": LONGEST_PAUSE}
        return next(map(_delivery, self._run(_NEXT, values)), None)

    def begin(self, delivery: Delivery) -> None:
        """Record that sending begins: from now on the destination may have the document."""
        self._set(delivery, "unsure = 1, attempts = attempts + 1")

    def stored(self, delivery: Delivery, why: str = "") -> None:
        """Record that the destination took the document; its storage commitment is asked for later."""
        self._set(delivery, "state = 'stored', unsure = 0, commitment = NULL, due_at = 0, why = ?", why)

    def delivered(self, delivery: Delivery, *, committed: bool, why: str = "") -> None:
        """Record that the document was delivered."""
        self._set(delivery, "state = 'delivered', unsure = 0, committed = ?, why = ?", committed, why)

    def waits(self, delivery: Delivery, seconds: float, why: str, *, unsure: bool) -> None:
        """Record that the document was not sent, and the pause in seconds until the next attempt."""
        due = self._clock() + seconds
        self._set(delivery, "state = 'waiting', unsure = ?, due_at = ?, why = ?", unsure, due, why)

    def refused(self, delivery: Delivery, seconds: float, why: str) -> None:
        """Record that the destination refused the document; other documents no longer wait for it."""
        self._set(delivery, "state = 'refused', unsure = 0, due_at = ?, why = ?", self._clock() + seconds, why)

    def retry(self, number: int) -> None:
        """Let a delivery be tried at once.

        Raises
        ------
        NoSuchDeliveryError
            There is no delivery with this number, or it has been delivered.
        """
        sql = (
            "UPDATE deliveries SET state = 'waiting', unsure = 1, due_at = 0, commitment = NULL, changed_at = ?"
            " WHERE id = ? AND state != 'delivered' RETURNING id"
        )
        if not self._run(sql, (self._clock(), number)):
            raise NoSuchDeliveryError(
                f"There is no open delivery {number}. The command lungstage gateway queue lists the open deliveries."
            )

    def _set(self, delivery: Delivery, sets: str, *values: object) -> None:
        sql = f"UPDATE deliveries SET {sets}, changed_at = ? WHERE id = ?"  # noqa: S608
        self._run(sql, (*values, self._clock(), delivery.id))

    # Storage commitment

    def to_commit(self, destination: str, patience: float) -> tuple[Delivery, ...]:
        """Return the stored deliveries without commitment that were not asked about, or whose answer is overdue."""
        sql = (
            "SELECT deliveries.*, documents.kind, documents.sop_class_uid, documents.sop_instance_uid"
            " FROM deliveries JOIN documents USING (name) WHERE destination = ? AND state = 'stored'"
            " AND (due_at <= ? OR due_at > ?) ORDER BY id LIMIT 500"
        )
        now = self._clock()
        return tuple(map(_delivery, self._run(sql, (destination, now, now + LONGEST_PAUSE + patience))))

    def asked(self, deliveries: Sequence[Delivery], transaction: str, patience: float) -> None:
        """Record the transaction of a commitment request before it is sent."""
        due = self._clock() + patience
        with self._transaction():
            for delivery in deliveries:
                self._set(delivery, "commitment = ?, due_at = ?", transaction, due)

    def committed(self, transaction: str, kept: Iterable[str], lost: Iterable[str], pause: float) -> int:
        """Record an answer on storage commitment; return the number of its deliveries.

        Parameters
        ----------
        transaction
            Its Transaction UID.
        kept, lost
            SOP Instance UIDs that the destination keeps, and those that it does not keep; these are sent again.
        pause
            Pause in seconds before they are sent again.
        """
        now, count = self._clock(), 0
        sets = {
            "kept": "state = 'delivered', unsure = 0, committed = 1, why = ''",
            "lost": f"state = 'waiting', unsure = 0, due_at = {now + pause},"
            " why = 'the destination did not confirm the storage'",
        }
        with self._transaction():
            for fate, uids in (("kept", kept), ("lost", lost)):
                for uid in uids:
                    sql = (
                        f"UPDATE deliveries SET {sets[fate]}, commitment = NULL, changed_at = ? WHERE commitment = ?"  # noqa: S608
                        " AND state = 'stored' AND name IN (SELECT name FROM documents WHERE sop_instance_uid = ?)"
                        " RETURNING id"
                    )
                    count += len(self._run(sql, (now, transaction, uid)))
        return count

    # For reports to people

    def open_deliveries(self) -> tuple[Delivery, ...]:
        """Return every delivery that is not finished, in order."""
        return tuple(map(_delivery, self._run(_LISTED.format("state != 'delivered'"))))

    def deliveries_of(self, name: str) -> tuple[Delivery, ...]:
        """Return every delivery of a document."""
        return tuple(map(_delivery, self._run(_LISTED.format("name = ?"), (name,))))

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of deliveries by destination and state."""
        sql = "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state ORDER BY 1, 2"
        return {(row[0], row[1]): row[2] for row in self._run(sql)}


_LISTED: Final = (
    "SELECT deliveries.*, documents.kind, documents.sop_class_uid, documents.sop_instance_uid"
    " FROM deliveries JOIN documents USING (name) WHERE {} ORDER BY id"
)


def _delivery(row: sqlite3.Row) -> Delivery:
    document = Document(
        row["name"], row["kind"], row["sop_class_uid"], row["sop_instance_uid"], row["study_instance_uid"]
    )
    return Delivery(
        row["id"], row["destination"], document, row["state"], bool(row["unsure"]), row["attempts"], row["why"],
        row["changed_at"], bool(row["committed"]),
    )  # fmt: skip
