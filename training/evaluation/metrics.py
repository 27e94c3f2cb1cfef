"""Performance metrics of out-of-fold predictions, each with an interval over patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from lungstage.training.evaluation.reliability import bins_for, expected_calibration_error, recalibration, reliability

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Counts = npt.NDArray[np.float64]
Interval = dict[str, float]
"""``value``, ``low`` and ``high``."""

METRICS: Final = (
    "auc", "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "sensitivity", "specificity",
    "brier", "calibration_slope", "ece",
)  # fmt: skip
INTERVAL: Final = (
    "95 % percentile bootstrap over patients, of the mean over repeats. Each of the 2000 resamples draws patients "
    "with replacement and keeps their out-of-fold predictions of every repeat. The interval covers the choice of the "
    "scored patients, not the choice of the training patients."
)
RESAMPLES: Final = 2000


INTERVAL_CENSORED: Final = (
    " Patients are weighted by inverse probability of censoring, for those lost to follow-up; the resamples treat "
    "these weights as known."
)


def resamples(
    patients: int, seed: np.random.SeedSequence, count: int = RESAMPLES, *, counted: Array | None = None
) -> Counts:
    """Weight of each patient in each bootstrap resample; (count + 1, patients), the first row without resampling.

    Parameters
    ----------
    patients, seed, count
        Number of patients, seed, and number of resamples.
    counted
        (patients,) number of patients that each stands for; None if each stands for one.
    """
    drawn = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1.0 / patients), size=count)
    each = np.vstack([np.ones((1, patients)), drawn])
    return each if counted is None else each * counted


def score(probabilities: Array, advanced: Bools, fold: Indices, weights: Counts) -> dict[str, Array]:
    """Compute every metric under every weighting of the patients.

    Parameters
    ----------
    probabilities
        (repeats, n) out-of-fold probability of the positive class (advanced stage); 0.5 and above counts as positive.
    advanced
        (n,) the truth.
    fold
        (repeats, n) the fold of each prediction. The AUC compares patients of the same fold only, because predictions
        of different folds come from different models.
    weights
        (w, n), see :func:`resamples`.

    Returns
    -------
    dict
        By the names of :data:`METRICS`, (w,) means over the repeats.
    """
    per_repeat = [_score(p, advanced, f, weights) for p, f in zip(probabilities, fold, strict=True)]
    return {name: np.mean([one[name] for one in per_repeat], axis=0) for name in METRICS}


def interval(values: Array) -> Interval:
    """Value (the first weighting) and 95 % interval (the others) of a metric (w,).

    The interval always includes the value. Resampling can only increase a distance such as the ECE, so the percentiles
    alone could lie above the value.
    """
    low, high = np.nanpercentile(values[1:], (2.5, 97.5))
    return {"value": float(values[0]), "low": float(min(low, values[0])), "high": float(max(high, values[0]))}


def intervals(scores: Mapping[str, Array]) -> dict[str, Interval]:
    """:func:`interval` of each metric of :func:`score`."""
    return {name: interval(values) for name, values in scores.items()}


def fold_aucs(p: Array, advanced: Bools, fold: Indices, counted: Array | None = None) -> Array:
    """AUC of every outer fold of predictions (repeats, n); (repeats * folds,)."""
    every = np.ones((1, len(advanced))) if counted is None else counted[None]
    folds = range(int(fold.max()) + 1)
    return np.array(
        [
            auc(scores[of == f], advanced[of == f], of[of == f], every[:, of == f])[0]
            for scores, of in zip(p, fold, strict=True)
            for f in folds
        ]
    )


def corrected_interval(differences: Array, folds: int) -> Interval:
    """Mean and 95 % interval of the difference of a metric between two methods, over the outer folds.

    Parameters
    ----------
    differences
        (repeats * folds,)
    folds
        Folds of one repeat; the ratio of training to test rows is this number minus 1.

    Notes
    -----
    Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning 52, 2003: a t interval whose variance
    is enlarged by the ratio of test to training rows, because the training sets of different folds overlap.
    """
    count, mean = len(differences), differences.mean()
    error = np.sqrt((1.0 / count + 1.0 / (folds - 1)) * differences.var(ddof=1))
    reach = student.ppf(0.975, count - 1) * error
    return {"value": float(mean), "low": float(mean - reach), "high": float(mean + reach)}


def _score(p: Array, advanced: Bools, fold: Indices, weights: Counts) -> dict[str, Array]:
    predicted = p >= 0.5

    def total(of: Bools) -> Array:
        sums: Array = weights @ of.astype(np.float64)
        return sums

    cells = {(t, q): total((advanced == t) & (predicted == q)) for t in (False, True) for q in (False, True)}
    patients = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision, f1 = ([f(cells, c) for c in (False, True)] for f in (_recall, _precision, _f1))
        return {
            "auc": auc(p, advanced, fold, weights),
            "accuracy": (cells[False, False] + cells[True, True]) / patients,
            # Macro recall, the mean of sensitivity and specificity, is the same as the balanced accuracy.
            "balanced_accuracy": np.mean(recall, axis=0),
            "macro_precision": np.mean(precision, axis=0),
            "macro_recall": np.mean(recall, axis=0),
            "macro_f1": np.mean(f1, axis=0),
            "sensitivity": recall[True],
            "specificity": recall[False],
            "brier": weights @ (p - advanced) ** 2 / patients,
            "calibration_slope": recalibration(p, advanced, fold, weights)[0],
            "ece": expected_calibration_error(*reliability(p, advanced, weights, bins_for(len(p)))),
        }


Cells = Mapping[tuple[bool, bool], Array]


def _recall(cells: Cells, c: bool) -> Array:
    return cells[c, c] / (cells[c, c] + cells[c, not c])


def _precision(cells: Cells, c: bool) -> Array:
    claimed = cells[c, c] + cells[not c, c]
    # A class that is never predicted has precision 0, as in scikit-learn.
    return np.divide(cells[c, c], claimed, out=np.zeros_like(claimed), where=claimed > 0)


def _f1(cells: Cells, c: bool) -> Array:
    return 2 * cells[c, c] / (2 * cells[c, c] + cells[c, not c] + cells[not c, c])


def auc(p: Array, advanced: Bools, fold: Indices, weights: Counts) -> Array:
    """Share of (advanced, early) pairs of a fold that `p` (n,) ranks correctly; ties count half; (w,)."""
    higher, lower = p[advanced][:, None], p[~advanced]
    same = fold[advanced][:, None] == fold[~advanced]
    won = same * ((higher > lower) + 0.5 * (higher == lower))
    positive, negative = weights[:, advanced], weights[:, ~advanced]
    ratio: Array = ((positive @ won) * negative).sum(axis=1) / ((positive @ same.astype(float)) * negative).sum(axis=1)
    return ratio
