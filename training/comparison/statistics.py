"""Statistics over tables. A table is one observation, independent of its number of folds.

Folds and repeats of one table share patients. They make its figure more precise, but are no further evidence. So every
interval and every test below is over tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import friedmanchisquare, rankdata, studentized_range, wilcoxon
from scipy.stats import t as student

Array = npt.NDArray[np.float64]


def mean_interval(values: Array, alpha: float) -> dict[str, float | int | None]:
    """Mean of `values` (tables,) and its 1 - alpha interval over tables.

    Notes
    -----
    t interval. With about 24 tables a percentile bootstrap is too narrow. Differences of AUCs are bounded and have
    light tails, so the t interval of their mean keeps its level. A single table gives no interval.
    """
    mean = float(values.mean())
    if len(values) < 2:
        return {"value": mean, "low": None, "high": None, "tables": len(values)}
    reach = float(student.ppf(1.0 - alpha / 2.0, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"value": mean, "low": mean - reach, "high": mean + reach, "tables": len(values)}


def ranks(scores: Array) -> Array:
    """Ranks of the columns of `scores` (tables, methods) on each table: 1 for the highest, mean ranks for ties."""
    found: Array = rankdata(-scores, axis=1)
    return found


def critical_difference(methods: int, tables: int, alpha: float) -> float:
    """Difference of mean ranks above which two methods differ, by Nemenyi's test.

    Notes
    -----
    Demšar J. Statistical comparisons of classifiers over multiple data sets. JMLR 7, 2006, section 3.2.2.
    """
    quantile = float(studentized_range.ppf(1.0 - alpha, methods, np.inf)) / np.sqrt(2.0)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6.0 * tables)))


def friedman(scores: Array) -> dict[str, float] | None:
    """Friedman's test that all columns of `scores` (tables, methods) have equal ranks; None for one table."""
    if len(scores) < 2 or (scores == scores[:, :1]).all():
        return None
    statistic, p = friedmanchisquare(*scores.T)
    return {"statistic": float(statistic), "p": float(p)}


def cliques(mean_ranks: Mapping[str, float], difference: float) -> list[list[str]]:
    """Largest groups of two or more methods, best first, whose mean ranks differ by at most `difference`."""
    order = sorted(mean_ranks, key=lambda name: (mean_ranks[name], name))
    found: list[list[str]] = []
    for i, first in enumerate(order):
        run = [name for name in order[i:] if mean_ranks[name] - mean_ranks[first] <= difference]
        if len(run) > 1 and not (found and run[-1] == found[-1][-1]):
            found.append(run)
    return found


def compared(own: Array, other: Array, alpha: float) -> dict[str, Any]:
    """Differences of two methods over tables (tables,): interval, wins, and p-value of Wilcoxon's signed-rank test."""
    apart = own - other
    p = float(wilcoxon(apart).pvalue) if len(apart) > 1 and np.any(apart != 0) else 1.0
    return {
        "difference": mean_interval(apart, alpha),
        "wins": int((apart > 0).sum()),
        "ties": int((apart == 0).sum()),
        "losses": int((apart < 0).sum()),
        "p": p,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests by Holm's step-down procedure.

    Notes
    -----
    Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6(2), 1979.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]
