"""Gradient-loss recursive feature elimination (GL-RFE).

Networks are trained on the features that remain, the loss is differentiated with respect to its inputs, the
features with the smallest mean absolute gradient are eliminated, and the networks are trained anew.

The method is that of arXiv 2606.04453 (JoVE 10.3791/70181), of which only the abstracts are public. What they
leave open is chosen so: gradients are taken on rows that are held out from the weights, over several seeds and
splits, and averaged; a tenth of the features goes per round while there are many, then one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, clone
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted

from training.classifier import DeepClassifier, binary_labels, seed_of
from training.members import Member, inner_splits
from training.network import NetworkSettings, held_out_gradients, single_threaded, train

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Aggregate = Literal["mean", "rank"]


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """How features are eliminated.

    Attributes
    ----------
    features
        How many remain at the end.
    step, fine_below
        The share that goes per round while more than `fine_below` remain; then one goes at a time.
    aggregate
        Networks are averaged by their importances, each normalised to sum 1 (``mean``), or by ranks (``rank``).
    members, inner_folds
        Networks per round, and the folds of the inner split whose held-out part they take turns at.
    """

    features: int = 15
    step: float = 0.1
    fine_below: int = 30
    aggregate: Aggregate = "mean"
    members: int = 10
    inner_folds: int = 5


@dataclass(frozen=True, slots=True)
class Task:
    """One selection or one ensemble to fit.

    Attributes
    ----------
    inputs
        (n, d) standardised features of all rows, by steps that were fitted on `rows`.
    rows
        The training rows; no label of another row is looked at.
    seed
        From which everything random in the task derives.
    """

    inputs: Array
    rows: Indices
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of an elimination: what was there, how it was rated and what went. Indices are columns."""

    remaining: Indices
    importance: Array
    removed: Indices


def eliminate(
    tasks: Sequence[Task],
    labels: npt.NDArray[np.bool_],
    selection: SelectionSettings,
    network: NetworkSettings,
) -> list[tuple[Round, ...]]:
    """Run several eliminations in step, their networks trained together; each task's rounds.

    What a task selects does not depend on the others. The last round only rates what is selected.
    """
    remaining = [np.arange(task.inputs.shape[1]) for task in tasks]
    traces: list[list[Round]] = [[] for _ in tasks]
    for count in _schedule(len(remaining[0]), selection):
        members = [
            Member(task.inputs[:, columns], labels, fit, stop, seed)
            for task, columns in zip(tasks, remaining, strict=True)
            for fit, stop, seed in inner_splits(
                labels, task.rows, selection.members, selection.inner_folds, np.random.SeedSequence([*task.seed, count])
            )
        ]
        gradients = held_out_gradients(train(members, network), members).reshape(len(tasks), selection.members, -1)
        for i, columns in enumerate(remaining):
            importance = _aggregate(gradients[i], selection.aggregate)
            # A stable order: of equally important features the later one goes.
            order = np.argsort(-importance, kind="stable")
            keep = np.sort(order[: _next(count, selection)])
            gone = np.setdiff1d(np.arange(count), keep)
            traces[i].append(Round(columns, importance, columns[gone]))
            remaining[i] = columns[keep]
    return [tuple(trace) for trace in traces]


def selected(trace: Sequence[Round]) -> Indices:
    """Return the columns that an elimination left, in ascending order."""
    last = trace[-1]
    return np.setdiff1d(last.remaining, last.removed)


class GradientLossRFE(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Gradient-loss recursive feature elimination as a scikit-learn selector.

    Parameters
    ----------
    estimator
        The networks that rate the features; None is :class:`~training.classifier.DeepClassifier` by default. Inputs
        must be standardised (:class:`~training.preprocessing.Standardise`): gradients depend on the scale.
    n_features_to_select, step, fine_below, aggregate
        See :class:`SelectionSettings`. With fewer features than asked for, all are kept.
    random_state
        Seed.

    Attributes
    ----------
    support_ : (n_features_in_,) bool
        The selected features.
    importances_ : (n_features_in_,) float64
        Last importance of each feature: for an eliminated one, that of the round in which it went.
    ranking_ : (n_features_in_,) int
        1 for a selected feature; the higher, the earlier it went.
    trace_ : tuple of Round
        Every round in order.
    """

    def __init__(
        self,
        estimator: DeepClassifier | None = None,
        *,
        n_features_to_select: int = 15,
        step: float = 0.1,
        fine_below: int = 30,
        aggregate: Aggregate = "mean",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.n_features_to_select = n_features_to_select
        self.step = step
        self.fine_below = fine_below
        self.aggregate = aggregate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> GradientLossRFE:  # noqa: N803
        """Select features of `X` (n, d) for the two classes of `y` (n,)."""
        estimator = DeepClassifier() if self.estimator is None else clone(self.estimator)
        x, labels, _ = binary_labels(self, X, y)
        settings = SelectionSettings(
            min(self.n_features_to_select, x.shape[1]), self.step, self.fine_below, self.aggregate,
            estimator.members, estimator.inner_folds,
        )  # fmt: skip
        task = Task(x, np.arange(len(x)), (seed_of(self.random_state),))
        with single_threaded():
            self.trace_ = eliminate([task], labels, settings, estimator.network_settings())[0]
        self.support_ = np.zeros(x.shape[1], dtype=bool)
        self.support_[selected(self.trace_)] = True
        self.importances_ = np.empty(x.shape[1])
        self.ranking_ = np.ones(x.shape[1], dtype=int)
        for i, passed in enumerate(self.trace_):
            self.importances_[passed.remaining] = passed.importance
            self.ranking_[passed.removed] = len(self.trace_) - i
        return self

    def _get_support_mask(self) -> npt.NDArray[np.bool_]:
        check_is_fitted(self)
        mask: npt.NDArray[np.bool_] = self.support_
        return mask

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        rater = DeepClassifier() if self.estimator is None else self.estimator
        tags.classifier_tags = rater.__sklearn_tags__().classifier_tags  # two classes only
        return tags


def _next(count: int, selection: SelectionSettings) -> int:
    """Return how many of `count` features the next round keeps."""
    if count <= selection.fine_below:
        return max(selection.features, count - 1)
    fewer = min(count - 1, round(count * (1.0 - selection.step)))
    return max(selection.features, min(fewer, count - 1), min(selection.fine_below, count - 1))


def _schedule(count: int, selection: SelectionSettings) -> list[int]:
    """Numbers of features that networks are trained on, round by round, down to those selected."""
    counts = [count]
    while counts[-1] > selection.features:
        counts.append(_next(counts[-1], selection))
    return counts


def _aggregate(gradients: Array, how: Aggregate) -> Array:
    """Combine the members' gradients (members, k) into one importance per feature (k,)."""
    if how == "rank":
        ranks: Array = rankdata(gradients, axis=1).mean(axis=0)
        return ranks
    total = gradients.sum(axis=1, keepdims=True)
    normalised: Array = np.divide(gradients, total, out=np.zeros_like(gradients), where=total > 0).mean(axis=0)
    return normalised
