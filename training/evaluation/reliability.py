"""Calibration of probabilities: recalibration slope, and bins of predicted against observed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_PER_BIN = 30
_ALIKE = 0.01  # logits
_GUARD = 1e-6  # weight of the penalty on the slope; the likelihood of a few patients is a million times larger
_MAX_STEP = 2.0
_ITERATIONS = 50
_LIMIT = 1e-12


def bins_for(patients: int) -> int:
    """Return the number of equal-mass bins for calibration: ten from 300 patients on, fewer below.

    In a bin of m patients the observed share differs from the prediction by about 0.4/√m by chance: 0.09 at 20, 0.07 at
    30. Bins of few patients would show this difference instead of calibration. So each bin has thirty patients.
    """
    return int(np.clip(patients // _PER_BIN, 2, 10))


def recalibration(p: Array, positive: Bools, fold: Indices, weights: Array) -> tuple[Array, Array]:
    """Slope and intercept of the logistic regression of the truth on the logit of `p`, under every weighting.

    Parameters
    ----------
    p
        (n,) probability of the positive class.
    positive
        (n,) the truth.
    fold
        (n,) the fold of each prediction.
    weights
        (w, n) weight of each patient.

    Returns
    -------
    slope, intercept
        (w,) each. A slope of 1 is calibrated, below 1 is overconfident, 0 means that predictions and truth are
        unrelated. The slope is also 0 if the predictions within each fold are equal (within 0.01 logits). Then only
        differences between folds are left, which are an artefact of stratified splits.

    Notes
    -----
    Cox DR. Two further applications of a model for binary regression. Biometrika 45(3/4), 1958. Newton's method over
    all weightings at once. Steps are limited and the slope has a small penalty. So a resample with perfectly separated
    classes, which has no maximum, gives a large and not an infinite slope.
    """
    x, y = logit(np.clip(p, _LIMIT, 1.0 - _LIMIT)), positive.astype(np.float64)
    prevalent = np.clip(weights @ y / weights.sum(axis=1), _LIMIT, 1.0 - _LIMIT)
    spread = np.sqrt(np.mean([x[fold == f].var() for f in np.unique(fold)]))
    if spread < _ALIKE:
        return np.zeros(len(weights)), logit(prevalent)
    x, center, unit = (x - x.mean()) / x.std(), x.mean(), x.std()
    slope, intercept = np.zeros(len(weights)), logit(prevalent)
    going = np.arange(len(weights))
    for _ in range(_ITERATIONS):
        w, b, a = weights[going], slope[going], intercept[going]
        fitted = expit(b[:, None] * x + a[:, None])
        error = w * (y - fitted)
        curvature = w * fitted * (1.0 - fitted)
        gradient_b, gradient_a = error @ x - _GUARD * b, error.sum(axis=1)
        bb, ab, aa = curvature @ x**2 + _GUARD, curvature @ x, curvature.sum(axis=1) + _GUARD
        determinant = bb * aa - ab**2
        step_b = np.clip((aa * gradient_b - ab * gradient_a) / determinant, -_MAX_STEP, _MAX_STEP)
        step_a = np.clip((bb * gradient_a - ab * gradient_b) / determinant, -_MAX_STEP, _MAX_STEP)
        slope[going], intercept[going] = b + step_b, a + step_a
        going = going[np.maximum(np.abs(step_b), np.abs(step_a)) > 1e-9 * np.maximum(1.0, np.abs(b))]
        if not going.size:
            break
    return slope / unit, intercept - slope * center / unit


def reliability(p: Array, positive: Bools, weights: Array, bins: int) -> tuple[Array, Array]:
    """Mean prediction and observed share of positives in bins of equal mass, under every weighting.

    A bin contains an equal share of the patients, in the order of their predictions. A patient across an edge counts in
    part on both sides. Equal predictions stay together.

    Parameters
    ----------
    p, positive, weights
        See :func:`recalibration`.
    bins
        Number of bins.

    Returns
    -------
    predicted, observed
        (w, bins) each.
    """
    order = np.argsort(p, kind="stable")
    values, starts = np.unique(p[order], return_index=True)
    mass = np.add.reduceat(weights[:, order], starts, axis=1)
    positives = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    total = mass.sum(axis=1, keepdims=True)
    # Cumulative sums over the distinct predictions, interpolated linearly at the edges of the bins.
    sums = [np.pad(np.cumsum(part / total, axis=1), ((0, 0), (1, 0))) for part in (mass, mass * values, positives)]
    rows = np.arange(len(weights))[:, None]
    edges = np.arange(1, bins) / bins
    # One search serves all rows: each row's sums from 0 to 1 are shifted to follow those of the row before.
    place = np.searchsorted((sums[0] + rows).ravel(), (edges + rows).ravel(), side="right").reshape(len(weights), -1)
    after = np.clip(place - rows * sums[0].shape[1], 1, len(values))
    below, above = (np.take_along_axis(sums[0], at, axis=1) for at in (after - 1, after))
    share = np.divide(edges - below, above - below, out=np.zeros_like(below), where=above > below)

    def between_edges(cumulative: Array) -> Array:
        low, high = (np.take_along_axis(cumulative, at, axis=1) for at in (after - 1, after))
        parts: Array = np.diff(low + share * (high - low), axis=1, prepend=0.0, append=cumulative[:, -1:])
        return parts * bins

    return between_edges(sums[1]), between_edges(sums[2])


def expected_calibration_error(predicted: Array, observed: Array) -> Array:
    """Mean distance between prediction and truth over bins of equal mass (w, bins); (w,)."""
    distance: Array = np.abs(predicted - observed).mean(axis=1)
    return distance
