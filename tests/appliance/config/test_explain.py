"""The explained settings are those that a daemon would use, and the template can be loaded."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.config import explain
from lungstage.appliance.config.settings import GROUPS, Settings, SettingsError, load_settings
from tests.conftest import ROOT

FOLDERS = {"LUNGSTAGE_INBOX": "/i", "LUNGSTAGE_OUTBOX": "/o", "LUNGSTAGE_BUNDLE": "/b"}


def by_name(config: Path | None, environment: dict[str, str]) -> dict[str, explain.Explained]:
    return {one.name: one for one in explain.explain(config, environment)}


def test_what_is_in_force_is_what_a_daemon_would_have_and_its_source_is_named(tmp_path: Path) -> None:
    config = tmp_path / "lungstage.toml"
    config.write_text('settle_seconds = 1.5\nscan_seconds = 2.5\noutbox = "/from-file"\n')
    environment = FOLDERS | {"LUNGSTAGE_SCAN_SECONDS": "7"}
    told = by_name(config, environment)
    settings = load_settings(config, None, environment)
    assert {name: one.value for name, one in told.items()} == settings.model_dump(mode="json")
    assert {name: one.source for name, one in told.items() if one.source != "default"} == {
        "inbox": "environment LUNGSTAGE_INBOX",
        "outbox": "environment LUNGSTAGE_OUTBOX",
        "bundle": "environment LUNGSTAGE_BUNDLE",
        "settle_seconds": f"file {config}",
        "scan_seconds": "environment LUNGSTAGE_SCAN_SECONDS",
    }
    assert told["state"].value == "/.lungstage-o"


def test_a_folder_that_is_not_given_is_unset_and_nothing_is_made_up_for_it() -> None:
    told = by_name(None, {})
    assert {name for name, one in told.items() if one.source == "unset"} == {"inbox", "outbox", "bundle"}
    assert [told[name].value for name in ("inbox", "outbox", "bundle", "state")] == [None] * 4
    assert told["workers"].value == load_settings(None, None, FOLDERS).workers
    given = by_name(None, {"LUNGSTAGE_STATE": "/s", "LUNGSTAGE_OUTBOX": "/o"})
    assert (given["state"].value, given["state"].source) == ("/s", "environment LUNGSTAGE_STATE")


def test_what_cannot_be_used_is_refused_as_a_daemon_would(tmp_path: Path) -> None:
    config = tmp_path / "lungstage.toml"
    config.write_text("setle_seconds = 1\n")
    with pytest.raises(SettingsError, match="did you mean 'settle_seconds'"):
        explain.explain(config, {})
    with pytest.raises(SettingsError, match="workers"):
        explain.explain(None, {"LUNGSTAGE_WORKERS": "many"})


def test_the_page_of_the_settings_says_the_same_of_defaults_and_meaning() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", text, flags=re.MULTILINE)
    told = {one.name: (one.name, one.default, one.meaning) for one in explain.explain(None, {})}
    assert [(name, default.replace("`", ""), meaning) for name, default, meaning in rows] == [
        told[name] for names in GROUPS.values() for name in names
    ]
    assert re.findall(r"^### ((?:Main|Advanced).*)$", text, flags=re.MULTILINE) == list(GROUPS)


def test_every_setting_is_in_one_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(Settings.model_fields)


def test_the_template_loads_as_it_is_and_with_every_comment_taken_away(tmp_path: Path) -> None:
    text = explain.template()
    config = tmp_path / "lungstage.toml"
    config.write_text(text)
    as_it_is = load_settings(config, None, {})
    assert as_it_is == load_settings(None, tomllib.loads(text), {})
    assert set(tomllib.loads(text)) == {"inbox", "outbox", "bundle", "state"}

    config.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    everything = load_settings(config, None, {})
    assert set(tomllib.loads(config.read_text())) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if not field.is_required() and field.default_factory is None and field.default is not None:
            assert getattr(everything, name) == field.default, name
    for field in Settings.model_fields.values():
        assert str(field.description).split()[0] in text


def test_the_template_says_what_every_number_counts() -> None:
    told = dict(re.findall(r"((?:^# .*\n)+)(?:# )?(\w+) = ", explain.template(), flags=re.MULTILINE))
    notes = {name: " ".join(lines.replace("# ", "").split()) for lines, name in told.items()}
    assert set(notes) == set(Settings.model_fields)
    counted = {name for name, note in notes.items() if re.search(r"\bin (seconds|MB|mm)\b", note)}
    numbers = {
        name
        for name, value in Settings.model_fields.items()
        if "float" in str(value.annotation) or "int" in str(value.annotation)
    }
    uncounted = {"prevalence", "perturbations", "workers", "max_attempts", "metrics_port"}
    assert numbers - counted == uncounted, "only a share, counts and a port have no unit"
    assert all(
        ("seconds" in note) == (name.endswith("_seconds") or name == "missing_neighbour_wait")
        for name, note in notes.items()
        if name in counted
    )


def test_a_bundle_that_is_shipped_can_be_set_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "lungstage.toml"
    config.write_text('inbox = "/i"\noutbox = "/o"\nbundle = "lung1-stage"\n')
    assert (load_settings(config, None, {}).bundle / "model.onnx").is_file()
    (tmp_path / "lung1-stage").mkdir()
    assert load_settings(config, None, {}).bundle == tmp_path / "lung1-stage", "a folder of that name takes precedence"


def test_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGSTAGE_WORKERS", "3")
    run = CliRunner().invoke
    words = run(app, ["settings", "--explain"])
    assert words.exit_code == 0
    assert words.stdout == run(app, ["settings"]).stdout
    assert "workers = 3    [environment LUNGSTAGE_WORKERS; default: one per processor, at most 4]\n" in words.stdout
    assert "inbox = none    [required, and not set]\n" in words.stdout
    rows = json.loads(run(app, ["settings", "--json"]).stdout)
    assert [row["name"] for row in rows] == list(Settings.model_fields)
    assert set(rows[0]) == {"name", "value", "source", "default", "meaning"}
    assert run(app, ["settings", "--template"]).stdout == explain.template() + "\n"
    assert run(app, ["settings", "--template", "--json"]).exit_code == 2
