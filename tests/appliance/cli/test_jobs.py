"""``lungstage jobs``: what is asked for is what is listed, and a wait that is too long is seen."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lungstage.appliance.cli import jobs as job_tables
from lungstage.appliance.cli.main import app
from lungstage.appliance.config.text import in_words
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileRecord
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import Ledger

MISSING = Reason(ReasonCode.SLICES_MISSING, "2 slices are missing.")
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("LUNGSTAGE_ALERT_AFTER_SECONDS", raising=False)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A ledger with a job in each of five states, opened three hours, two hours, … ago, and the last just now."""
    with Database(tmp_path / "ledger.sqlite") as database:
        for hours, target in enumerate(("waiting", "held", "refused", "delivered", "waiting")):
            ago = datetime.now(UTC) - timedelta(hours=max(3 - hours, 0), minutes=5)
            ledger = Ledger(database, now=lambda ago=ago: ago)  # type: ignore[misc]
            job = ledger.open_job(f"1.{hours}", f"1.2.{hours}", f"1.{hours}", "1")
            if target in ("waiting", "held"):
                getattr(ledger, target.replace("waiting", "wait").replace("held", "hold"))(job.id, MISSING, content="c")
            elif target == "refused":
                ledger.refuse(job.id, Reason(ReasonCode.ROI_EMPTY, "It is empty."), content="c")
            else:
                ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="b")
                Claims(ledger).claim(timedelta(hours=1))
                Claims(ledger).report_ready(
                    job.id, {"stage": "early", "probability_advanced": 0.25}, "2.25.1", "2.25.2"
                )
                Claims(ledger).delivered(job.id, Path("/outbox/SR.dcm"))
    return tmp_path


def jobs(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["jobs", "--state", str(state), *arguments])


def listed(state: Path, *arguments: str) -> list[int]:
    result = jobs(state, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return [row["id"] for row in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ((), [1, 2, 3, 4, 5]),
        (("--only", "waiting"), [1, 5]),
        (("--only", "waiting", "--only", "held"), [1, 2, 5]),
        (("--study", "1.2.3"), [4]),
        (("--study", "1.2"), []),
        (("--since", "90min"), [3, 4, 5]),
        (("--since", "0.5h"), [4, 5]),
        (("--since", "1d"), [1, 2, 3, 4, 5]),
        (("--since", "2999-01-01"), []),
        (("--limit", "2"), [4, 5]),
        (("--limit", "1", "--only", "waiting", "--since", "1w"), [5]),
    ],
)
def test_filters(state: Path, arguments: tuple[str, ...], ids: list[int]) -> None:
    assert listed(state, *arguments) == ids


@pytest.mark.parametrize(
    "arguments",
    [("--only", "lost"), ("--since", "yesterday"), ("--since", "2026-13-01"), ("--since", "9999999999999w"),
     ("--since", "-2h"), ("--since", ""), ("--limit", "0"), ("--limit", "-1")],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_fault_of_usage(state: Path, arguments: tuple[str, ...]) -> None:
    assert jobs(state, *arguments).exit_code == 2


def test_the_table_marks_what_waits_too_long_and_sums_up(state: Path) -> None:
    shown = jobs(state).stdout
    lines = {int(m[1]): line for line in shown.splitlines() if (m := re.match(r"│ (\d+) ", line))}
    assert [number for number, line in lines.items() if "(!)" in line] == [1, 2]
    assert "early (0.25)" in lines[4]
    summary = shown.splitlines()[-1]
    assert summary == (
        "5 of 5 jobs shown; in all 2 waiting, 1 delivered, 1 held, 1 refused; job 1 has waited longest, 3 h 5 min"
        " (!: more than 1 h)."
    )
    assert jobs(state, "--only", "refused").stdout.splitlines()[-1].startswith("1 of 5 jobs shown; in all 2 waiting")


def test_a_narrow_terminal_cuts_nothing_short(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = "1.2.826.0.1.3680043.8.498.10876980793282499080221884198671226542"
    with Database(state / "ledger.sqlite") as database:
        Ledger(database).open_job("1.9", uid, "1.9", "1")
    monkeypatch.setenv("COLUMNS", "80")
    rows = [line.split("│") for line in jobs(state, "--study", uid).stdout.splitlines() if line.startswith("│")]
    assert uid in "".join(row[3].strip() for row in rows)
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", "".join(row[5] for row in rows))


def test_the_age_is_the_daemon_s_own(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "lungstage.toml"
    config.write_text("alert_after_seconds = 9000\n")
    rows = json.loads(jobs(state, "--json", "--config", str(config)).stdout)
    assert [row["id"] for row in rows if row["waits_too_long"]] == [1]
    monkeypatch.setenv("LUNGSTAGE_ALERT_AFTER_SECONDS", "12000")
    rows = json.loads(jobs(state, "--json", "--config", str(config)).stdout)
    assert not any(row["waits_too_long"] for row in rows)


def test_a_wait_counts_from_its_beginning_whatever_came_since(state: Path) -> None:
    with Database(state / "ledger.sqlite") as database:
        job = Ledger(database).wait(1, MISSING, content="one more slice")
    assert datetime.now(UTC) - job.updated_at < timedelta(minutes=1)
    rows = json.loads(jobs(state, "--json").stdout)
    assert [row["id"] for row in rows if row["waits_too_long"]] == [1, 2]


def test_an_empty_ledger_says_so(tmp_path: Path) -> None:
    Database(tmp_path / "ledger.sqlite").close()
    assert jobs(tmp_path).stdout.splitlines()[-1] == "0 of 0 jobs shown."
    assert jobs(tmp_path, "--json").stdout == "[]\n"


def test_rows_have_the_same_keys_whatever_became_of_the_job(state: Path) -> None:
    rows: list[dict[str, Any]] = json.loads(jobs(state, "--json").stdout)
    assert len({tuple(row) for row in rows}) == 1
    assert [row["waiting_since"] is not None for row in rows] == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("90 min", NOW - timedelta(minutes=90)),
        ("1.5d", NOW - timedelta(hours=36)),
        ("2026-03-01T10:00:00+02:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert job_tables.moment(text, NOW) == expected


def test_a_date_is_a_local_one() -> None:
    assert job_tables.moment("2026-03-01", NOW) == datetime(2026, 3, 1).astimezone()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (3600, "1 h"), (3725, "1 h 2 min"), (90061, "1 d 1 h"), (86405, "1 d 5 s")],
)
def test_durations_in_words(seconds: int, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words


def test_files_are_named_by_a_hash_unless_paths_are_asked_for() -> None:
    record = FileRecord("/inbox/DOE^JANE\x1b[2J", 1, 1, None, Reason(ReasonCode.DICOM_UNREADABLE, "It is not DICOM."))
    for as_json in (False, True):
        assert "DOE" not in job_tables.files_listed([record], as_json=as_json, paths=False)
        told = job_tables.files_listed([record], as_json=as_json, paths=True)
        assert "DOE^JANE" in told
        assert "\x1b" not in told
    assert job_tables.files_listed([], as_json=False, paths=False) == ""


def test_every_state_can_be_asked_for(state: Path) -> None:
    assert sorted(n for one in JobState for n in listed(state, "--only", one.value)) == [1, 2, 3, 4, 5]
