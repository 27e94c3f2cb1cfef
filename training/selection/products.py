"""Selectors that look at products of two features in closed form: simple rivals for what networks find in pairs.

Single features and the products of every pair among the :data:`SHORTLIST` best of them are terms of one linear model of
the label. Terms are ranked, and their features taken in the order in which the terms bring them.
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
"""Best single features whose products are looked at: 7,140 pairs.

What decides in pairs alone need not be among the best single features: on made-up interaction tables of 106 a
shortlist of 60 holds 0.58 of them, and nothing that starts from it finds more.
"""


def f_of_products(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Rank single features and products by their F statistic between the classes."""
    terms, features = _terms(inputs, labels)
    return _features_of(features[best_first(f_statistic(terms, labels))], k)


def lars_on_products(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Rank single features and products as least angle regression takes them in.

    Notes
    -----
    Efron B, Hastie T, Johnstone I, Tibshirani R. Least angle regression. Annals of Statistics 32(2), 2004.
    """
    terms, features = _terms(inputs, labels)
    spread = terms.std(axis=0)
    terms = (terms - terms.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    # A term brings a new feature at least every other time, unless the pairs close among the features that are in.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a term that others make up is left out of the path
        entered = lars_path(terms, labels - labels.mean(), method="lar", max_iter=min(4 * k, len(labels) - 1))[1]
    rest = best_first(f_statistic(terms, labels))  # where the path ends before k features are in
    return _features_of(features[np.concatenate([np.asarray(entered, dtype=np.intp), rest])], k)


def _terms(inputs: Array, labels: Bools) -> tuple[Array, Indices]:
    """Columns of the linear model (n, t), and the two features of each (t, 2), twice the same for a single one."""
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
