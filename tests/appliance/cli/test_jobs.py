"""``lungstage jobs``: it lists the jobs that are asked for, and marks a wait that is too long."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lungstage.appliance.cli import jobs as job_tables
from lungstage.appliance.cli.main import app
from lungstage.appliance.config.text import in_words
from lungstage.appliance.contract.errors import Reason, ReasonCode, Unavailable
from lungstage.appliance.dicom.identity import patient_key
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileRecord
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.state.secret import identity_key

MISSING = Reason(ReasonCode.SLICES_MISSING, "2 slices are missing.")
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("LUNGSTAGE_ALERT_AFTER_SECONDS", raising=False)


@pytest.fixture
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The time zone of the site."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A ledger with five jobs. The first was opened three hours ago, the last just now."""
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
    lines = {int(m[1]): line for line in shown.splitlines() if (m := re.match(r"(\d+)  ", line))}
    assert [number for number, line in lines.items() if re.search(r" (waiting|held) ! ", line)] == [1, 2]
    assert "early, P(advanced) 0.25" in lines[4]
    assert "It is empty. [roi_empty]" in lines[3]
    summary = shown.splitlines()[-1]
    assert summary == (
        "5 of 5 jobs shown; in all 2 waiting, 1 delivered, 1 held, 1 refused; job 1 has waited longest, 3 h 5 min"
        " (!: more than 1 h)."
    )
    assert jobs(state, "--only", "refused").stdout.splitlines()[-1].startswith("1 of 5 jobs shown; in all 2 waiting")


def answered(state: Path, outcome: dict[str, Any], study: str = "1.2.9", patient: str = "", date: str = "") -> int:
    """A job with an answer. The patient's ID is hashed as the daemon does it."""
    with Database(state / "ledger.sqlite") as database:
        ledger = Ledger(database)
        job = ledger.open_job(study, study, study, "1")
        ledger.note_study(job.id, date, patient_key(patient, identity_key(state)))
        ledger.ready(job.id, content="c", fingerprint=study, bundle_digest="b")
        Claims(ledger).claim(timedelta(hours=1))
        Claims(ledger).report_ready(job.id, outcome, "2.25.1", "2.25.2")
        Claims(ledger).delivered(job.id, Path("/outbox/SR.dcm"))
    return job.id


ADVANCED = {
    "stage": "advanced", "probability_advanced": 0.8123, "endpoint": None, "warnings": ["One.", "Two."],
    "domain": {"distance": 1.0, "outside": ["original_shape_Sphericity", "original_ngtdm_Busyness"]},
    "roi": {"name": "GTV", "others": [{"number": 2, "name": "GTVn"}]},
}  # fmt: skip
SURVIVAL = ADVANCED | {
    "stage": None, "probability_advanced": None,
    "endpoint": {"name": "two-year survival", "positive": "death", "answer": "dead", "probability": 0.25},
}  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns"], indirect=True)
def test_everything_fits_into_80_columns(state: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    job = answered(state, ADVANCED, date="2026-03-09")
    with Database(state / "ledger.sqlite") as database:
        database.query("UPDATE jobs SET id = 12345 WHERE id = ?", (job,))
    shown = jobs(state).stdout.splitlines()
    assert max(map(len, shown[:-1])) <= 80
    (line,) = [line for line in shown if line.startswith("12345 ")]
    offset, answer = {  # an offset with minutes is longer, so the answer takes two lines
        "UTC": ("00", r"advanced, P\(advanced\) 0\.81"),
        "America/St_Johns": (r"\d\d:30", r"advanced, P\(advanced\)"),
    }[zone]
    received = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d[+-]{offset}"
    assert re.fullmatch(rf"12345 +{received} +2026-03-09 +delivered +{answer} +4 *", line)


def test_another_endpoint_is_listed_in_its_own_words(state: Path) -> None:
    job = answered(state, SURVIVAL)
    (line,) = [line for line in jobs(state).stdout.splitlines() if line.startswith(f"{job} ") and "shown" not in line]
    assert "two-year survival: dead, P(death) 0.25" in line
    assert "advanced" not in line


def test_a_job_of_an_earlier_version_that_does_not_name_its_class_is_listed(state: Path) -> None:
    endpoint = {"name": "two-year survival", "answer": "dead", "probability": 0.25}
    job = answered(state, SURVIVAL | {"endpoint": endpoint})
    assert "P(positive class) 0.25" in jobs(state).stdout.partition(f"\n{job} ")[2]


def test_a_patient_s_jobs_are_found_by_the_whole_id_and_no_other(state: Path) -> None:
    one, other = answered(state, ADVANCED, "1.7.1", "P-17"), answered(state, ADVANCED, "1.7.2", "P-170")
    again = answered(state, ADVANCED, "1.7.3", "P-17")
    assert listed(state, "--patient", "P-17") == [one, again]
    assert listed(state, "--patient", " P-170 ") == [other]
    assert listed(state, "--patient", "P-1") == listed(state, "--patient", "p-17") == []
    assert jobs(state, "--patient", "  ").exit_code == 2
    content = (state / "ledger.sqlite").read_bytes()
    assert b"P-17" not in content


def test_to_look_for_a_patient_makes_no_key(state: Path) -> None:
    assert isinstance(jobs(state, "--patient", "P-17").exception, Unavailable)
    assert not (state / "identity.key").exists()


def test_a_study_s_date_and_patient_are_not_forgotten_for_files_that_do_not_say_them(state: Path) -> None:
    job = answered(state, ADVANCED, "1.7.1", "P-17", "2026-03-09")
    with Database(state / "ledger.sqlite") as database:
        Ledger(database).note_study(job, "", "")
    assert listed(state, "--patient", "P-17") == [job]
    (row,) = json.loads(jobs(state, "--json", "--patient", "P-17").stdout)
    assert row["study_date"] == "2026-03-09"


def test_the_table_for_a_spreadsheet(state: Path) -> None:
    answered(state, ADVANCED, date="2026-03-09")
    answered(state, SURVIVAL, "1.2.10")
    rows = list(csv.DictReader(io.StringIO(jobs(state, "--csv").stdout)))
    assert [row["job"] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    assert rows[2]["reason_code"] == "roi_empty"
    assert (rows[5]["answer"], rows[5]["probability"], rows[5]["warnings"]) == ("advanced", "0.8123", "4")
    assert (rows[5]["study_date"], rows[5]["study_instance_uid"]) == ("2026-03-09", "1.2.9")
    assert (rows[6]["answer"], rows[6]["probability"]) == ("dead", "0.25")
    assert datetime.fromisoformat(rows[0]["received"]).utcoffset() == timedelta(0)
    assert jobs(state, "--csv", "--json").exit_code == 2


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("zone", ["Europe/Berlin"], indirect=True)
def test_the_hour_that_comes_twice_is_told_apart(tmp_path: Path) -> None:
    for minutes in (0, 60):  # 02:30 in summer time, then 02:30 again
        then = datetime(2025, 10, 26, 0, 30, tzinfo=UTC) + timedelta(minutes=minutes)
        with Database(tmp_path / "ledger.sqlite") as database:
            Ledger(database, now=lambda then=then: then).open_job("1", "1.2", None, "1")  # type: ignore[misc]
    lines = [line.split()[1:3] for line in jobs(tmp_path).stdout.splitlines() if re.match(r"\d +2025", line)]
    assert lines == [["2025-10-26", "02:30+02"], ["2025-10-26", "02:30+01"]]


def test_a_clock_that_was_set_back_is_said_plainly(state: Path) -> None:
    assert "clock" not in jobs(state).stdout
    ahead = datetime.now(UTC) + timedelta(days=400)
    with Database(state / "ledger.sqlite") as database:
        job = Ledger(database, now=lambda: ahead).open_job("1.9", "1.2.9", "1.9", "1")
    last = jobs(state).stdout.splitlines()[-1]
    assert last.startswith(f"Job {job.id} has a time later than now (")
    assert "the clock was set back" in last


@pytest.mark.slow
def test_thousands_of_jobs_are_listed_in_a_moment(tmp_path: Path) -> None:
    with Database(tmp_path / "ledger.sqlite") as database, database.transaction():
        for n in range(2000):
            database.query(
                "INSERT INTO jobs (case_key, study_instance_uid, anchor, state, opened_at, updated_at, outcome)"
                " VALUES (?, ?, '1', 'delivered', ?, ?, ?)",
                (f"1.{n}", f"1.2.{n}", NOW.isoformat(), NOW.isoformat(), json.dumps(ADVANCED)),
            )
    before = time.process_time()
    shown = jobs(tmp_path).stdout.splitlines()
    assert sum(line.startswith(("1", "2", "3", "4", "5", "6", "7", "8", "9")) for line in shown) >= 2000
    assert shown[-1].startswith("2000 of 2000 jobs shown")
    assert time.process_time() - before < 20


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
