"""Agreement of repeated measurements: intraclass correlations, within-subject SD, repeatability coefficient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REPEATABILITY_FACTOR: Final = 1.96 * math.sqrt(2.0)
"""Factor for the within-subject SD: 95 % of the differences between two measurements of a subject are smaller."""


@dataclass(frozen=True, slots=True)
class Repeatability:
    """Repeatability of one quantity.

    Attributes
    ----------
    subjects
        Number of subjects with a value both times.
    agreement, interval
        ICC(A,1): two-way, absolute agreement, single measurement; and its 95 % interval.
    consistency
        ICC(3,1): the same, but a constant shift between the repetitions does not reduce it.
    within_sd
        Within-subject standard deviation, in the quantity's unit.
    """

    subjects: int
    agreement: float
    interval: tuple[float, float]
    consistency: float
    within_sd: float

    @property
    def coefficient(self) -> float:
        """Repeatability coefficient: two measurements of a subject differ by less in 95 % of cases."""
        return REPEATABILITY_FACTOR * self.within_sd


def intraclass_correlations(table: Array) -> tuple[Array, Array]:
    """Compute agreement ICC(A,1) and consistency ICC(3,1).

    Parameters
    ----------
    table
        (..., n, k): n subjects, each measured k times.

    Returns
    -------
    agreement, consistency
        (...) each; NaN if there is no variance at all.

    Notes
    -----
    From the mean squares of a two-way layout (rows R, columns C, error E)::

        ICC(A,1) = (R - E) / (R + (k - 1) E + k (C - E) / n)
        ICC(3,1) = (R - E) / (R + (k - 1) E)

    Shrout & Fleiss, Psychol Bull 86(2), 1979, where the first is ICC(2,1); McGraw & Wong, Psychol Methods 1(1), 1996.
    """
    n, k = table.shape[-2:]
    grand = table.mean(axis=(-2, -1), keepdims=True)
    of_rows = table.mean(axis=-1, keepdims=True) - grand
    of_columns = table.mean(axis=-2, keepdims=True) - grand
    rows = k * (of_rows**2).sum(axis=(-2, -1)) / (n - 1)
    columns = n * (of_columns**2).sum(axis=(-2, -1)) / (k - 1)
    error = ((table - grand - of_rows - of_columns) ** 2).sum(axis=(-2, -1)) / ((n - 1) * (k - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        agreement = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
        consistency = (rows - error) / (rows + (k - 1) * error)
    return agreement, consistency


def within_subject_sd(table: Array) -> float:
    """Return the root of the mean variance within a subject, of (n, k) measurements.

    Bland & Altman, BMJ 312, 1996, p. 1654; Raunig et al., Stat Methods Med Res 24(1), 2015.
    """
    return float(np.sqrt(table.var(axis=1, ddof=1).mean()))


def repeatability(pairs: Array) -> Repeatability:
    """Compute the repeatability of one quantity from pairs of measurements.

    Parameters
    ----------
    pairs
        (n, 2): test and retest of n subjects. Pairs with a missing value are left out.

    Returns
    -------
    Repeatability
        All values are NaN if fewer than three subjects are left.
    """
    complete = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(complete)
    if n < 3:
        return Repeatability(n, math.nan, (math.nan, math.nan), math.nan, math.nan)
    agreement, consistency = (float(value) for value in intraclass_correlations(complete))
    return Repeatability(n, agreement, _interval(agreement, n), consistency, within_subject_sd(complete))


def _interval(icc: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the ICC of n pairs. Fisher's z has a standard error of 1 / sqrt(n - 3/2).

    Fisher, Statistical Methods for Research Workers, 1925, section 39.
    """
    if not abs(icc) < 1:  # for identical pairs, or without any variance
        return icc, icc
    half = 1.96 / math.sqrt(n - 1.5)
    return math.tanh(math.atanh(icc) - half), math.tanh(math.atanh(icc) + half)


def more_than_chance(count: int, of: int, share: float) -> float:
    """Return the probability of at least `count` events in `of` cases, if each has probability `share` (binomial)."""
    return sum(math.comb(of, i) * share**i * (1.0 - share) ** (of - i) for i in range(count, of + 1))
