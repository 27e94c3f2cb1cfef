from __future__ import annotations

from pathlib import Path

import pytest

from appliance.bundle import load_bundle
from appliance.vocabulary import CONCEPTS
from export.bundle import pack
from training.run import Run

from .conftest import make_run


def card_of(run: Run) -> str:
    return pack(run, "made-up")[0]["MODEL_CARD.md"].decode()


@pytest.fixture(scope="module")
def text() -> str:
    return card_of(make_run())


def test_card_carries_the_runs_own_figures(text: str) -> None:
    for words in (
        "0.641 (0.552 to 0.726)", "98 advanced of 160 (61.3 %)", "35 (roi_touches_crop_edge)", "rows in the table: 195",
        "right in 61.3 %", "CC BY-NC 3.0", "Apache-2.0", "Stage IV is absent", "Nobody, 2020.", "ab" * 32,
        "advanced: 0.910", "early: 0.900", "0.310", "0.420", "Research use only", "at most 13.00", "above 5.00",
    ):  # fmt: skip
        assert words.lower() in text.lower(), words


def test_card_follows_the_figures(text: str) -> None:
    run = make_run()
    run.record["out_of_fold"]["auc"] = {"value": 0.777, "low": 0.701, "high": 0.811}
    run.record["table"]["positives"] = 40
    changed = card_of(run)
    assert "0.777 (0.701 to 0.811)" in changed
    assert "calling every case early is right in 75.0 %" in changed
    assert "0.777" not in text


def test_every_input_stands_with_unit_and_code(text: str) -> None:
    for name in make_run().model.features:
        (line,) = [line for line in text.splitlines() if f"`{name}`" in line and line.startswith("| ")]
        assert f"| {CONCEPTS[name].unit} |" in line
        assert (CONCEPTS[name].ibsi or "none") in line


def test_the_papers_figure_is_only_quoted_as_a_claim(text: str) -> None:
    (line,) = [line for line in text.splitlines() if "90.22" in line]
    assert "claim" in line
    assert "2606.04453" in line


def test_all_stages_present_says_so() -> None:
    run = make_run()
    run.record["cohort"]["stages_absent"] = []
    text = card_of(run)
    assert "absent from the cohort" not in text
    assert "III–IV" in text


def test_without_cut_rows_there_is_no_empty_comparison(text: str) -> None:
    run = make_run()
    run.record["cut_rows"] = None
    assert "all rows" not in card_of(run)
    assert "all rows" in text


def test_skew_is_shown_for_the_selected_features_alone(text: str) -> None:
    assert "was not compared" in text
    run = make_run()
    first = run.model.features[0]
    run.record["cohort"]["skew"] = {
        "case": "the IBSI phantom",
        "cause": "rounder masks",
        "relative": {first: -0.005, "original_not_selected": 1.0},
        "in_iqr": {first: -0.25, "original_not_selected": 1.0},
    }
    shown = card_of(run)
    assert f"| `{first}` | -0.50 % | -0.250 |" in shown
    assert "the IBSI phantom" in shown
    assert "not_selected" not in shown


def test_card_of_a_bundle_is_the_hashed_one(packed: Path, run: Run) -> None:
    files, _ = pack(run, packed.name)
    assert (packed / "MODEL_CARD.md").read_bytes() == files["MODEL_CARD.md"]
    load_bundle(packed, self_test=False)
