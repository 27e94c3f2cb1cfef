"""Selectors that use products of two features in closed form: simple comparators for interactions found by networks.

Single features, and the products of every pair of the :data:`SHORTLIST` best ones, are terms of one linear model of the
label. Terms are ranked, and features are taken in the order of the terms.
"""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path

from lungstage.training.selection.statistics import best_first, f_statistic

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

SHORTLIST: Final = 120
"""Number of best single features whose products are used: 7,140 pairs.

Features that matter only in pairs are often not among the best single features. On synthetic interaction tables of 106
features, a shortlist of 60 contains 0.58 of them, and no selector that starts from it can find more.
"""


def f_of_products(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Rank single features and products by their F statistic between the classes."""
    terms, features = _terms(inputs, labels)
    return _features_of(features[best_first(f_statistic(terms, labels))], k)


def lars_on_products(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Rank single features and products in the order in which they enter least angle regression.

    Notes
    -----
    Efron B, Hastie T, Johnstone I, Tibshirani R. Least angle regression. Annals of Statistics 32(2), 2004.
    """
    terms, features = _terms(inputs, labels)
    spread = terms.std(axis=0)
    terms = (terms - terms.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    # Nearly every second term adds a new feature, unless pairs combine features that have already entered.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a linearly dependent term is left out of the path
        entered = lars_path(terms, labels - labels.mean(), method="lar", max_iter=min(4 * k, len(labels) - 1))[1]
    rest = best_first(f_statistic(terms, labels))  # used if the path ends before k features have entered
    return _features_of(features[np.concatenate([np.asarray(entered, dtype=np.intp), rest])], k)


def _terms(inputs: Array, labels: Bools) -> tuple[Array, Indices]:
    """Columns of the linear model (n, t), and the two features of each (t, 2); for a single feature it is repeated."""
    shortlist = np.sort(best_first(f_statistic(inputs, labels))[:SHORTLIST])
    first, second = (shortlist[of] for of in np.triu_indices(len(shortlist), 1))
    single = np.arange(inputs.shape[1])
    return (
        np.hstack([inputs, inputs[:, first] * inputs[:, second]]),
        np.column_stack([np.concatenate([single, first]), np.concatenate([single, second])]),
    )


def _features_of(pairs: Indices, k: int) -> Indices:
    """Return the first k different entries of `pairs` (t, 2), row by row."""
    return np.array(list(dict.fromkeys(pairs.ravel().tolist()))[:k], dtype=np.intp)
