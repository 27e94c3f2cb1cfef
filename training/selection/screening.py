"""Screening before an elimination: distinct features, ordered by the gradient of the loss.

For an untrained model, the gradient of the loss with respect to a term's weight is the term's covariance with the
label. Following this gradient, term after term, is least angle regression. Terms are the features and the products of
pairs, so that features that matter only in pairs are found before any network is trained. There are thousands of
products and only about a hundred features, so a large gradient by chance is more likely for a product. So products are
weighted less.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path

from lungstage.training.selection.statistics import best_first, correlation, f_statistic

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

PAIR_WEIGHT: Final = 0.6
SCANNED_PAIRS: Final = 300
"""Number of pairs with the largest gradient that can enter the path; more pairs only cost time."""
_MARGIN: Final = 3  # largest number of terms of the path per wanted feature


@dataclass(frozen=True, slots=True)
class Screened:
    """Result of a screening.

    Attributes
    ----------
    columns
        Features, in the order of the path.
    gradient
        (d,) size of the gradient when a feature entered; 0 for features that did not enter.
    pairs
        (p, 2) pairs whose product entered, if both features are among the columns.
    copies
        (d,) bool, whether a feature is a near copy that another feature represents.
    """

    columns: Indices
    gradient: Array
    pairs: Indices
    copies: Bools


def screen(inputs: Array, labels: Bools, count: int, copies: float | None, *, pairwise: bool) -> Screened:
    """Choose the features that enter the rounds.

    Parameters
    ----------
    inputs, labels
        (n, d) standardised training rows and their labels (n,).
    count
        Number of features that enter. Near copies enter only if there are not enough others.
    copies
        Smallest correlation of near copies; None means that no feature is a near copy.
    pairwise
        Whether products are used.
    """
    d = inputs.shape[1]
    own = np.arange(d) if copies is None else distinct(inputs, copies)
    features, products = inputs[:, own], np.empty((0, 2), dtype=np.intp)
    if pairwise and len(own) > 1:
        products = strongest_pairs(features, labels, SCANNED_PAIRS)
    gradient = np.zeros(d)
    order: dict[int, None] = {}
    taken: list[tuple[int, int]] = []
    for term, size in _path(features, products, labels, _MARGIN * count):
        pair = own[[term, term]] if term < len(own) else own[products[term - len(own)]]
        for feature in pair.tolist():
            gradient[feature] = max(gradient[feature], size)
            order.setdefault(feature)
        if term >= len(own):
            taken.append((int(pair[0]), int(pair[1])))
    by_f = best_first(f_statistic(inputs, labels))
    copied = np.isin(np.arange(d), own, invert=True)
    rest = [*by_f[~copied[by_f]].tolist(), *by_f[copied[by_f]].tolist()]
    columns = list(dict.fromkeys([*order, *rest]))[:count]
    inside = [pair for pair in taken if {*pair} <= {*columns}]
    return Screened(np.array(columns, dtype=np.intp), gradient, np.array(inside, dtype=np.intp).reshape(-1, 2), copied)


def distinct(inputs: Array, limit: float) -> Indices:
    """Columns of `inputs` (n, d) of which no two have a correlation of `limit` or more, ascending.

    The column with most near copies represents them, then the column with most among the rest. Labels are not used. So
    the choice among copies does not depend on the labels of the patients.
    """
    near = np.abs(correlation(inputs, inputs)) >= limit
    np.fill_diagonal(near, True)
    copies = near.sum(axis=1)
    left = np.ones(len(near), dtype=bool)
    chosen = []
    while left.any():
        central = int(np.argmax(np.where(left, copies, 0)))
        gone = near[central] & left
        chosen.append(central)
        left &= ~gone
        copies = copies - near[:, gone].sum(axis=1)
    return np.sort(np.array(chosen, dtype=np.intp))


def strongest_pairs(inputs: Array, labels: Bools, count: int) -> Indices:
    """Pairs of columns of `inputs` (n, d) whose product has the largest gradient, in standard errors; (count, 2).

    Notes
    -----
    This is the score test of one product at a time. For all pairs together it needs three matrix products.
    """
    n, d = inputs.shape
    residual = labels - labels.mean()
    score = (inputs * residual[:, None]).T @ inputs
    squares = inputs**2
    mean = inputs.T @ inputs / n
    spread = np.sqrt(np.maximum(squares.T @ squares / n - mean**2, 1e-12) * n * residual.var())
    upper = np.triu_indices(d, 1)
    best = best_first(np.abs(score[upper] / spread[upper]))[:count]
    return np.column_stack([upper[0][best], upper[1][best]])


def _path(inputs: Array, pairs: Indices, labels: Bools, steps: int) -> list[tuple[int, float]]:
    """Terms in the order in which they enter, with the gradient's size; products are numbered after features."""
    terms = np.hstack([inputs, inputs[:, pairs[:, 0]] * inputs[:, pairs[:, 1]]])
    centred = terms - terms.mean(axis=0)
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 1e-9, spread, np.inf)
    scaled[:, inputs.shape[1] :] *= PAIR_WEIGHT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a linearly dependent term is left out of the path
        sizes, taken, _ = lars_path(scaled, labels - labels.mean(), method="lar", max_iter=min(steps, len(labels) - 1))
    return list(zip([int(term) for term in taken], sizes.tolist(), strict=False))
