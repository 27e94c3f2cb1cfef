"""The figures equal scikit-learn's, and a weight counts like a repeated row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t as student
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from lungstage.training.evaluation.curves import (
    RATES,
    THRESHOLDS,
    curves,
    net_benefit,
    net_benefit_of_all,
    true_positive_rates,
)
from lungstage.training.evaluation.metrics import (
    METRICS,
    auc,
    corrected_interval,
    fold_aucs,
    intervals,
    resamples,
    score,
)
from lungstage.training.evaluation.reliability import bins_for, recalibration, reliability
from lungstage.training.evaluation.stability import nogueira


def _predictions(repeats: int = 3, n: int = 80, seed: int = 0, digits: int = 2):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.6
    p = np.clip(rng.normal(0.45 + 0.15 * positive, 0.2, (repeats, n)), 0.01, 0.99)
    fold = np.stack([rng.permutation(n) % 5 for _ in range(repeats)])
    return np.round(p, digits), positive, fold  # rounding makes ties


def _slope(p, positive) -> float:
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit(p)[:, None], positive)
    return float(fitted.coef_[0, 0])


def test_the_figures_are_those_of_scikit_learn() -> None:
    p, positive, _ = _predictions()
    found = score(p, positive, np.zeros_like(p, dtype=int), np.ones((1, 80)))
    macro = {"average": "macro", "zero_division": 0.0}
    expected = {
        "auc": [oracle.roc_auc_score(positive, q) for q in p],
        "accuracy": [oracle.accuracy_score(positive, q >= 0.5) for q in p],
        "balanced_accuracy": [oracle.balanced_accuracy_score(positive, q >= 0.5) for q in p],
        "macro_precision": [oracle.precision_score(positive, q >= 0.5, **macro) for q in p],
        "macro_recall": [oracle.recall_score(positive, q >= 0.5, **macro) for q in p],
        "macro_f1": [oracle.f1_score(positive, q >= 0.5, **macro) for q in p],
        "sensitivity": [oracle.recall_score(positive, q >= 0.5) for q in p],
        "specificity": [oracle.recall_score(~positive, q < 0.5) for q in p],
        "brier": [oracle.brier_score_loss(positive, q) for q in p],
        "calibration_slope": [_slope(q, positive) for q in p],
        "ece": [np.mean([np.abs(a - b) for a, b in zip(*_bins(q, positive, 2), strict=True)]) for q in p],
    }
    assert tuple(expected) == METRICS
    for name, values in expected.items():
        tolerance = 1e-4 if name == "calibration_slope" else 1e-12
        assert found[name][0] == pytest.approx(np.mean(values), abs=tolerance), name


def _bins(p, positive, bins: int):
    """Make bins of equal size; rows with equal predictions share their positives evenly."""
    spread = np.array([positive[p == value].mean() for value in p])
    order = np.argsort(p, kind="stable")
    return tuple([part.mean() for part in np.split(values[order], bins)] for values in (p, spread))


def test_a_class_that_is_never_predicted_counts_zero() -> None:
    positive = np.arange(20) < 12
    found = score(np.full((1, 20), 0.6), positive, np.zeros((1, 20), dtype=int), np.ones((1, 20)))
    assert found["macro_precision"][0] == pytest.approx(0.3)
    assert found["macro_f1"][0] == pytest.approx(0.375)
    assert found["specificity"][0] == 0
    assert found["auc"][0] == 0.5
    assert found["ece"][0] == pytest.approx(0, abs=1e-12), "the prediction is the prevalence"


def test_auc_compares_within_a_fold_only() -> None:
    """Two folds with different levels of scores: each fold alone is ranked perfectly."""
    positive = np.array([False, True, False, True])
    fold = np.array([0, 0, 1, 1])
    assert auc(np.array([0.1, 0.2, 0.8, 0.9]), positive, fold, np.ones((1, 4)))[0] == 1.0
    assert auc(np.array([0.1, 0.2, 0.8, 0.9]), positive, fold * 0, np.ones((1, 4)))[0] == 0.75


def test_weights_are_repeated_rows() -> None:
    p, positive, fold = _predictions()
    weights = resamples(80, np.random.SeedSequence(1), count=4)
    found = score(p, positive, fold, weights)
    roc, benefit = true_positive_rates(p[0], positive, fold[0], weights), net_benefit(p[0], positive, weights)
    for i, row in enumerate(weights):
        drawn = np.repeat(np.arange(80), row.astype(int))
        one = np.ones((1, len(drawn)))
        alone = score(p[:, drawn], positive[drawn], fold[:, drawn], one)
        for name in METRICS:
            assert found[name][i] == pytest.approx(alone[name][0], abs=1e-6 if "slope" in name else 1e-12), name
        repeated = true_positive_rates(p[0, drawn], positive[drawn], fold[0, drawn], one)[0]
        np.testing.assert_allclose(roc[i], repeated, atol=1e-12)
        np.testing.assert_allclose(benefit[i], net_benefit(p[0, drawn], positive[drawn], one)[0], atol=1e-12)


def test_the_interval_holds_the_value_and_narrows_with_patients() -> None:
    widths = []
    for n in (60, 960):
        p, positive, fold = _predictions(n=n)
        found = intervals(score(p, positive, fold, resamples(n, np.random.SeedSequence(0), count=500)))
        for name, figure in found.items():
            assert figure["low"] <= figure["value"] <= figure["high"], name
        widths.append(found["auc"]["high"] - found["auc"]["low"])
    assert 2.5 < widths[0] / widths[1] < 6.5, "sixteen times as many patients give an interval four times narrower"


def test_the_slope_says_whether_predictions_are_too_bold() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0.3, 1.5, 4000)
    positive, fold, one = rng.random(4000) < expit(log_odds), np.zeros(4000, dtype=int), np.ones((1, 4000))
    for factor in (0.5, 1.0, 2.0):
        slope, intercept = recalibration(expit(factor * log_odds + 0.7), positive, fold, one)
        assert slope[0] == pytest.approx(1 / factor, rel=0.1)
        assert intercept[0] == pytest.approx(-0.7 / factor, abs=0.15)


def test_the_slope_is_nought_where_nothing_is_said_and_large_where_classes_are_parted() -> None:
    positive = np.arange(60) % 3 > 0
    fold = np.arange(60) // 20
    said = np.array([0.66, 0.67, 0.65])[fold]  # the prevalence of each fold, as a majority vote gives
    weights = resamples(60, np.random.SeedSequence(2), count=50)
    slope, intercept = recalibration(said, positive, fold, weights)
    assert not slope.any()
    np.testing.assert_allclose(expit(intercept), weights @ positive / 60)
    slope, intercept = recalibration(np.where(positive, 0.6, 0.4), positive, fold, weights)
    assert np.isfinite(slope).all()
    assert np.isfinite(intercept).all()
    assert slope.min() > 5


def test_there_are_enough_patients_in_a_bin() -> None:
    assert [bins_for(n) for n in (30, 89, 195, 300, 5000)] == [2, 2, 6, 10, 10]
    predicted, observed = reliability(np.full(60, 0.3), np.arange(60) < 18, np.ones((1, 60)), 2)
    np.testing.assert_allclose(predicted, 0.3)
    np.testing.assert_allclose(observed, 0.3, err_msg="equal predictions are not told apart by their order")


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_the_area_under_the_curve_is_the_auc(digits: int) -> None:
    p, positive, fold = _predictions(n=300, digits=digits)
    weights = resamples(300, np.random.SeedSequence(3), count=2)
    rates = true_positive_rates(p[0], positive, fold[0], weights)
    assert (np.diff(rates, axis=1) >= -1e-12).all()
    np.testing.assert_allclose(rates[:, -1], 1.0)
    np.testing.assert_allclose(np.trapezoid(rates, RATES, axis=1), auc(p[0], positive, fold[0], weights), atol=0.006)


def test_the_curve_is_that_of_scikit_learn() -> None:
    _, positive, fold = _predictions(n=300)
    p = expit(np.random.default_rng(1).normal(size=300) + positive)
    found = true_positive_rates(p, positive, fold[0] * 0, np.ones((1, 300)))[0]
    false, true, _ = oracle.roc_curve(positive, p, drop_intermediate=False)
    np.testing.assert_allclose(found, [true[false <= rate + 1e-9].max() for rate in RATES], atol=1e-6)


def test_net_benefit_is_true_positives_less_false_ones_at_the_odds() -> None:
    p, positive, _ = _predictions(n=50)
    found = net_benefit(p[0], positive, np.ones((1, 50)))[0]
    for t, value in zip(THRESHOLDS, found, strict=True):
        acted = p[0] >= t
        assert value == pytest.approx((acted & positive).mean() - (acted & ~positive).mean() * t / (1 - t))
    prevalence = positive.mean()
    np.testing.assert_allclose(
        net_benefit_of_all(positive), prevalence - (1 - prevalence) * THRESHOLDS / (1 - THRESHOLDS), atol=1e-6
    )


def test_every_curve_lies_in_its_band() -> None:
    p, positive, fold = _predictions(n=200)
    found = curves(p, positive, fold, resamples(200, np.random.SeedSequence(5), count=300))
    for name, middle in (("roc", "true_positive_rate"), ("decision_curve", "net_benefit")):
        low, value, high = (np.array(found[name][key]) for key in ("low", middle, "high"))
        assert np.mean((low <= value + 1e-9) & (value <= high + 1e-9)) > 0.95
    bins = found["calibration"]["bins"]
    assert len(bins) == bins_for(200)
    assert all(one["low"] <= one["observed"] <= one["high"] for one in bins)
    assert [one["predicted"] for one in bins] == sorted(one["predicted"] for one in bins)


def test_the_corrected_interval_is_wider_by_the_ratio_of_test_to_training_rows() -> None:
    differences = np.random.default_rng(0).normal(0.02, 0.05, 25)
    found = corrected_interval(differences, folds=5)
    error = np.sqrt((1 / 25 + 1 / 4) * differences.var(ddof=1))
    assert found["value"] == pytest.approx(differences.mean())
    assert found["high"] - found["value"] == pytest.approx(student.ppf(0.975, 24) * error)
    p, positive, fold = _predictions(repeats=2)
    each = fold_aucs(p, positive, fold)
    assert each[7] == pytest.approx(oracle.roc_auc_score(positive[fold[1] == 2], p[1][fold[1] == 2]))


def test_stability() -> None:
    same = np.tile(np.arange(20) < 5, (8, 1))
    assert nogueira(same) == (1.0, 1.0, 1.0)
    rng = np.random.default_rng(0)
    chance = np.array([rng.permutation(20) < 5 for _ in range(500)])
    value, low, high = nogueira(chance)
    assert value == pytest.approx(0, abs=0.02)
    assert low < 0 < high
    # Two disjoint halves: every variance is 1/2, the expected one 1/4.
    assert nogueira(np.array([[True, False], [False, True]]))[0] == pytest.approx(-1.0)
    assert nogueira(np.ones((4, 5), dtype=bool)) == (1.0, 1.0, 1.0)


def test_the_interval_of_the_stability_covers_the_truth_nineteen_times_in_twenty() -> None:
    """The frequencies of the selections are known, so the true stability is known too."""
    frequency = np.linspace(0.05, 0.9, 40) ** 2
    share = frequency.mean()
    truth = 1 - (frequency * (1 - frequency)).mean() / (share * (1 - share))
    rng = np.random.default_rng(1)
    found = np.array([nogueira(rng.random((50, 40)) < frequency) for _ in range(600)])
    covered = ((found[:, 1] <= truth) & (truth <= found[:, 2])).mean()
    assert 0.92 < covered < 0.98
    assert found[:, 0].mean() == pytest.approx(truth, abs=0.01)
