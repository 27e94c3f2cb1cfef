"""Platt scaling and class-conditional conformal thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from lungstage.training.model.calibration import MIN_SLOPE, calibrate, conformal_thresholds, coverage_range


def _sample(n: int, slope: float, intercept: float, seed: int):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 2.0, n)
    return logits, rng.random(n) < expit(slope * logits + intercept)


def test_the_fit_is_the_unpenalised_logistic_regression() -> None:
    logits, advanced = _sample(160, 0.7, 0.4, 0)
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], advanced)
    fitted = calibrate(logits, advanced)
    assert fitted.informative
    assert fitted.slope == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    assert fitted.intercept == pytest.approx(oracle.intercept_[0], rel=1e-4, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.floats(-3, 3), st.integers(0, 1000))
def test_the_slope_is_positive_and_the_mean_is_the_prevalence(slope: float, seed: int) -> None:
    logits, advanced = _sample(120, slope, 0.2, seed)
    if advanced.all() or not advanced.any():
        return
    fitted = calibrate(logits, advanced)
    assert fitted.slope >= MIN_SLOPE
    assert fitted(logits).mean() == pytest.approx(advanced.mean(), abs=1e-4)


def test_a_score_that_ranks_the_wrong_way_round_is_silenced() -> None:
    logits, advanced = _sample(300, -2.0, 0.5, 1)
    fitted = calibrate(logits, advanced)
    assert not fitted.informative
    np.testing.assert_allclose(fitted(logits), advanced.mean(), atol=0.01)


def test_a_constant_score_gives_the_prevalence() -> None:
    advanced = np.arange(50) < 20
    np.testing.assert_allclose(calibrate(np.full(50, 3.0), advanced)(np.array([3.0])), 0.4, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.02, 0.5), st.integers(0, 10_000))
def test_each_class_keeps_its_share(early: int, advanced: int, alpha: float, seed: int) -> None:
    """At most alpha * (n + 1) of the calibration cases of a class are below its threshold."""
    p = np.random.default_rng(seed).random(early + advanced)
    truth = np.arange(early + advanced) >= early
    possible = conformal_thresholds(p, truth, alpha).possible(p)
    assert (~possible[~truth, 0]).sum() <= max(0, np.floor(alpha * (early + 1)) - 1)
    assert (~possible[truth, 1]).sum() <= max(0, np.floor(alpha * (advanced + 1)) - 1)


def test_new_cases_are_covered_class_by_class() -> None:
    rng = np.random.default_rng(3)
    missed = []
    for _ in range(400):
        truth = rng.random(150) < 0.6
        p = expit(rng.normal(size=150) + 1.2 * truth - 0.4)
        possible = conformal_thresholds(p[:100], truth[:100], 0.2).possible(p[100:])
        missed.append([(~possible[truth[100:] == bool(c), c]).mean() for c in (0, 1)])
    assert np.all(np.mean(missed, axis=0) < 0.21)
    assert np.all(np.mean(missed, axis=0) > 0.15), "cases are covered although classes are ruled out"


def test_too_few_cases_rule_nothing_out() -> None:
    thresholds = conformal_thresholds(np.array([0.2, 0.8, 0.9]), np.array([False, True, True]), 0.2)
    assert thresholds.possible(np.array([0.0, 1.0])).all()


def test_one_sample_s_coverage_spreads_as_it_is_said_to() -> None:
    """Of the thresholds of many samples of 62, nineteen in twenty have a coverage within the range."""
    rng = np.random.default_rng(4)
    low, high = coverage_range(62, 0.2)
    own = rng.random((2000, 62))
    thresholds = np.array([conformal_thresholds(row, np.ones(62, bool), 0.2).advanced_min_probability for row in own])
    within = ((1 - thresholds >= low) & (1 - thresholds <= high)).mean()  # the coverage is known for a uniform score
    assert within == pytest.approx(0.95, abs=0.015)
    assert coverage_range(3, 0.2) == (1.0, 1.0), "too few to rule anything out"


def test_weighted_it_meets_the_weighted_share() -> None:
    random = np.random.default_rng(4)
    advanced = random.random(200) < 0.6
    logits, weights = random.normal(size=200) + advanced, random.uniform(1.0, 2.0, 200)
    fitted = calibrate(logits, advanced, weights)
    assert np.average(fitted(logits), weights=weights) == pytest.approx(np.average(advanced, weights=weights), abs=1e-6)
    drawn = np.tile([1, 2], 100)
    twice = np.repeat(np.arange(200), drawn)
    assert calibrate(logits, advanced, drawn.astype(float)).slope == pytest.approx(
        calibrate(logits[twice], advanced[twice]).slope, rel=1e-4
    )
