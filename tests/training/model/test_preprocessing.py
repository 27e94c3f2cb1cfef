"""The steps before the network: the formula of the contract, with scikit-learn as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import PowerTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from lungstage.training.model.preprocessing import LAMBDA_LIMIT, Standardise, standardise, subset, yeo_johnson


@parametrize_with_checks([Standardise()])
def test_scikit_learn_contract(estimator, check) -> None:
    check(estimator)


def test_the_power_is_that_of_scikit_learn() -> None:
    x = np.random.default_rng(0).gamma(1.0, size=(120, 6)) * [1, -1, 3, 1e-3, 1e4, -20]
    p = Standardise().fit(x).parameters_
    robust = (np.clip(x, p.lower, p.upper) - p.center) / p.spread
    oracle = PowerTransformer(method="yeo-johnson", standardize=False).fit(robust)
    np.testing.assert_allclose(p.lmbda, oracle.lambdas_, atol=1e-5)
    np.testing.assert_allclose(yeo_johnson(robust, oracle.lambdas_), oracle.transform(robust), rtol=1e-9, atol=1e-12)


def test_training_rows_come_out_standardised() -> None:
    x = np.exp(np.random.default_rng(1).normal(size=(200, 4)))
    z = Standardise().fit_transform(x)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-9)


def test_missing_values_become_the_median_and_constants_zero() -> None:
    x = np.random.default_rng(2).normal(size=(50, 3))
    x[:, 1], x[:, 2] = 7.0, np.nan
    fitted = Standardise().fit(x)
    gap = np.array([[np.nan, np.nan, np.nan]])
    median = np.array([[np.median(x[:, 0]), 7.0, 0.0]])
    np.testing.assert_array_equal(fitted.transform(gap), fitted.transform(median))
    assert np.all(fitted.transform(x)[:, 1:] == 0)


def test_clipping_is_left_out_for_the_domain_distance_but_bounded() -> None:
    x = np.random.default_rng(3).normal(size=(80, 2))
    p = Standardise().fit(x).parameters_
    far = np.array([[1e9, -1e9]])
    assert np.all(np.abs(standardise(p, far)) < 5)
    np.testing.assert_array_equal(np.abs(standardise(p, far, clip=False)), [[10, 10]])


def test_a_subset_of_features_is_the_same_as_dropping_the_others() -> None:
    x = np.random.default_rng(4).gamma(2.0, size=(60, 5))
    p, columns = Standardise().fit(x).parameters_, np.array([3, 1])
    np.testing.assert_array_equal(standardise(subset(p, columns), x[:, columns]), standardise(p, x)[:, columns])


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (12, 3), elements=st.floats(-1e12, 1e12) | st.just(np.nan)), st.floats(allow_infinity=False))
def test_any_column_gives_finite_numbers(x, new) -> None:
    fitted = Standardise().fit(x)
    p = fitted.parameters_
    assert np.all(np.abs(p.lmbda) <= LAMBDA_LIMIT)
    assert np.all(np.isfinite(fitted.transform(np.vstack([x, np.full(3, new)]))))
    assert np.all(np.isfinite(standardise(p, np.full((1, 3), new), clip=False)))


@pytest.mark.parametrize("lmbda", [-1.5, 0.0, 1.0, 2.0, 3.7])
def test_the_power_transform_rises_and_keeps_zero(lmbda: float) -> None:
    x = np.linspace(-8, 8, 201)[:, None]
    y = yeo_johnson(x, np.array([lmbda]))[:, 0]
    assert np.all(np.diff(y) > 0)
    assert y[100] == pytest.approx(0, abs=1e-12)
