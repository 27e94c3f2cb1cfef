"""The queue of unsent notifications: an SQLite file, so that no restart and no error loses a message.

The read position in the audit log is stored in the same transaction as the new messages. So each entry becomes a
message exactly once.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungstage.appliance.contract.errors import Unavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 1), file INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    event TEXT NOT NULL,
    queued_at REAL NOT NULL,
    due_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    batch TEXT,
    sent_at REAL,
    dropped_at REAL
);
CREATE INDEX IF NOT EXISTS messages_unsent ON messages (channel, id) WHERE sent_at IS NULL AND dropped_at IS NULL
"""
_UNSENT = "channel = ? AND sent_at IS NULL AND dropped_at IS NULL"

Place = tuple[int, int]
"""The read position in the audit log: number of the file, bytes of it."""


@dataclass(frozen=True, slots=True)
class Queued:
    """One waiting message; times are seconds since 1970.

    Attributes
    ----------
    batch
        Identifier of its last attempt, alone or with others; None before the first attempt.
    """

    id: int
    event: Mapping[str, Any]
    queued_at: float
    due_at: float
    attempts: int
    batch: str | None

    @property
    def is_begun(self) -> bool:
        """Whether it may have been sent before a crash; sent again with the same `batch`, the receiver can see that."""
        return self.batch is not None and self.attempts == 0


class Queue:
    """The queue of one state folder.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    Unavailable
        It cannot be used. All methods may raise this.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self._away(error) from error

    def _away(self, error: sqlite3.Error) -> Unavailable:
        return Unavailable(
            f"The queue of notifications {self._path} cannot be used ({type(error).__name__}). Check its disk and its "
            "permissions."
        )

    def _run(self, sql: str, values: Iterable[object] = ()) -> list[sqlite3.Row]:
        try:
            return self._db.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise self._away(error) from error

    def place(self) -> Place | None:
        """Return the read position in the audit log; None before the first reading."""
        found = self._run("SELECT file, at FROM place")
        return (int(found[0]["file"]), int(found[0]["at"])) if found else None

    def put(self, events: Iterable[Mapping[str, Any]], channels: Iterable[str], place: Place, now: float) -> None:
        """Queue events for every channel, and store the read position, in one transaction."""
        channels = tuple(channels)
        self._run("BEGIN IMMEDIATE")
        try:
            for event in events:
                for channel in channels:
                    values = (channel, json.dumps(event), now, now)
                    self._run("INSERT INTO messages (channel, event, queued_at, due_at) VALUES (?, ?, ?, ?)", values)
            self._run("INSERT OR REPLACE INTO place VALUES (1, ?, ?)", place)
            self._run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def waiting(self, channel: str, most: int) -> tuple[Queued, ...]:
        """Return the waiting messages of a channel, oldest first."""
        rows = self._run(f"SELECT * FROM messages WHERE {_UNSENT} ORDER BY id LIMIT ?", (channel, most))  # noqa: S608
        return tuple(
            Queued(
                row["id"], json.loads(row["event"]), row["queued_at"], row["due_at"], row["attempts"], row["batch"]
            )
            for row in rows
        )  # fmt: skip

    def batch_of(self, messages: Sequence[Queued]) -> str:
        """Return the identifier for messages that are sent together; the same messages keep it when tried again."""
        known = {message.batch for message in messages}
        if len(known) == 1 and (name := known.pop()) is not None:
            all_of_it = self._run("SELECT count(*) FROM messages WHERE batch = ?", (name,))[0][0]
            if all_of_it == len(messages):  # the receiver would take a part for the complete batch
                return name
        name = uuid.uuid4().hex
        self._mark("batch = ?", (name,), messages)
        return name

    def sent(self, messages: Iterable[Queued], now: float) -> None:
        """Record that messages were sent."""
        self._mark("sent_at = ?", (now,), messages)

    def failed(self, messages: Iterable[Queued], due_at: float) -> None:
        """Record that messages were not sent, and when they are tried again."""
        self._mark("attempts = attempts + 1, due_at = ?", (due_at,), messages)

    def dropped(self, messages: Iterable[Queued], now: float) -> None:
        """Record that messages are dropped."""
        self._mark("dropped_at = ?", (now,), messages)

    def _mark(self, sets: str, values: tuple[object, ...], messages: Iterable[Queued]) -> None:
        ids = [message.id for message in messages]
        marks = ", ".join("?" * len(ids))
        self._run(f"UPDATE messages SET {sets} WHERE id IN ({marks})", (*values, *ids))  # noqa: S608

    def forget(self, moment: float) -> None:
        """Delete messages that were sent or dropped before a time."""
        self._run("DELETE FROM messages WHERE coalesce(sent_at, dropped_at) < ?", (moment,))

    def sent_since(self, channel: str, moment: float) -> int:
        """Count the messages sent over a channel since a time; events sent together count as one."""
        sql = "SELECT count(DISTINCT batch) FROM messages WHERE channel = ? AND sent_at >= ?"
        return int(self._run(sql, (channel, moment))[0][0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()
