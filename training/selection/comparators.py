"""Selectors and classifiers that GL-RFE and its networks have to be compared with.

Every one has its usual settings, fixed beforehand; what is tuned is tuned on the training rows that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from lassonet import LassoNetClassifier  # type: ignore[import-untyped]
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import RFE, mutual_info_classif
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from lungstage.training.model.network import single_threaded

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Selector = Callable[[Array, Bools, int, int], Indices]
"""Standardised training rows (n, d), their labels (n,), how many columns k, seed; the selected columns, ascending."""
Classifier = Callable[[Array, Bools, Array, int], Array]
"""Standardised training rows (n, p), their labels (n,), rows to rate (m, p), seed; log odds of the positive class."""
ClassifierName = Literal["majority", "logistic", "tuned_logistic", "forest", "boosting"]

_TREES: Final = 300
_STEPS: Final = 150  # up to a penalty of three million, which nothing outlasts


def anova(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select by the F statistic of each feature between the classes."""
    return _best(f_statistic(inputs, labels), k)


def mrmr(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select one after the other by relevance over redundancy: F statistic over mean correlation with the selected.

    Notes
    -----
    Peng H, Long F, Ding C. Feature selection based on mutual information: criteria of max-dependency, max-relevance,
    and min-redundancy. IEEE TPAMI 27(8), 2005; the quotient of F and correlation (FCQ) is that of Zhao Z, Anand R,
    Wang M. Maximum relevance and minimum redundancy feature selection methods for a marketing machine learning
    platform. DSAA 2019.
    """
    relevance = f_statistic(inputs, labels)
    correlation = np.abs(_correlation(inputs, inputs))
    chosen = [int(np.argmax(relevance))]
    while len(chosen) < k:
        quotient = relevance / np.maximum(correlation[:, chosen].mean(axis=1), 1e-3)
        quotient[chosen] = -1.0
        chosen.append(int(np.argmax(quotient)))
    return np.sort(np.array(chosen, dtype=np.intp))


def mutual_information(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select by each feature's mutual information with the class, estimated from nearest neighbours."""
    return _best(mutual_info_classif(inputs, labels, random_state=seed), k)


def rfe_lr(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Eliminate recursively, one at a time, by the coefficients of an L2-penalised logistic regression."""
    # For more columns than rows a Newton step with its Hessian beats many steps without.
    eliminated = RFE(LogisticRegression(solver="newton-cholesky"), n_features_to_select=k, step=1).fit(inputs, labels)
    columns: Indices = np.flatnonzero(eliminated.support_)
    return columns


def lasso(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select what enters an L1-penalised logistic regression first, as its penalty is let go.

    The path has 25 steps a decade of penalty and ends where k features are in; among those that came with the last
    step the larger coefficients count.
    """
    # At this penalty, or a stronger one, every coefficient is zero.
    weakest = 1.0 / np.abs(inputs.T @ (labels - labels.mean())).max()
    model = LogisticRegression(
        l1_ratio=1.0, solver="liblinear", intercept_scaling=100.0, random_state=seed % 2**31, max_iter=1000
    )
    entered, coefficients = np.full(inputs.shape[1], np.inf), np.zeros(inputs.shape[1])
    for step, inverse_penalty in enumerate(weakest * np.logspace(0.0, 4.0, 101)):
        coefficients = np.abs(model.set_params(C=inverse_penalty).fit(inputs, labels).coef_[0])
        entered[(coefficients > 0) & np.isinf(entered)] = step
        if np.isfinite(entered).sum() >= k:
            break
    return np.sort(np.lexsort((-coefficients, entered))[:k])


def lassonet(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select what stays longest in a LassoNet, as the penalty on its skip connections grows.

    The path ends when no more than k features are left. Its settings are coarser than the library's own (100 hidden
    units, steps of 2 %, up to 100 epochs a step): on four made-up tables 13 to 15 of the 15 features were the same at
    a tenth of the time, where another seed of the library's own settings had 8 to 11 in common.

    It draws from torch's global generator, so that two of them must not run side by side in one process.

    Notes
    -----
    Lemhadri I, Ruan F, Abraham L, Tibshirani R. LassoNet: a neural network with feature sparsity. JMLR 22(127), 2021.
    """
    if k >= inputs.shape[1]:
        return np.arange(inputs.shape[1])
    network = LassoNetClassifier(
        hidden_dims=(16,), n_iters=(300, 20), patience=(50, 5), val_size=0.1, verbose=0,
        optim=(partial(torch.optim.Adam, lr=1e-3), partial(torch.optim.SGD, lr=3e-3, momentum=0.9)),
        random_state=seed % 2**31, torch_seed=seed,
    )  # fmt: skip

    def penalties() -> Iterator[float]:
        # Every feature is in at the first; the library's own search for it takes longer than the path.
        for penalty in 2.0 * 1.1 ** np.arange(_STEPS):
            if network.model.selected_count() <= k:
                return
            yield float(penalty)

    with single_threaded(), torch.random.fork_rng(devices=[]):
        network.path(inputs, labels.astype(np.int64), lambda_seq=penalties(), disable_lambda_warning=True)
    gone_at = network.feature_importances_.double().numpy()
    weight = network.model.skip.weight.detach().norm(dim=0).double().numpy()
    return np.sort(np.lexsort((-weight, -gone_at))[:k])


def random(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select at random: what any selector has to beat."""
    return np.sort(np.random.default_rng(seed).choice(inputs.shape[1], k, replace=False))


SELECTORS: Final[Mapping[str, Selector]] = MappingProxyType(
    {
        "anova": anova,
        "mrmr": mrmr,
        "mutual_information": mutual_information,
        "rfe_lr": rfe_lr,
        "lasso": lasso,
        "lassonet": lassonet,
        "random": random,
    }
)
"""Selectors beside GL-RFE, by the names that they have in ``evaluation.json``."""

LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "anova": "ANOVA",
        "mrmr": "mRMR",
        "mutual_information": "mutual information",
        "rfe_lr": "RFE-LR",
        "lasso": "LASSO",
        "lassonet": "LassoNet",
        "random": "random",
    }
)
"""Their names for a reader; the number of features follows after a hyphen."""


def _majority(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    return np.full(len(asked), logit(labels.mean()))


def _linear(model: Any, inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    log_odds: Array = model.fit(inputs, labels).decision_function(asked)
    return log_odds


def _logistic(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    return _linear(LogisticRegression(), inputs, labels, asked, seed)


def _tuned_logistic(inputs: Array, labels: Bools, asked: Array, seed: int) -> Array:
    """L2-penalised, the penalty out of five chosen by inner folds."""
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


def f_statistic(inputs: Array, labels: Bools) -> Array:
    """F statistic of each column of `inputs` (n, d) between two classes; 0 for a constant one.

    With two classes it is a function of the correlation r with the label, (n - 2) r² / (1 - r²).
    """
    squared = _correlation(inputs, labels[:, None].astype(np.float64))[:, 0] ** 2
    f: Array = (len(labels) - 2) * squared / np.maximum(1.0 - squared, 1e-12)
    return f


def _correlation(a: Array, b: Array) -> Array:
    """Pearson correlation of the columns of `a` (n, d) with those of `b` (n, e); 0 where one is constant."""

    def unit(x: Array) -> Array:
        centred = x - x.mean(axis=0)
        length = np.linalg.norm(centred, axis=0)
        return np.asarray(centred / np.where(length > 1e-9, length, np.inf))

    correlation: Array = unit(a).T @ unit(b)
    return correlation


def _best(scores: Array, k: int) -> Indices:
    """Columns of the k highest scores; of equal ones the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:k])
