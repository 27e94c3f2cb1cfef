"""From out-of-fold logits to calibrated probabilities and conformal thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import beta

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIN_SLOPE = 1e-3


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: ``probability = sigmoid(slope * logit + intercept)``.

    Attributes
    ----------
    informative
        False if the logits did not rank the classes correctly. The slope is then at its lower bound, and every
        probability is about the prevalence.
    """

    slope: float
    intercept: float

    @property
    def informative(self) -> bool:
        """Whether the slope is above its lower bound."""
        return self.slope > MIN_SLOPE

    def __call__(self, logits: Array) -> Array:
        """Calibrated probabilities of `logits`, elementwise."""
        return np.asarray(expit(self.slope * logits + self.intercept))


def calibrate(logits: Array, advanced: Bools, weights: Array | None = None) -> Calibration:
    """Fit Platt scaling by maximum likelihood, with the slope held at :data:`MIN_SLOPE` or above.

    Parameters
    ----------
    logits
        (m,) out-of-fold logits; finite.
    advanced
        (m,) the truth.
    weights
        (m,) number of patients that each stands for; None if each stands for one.

    Notes
    -----
    The likelihood is concave, so the slope is at the bound exactly when the unbounded slope is lower. A score that
    ranks the classes the wrong way round is not inverted; its probabilities become constant.
    """
    spread = logits.std()
    unit = spread if spread > 0 else 1.0
    x, y = (logits - logits.mean()) / unit, advanced.astype(np.float64)

    def mean(values: Array) -> float:
        return float(values.mean() if weights is None else np.average(values, weights=weights))

    def negative_log_likelihood(p: Array) -> tuple[float, Array]:
        z = p[0] * x + p[1]
        error = expit(z) - y
        return mean(np.logaddexp(0.0, z) - y * z), np.array([mean(error * x), mean(error)])

    lowest = MIN_SLOPE * unit
    start = np.array([max(lowest, 0.1), logit(np.clip(mean(y), 1e-6, 1 - 1e-6))])
    fitted = minimize(
        negative_log_likelihood, start, jac=True, method="L-BFGS-B", bounds=[(lowest, None), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-10},
    ).x  # fmt: skip
    slope = max(float(fitted[0] / unit), MIN_SLOPE)
    return Calibration(slope, float(fitted[1] - slope * logits.mean()))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Class-conditional conformal thresholds: a class is possible if its probability reaches the class's threshold."""

    early_min_probability: float
    advanced_min_probability: float

    def possible(self, probabilities: Array) -> Bools:
        """Whether early and advanced are possible at `probabilities` of advanced stage (…,); (…, 2)."""
        early = 1.0 - probabilities >= self.early_min_probability
        advanced = probabilities >= self.advanced_min_probability
        return np.stack([early, advanced], axis=-1)


def conformal_thresholds(probabilities: Array, advanced: Bools, alpha: float) -> Thresholds:
    """Compute thresholds under which each class remains possible in at least ``1 - alpha`` of its cases.

    Parameters
    ----------
    probabilities
        (m,) probability of advanced stage from models that did not see the case.
    advanced
        (m,) the truth.
    alpha
        Accepted share, in each class, of cases whose true class is ruled out.

    Notes
    -----
    Mondrian (class-conditional) conformal prediction, Vovk et al., Algorithmic Learning in a Random World, 2005,
    section 4.5. Of n cases of a class, the ``floor(alpha * (n + 1))``-th smallest probability of the true class is
    the threshold. If n is too small for `alpha`, the threshold is 0 and the class is never ruled out.
    """

    def threshold(of_class: Array) -> float:
        rank = int(np.floor(alpha * (len(of_class) + 1)))
        return float(np.sort(of_class)[rank - 1]) if rank else 0.0

    return Thresholds(threshold(1.0 - probabilities[~advanced]), threshold(probabilities[advanced]))


def coverage_range(patients: int, alpha: float) -> tuple[float, float]:
    """Return the 95 % range of a class's coverage in new patients like those that the threshold was computed from.

    Parameters
    ----------
    patients
        Number of patients of the class that the threshold was computed from.
    alpha
        As for :func:`conformal_thresholds`.

    Notes
    -----
    Conformal prediction guarantees ``1 - alpha`` on average over samples. For one sample of n, with the r-th smallest
    value as the threshold, the coverage has the distribution Beta(n + 1 - r, r). Vovk V. Conditional validity of
    inductive conformal predictors. Machine Learning 92, 2013.
    """
    rank = int(np.floor(alpha * (patients + 1)))
    if not rank:
        return 1.0, 1.0
    spread = beta(patients + 1 - rank, rank)
    return float(spread.ppf(0.025)), float(spread.ppf(0.975))
