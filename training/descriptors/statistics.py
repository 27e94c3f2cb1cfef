"""Agreement with readers, between readers, and between outlines of one nodule, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.training.evaluation import metrics

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RESAMPLES: Final = 1000
SEED: Final = 20260101


def patient_weights(patients: Sequence[str]) -> Array:
    """Weight of each row when patients are drawn with replacement; (resamples + 1, rows), the first row all ones."""
    names, which = np.unique(np.array(patients), return_inverse=True)
    drawn = metrics.resamples(len(names), np.random.SeedSequence(SEED), RESAMPLES)
    rows: Array = drawn[:, which]
    return rows


def auroc(scores: Array, positive: Bools, patients: Sequence[str]) -> dict[str, float] | None:
    """Area under the ROC curve with its 95 % bootstrap interval over patients; None without rows of both classes."""
    if not has_both(positive):
        return None
    with np.errstate(invalid="ignore"):
        values = metrics.auc(scores, positive, np.zeros(len(scores), dtype=np.intp), patient_weights(patients))
    return metrics.interval(values)


def one_class_only() -> Refused:
    """Make the refusal of lesions that all get the same answer from the readers."""
    return Refused(
        ReasonCode.TABLE_INVALID,
        "All lesions of a group of patients have the same rating, so no threshold and no agreement can be computed. "
        "Give the complete LIDC tables.",
    )


def has_both(positive: Bools) -> bool:
    """Whether there are rows of both classes."""
    return bool(positive.any() and not positive.all())


def youden(scores: Array, positive: Bools) -> float:
    """Return the smallest positive score that maximises sensitivity + specificity.

    The threshold is midway between two observed scores. Of several equally good ones it is the middle one.

    Raises
    ------
    Refused
        ``table_invalid``: all rows are of one class.
    """
    if not has_both(positive):
        raise one_class_only()
    places = np.unique(scores)
    cuts = (places[1:] + places[:-1]) / 2 if len(places) > 1 else places
    reached = scores[None] >= cuts[:, None]
    gain = reached[:, positive].mean(axis=1) - reached[:, ~positive].mean(axis=1)
    best = np.flatnonzero(np.isclose(gain, gain.max()))
    return float(cuts[best[len(best) // 2]])


def balanced_accuracy(said: Bools, positive: Bools) -> float | None:
    """Mean of sensitivity and specificity; None without rows of both classes."""
    if not has_both(positive):
        return None
    return float((said[positive].mean() + (~said[~positive]).mean()) / 2)


def icc(groups: Sequence[Array], patients: Sequence[str]) -> dict[str, float]:
    """Intraclass correlation of one measurement, if each nodule was outlined by different readers: ICC(1).

    Parameters
    ----------
    groups
        For each nodule, the values of its outlines, two or more.
    patients
        The patient of each nodule.

    Notes
    -----
    One-way random effects for groups of unequal size: Shrout PE, Fleiss JL. Psychological Bulletin 86, 1979; mean size
    by Donner A. International Statistical Review 54, 1986.
    """
    weights = patient_weights(patients)
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    means = np.array([group.mean() for group in groups])
    within = np.array([((group - group.mean()) ** 2).sum() for group in groups])
    count, total = weights.sum(axis=1), weights @ sizes
    grand = (weights @ (sizes * means)) / total
    between = (weights * sizes * (means - grand[:, None]) ** 2).sum(axis=1) / (count - 1)
    inside = (weights @ within) / (total - count)
    mean_size = (total - (weights @ sizes**2) / total) / (count - 1)
    return metrics.interval((between - inside) / (between + (mean_size - 1) * inside))


def weighted_kappa(ratings: Sequence[Sequence[int]]) -> float:
    """Cohen's κ with quadratic weights over every ordered pair of readers of one nodule."""
    pairs = [(a, b) for of in ratings for i, a in enumerate(of) for j, b in enumerate(of) if i != j]
    first, second = np.array(pairs).T
    return float(cohen_kappa_score(first, second, weights="quadratic", labels=range(1, 7)))
