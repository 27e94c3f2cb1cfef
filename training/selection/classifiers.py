"""Classifiers that GL-RFE's networks are compared with.

Each has its usual settings, which were fixed before the comparison. Tuning uses only the given training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Classifier = Callable[[Array, Bools, Array, int], Array]
"""Standardised training rows (n, p), their labels (n,), rows to rate (m, p), seed; log odds of the positive class."""
ClassifierName = Literal["majority", "logistic", "tuned_logistic", "forest", "boosting"]

_TREES: Final = 300


def _majority(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    return np.full(len(asked), logit(labels.mean()))


def _linear(model: Any, inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    log_odds: Array = model.fit(inputs, labels).decision_function(asked)
    return log_odds


def _logistic(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    return _linear(LogisticRegression(), inputs, labels, asked, seed)


def _tuned_logistic(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    """L2-penalised logistic regression; inner folds choose one of five penalties."""
    model = LogisticRegressionCV(
        Cs=np.logspace(-4.0, 0.0, 5), l1_ratios=(0.0,), cv=5, scoring="neg_log_loss", use_legacy_attributes=False
    )
    return _linear(model, inputs, labels, asked, seed)


def _forest(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    trees = RandomForestClassifier(_TREES, min_samples_leaf=5, random_state=seed % 2**31).fit(inputs, labels)
    log_odds: Array = logit(np.clip(trees.predict_proba(asked)[:, 1], 0.5 / _TREES, 1.0 - 0.5 / _TREES))
    return log_odds


def _boosting(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=100, max_leaf_nodes=8, min_samples_leaf=10, random_state=seed % 2**31
    )
    return _linear(model, inputs, labels, asked, seed)


CLASSIFIERS: Final[Mapping[ClassifierName, Classifier]] = MappingProxyType(
    {
        "majority": _majority,
        "logistic": _logistic,
        "tuned_logistic": _tuned_logistic,
        "forest": _forest,
        "boosting": _boosting,
    }
)
