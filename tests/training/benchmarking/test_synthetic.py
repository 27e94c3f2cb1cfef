"""Generated tables contain the described signal and no other; the benchmark counts correctly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from lungstage.training import cli
from lungstage.training.benchmarking import benchmark
from lungstage.training.benchmarking.synthetic import RELEVANT, SIGNALS, make_table
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.procedure import QUICK


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_same_seed_gives_the_same_table(signal) -> None:
    a, b, other = make_table(signal, 3), make_table(signal, 3), make_table(signal, 4)
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert not np.array_equal(a.values, other.values)
    assert a.values.shape == (200, 106)
    assert len(a.relevant) == RELEVANT[signal]
    assert 0.3 < a.labels.mean() < 0.7


def test_features_come_in_correlated_blocks() -> None:
    correlation = np.abs(spearmanr(make_table("linear", 0, rows=2000).values).statistic)
    np.fill_diagonal(correlation, 0.0)
    assert np.median(correlation.max(axis=0)) > 0.5
    assert np.median(correlation) < 0.3


def _alone(signal, seed: int) -> np.ndarray:
    """Correlation of each feature, and of the product of each pair of relevant ones, with the class."""
    truth = make_table(signal, seed, rows=10_000)
    x = Standardise().fit_transform(truth.values)
    return np.abs(np.corrcoef(np.column_stack([x, truth.labels]), rowvar=False)[-1, :-1])


def test_an_interaction_leaves_nothing_in_single_features() -> None:
    assert _alone("interaction", 5).max() < 0.06
    assert _alone("linear", 5).max() > 0.2


@pytest.mark.parametrize("signal", SIGNALS)
def test_nothing_but_the_relevant_features_matters(signal) -> None:
    """A model of the relevant features and their products is better than a model of all other features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import PolynomialFeatures

    truth = make_table(signal, 7, rows=6000)
    standardised = Standardise().fit_transform(truth.values)
    x = PolynomialFeatures(2, include_bias=False).fit_transform(standardised[:, truth.relevant])
    model = LogisticRegression(max_iter=500).fit(x[:3000], truth.labels[:3000])
    known = roc_auc_score(truth.labels[3000:], model.decision_function(x[3000:]))
    assert 0.8 < known < 0.92
    irrelevant = np.delete(standardised, truth.relevant, axis=1)
    other = LogisticRegression(max_iter=500).fit(irrelevant[:3000], truth.labels[:3000])
    assert known > roc_auc_score(truth.labels[3000:], other.decision_function(irrelevant[3000:])) + 0.02


def test_the_benchmark_counts_recall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With selectors that select all relevant features, only irrelevant ones, or half of the relevant ones."""
    truths = {(signal, seed): make_table(signal, seed) for signal in SIGNALS for seed in range(4)}

    def knowing(name, procedure, tasks, labels):
        truth = truths[SIGNALS[tasks[0].seed[1]], tasks[0].seed[0]]
        wrong = np.setdiff1d(np.arange(106), truth.relevant)
        half = len(truth.relevant) // 2
        chosen = {"gl_rfe": truth.relevant, "anova": wrong[:15]}.get(name, truth.relevant[:half])
        return chosen[None]

    monkeypatch.setattr(benchmark, "select", knowing)
    result = benchmark.benchmark_selectors(QUICK, 4, lambda done, total: None, workers=1)
    for signal in SIGNALS:
        found = result["signals"][signal]
        assert found["gl_rfe"] == {"recall": {"value": 1.0, "low": 1.0, "high": 1.0}}
        assert found["anova"]["recall"]["value"] == 0.0
        assert found["anova"]["difference"]["value"] == 1.0
        assert found["lasso"]["recall"]["value"] == 0.5
    assert benchmark.in_order(result)[0] == "gl_rfe"
    assert benchmark.in_order(result)[-1] == "anova"


def test_the_command_writes_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def random(name, procedure, tasks, labels):
        return np.random.default_rng(len(name)).choice(106, (1, 15), replace=False)

    monkeypatch.setattr(benchmark, "select", random)
    monkeypatch.setattr(benchmark, "cpu_count", lambda: 1)
    done = CliRunner().invoke(cli.app, ["benchmark-selectors", "--tables", "2", "-o", str(tmp_path / "a" / "s.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "a" / "s.json").read_text())
    assert set(written["signals"]) == set(SIGNALS)
    for label in written["labels"].values():
        assert label in done.output


@pytest.mark.slow
def test_gl_rfe_finds_an_interaction_that_linear_selectors_do_not() -> None:
    """One pair among 106 features, by a coarser schedule than the default; no setting was tuned on this table."""
    from lungstage.training.evaluation.methods import select
    from lungstage.training.procedure import HARDENED
    from lungstage.training.selection.elimination import Task

    truth = make_table("interaction", 901, relevant=2)
    task = Task(Standardise().fit_transform(truth.values), np.arange(200), (901,))
    settings = replace(HARDENED, selection=replace(HARDENED.selection, step=0.4, fine_step=8))
    recall = {
        name: np.isin(truth.relevant, select(name, settings, [task], truth.labels)[0]).mean()
        for name in ("gl_rfe", "lasso", "anova")
    }
    assert recall["gl_rfe"] == 1.0
    assert max(recall["lasso"], recall["anova"]) < 1.0
