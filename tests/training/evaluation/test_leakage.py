"""Leaks give good figures for noise; the correct evaluation does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lungstage.training.cohorts.cohort import Cohort
from lungstage.training.evaluation.evaluate import evaluate
from lungstage.training.evaluation.leakage import METRICS, TIMES, VARIANTS, Rows, demonstrate, duplicate, smote
from lungstage.training.evaluation.methods import GL_RFE
from lungstage.training.model.network import NetworkSettings
from lungstage.training.procedure import QUICK
from tests.training.tables import make_cohort

PROCEDURE = replace(
    QUICK, folds=3, selection=replace(QUICK.selection, features=8, members=5), network=NetworkSettings(max_epochs=40)
)


def _silent(step: str, done: int, total: int) -> None:
    assert 0 <= done <= total, step


@pytest.fixture(scope="module")
def noise() -> Cohort:
    """Many features without any signal."""
    return make_cohort(n=60, signal=0.0, seed=1, features=60)


@pytest.fixture(scope="module")
def leakage(noise: Cohort) -> dict[str, Any]:
    evaluation, _ = evaluate(noise, PROCEDURE, _silent, (GL_RFE,))
    return demonstrate(noise, PROCEDURE, _silent, evaluation["methods"][GL_RFE]["metrics"])


def test_leaks_inflate_and_honesty_does_not(leakage: dict[str, Any]) -> None:
    assert leakage["honest"]["auc"]["low"] <= 0.5 <= leakage["honest"]["auc"]["high"]
    found = {one["name"]: one["metrics"] for one in leakage["variants"]}
    for name in ("smote_before_split", "duplicates_before_split", "all_before_split"):
        assert found[name]["auc"]["low"] > 0.6, name
    assert found["all_before_split"]["auc"]["value"] > max(
        found[name]["auc"]["value"] for name in ("selection_before_split", "smote_before_split")
    )
    assert found["all_before_split"]["accuracy"]["value"] > 0.8


def test_features_selected_on_all_rows_make_something_of_nothing(leakage: dict[str, Any]) -> None:
    """On average over several tables of noise, because one table of sixty patients gives a wide interval."""
    tables = [make_cohort(n=60, signal=0.0, seed=seed, features=60) for seed in (2, 3)]
    wrong = [leakage["variants"][0]]
    wrong += [
        demonstrate(table, PROCEDURE, _silent, leakage["honest"], VARIANTS[:1])["variants"][0] for table in tables
    ]
    assert {one["name"] for one in wrong} == {"selection_before_split"}
    assert np.mean([one["metrics"]["auc"]["value"] for one in wrong]) > 0.6


def test_every_figure_is_labelled_wrong(leakage: dict[str, Any]) -> None:
    assert "wrong on purpose" in leakage["warning"]
    assert [one["name"] for one in leakage["variants"]] == [one.name for one in VARIANTS]
    for one in leakage["variants"]:
        assert one["what_is_wrong"].endswith(".")
        assert tuple(one["metrics"]) == METRICS == tuple(leakage["honest"])
    assert len({one["label"] for one in leakage["variants"]}) == 4
    assert all(len(one["label"]) <= 40 for one in leakage["variants"])


def _rows(missing: bool = True) -> Rows:
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=(50, 6)) * np.arange(1, 7))
    if missing:
        values[4, 2] = np.nan
    return Rows(values, np.arange(50) < 20, rng.normal(size=(50, 1)))


def test_smote_lies_between_rows_of_a_class() -> None:
    table = _rows()
    grown = smote(table, 90, np.random.default_rng(1))
    assert [(grown.labels == label).sum() for label in (False, True)] == [90, 90]
    np.testing.assert_array_equal(grown.values[:50], table.values)
    assert np.isfinite(grown.values[50:]).all()
    filled = np.where(np.isnan(table.values), np.nanmedian(table.values, axis=0), table.values)
    for row, label in zip(grown.values[50:60], grown.labels[50:60], strict=True):
        own = filled[table.labels == label]
        a, b = np.triu_indices(len(own), 1)
        # The row is on the line through two original rows: its distance from the line is 0.
        along = own[b] - own[a]
        share = ((row - own[a]) * along).sum(axis=1) / (along**2).sum(axis=1)
        rest = np.abs(own[a] + share[:, None] * along - row).max(axis=1)
        best = np.argmin(rest)
        assert rest[best] < 1e-8 * np.abs(row).max()
        assert -1e-9 <= share[best] <= 1 + 1e-9
    assert grown.covariates is not None
    assert grown.covariates.shape == (180, 1)


def test_duplicates_are_rows_of_the_table() -> None:
    table = _rows(missing=False)
    grown = duplicate(table, TIMES * 30, np.random.default_rng(1))
    assert [(grown.labels == label).sum() for label in (False, True)] == [90, 90]
    known = {(tuple(row), label) for row, label in zip(table.values, table.labels, strict=True)}
    assert {(tuple(row), label) for row, label in zip(grown.values, grown.labels, strict=True)} == known
