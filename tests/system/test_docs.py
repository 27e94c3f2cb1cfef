"""What the documentation promises is what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import typer.main
from prometheus_client import generate_latest

from lungstage.appliance.cli.main import app
from lungstage.appliance.commissioning.plan import Plan, Thresholds
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.daemon.prometheus import PrometheusMeter
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.audit import RECOVERED
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.heartbeat import Heartbeat
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import utc_now
from tests.conftest import ROOT


def test_every_reason_code_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "reason-codes.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)
    documented = {code for cell in first_cells for code in re.findall(r"`(\w+)`", cell)}
    assert documented == set(ReasonCode)


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, flags=re.MULTILINE))
    assert set(rows) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if not field.is_required() and field.default_factory is None and field.default is not None:
            assert rows[name] == f"`{field.default}`"


class TestOperating:
    """docs/operating.md."""

    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")

    def test_commands_exist_with_their_options(self) -> None:
        commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
        rows = re.findall(r"^\| `lungstage (\w+)[^`]*` \| (.*) \|$", self.text, flags=re.MULTILINE)
        assert rows
        for name, meaning in rows:
            options = {option for parameter in commands[name].params for option in parameter.opts}
            assert set(re.findall(r"--[a-z]+", meaning)) <= options, name

    def test_every_metric_is_there_and_no_other(self, tmp_path: Path) -> None:
        Database(tmp_path / "ledger.sqlite").close()
        beat = Heartbeat(utc_now(), 60.0, "1", "b", watch="poll", files=0, in_hand=0, overdue=0, canary=True)
        heartbeat.write(tmp_path, beat)
        page = generate_latest(PrometheusMeter(tmp_path).registry).decode()
        first_cells = re.findall(r"^\| (`lungstage_[^|]*) \|", self.text, flags=re.MULTILINE)
        documented = {name for cell in first_cells for name in re.findall(r"`(\w+)(?:\{[\w,]+\})?`", cell)}
        assert documented == set(re.findall(r"^# TYPE (\w+) ", page, flags=re.MULTILINE))

    def test_every_state_is_there(self) -> None:
        table = self.text.split("## States of a job")[1].split("## Watch")[0]
        first_cells = re.findall(r"^\| (`[^|]*) \|", table, flags=re.MULTILINE)
        assert {state for cell in first_cells for state in re.findall(r"`(\w+)`", cell)} == set(JobState)

    def test_events_are_logged_at_their_level(self) -> None:
        code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "appliance").rglob("*.py"))
        rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (warning|error) \|", self.text, flags=re.MULTILINE)
        assert rows
        for cell, level in rows:
            for event in re.findall(r"\w+", cell):
                assert f'logger.{level}("{event}"' in code, event

    def test_settings_that_are_named_exist(self) -> None:
        named = set(re.findall(r"`((?!lungstage_)\w+_(?:seconds|mb|port|format))`", self.text))
        assert named <= set(Settings.model_fields)
        assert "alert_after_seconds" in named


def test_every_threshold_of_a_commissioning_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "commissioning.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, flags=re.MULTILINE))
    assert rows == {name: str(field.default) for name, field in Thresholds.model_fields.items()}
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert Plan.model_validate(tomllib.loads(example)).pairs == Path("pairs.csv")


def test_pages_link_to_pages_that_are_there() -> None:
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_event_and_every_change_that_can_be_told_is_documented() -> None:
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    events, changes = text.split("## Replay")
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "appliance").glob("*.py")}
    told = {f"job_{state}" for state in JobState} - {"job_claimed"}
    told |= {f"job_{event}" for event in re.findall(r'_tell\("(\w+)"', sources["ledger"])}
    told |= {f"job_{event}" for event in re.findall(r'_move\([^)]*, "(\w+)"', sources["ledger"])}
    told |= set(re.findall(r'audit\.write\(\s*"(\w+)"', "".join(sources.values()))) | {RECOVERED}
    assert documented(events) >= told
    named = "".join(sources[name] for name in ("differences", "originals", "replay"))
    kinds = {kind for name in ("Change", "changed") for kind in re.findall(rf'\b{name}\(\s*"(\w+)"', named)}
    kinds |= {"slice_missing", "roi_missing", "feature", "contribution"}  # put together from parts
    assert documented(changes) == kinds


def documented(text: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}
