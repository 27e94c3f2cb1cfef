"""Curves of out-of-fold predictions with 95 % bands over patients: ROC, reliability, decision curve."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.training.evaluation.metrics import Counts
from lungstage.training.evaluation.reliability import bins_for, recalibration, reliability

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

BAND_RESAMPLES: Final = 500  # enough for a band that is only drawn
RATES: Final = np.linspace(0.0, 1.0, 101)
THRESHOLDS: Final = np.arange(5, 96) / 100.0
MARKS: Final = np.arange(101) / 100.0
_TINY: Final = 1e-12
_DIGITS: Final = 6


def curves(p: Array, positive: Bools, fold: Indices, weights: Counts) -> dict[str, Any]:
    """Every curve of one method, as written to ``evaluation.json``.

    Parameters
    ----------
    p, positive, fold, weights
        See :func:`training.evaluation.metrics.score`; the bands use the first :data:`BAND_RESAMPLES` resamples.

    Returns
    -------
    dict
        ``roc``, ``calibration`` and ``decision_curve``; each the mean over the repeats.
    """
    weights = weights[: BAND_RESAMPLES + 1]
    repeats = list(zip(p, fold, strict=True))
    roc = np.mean([true_positive_rates(one, positive, of, weights) for one, of in repeats], axis=0)
    benefit = np.mean([net_benefit(one, positive, weights) for one in p], axis=0)
    bins = bins_for(len(positive))
    predicted, observed = np.mean([reliability(one, positive, weights, bins) for one in p], axis=0)
    slope, intercept = np.mean([recalibration(one, positive, of, weights[:1]) for one, of in repeats], axis=0)[:, 0]
    low, high = _band(observed)
    return {
        "roc": {
            "false_positive_rate": _listed(RATES),
            "true_positive_rate": _listed(roc[0]),
            **dict(zip(("low", "high"), map(_listed, _band(roc)), strict=True)),
        },
        "calibration": {
            "slope": float(slope),
            "intercept": float(intercept),
            "bins": [
                {
                    "predicted": float(predicted[0, b]),
                    "observed": float(observed[0, b]),
                    "low": float(low[b]),
                    "high": float(high[b]),
                    "count": round(len(positive) / bins),
                }
                for b in range(bins)
            ],
        },
        "decision_curve": {
            "threshold": _listed(THRESHOLDS),
            "net_benefit": _listed(benefit[0]),
            **dict(zip(("low", "high"), map(_listed, _band(benefit)), strict=True)),
        },
    }


def true_positive_rates(p: Array, positive: Bools, fold: Indices, weights: Counts) -> Array:
    """Sensitivity at every rate of :data:`RATES`, under every weighting; (w, rates).

    As for the AUC, positives are compared with the negatives of their own fold only. The curve is the distribution,
    over the positives, of the share of their fold's negatives that score higher. So the area under it is the AUC. A
    positive with ties is spread evenly over its possible rates. A fold is weighted by its number of pairs.
    """
    higher = p[~positive][:, None] > p[positive]
    equal = p[~positive][:, None] == p[positive]
    same = (fold[~positive][:, None] == fold[positive]).astype(np.float64)
    negatives = weights[:, ~positive] @ same
    rivals = np.maximum(negatives, 1.0)
    lowest = weights[:, ~positive] @ (same * higher) / rivals
    width = weights[:, ~positive] @ (same * equal) / rivals
    pairs = weights[:, positive] * negatives
    pairs /= pairs.sum(axis=1, keepdims=True)
    width = np.maximum(width, _TINY)  # without ties it is a step
    reached = (np.clip((rate + _TINY - lowest) / width, 0.0, 1.0) for rate in RATES)
    return np.stack([(pairs * part).sum(axis=1) for part in reached], axis=1)


def reached(p: Array, positive: Bools, counted: Array | None = None) -> dict[str, Any]:
    """Share of each class whose probability reached each of :data:`MARKS`, for the predictive value of an answer.

    Parameters
    ----------
    p
        (repeats, n) out-of-fold probability of the positive class.
    positive
        (n,) the truth.
    counted
        (n,) number of patients that each stands for; None if each stands for one.

    Returns
    -------
    dict
        ``positives`` and ``negatives``, the numbers of patients of each class; ``thresholds``; ``positives_at_least``
        and ``negatives_at_least``, shares descending from 1, means over the repeats.
    """
    at_least = {
        f"{name}_at_least": [_share(p[:, of] >= mark, None if counted is None else counted[of]) for mark in MARKS]
        for name, of in (("positives", positive), ("negatives", ~positive))
    }
    counts = {"positives": int(positive.sum()), "negatives": int((~positive).sum())}
    return {**counts, "thresholds": MARKS.tolist(), **at_least}


def _share(of: Bools, counted: Array | None) -> float:
    return float(of.mean() if counted is None else min(1.0, np.average(of.mean(axis=0), weights=counted)))


def net_benefit(p: Array, positive: Bools, weights: Counts) -> Array:
    """Net benefit of acting if `p` (n,) reaches each of :data:`THRESHOLDS`, under every weighting; (w, thresholds).

    Notes
    -----
    Vickers AJ, Elkin EB. Decision curve analysis. Medical Decision Making 26(6), 2006: true positives minus false
    positives weighted by the threshold's odds, per patient.
    """
    acted = p[:, None] >= THRESHOLDS
    odds = THRESHOLDS / (1.0 - THRESHOLDS)
    gain = np.where(positive[:, None], acted, -(acted * odds))
    benefit: Array = weights @ gain / weights.sum(axis=1, keepdims=True)
    return benefit


def net_benefit_of_all(positive: Bools, counted: Array | None = None) -> list[float]:
    """Net benefit of acting in all patients, at each of :data:`THRESHOLDS`."""
    weights = np.ones((1, len(positive))) if counted is None else counted[None]
    return _listed(net_benefit(np.ones(len(positive)), positive, weights)[0])


def _band(values: Array) -> tuple[Array, Array]:
    low, high = np.percentile(values[1:], (2.5, 97.5), axis=0)
    return low, high


def _listed(values: Array) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]
