"""Whether probabilities are what they say: recalibration slope and bins of predicted against observed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_PER_BIN = 30
_ALIKE = 0.01  # logits
_GUARD = 1e-6  # weight of the penalty on the slope, which the likelihood of a few patients outweighs a millionfold
_MAX_STEP = 2.0
_ITERATIONS = 50
_LIMIT = 1e-12


def bins_for(patients: int) -> int:
    """Return the number of equal-mass bins for calibration: ten from 300 patients on, fewer below.

    Chance alone parts what is observed in a bin of m patients from what is predicted by about 0.4/√m: 0.09 at 20, 0.07
    at 30. Ten bins of a few patients would show that, and not calibration; so there are thirty in each.
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
        (n,) the fold each prediction comes from.
    weights
        (w, n) how often each patient counts.

    Returns
    -------
    slope, intercept
        (w,) each. A slope of 1 is right, below 1 is over-confident, 0 means that the predictions have nothing to do
        with the truth. So it is 0 also where the predictions of a fold are all alike (within 0.01 logits), which
        leaves nothing to estimate it from but the difference between folds, an artefact of stratified splits.

    Notes
    -----
    Cox DR. Two further applications of a model for binary regression. Biometrika 45(3/4), 1958. Newton's method over
    all weightings at once; steps are limited and the slope has a slight penalty, so that a resample whose classes a
    threshold parts, for which no maximum exists, gives a large slope and not an infinite one.
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

    A bin holds an equal share of the patients, in the order of their predictions; one who lies across an edge counts in
    part on either side, and equal predictions are not told apart.

    Parameters
    ----------
    p, positive, weights
        See :func:`recalibration`.
    bins
        How many.

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
    # Cumulative sums over the distinct predictions, read off at the edges of the bins by linear interpolation.
    sums = [np.pad(np.cumsum(part / total, axis=1), ((0, 0), (1, 0))) for part in (mass, mass * values, positives)]
    rows = np.arange(len(weights))[:, None]
    edges = np.arange(1, bins) / bins
    # One search serves all rows: each row's sums from 0 to 1 follow on those of the row before.
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
