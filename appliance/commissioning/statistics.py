"""How well repeated measurements agree: intraclass correlations, within-subject SD and repeatability coefficient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REPEATABILITY_FACTOR: Final = 1.96 * math.sqrt(2.0)
"""Of the within-subject SD: 95 % of the differences between two measurements of a subject are smaller."""


@dataclass(frozen=True, slots=True)
class Repeatability:
    """How well one quantity repeats.

    Attributes
    ----------
    subjects
        That have a value both times.
    agreement, interval
        ICC(A,1): two-way, absolute agreement, single measurement; and its 95 % interval.
    consistency
        ICC(3,1): the same, of which a shift between the repetitions takes nothing away.
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
    """Agreement ICC(A,1) and consistency ICC(3,1).

    Parameters
    ----------
    table
        (..., n, k): n subjects, each measured k times.

    Returns
    -------
    agreement, consistency
        (...) each; NaN where there is no variance at all.

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
    """Root of the mean variance within a subject, of (n, k) measurements.

    Bland & Altman, BMJ 312, 1996, p. 1654; Raunig et al., Stat Methods Med Res 24(1), 2015.
    """
    return float(np.sqrt(table.var(axis=1, ddof=1).mean()))


def repeatability(pairs: Array) -> Repeatability:
    """Judge pairs of measurements of one quantity.

    Parameters
    ----------
    pairs
        (n, 2): test and retest of n subjects; those that lack a value are left out.

    Returns
    -------
    Repeatability
        NaN throughout where fewer than three subjects are left.
    """
    complete = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(complete)
    if n < 3:
        return Repeatability(n, math.nan, (math.nan, math.nan), math.nan, math.nan)
    agreement, consistency = (float(value) for value in intraclass_correlations(complete))
    return Repeatability(n, agreement, _interval(agreement, n), consistency, within_subject_sd(complete))


def _interval(icc: float, n: int) -> tuple[float, float]:
    """95 % interval of the ICC of n pairs: Fisher's z has a standard error of 1 / sqrt(n - 3/2).

    Fisher, Statistical Methods for Research Workers, 1925, section 39.
    """
    if not abs(icc) < 1:  # of pairs that agree to the last bit, or of no variance at all
        return icc, icc
    half = 1.96 / math.sqrt(n - 1.5)
    return math.tanh(math.atanh(icc) - half), math.tanh(math.atanh(icc) + half)


def more_than_chance(count: int, of: int, share: float) -> float:
    """Probability that at least `count` of `of` cases fall where each falls with probability `share` (binomial)."""
    return sum(math.comb(of, i) * share**i * (1.0 - share) ** (of - i) for i in range(count, of + 1))
