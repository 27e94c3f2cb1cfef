"""docs/page.md and docs/notify.md list all settings with their defaults and meanings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from lungstage.appliance.notify.settings import Email, NotifySettings, Webhook
from lungstage.appliance.page.settings import PageSettings
from tests.conftest import ROOT


def written(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rows(page: str, heading: str) -> dict[str, list[str]]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text.split(f"| {heading} |")[1].split("\n\n")[0]
    found = (re.findall(r"[^|]+", line) for line in table.splitlines() if line.startswith("| `"))
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in found}


@pytest.mark.parametrize(
    ("page", "heading", "model", "tables"),
    [
        ("page.md", "key", PageSettings, ()),
        ("notify.md", "key of `[notify]`", NotifySettings, ("email", "webhook")),
        ("notify.md", "key of `[notify.email]`", Email, ()),
        ("notify.md", "key of `[notify.webhook]`", Webhook, ()),
    ],
)
def test_every_setting_is_there_with_its_default(
    page: str, heading: str, model: type[BaseModel], tables: tuple[str, ...]
) -> None:
    listed = rows(page, heading)
    assert list(listed) == [name for name in model.model_fields if name not in tables]
    for name, cells in listed.items():
        field = model.model_fields[name]
        if len(cells) > 1:
            assert cells[0] == ("required" if field.is_required() else written(field.default)), name
        if name != "tls":
            assert cells[-1] == field.description
