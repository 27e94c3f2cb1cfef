"""Compare the distribution of a cohort's features with the bundle's training cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from lungstage.appliance.model.manifest import FeatureEntry

Array = npt.NDArray[np.float64]
Verdict = Literal["similar", "within chance", "moderate shift", "large shift"]

LEVELS: Final = ("0.05", "0.25", "0.5", "0.75", "0.95")
"""Training quantiles that are the edges of the bins. Bins for the 1 % tails would have one patient in a hundred."""

MODERATE, LARGE = 0.1, 0.25
"""Conventional limits of the population stability index; see e.g. du Pisanie J et al., arXiv 2303.01227, 2023."""


def compare(entries: Sequence[FeatureEntry], values: Array, training_rows: int) -> dict[str, dict[str, Any]]:
    """Compare each feature with its training distribution.

    Parameters
    ----------
    entries
        The bundle's k features.
    values
        (n, k) of the cohort, NaN where missing; each feature has at least one value.
    training_rows
        Number of training patients.

    Returns
    -------
    dict
        By feature: ``psi`` (population stability index), ``by_chance`` (the index that chance can reach without a
        shift), the ``verdict`` on both, ``median_shift_in_iqr`` ((median - training median) / training interquartile
        range; None if that range is zero), and the shares of rows ``below`` and ``above`` the training range and
        ``missing``.
    """
    return {
        entry.name: _compare(entry.training_quantiles, column, training_rows)
        for entry, column in zip(entries, values.T, strict=True)
    }


def stability_index(quantiles: Mapping[str, float], present: Array) -> float:
    """Return the population stability index of values (n,) over the bins between training quantiles.

    Notes
    -----
    The sum over bins of (share - training share) * log(share / training share), the symmetric Kullback-Leibler
    divergence; 0 for equal shares. One patient distributed as in training is added, so that the logarithm of an empty
    bin exists. If quantiles are equal because many patients share a value, their bins are merged.
    """
    cumulative = {quantiles[level]: float(level) for level in LEVELS}  # for equal quantiles the highest level is kept
    edges = np.array(list(cumulative))
    expected = np.diff([0.0, *cumulative.values(), 1.0])
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(expected))
    observed = (counts + expected) / (len(present) + 1.0)
    return float(((observed - expected) * np.log(observed / expected)).sum())


def reached_by_chance(rows: int, training_rows: int) -> float:
    """Return the index that one feature in twenty reaches without a shift.

    Notes
    -----
    Yurdakul B. Statistical properties of population stability index. Western Michigan University, 2018: without a shift
    it is about chi-squared times 1/n + 1/m; the degrees of freedom are the number of bins minus 1.
    """
    return float(chi2.ppf(0.95, len(LEVELS)) * (1.0 / rows + 1.0 / training_rows))


def _compare(quantiles: Mapping[str, float], column: Array, training_rows: int) -> dict[str, Any]:
    present = column[~np.isnan(column)]
    psi, by_chance = stability_index(quantiles, present), reached_by_chance(len(present), training_rows)
    range_ = quantiles["0.75"] - quantiles["0.25"]
    return {
        "psi": psi,
        "by_chance": by_chance,
        "verdict": _verdict(psi, by_chance),
        "median_shift_in_iqr": float((np.median(present) - quantiles["0.5"]) / range_) if range_ else None,
        "below": float((column < quantiles["0"]).mean()),
        "above": float((column > quantiles["1"]).mean()),
        "missing": float(np.isnan(column).mean()),
    }


def _verdict(psi: float, by_chance: float) -> Verdict:
    if psi <= MODERATE:
        return "similar"
    if psi <= by_chance:
        return "within chance"
    return "moderate shift" if psi <= LARGE else "large shift"
