"""A protocol is fixed before a run: what it may contain, and what changes its hash."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lungstage.training.comparison import protocol as module
from lungstage.training.comparison.protocol import Protocol, ProtocolError, read_protocol
from lungstage.training.procedure import HARDENED
from lungstage.training.selection.registry import LABELS
from tests.conftest import ROOT


def said(tmp_path: Path, text: str) -> Protocol:
    (tmp_path / "p.toml").write_text(text)
    return read_protocol(tmp_path / "p.toml")


def test_the_default_compares_everything_with_the_frozen_default() -> None:
    found = read_protocol(None)
    assert found.selectors == tuple(LABELS)
    assert found.procedure == HARDENED
    assert set(found.tested) == {"anova", "mrmr", "mutual_information", "lasso", "rfe_lr", "random"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("folds = 2", "folds: .*greater than or equal to 3"),
        ("fold = 5", "fold: Extra inputs are not permitted"),
        ('selectors = ["gl_rfe", "anova", "relief"]', "selectors: there is no selector relief; known are gl_rfe, "),
        ('selectors = ["gl_rfe", "anova", "anova"]', "selectors: a selector is given twice"),
        ('selectors = ["anova", "lasso", "random"]', "gl_rfe and at least two others"),
        ('selectors = ["gl_rfe", "lasso"]', "gl_rfe and at least two others"),
        ('classifiers = ["forest"]', "classifiers"),
        ('comparators = ["gl_rfe"]', "gl_rfe is gl_rfe itself"),
        ('selectors = ["gl_rfe", "lasso", "random"]\ncomparators = ["anova"]', "anova is gl_rfe itself or not among"),
        ("folds = ", "is not TOML"),
    ],
)
def test_what_a_protocol_cannot_say_is_named(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        said(tmp_path, text)


def test_a_protocol_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="cannot be read"):
        read_protocol(tmp_path / "absent.toml")


def test_every_key_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "selection.md").read_text(encoding="utf-8")
    rows = text.split("| key of the protocol |")[1].split("\n\n")[0].splitlines()[2:]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])} == set(Protocol.model_fields)


def test_fewer_selectors_leave_fewer_comparators(tmp_path: Path) -> None:
    assert said(tmp_path, 'selectors = ["gl_rfe", "lasso", "boruta"]').tested == ("lasso",)


def test_the_hash_changes_with_anything_that_figures_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Protocol()
    others = ["seed = 1", "repeats = 2", "features = 14", "halves = 2", 'preset = "paper"', "alpha = 0.1"]
    digests = {default.digest(), *(said(tmp_path, text).digest() for text in others)}
    assert len(digests) == 1 + len(others)
    assert said(tmp_path, "seed = 0").digest() == default.digest(), "a default that is given changes nothing"
    turned = replace(HARDENED, selection=replace(HARDENED.selection, memory=0.1))
    monkeypatch.setattr(module, "PRESETS", {"hardened": turned})
    assert default.digest() not in digests, "the hash includes GL-RFE's settings"
