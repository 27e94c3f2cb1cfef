"""Closed-form statistics of columns that several selectors use for ranking."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


def f_statistic(inputs: Array, labels: Bools) -> Array:
    """F statistic of each column of `inputs` (n, d) between two classes; 0 for a constant column.

    With two classes it is a function of the correlation r with the label, (n - 2) r² / (1 - r²).
    """
    squared = correlation(inputs, labels[:, None].astype(np.float64))[:, 0] ** 2
    f: Array = (len(labels) - 2) * squared / np.maximum(1.0 - squared, 1e-12)
    return f


def correlation(a: Array, b: Array) -> Array:
    """Pearson correlation of the columns of `a` (n, d) with those of `b` (n, e); 0 if one is constant."""

    def unit(x: Array) -> Array:
        centred = x - x.mean(axis=0)
        length = np.linalg.norm(centred, axis=0)
        return np.asarray(centred / np.where(length > 1e-9, length, np.inf))

    found: Array = unit(a).T @ unit(b)
    return found


def best_first(scores: Array) -> Indices:
    """Columns by descending score; ties keep their order."""
    return np.argsort(-scores, kind="stable")
