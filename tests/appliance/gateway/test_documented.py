"""docs/gateway.md says what the code does."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from lungstage.appliance.gateway.settings import GatewaySettings, Receive, Route, Stow
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
CODE = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "appliance" / "gateway").rglob("*.py"))


@pytest.mark.parametrize(
    ("heading", "model", "tables"),
    [("key", GatewaySettings, {"receive", "route"}), ("key of `[receive]`", Receive, {"stow"}),
     ("key of `[receive.stow]`", Stow, set()), ("key of `[[route]]`", Route, set())],
)  # fmt: skip
def test_every_setting_with_its_default(heading: str, model: type[BaseModel], tables: set[str]) -> None:
    table = TEXT.split(f"| {heading} | default | meaning |\n")[1].split("\n\n")[0]
    rows = {
        key: (default, meaning)
        for key, default, meaning in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", table, re.M)
    }
    assert set(rows) == set(model.model_fields) - tables
    for key, (default, meaning) in rows.items():
        field = model.model_fields[key]
        assert meaning == field.description
        if field.is_required():
            assert default == "required"
        elif field.default_factory is None:
            known = "none" if field.default is None else f"`{_in_toml(field.default)}`"
            assert default == known, key


def _in_toml(value: object) -> str:
    return "[]" if value == () else str(value).lower() if isinstance(value, bool) else str(value)


def test_every_event_at_its_level() -> None:
    table = TEXT.split("| event | level | what to do |\n")[1]
    told = {
        (event, level)
        for cell, level in re.findall(r"^\| (`[^|]*) \| (\w+) \|", table, re.MULTILINE)
        for event in re.findall(r"`(\w+)`", cell)
    }
    logged = {(event, level) for level, event in re.findall(r'logger\.(warning|error)\(\s*"(\w+)"', CODE)}
    assert told == logged
