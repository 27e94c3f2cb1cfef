"""What enters an elimination: distinct features, in the order in which the gradient of the loss calls for them.

At a model that knows nothing yet, the gradient of the loss with respect to the weight of a term is the term's
covariance with the label. Following it, term after term, is least angle regression. Terms are the features and the
products of pairs of them, so that what decides in pairs alone is found before any network is trained; a product has to
beat thousands of others by chance where a feature has to beat a hundred, so its gradient counts less.
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
"""Pairs of the largest gradient that the path may take; the others would only cost time."""
_MARGIN: Final = 3  # terms that the path may take for each feature that is wanted


@dataclass(frozen=True, slots=True)
class Screened:
    """What a screening lets in.

    Attributes
    ----------
    columns
        Features, in the order in which the gradient calls for them.
    gradient
        (d,) the gradient's size when a feature came in, of all features; 0 for those that did not.
    pairs
        (p, 2) pairs whose product came in while both features are among the columns.
    copies
        (d,) bool, whether a feature is a near copy of one that stands for it.
    """

    columns: Indices
    gradient: Array
    pairs: Indices
    copies: Bools


def screen(inputs: Array, labels: Bools, count: int, copies: float | None, *, pairwise: bool) -> Screened:
    """Choose what enters the rounds.

    Parameters
    ----------
    inputs, labels
        (n, d) standardised training rows and their labels (n,).
    count
        How many features may enter; near copies only where there are not enough others.
    copies
        Correlation from which on features are near copies; None takes none for one.
    pairwise
        Whether products are looked at.
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
    """Columns of `inputs` (n, d) of which no two correlate by `limit` or more, ascending.

    The column with most near copies stands for them, then that with most among the rest. Labels have no say in it, so
    that which of several copies is taken does not change with the patients.
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
    """Pairs of columns of `inputs` (n, d) whose product has the largest gradient, in its standard errors; (count, 2).

    Notes
    -----
    The score test of one product at a time: for all pairs together it takes three products of matrices.
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
    """Terms in the order in which they come in, features before products, with the gradient's size at each."""
    terms = np.hstack([inputs, inputs[:, pairs[:, 0]] * inputs[:, pairs[:, 1]]])
    centred = terms - terms.mean(axis=0)
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 1e-9, spread, np.inf)
    scaled[:, inputs.shape[1] :] *= PAIR_WEIGHT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a term that others make up is left out of the path
        sizes, taken, _ = lars_path(scaled, labels - labels.mean(), method="lar", max_iter=min(steps, len(labels) - 1))
    return list(zip([int(term) for term in taken], sizes.tolist(), strict=False))
