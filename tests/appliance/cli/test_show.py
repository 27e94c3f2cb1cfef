"""``lungstage show``: the answer and its warnings first, then the history, and UIDs only on request."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.ledger import Ledger
from tests.appliance.cli.test_jobs import ADVANCED

STUDY, SERIES, SR = "1.2.840.99.1", "1.2.840.99.2", "2.25.777"
NEEDED = ({"kind": "CT", "uid": "1.2.840.99.3", "digest": "aaaa", "pixels": "bbbb"},)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "120")
    with Database(tmp_path / "ledger.sqlite") as database:
        ledger = Ledger(database)
        job = ledger.open_job("1.5", STUDY, SERIES, "1.5.1")
        ledger.note_study(job.id, "2026-03-09", "key")
        ledger.ready(job.id, content="c", fingerprint="f" * 64, bundle_digest="b" * 64, instances=NEEDED)
        Claims(ledger).claim(timedelta(hours=1))
        Claims(ledger).report_ready(job.id, ADVANCED, SR, "2.25.778", {f"SR-{SR}.dcm": "d" * 64})
        Claims(ledger).delivered(job.id, Path(f"/outbox/SR-{SR}.dcm"), {f"SR-{SR}.dcm": "d" * 64})
        other = ledger.open_job("1.6", "1.2.4", "1.6", "1.6.1")
        ledger.refuse(other.id, Reason(ReasonCode.ROI_EMPTY, "It is empty."), content="c")
    return tmp_path


def show(state: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["show", *arguments, "--state", str(state)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_answer_and_warnings_lead(state: Path) -> None:
    lines = show(state, "1").splitlines()
    assert lines[0] == "job 1: research use only"
    assert lines[1] == "advanced, P(advanced) 0.81"
    assert lines[2] == "warnings: 4"
    joined = " ".join(" ".join(lines[3:12]).split())
    for sentence in ("Outside the range seen in training", "GTVn (number 2)", "- One.", "- Two."):
        assert sentence in joined
    assert "delivered since" in joined
    assert "of a study of 2026-03-09" in joined


def test_uids_hashes_and_paths_are_for_those_who_ask(state: Path) -> None:
    secrets = (STUDY, SERIES, SR, "1.2.840.99.3", "f" * 12, "b" * 64, "d" * 64, "/outbox")
    short, full = show(state, "1"), show(state, "1", "--full")
    joined = "".join(part.strip(" │") for part in full.splitlines())
    assert [one for one in secrets if one in short] == []
    assert [one for one in secrets if one not in joined] == []
    assert "used: 1 instances; delivered: SR" in short
    assert show(state, "1", "--json") == show(state, "1", "--json", "--full")


def test_a_refusal_leads_with_its_reason(state: Path) -> None:
    lines = show(state, "2").splitlines()
    assert lines[1:3] == ["no answer", "It is empty. [roi_empty]"]
