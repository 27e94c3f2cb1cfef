"""Common selectors with their usual settings, which were fixed before the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.feature_selection import RFE, mutual_info_classif
from sklearn.linear_model import LogisticRegression

from lungstage.training.model.network import single_threaded
from lungstage.training.selection.statistics import best_first, correlation, f_statistic

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_FINE_BELOW: Final = 120  # columns; above it, eliminating one at a time takes minutes and selects no better
_COARSE_STEP: Final = 20
_STEPS: Final = 150  # up to a penalty of three million, at which no feature is left


def anova(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select by the F statistic of each feature between the classes."""
    return best_first(f_statistic(inputs, labels))[:k]


def mrmr(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select one feature at a time by relevance over redundancy: F statistic over mean correlation with the selected.

    Notes
    -----
    Peng H, Long F, Ding C. Feature selection based on mutual information: criteria of max-dependency, max-relevance,
    and min-redundancy. IEEE TPAMI 27(8), 2005; the quotient of F and correlation (FCQ) is that of Zhao Z, Anand R,
    Wang M. Maximum relevance and minimum redundancy feature selection methods for a marketing machine learning
    platform. DSAA 2019.
    """
    relevance = f_statistic(inputs, labels)
    redundancy = np.abs(correlation(inputs, inputs))
    chosen = [int(np.argmax(relevance))]
    while len(chosen) < k:
        quotient = relevance / np.maximum(redundancy[:, chosen].mean(axis=1), 1e-3)
        quotient[chosen] = -1.0
        chosen.append(int(np.argmax(quotient)))
    return np.array(chosen, dtype=np.intp)


def mutual_information(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select by each feature's mutual information with the class, estimated from nearest neighbours."""
    return best_first(mutual_info_classif(inputs, labels, random_state=seed))[:k]


def rfe_lr(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Eliminate recursively by the coefficients of an L2-penalised logistic regression.

    Twenty features at a time while more than 120 remain, then one at a time.
    """
    remaining = np.arange(inputs.shape[1])
    for solver, step, down_to in (("lbfgs", _COARSE_STEP, max(k, _FINE_BELOW)), ("newton-cholesky", 1, k)):
        if len(remaining) <= down_to and down_to != k:
            continue
        # With about as many columns as rows, Newton steps are faster than many gradient steps.
        model = LogisticRegression(solver=solver, max_iter=500)
        eliminated = RFE(model, n_features_to_select=down_to, step=step).fit(inputs[:, remaining], labels)
        remaining = remaining[eliminated.support_]
    return remaining[best_first(np.abs(eliminated.estimator_.coef_[0]))]


def lasso(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select the features that first enter an L1-penalised logistic regression as its penalty decreases.

    The path has 25 steps per decade of penalty and ends when k features have entered. Of the features of the last step,
    those with larger coefficients are selected.
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
    return np.lexsort((-coefficients, entered))[:k]


def lassonet(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select the features that stay longest in a LassoNet as the penalty on its skip connections increases.

    The path ends when at most k features are left. Its settings are coarser than the library's (100 hidden units, steps
    of 2 %, up to 100 epochs per step). On four synthetic tables 13 to 15 of the 15 features were the same in a tenth of
    the time. Two seeds of the library's settings had only 8 to 11 features in common.

    It uses torch's global generator, so two of them must not run at the same time in one process.

    Notes
    -----
    Lemhadri I, Ruan F, Abraham L, Tibshirani R. LassoNet: a neural network with feature sparsity. JMLR 22(127), 2021.
    """
    if k >= inputs.shape[1]:
        return best_first(f_statistic(inputs, labels))
    from lassonet import LassoNetClassifier  # type: ignore[import-untyped]  # imports pyplot, so only when needed

    network = LassoNetClassifier(
        hidden_dims=(16,), n_iters=(300, 20), patience=(50, 5), val_size=0.1, verbose=0,
        optim=(partial(torch.optim.Adam, lr=1e-3), partial(torch.optim.SGD, lr=3e-3, momentum=0.9)),
        random_state=seed % 2**31, torch_seed=seed,
    )  # fmt: skip

    def penalties() -> Iterator[float]:
        # All features are in at the first penalty. The library's search for it takes longer than the path.
        for penalty in 2.0 * 1.1 ** np.arange(_STEPS):
            if network.model.selected_count() <= k:
                return
            yield float(penalty)

    with single_threaded(), torch.random.fork_rng(devices=[]):
        network.path(inputs, labels.astype(np.int64), lambda_seq=penalties(), disable_lambda_warning=True)
    gone_at = network.feature_importances_.double().numpy()
    weight = network.model.skip.weight.detach().norm(dim=0).double().numpy()
    return np.lexsort((-weight, -gone_at))[:k]


def random(inputs: Array, labels: Bools, k: int, seed: int) -> Indices:
    """Select at random: the baseline for every selector."""
    return np.random.default_rng(seed).choice(inputs.shape[1], k, replace=False)
