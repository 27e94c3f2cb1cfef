"""The figures are scikit-learn's, and a weight is a repeated row."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from training.metrics import METRICS, auc, intervals, nogueira_stability, resamples, score


def _predictions(repeats: int = 3, n: int = 80, seed: int = 0):
    rng = np.random.default_rng(seed)
    advanced = rng.random(n) < 0.6
    p = np.round(np.clip(rng.normal(0.45 + 0.15 * advanced, 0.2, (repeats, n)), 0.01, 0.99), 2)  # rounded: ties
    fold = np.stack([rng.permutation(n) % 5 for _ in range(repeats)])
    return p, advanced, fold


def test_the_figures_are_those_of_scikit_learn() -> None:
    p, advanced, _ = _predictions()
    found = score(p, advanced, np.zeros_like(p, dtype=int), np.ones((1, 80)))
    macro = {"average": "macro", "zero_division": 0.0}
    expected = {
        "auc": [oracle.roc_auc_score(advanced, q) for q in p],
        "accuracy": [oracle.accuracy_score(advanced, q >= 0.5) for q in p],
        "balanced_accuracy": [oracle.balanced_accuracy_score(advanced, q >= 0.5) for q in p],
        "macro_precision": [oracle.precision_score(advanced, q >= 0.5, **macro) for q in p],
        "macro_recall": [oracle.recall_score(advanced, q >= 0.5, **macro) for q in p],
        "macro_f1": [oracle.f1_score(advanced, q >= 0.5, **macro) for q in p],
        "brier": [oracle.brier_score_loss(advanced, q) for q in p],
    }
    assert set(expected) == set(METRICS)
    for name, values in expected.items():
        assert found[name][0] == pytest.approx(np.mean(values), abs=1e-12), name


def test_a_class_that_is_never_predicted_counts_zero() -> None:
    advanced = np.arange(20) < 12
    found = score(np.full((1, 20), 0.6), advanced, np.zeros((1, 20), dtype=int), np.ones((1, 20)))
    assert found["macro_precision"][0] == pytest.approx(0.3)
    assert found["macro_f1"][0] == pytest.approx(0.375)
    assert found["auc"][0] == 0.5


def test_auc_compares_within_a_fold_only() -> None:
    """Folds whose scores lie on different levels are each ranked perfectly."""
    advanced = np.array([False, True, False, True])
    fold = np.array([0, 0, 1, 1])
    assert auc(np.array([0.1, 0.2, 0.8, 0.9]), advanced, fold, np.ones((1, 4)))[0] == 1.0
    assert auc(np.array([0.1, 0.2, 0.8, 0.9]), advanced, fold * 0, np.ones((1, 4)))[0] == 0.75


def test_weights_are_repeated_rows() -> None:
    p, advanced, fold = _predictions()
    weights = resamples(80, np.random.SeedSequence(1), count=4)
    found = score(p, advanced, fold, weights)
    for i, row in enumerate(weights):
        drawn = np.repeat(np.arange(80), row.astype(int))
        alone = score(p[:, drawn], advanced[drawn], fold[:, drawn], np.ones((1, len(drawn))))
        for name in METRICS:
            assert found[name][i] == pytest.approx(alone[name][0], abs=1e-12)


def test_the_interval_holds_the_value_and_narrows_with_patients() -> None:
    widths = []
    for n in (60, 960):
        p, advanced, fold = _predictions(n=n)
        figure = intervals(score(p, advanced, fold, resamples(n, np.random.SeedSequence(0))))["auc"]
        assert figure["low"] < figure["value"] < figure["high"]
        widths.append(figure["high"] - figure["low"])
    assert 2.5 < widths[0] / widths[1] < 6.5, "four times narrower for sixteen times as many"


def test_stability() -> None:
    same = np.tile(np.arange(20) < 5, (8, 1))
    assert nogueira_stability(same) == 1.0
    rng = np.random.default_rng(0)
    chance = np.array([rng.permutation(20) < 5 for _ in range(500)])
    assert nogueira_stability(chance) == pytest.approx(0, abs=0.02)
    # Two disjoint halves: every variance is 1/2, the expected one 1/4.
    assert nogueira_stability(np.array([[True, False], [False, True]])) == pytest.approx(-1.0)
