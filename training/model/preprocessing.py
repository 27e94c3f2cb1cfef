"""The per-feature steps before the network, as a scikit-learn transformer.

The formula is that of :class:`training.run.Preprocessing`; export writes the same formula into the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from lungstage.training.run import Preprocessing

Array = npt.NDArray[np.float64]

WINSOR_PERCENT = (1.0, 99.0)
LAMBDA_LIMIT = 5.0  # beyond it the likelihood is flat and the power only enlarges the tails
_LAMBDA_TOLERANCE = 1e-7
UNCLIPPED_LIMIT = 10.0  # limit of the standardised, unclipped values for the domain distance


class Standardise(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Median imputation, winsorising, Yeo–Johnson and z-score, each fitted on the rows given to ``fit``.

    Attributes
    ----------
    parameters_ : Preprocessing
        The fitted numbers, (d,) each.

    Notes
    -----
    Yeo I-K, Johnson RA. A new family of power transformations to improve normality or symmetry.
    Biometrika 87(4), 2000.
    """

    def fit(self, X: Any, y: Any = None) -> Standardise:  # noqa: N803
        """Fit every step on `X` (n, d), NaN allowed; `y` is ignored."""
        x = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        # A column without any value becomes a constant, and so zero after standardising.
        x = np.where(np.isnan(x).all(axis=0), 0.0, x)
        median = np.nanmedian(x, axis=0)
        x = np.where(np.isnan(x), median, x)
        lower, upper = np.percentile(x, WINSOR_PERCENT, axis=0)
        x = np.clip(x, lower, upper)
        center = np.median(x, axis=0)
        quartiles = np.percentile(x, [25, 75], axis=0)
        spread = _divisor(np.where(quartiles[1] > quartiles[0], quartiles[1] - quartiles[0], x.std(axis=0)), center)
        x = (x - center) / spread
        lmbda = _most_normal_exponent(x)
        x = yeo_johnson(x, lmbda)
        mean = x.mean(axis=0)
        self.parameters_ = Preprocessing(
            median, lower, upper, center, spread, lmbda, mean, _divisor(x.std(axis=0), mean)
        )
        return self

    def transform(self, X: Any) -> Array:  # noqa: N803
        """Standardise `X` (n, d)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return standardise(self.parameters_, x)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def standardise(parameters: Preprocessing, x: Array, *, clip: bool = True) -> Array:
    """Apply fitted steps to `x` (n, d). Without `clip` there is no winsorising, and z is limited to ±10."""
    x = np.where(np.isnan(x), parameters.median, x)
    if clip:
        x = np.clip(x, parameters.lower, parameters.upper)
    x = yeo_johnson((x - parameters.center) / parameters.spread, parameters.lmbda)
    z = (x - parameters.mean) / parameters.scale
    return z if clip else np.clip(z, -UNCLIPPED_LIMIT, UNCLIPPED_LIMIT)


def subset(parameters: Preprocessing, columns: npt.NDArray[np.intp]) -> Preprocessing:
    """Return the steps of some features only. This is possible because no step combines features."""
    return Preprocessing(*(getattr(parameters, name)[columns] for name in Preprocessing.__slots__))


def yeo_johnson(x: Array, lmbda: Array) -> Array:
    """Yeo–Johnson power transform of `x` (n, d) with one exponent per column."""
    above, below = np.maximum(x, 0.0), -np.minimum(x, 0.0)
    with np.errstate(over="ignore"):  # a value far outside the training range can overflow; its z is limited anyway
        positive = _power(above, lmbda)
        negative = -_power(below, 2.0 - lmbda)
    return np.where(x >= 0, positive, negative)


def _most_normal_exponent(x: Array) -> Array:
    """Return the maximum-likelihood exponent of each column of `x` (n, d), within ±:data:`LAMBDA_LIMIT`.

    Golden-section search over all columns at once. (scikit-learn's ``PowerTransformer`` works column by column, takes
    twenty times as long for 106 columns, and has no bounds.) A constant column gets 1, the identity.
    """
    jacobian = (np.sign(x) * np.log1p(np.abs(x))).mean(axis=0)

    def likelihood(lmbda: Array) -> Array:
        variance = yeo_johnson(x, lmbda).var(axis=0)
        logarithm: Array = (lmbda - 1.0) * jacobian - 0.5 * np.log(np.maximum(variance, np.finfo(np.float64).tiny))
        return logarithm

    golden = (np.sqrt(5.0) - 1.0) / 2.0
    low, high = np.full(x.shape[1], -LAMBDA_LIMIT), np.full(x.shape[1], LAMBDA_LIMIT)
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = likelihood(left), likelihood(right)
    while (high - low).max() > _LAMBDA_TOLERANCE:
        rising = at_left < at_right
        low, high = np.where(rising, left, low), np.where(rising, high, right)
        left, right = (
            np.where(rising, right, high - golden * (high - low)),
            np.where(rising, low + golden * (high - low), left),
        )
        fresh = likelihood(np.where(rising, right, left))
        at_left, at_right = np.where(rising, at_right, fresh), np.where(rising, fresh, at_left)
    constant: npt.NDArray[np.bool_] = np.ptp(x, axis=0) == 0
    return np.where(constant, 1.0, (low + high) / 2.0)


def _power(x: Array, exponent: Array) -> Array:
    """``((1 + x) ** exponent - 1) / exponent``, and its limit ``log(1 + x)`` at 0."""
    log = np.log1p(x)
    at_zero = np.abs(exponent) < np.finfo(np.float64).eps
    safe = np.where(at_zero, 1.0, exponent)
    return np.where(at_zero, log, np.expm1(safe * log) / safe)


def _divisor(spread: Array, center: Array) -> Array:
    """`spread`, or 1 if it is only rounding error."""
    return np.where(spread > 1e-12 * np.maximum(1.0, np.abs(center)), spread, 1.0)
