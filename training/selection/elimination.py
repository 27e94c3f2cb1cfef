"""Gradient-loss recursive feature elimination (GL-RFE).

Networks are trained on the features that remain, differentiated with respect to their inputs, the features that matter
least are eliminated, and the networks are trained anew.

The method is that of arXiv 2606.04453 (JoVE 10.3791/70181), of which only the abstracts are public. What they
leave open is a setting here; ``paper`` and ``hardened`` (:mod:`training.procedure`) are two choices of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Final, get_args

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, clone
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import Interval, InvalidParameterError, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from lungstage.training.model.classifier import DeepClassifier, binary_labels, seed_of
from lungstage.training.model.members import Member, inner_splits
from lungstage.training.model.network import NetworkSettings, single_threaded, train, train_second_order
from lungstage.training.selection.importance import (
    Aggregate,
    Chance,
    Effects,
    Importance,
    aggregate,
    held_out_importance,
)

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

PERMUTATIONS = 2


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """How features are eliminated.

    Attributes
    ----------
    features
        How many remain at the end.
    importance, aggregate
        How features are rated, see :mod:`training.selection.importance`. Networks are put together by their
        importances, each normalised to sum 1 (``mean``), or by ranks (``rank``); ``effects`` has its own way.
    dropout_masks
        Random masks of hidden units that are averaged over when features are rated; 0 rates without dropout.
    pairwise
        For ``effects``: look at pairs of features as well, by networks of second order.
    copies
        For ``effects``: share of a feature's gradient that its near copies are given, see there.
    memory
        Share of a feature's former rating in its next one: how much a single round's chance can do.
    step, fine_below, fine_step
        The share that goes per round while more than `fine_below` remain; then `fine_step` at a time.
    clusters
        Keep the best of each of so many clusters of Spearman correlation after the first round; None for no clusters.
    members, inner_folds
        Networks per round, and the folds of the inner split whose held-out part they take turns at.
    """

    features: int = 15
    importance: Importance = "effects"
    aggregate: Aggregate = "mean"
    dropout_masks: int = 0
    pairwise: bool = True
    copies: float = 0.3
    memory: float = 0.7
    step: float = 0.2
    fine_below: int = 30
    fine_step: int = 3
    clusters: int | None = None
    members: int = 10
    inner_folds: int = 5


PUBLISHED: Final = SelectionSettings(
    importance="loss", pairwise=False, memory=0.0, step=0.1, fine_below=30, fine_step=1
)
"""The published method, where it is known: gradients of the loss, the least important eliminated, retrained."""


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
    covariates
        (n, c) standardised clinical inputs, which the network sees beside the selected features; never selected from.
        None where there are none.
    """

    inputs: Array
    rows: Indices
    seed: tuple[int, ...]
    covariates: Array | None = None


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
    remembered = [np.zeros(len(columns)) for columns in remaining]
    chance = _chance(tasks, labels, selection, network) if selection.importance == "effects" else []
    traces: list[list[Round]] = [[] for _ in tasks]
    for count, fewer in _schedule(len(remaining[0]), selection):
        members = [
            member
            for task, columns in zip(tasks, remaining, strict=True)
            for member in _members(task, columns, labels, selection, count)
        ]
        fresh = _rate(members, selection, network, chance)
        for i, columns in enumerate(remaining):
            before = remembered[i][columns]
            share = selection.memory if traces[i] else 0.0
            importance = remembered[i][columns] = share * before + (1.0 - share) * fresh[i]
            # A stable order: of equally important features the later one goes.
            order = np.argsort(-importance, kind="stable")
            if selection.clusters is not None and not traces[i]:
                order = _best_of_clusters_first(order, tasks[i].inputs[tasks[i].rows], fewer)
            keep = np.sort(order[:fewer])
            gone = np.setdiff1d(np.arange(count), keep)
            traces[i].append(Round(columns, importance, columns[gone]))
            remaining[i] = columns[keep]
    return [tuple(trace) for trace in traces]


def _members(
    task: Task, columns: Indices, labels: npt.NDArray[np.bool_], selection: SelectionSettings, *purpose: int
) -> list[Member]:
    """Return the networks of one round of one task."""
    seed = np.random.SeedSequence([*task.seed, *purpose])
    splits = inner_splits(labels, task.rows, selection.members, selection.inner_folds, seed)
    return [Member(task.inputs[:, columns], labels, *split) for split in splits]


def _chance(
    tasks: Sequence[Task], labels: npt.NDArray[np.bool_], selection: SelectionSettings, network: NetworkSettings
) -> list[Chance]:
    """Learn from permuted labels of each task's rows how strong effects come out by chance."""
    members = []
    for task in tasks:
        for i in range(PERMUTATIONS):
            permuted = labels.copy()
            stream = np.random.default_rng(np.random.SeedSequence([*task.seed, 0, i]))
            permuted[task.rows] = stream.permutation(labels[task.rows])
            members += _members(task, np.arange(task.inputs.shape[1]), permuted, selection, 0, i)
    null = _effects(members, selection, network)
    return [Chance.of(null[i : i + PERMUTATIONS]) for i in range(0, len(null), PERMUTATIONS)]


def _effects(members: Sequence[Member], selection: SelectionSettings, network: NetworkSettings) -> list[Effects]:
    """Train the raters, and read the effects off each group of them."""
    networks = train(members, network)
    pairs = train_second_order(members, network) if selection.pairwise else None
    groups = [slice(i, i + selection.members) for i in range(0, len(members), selection.members)]
    return [
        Effects.of(networks[g], members[g], None if pairs is None else pairs[g], copies=selection.copies)
        for g in groups
    ]


def _rate(
    members: Sequence[Member], selection: SelectionSettings, network: NetworkSettings, chance: Sequence[Chance]
) -> list[Array]:
    """Train the raters, and rate the features that remain in each task; (k,) each."""
    if selection.importance == "effects":
        found = _effects(members, selection, network)
        return [level.evidence(own) for level, own in zip(chance, found, strict=True)]
    networks = train(members, network)
    each = held_out_importance(networks, members, selection.importance, selection.dropout_masks, network.dropout)
    groups = [each[i : i + selection.members] for i in range(0, len(members), selection.members)]
    return [aggregate(group, selection.aggregate) * group.shape[1] for group in groups]


def spearman_distance(inputs: Array) -> tuple[Array, Array]:
    """Spearman correlation (d, d) of the columns of `inputs` (n, d), d > 2, and 1 - |correlation| in condensed form."""
    correlation = np.nan_to_num(np.asarray(spearmanr(inputs).statistic))
    np.fill_diagonal(correlation, 1.0)
    return correlation, squareform(np.clip(1.0 - np.abs(correlation), 0.0, 1.0), checks=False)


def _best_of_clusters_first(order: Indices, inputs: Array, clusters: int) -> Indices:
    """Move the best-rated feature of each cluster of `inputs` (rows, d) to the front of `order`, best first."""
    cluster = fcluster(linkage(spearman_distance(inputs)[1], "average"), clusters, "maxclust")
    _, first = np.unique(cluster[order], return_index=True)
    return np.concatenate([order[np.sort(first)], np.delete(order, first)])


def selected(trace: Sequence[Round]) -> Indices:
    """Return the columns that an elimination left, in ascending order."""
    last = trace[-1]
    return np.setdiff1d(last.remaining, last.removed)


def in_order(trace: Sequence[Round]) -> Indices:
    """Return the columns that an elimination left, the most important first."""
    last = trace[-1]
    kept = np.isin(last.remaining, last.removed, invert=True)
    order = np.argsort(-last.importance[kept], kind="stable")
    return last.remaining[kept][order]


class GradientLossRFE(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Gradient-loss recursive feature elimination as a scikit-learn selector.

    Parameters
    ----------
    estimator
        The networks that rate the features, a :class:`training.model.classifier.DeepClassifier`; None is one with its
        defaults. Inputs must be standardised, e.g. by :class:`training.model.preprocessing.Standardise` or
        scikit-learn's ``StandardScaler``: gradients depend on the scale.
    n_features_to_select
        How many remain; a float in (0, 1] is the share of those given, rounded down, but at least one feature. With
        fewer features than asked for, all are kept.
    importance, aggregate, dropout_masks, pairwise, copies, memory, step, fine_below, fine_step, clusters
        See :class:`SelectionSettings`.
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

    Raises
    ------
    ValueError
        By ``fit``: a parameter has no meaning, `estimator` is nothing that gradients can be taken of, a value of `X`
        is not finite, or `y` does not have two classes.

    Examples
    --------
    >>> from lungstage import GradientLossRFE
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> select = GradientLossRFE(n_features_to_select=4, importance="loss", step=0.5, fine_below=4)
    >>> model = make_pipeline(StandardScaler().set_output(transform="pandas"), select, LogisticRegression()).fit(X, y)
    >>> len(select.get_feature_names_out())
    4
    >>> model.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_features_to_select": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "importance": [StrOptions({*get_args(Importance)})],
        "aggregate": [StrOptions({*get_args(Aggregate)})],
        "dropout_masks": [Interval(Integral, 0, None, closed="left")],
        "pairwise": ["boolean"],
        "copies": [Interval(Real, 0, None, closed="left")],
        "memory": [Interval(Real, 0, 1, closed="left")],
        "step": [Interval(Real, 0, 1, closed="neither")],
        "fine_below": [Interval(Integral, 0, None, closed="left")],
        "fine_step": [Interval(Integral, 1, None, closed="left")],
        "clusters": [None, Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: DeepClassifier | None = None,
        *,
        n_features_to_select: float = 15,
        importance: Importance = "effects",
        aggregate: Aggregate = "mean",
        dropout_masks: int = 0,
        pairwise: bool = True,
        copies: float = 0.3,
        memory: float = 0.7,
        step: float = 0.2,
        fine_below: int = 30,
        fine_step: int = 3,
        clusters: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.n_features_to_select = n_features_to_select
        self.importance = importance
        self.aggregate = aggregate
        self.dropout_masks = dropout_masks
        self.pairwise = pairwise
        self.copies = copies
        self.memory = memory
        self.step = step
        self.fine_below = fine_below
        self.fine_step = fine_step
        self.clusters = clusters
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> GradientLossRFE:  # noqa: N803
        """Select features of `X` (n, d) for the two classes of `y` (n,)."""
        self._validate_params()
        if isinstance(self.n_features_to_select, bool):  # which Python takes for a number
            raise InvalidParameterError("n_features_to_select must be a number or a share of features, not a bool.")
        if not isinstance(self.estimator, DeepClassifier | None):
            raise InvalidParameterError(
                "GradientLossRFE rates features by the gradients of neural networks, so its estimator must be None or "
                f"a lungstage.training.model.classifier.DeepClassifier; {type(self.estimator).__name__} is neither."
            )
        estimator = DeepClassifier() if self.estimator is None else clone(self.estimator)
        x, labels, _ = binary_labels(self, X, y)
        wanted = self.n_features_to_select
        count = wanted if isinstance(wanted, Integral) else max(1, int(wanted * x.shape[1]))
        own = {f.name: getattr(self, f.name) for f in fields(SelectionSettings) if hasattr(self, f.name)}
        settings = SelectionSettings(
            **own,
            features=min(int(count), x.shape[1]),
            members=estimator.members,
            inner_folds=estimator.inner_folds,
        )
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
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags


def _next(count: int, selection: SelectionSettings, first: bool) -> int:
    """Return how many of `count` features the next round keeps."""
    if first and selection.clusters is not None:
        return max(selection.features, min(selection.clusters, count - 1))
    if count <= selection.fine_below:
        return max(selection.features, count - selection.fine_step)
    fewer = min(count - 1, round(count * (1.0 - selection.step)))
    return max(selection.features, min(fewer, count - 1), min(selection.fine_below, count - 1))


def _schedule(count: int, selection: SelectionSettings) -> list[tuple[int, int]]:
    """Numbers of features that networks are trained on and that remain after it, round by round."""
    rounds: list[tuple[int, int]] = []
    while count > selection.features:
        fewer = _next(count, selection, first=not rounds)
        rounds.append((count, fewer))
        count = fewer
    return [*rounds, (count, count)]
