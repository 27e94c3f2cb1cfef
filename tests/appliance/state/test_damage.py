"""A damaged ledger gives the right jobs or one fixed sentence, never SQLite's words or an internal error."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Damaged, Reason, ReasonCode, Unavailable
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.backup import back_up
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database, DatabaseReader, damaged
from lungstage.appliance.state.file_table import FileRecord, FileTable
from lungstage.appliance.state.jobs import Jobs
from lungstage.appliance.state.ledger import Ledger
from tests.appliance.state.test_ledger import BAD, HELD, LEASE, finish, ready

COUNT = 24
SECRET = "DOE^JANE"


def _fill(path: Path) -> None:
    with Database(path) as database:
        ledger, files = Ledger(database), FileTable(database, "reader")
        for n in range(COUNT):
            if n % 3 == 0:
                job = ledger.open_job(f"case-{n}", f"1.2.{n}", None, f"1.3.{n}")
                (ledger.refuse if n % 2 else ledger.hold)(job.id, BAD if n % 2 else HELD, content="c")
            else:
                ready(ledger, f"case-{n}", f"fingerprint-{n}")
                finish(ledger)
        reason = Reason(ReasonCode.DICOM_UNREADABLE, "It is cut short.")
        files.update([FileRecord(f"/inbox/{n}", n, n, None, reason) for n in range(COUNT)], (), ())
        database.query("PRAGMA wal_checkpoint(TRUNCATE)")


def _sure(path: Path, open_it: Callable[[Path], DatabaseReader]) -> list[tuple[object, ...]]:
    """Read everything, and return the fields of each job that an index confirms."""
    with open_it(path) as database:
        jobs = Jobs(database)
        jobs.find()
        jobs.counts()
        jobs.newest_change()
        jobs.oldest_waiting()
        FileTable(database, "reader").unreadable()  # type: ignore[arg-type]
        found = [jobs.get(n + 1) for n in range(COUNT)]
    return [job and (job.id, job.case_key, job.study_instance_uid, job.state, job.fingerprint) for job in found]  # type: ignore[misc]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[tuple[object, ...]]]:
    path = tmp_path_factory.mktemp("whole") / "ledger.sqlite"
    _fill(path)
    return path.read_bytes(), _sure(path, DatabaseReader)


def _flip(content: bytes, flips: list[tuple[float, int]]) -> bytes:
    flipped = bytearray(content)
    for where, mask in flips:
        flipped[int(where * len(content))] ^= mask
    return bytes(flipped)


FRACTION = st.floats(0, 1, exclude_max=True)
FLIPS = st.lists(st.tuples(FRACTION, st.integers(1, 255)), min_size=1, max_size=4)
HEADER = st.lists(st.tuples(FRACTION.map(lambda f: f / 500), st.integers(1, 255)), min_size=1, max_size=2)


@pytest.mark.parametrize("open_it", [DatabaseReader, Database])
@settings(max_examples=150, deadline=None)
@given(flips=FLIPS | HEADER, kept=st.just(1.0) | FRACTION)
@example(flips=[(0.0, 255)], kept=1.0)
@example(flips=[(0.999, 255)], kept=0.5)
@example(flips=[(0.0625, 128)], kept=1.0)  # SQLite's own message is not UTF-8 then
def test_whatever_bytes_change_the_jobs_are_right_or_the_ledger_is_said_to_be_damaged(
    whole: tuple[bytes, list[tuple[object, ...]]],
    open_it: Callable[[Path], DatabaseReader],
    flips: list[tuple[float, int]],
    kept: float,
) -> None:
    content, jobs = whole
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        path.write_bytes(_flip(content, flips)[: int(kept * len(content))])
        (path.parent / "audit-000001.jsonl").touch()
        told = None
        try:
            assert _sure(path, open_it) == jobs
        except Unavailable as error:
            told = str(error)
        locked = f"The ledger {path} cannot be used at the moment: the file is read-only."  # a future format
        assert told in (None, str(damaged(path)), locked)


def test_what_the_indexes_do_not_bear_out_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    _fill(path)
    content = path.read_bytes()
    text = b"fingerprint-7"
    places = [n for n in range(len(content)) if content.startswith(text, n)]
    assert len(places) == 3, "expected in its row, in the index and in the table of reports"
    for place in places[:2]:
        path.write_bytes(content[:place] + b"F" + content[place + 1 :])
        with pytest.raises(Damaged):
            DatabaseReader(path)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'stagef'", "reason_code = 'no_such_code'", "outcome = '{\"stage\": '", "outcome = '[]'",
        "updated_at = '2026-13-01T00:00:00+00:00'", "opened_at = '2026-01-01T00:00:00'", "case_key = x'ff'",
        "anchor = x'31'", f"sr_path = CAST(x'ff' || '{SECRET}' AS TEXT)", "attempts = 'many'",
    ],
)  # fmt: skip
def test_a_value_that_was_never_written_is_damage(tmp_path: Path, change: str) -> None:
    path = tmp_path / "ledger.sqlite"
    _fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE jobs SET {change} WHERE id = 5")
    with DatabaseReader(path) as database, pytest.raises(Damaged) as caught:
        Jobs(database).find()
    assert str(caught.value) == str(damaged(path))


def test_a_predecessor_that_was_never_written_is_damage(tmp_path: Path) -> None:
    ledger = Ledger(Database(tmp_path / "ledger.sqlite"))
    ready(ledger)
    job = Claims(ledger).claim(LEASE)
    assert job is not None
    ledger.database.query("UPDATE reports SET predecessor = '[1'")
    with pytest.raises(Damaged):
        Claims(ledger).predecessor(job)


@pytest.mark.parametrize("content", [None, b""])
def test_an_empty_ledger_beside_an_audit_log_is_not_begun_anew(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ledger.sqlite"
    if content is not None:
        path.write_bytes(content)
        Database(path).close()  # at the very first start
        path.write_bytes(content)
    Audit(tmp_path).write("daemon_started")
    for _ in range(2):
        with pytest.raises(Damaged):
            Database(path)


def test_a_backup_of_a_damaged_ledger_is_refused_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "ledger.sqlite"
    path.write_bytes(b"this is no ledger at all" * 400)
    with pytest.raises(Damaged) as caught:
        back_up(tmp_path / "state", tmp_path / "backup.tar")
    assert str(caught.value) == str(damaged(path))


@pytest.mark.parametrize("error", [sqlite3.IntegrityError, sqlite3.ProgrammingError])
def test_our_own_wrong_statements_stay_defects(tmp_path: Path, error: type[Exception]) -> None:
    database = Database(tmp_path / "ledger.sqlite")
    statement: tuple[Any, ...] = ("INSERT INTO migrations VALUES (?, ?)", (1, None))
    with pytest.raises(error):
        database.query(*(statement if error is sqlite3.IntegrityError else ("SELECT ?", ())))
