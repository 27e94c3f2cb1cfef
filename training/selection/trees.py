"""Selectors by ensembles of trees: importance in boosted trees, and Boruta."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from boruta import BorutaPy  # type: ignore[import-untyped]
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from lungstage.training.selection.statistics import best_first, f_statistic

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_BOOSTED: Final = 200
_TREES, _ROUNDS, _DEPTH = 100, 25, 5


def boosted_trees(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Rank by impurity importance in stochastically boosted trees.

    Notes
    -----
    Friedman JH. Stochastic gradient boosting. Computational Statistics and Data Analysis 38(4), 2002.
    """
    model = GradientBoostingClassifier(
        n_estimators=_BOOSTED, learning_rate=0.05, subsample=0.5, max_features="sqrt", random_state=seed % 2**31
    ).fit(inputs, labels)
    return _in_order(-model.feature_importances_, inputs, labels)[:k]


def boruta(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Rank by Boruta: confirmed features first, then tentative ones, then the others by their rank in the forests.

    It uses up to 25 forests of 100 trees of depth 5. Equal ranks are ordered by the F statistic.

    Notes
    -----
    Kursa MB, Rudnicki WR. Feature selection with the Boruta package. Journal of Statistical Software 36(11), 2010, by
    scikit-learn-contrib's ``boruta``.
    """
    forest = RandomForestClassifier(max_depth=_DEPTH, n_jobs=1)
    found = BorutaPy(forest, n_estimators=_TREES, max_iter=_ROUNDS, random_state=seed % 2**31)
    return _in_order(found.fit(inputs, labels.astype(np.int64)).ranking_, inputs, labels)[:k]


def _in_order(rank: npt.NDArray[np.number], inputs: Array, labels: Bools) -> Indices:
    """Columns by ascending rank; at equal rank the larger F statistic comes first."""
    by_f = best_first(f_statistic(inputs, labels))
    return by_f[np.argsort(rank[by_f], kind="stable")]
