"""What the documentation promises is what the code does."""

from __future__ import annotations

import re

from appliance.errors import ReasonCode
from appliance.settings import Settings
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
