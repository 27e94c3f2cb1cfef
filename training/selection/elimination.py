"""Gradient-loss recursive feature elimination (GL-RFE).

A screening first orders the features by the gradient of the loss. Each round then trains networks on the remaining
features and differentiates them with respect to their inputs. The least important features are eliminated, and the next
round starts.

The method is that of arXiv 2606.04453 (JoVE 10.3791/70181). Only the abstracts are public. Everything that they do not
define is a setting here. ``paper`` and ``hardened`` (:mod:`training.procedure`) are two sets of these settings.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Final, get_args

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import Interval, InvalidParameterError, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from lungstage.training.model.classifier import DeepClassifier, binary_labels, seed_of
from lungstage.training.model.members import Member, inner_splits
from lungstage.training.model.network import NetworkSettings, single_threaded, train
from lungstage.training.selection.importance import Aggregate, Importance, aggregate, effects, held_out_importance
from lungstage.training.selection.screening import Screened, screen

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

PRODUCTS: Final = 15
"""Number of products of features that are also inputs of the networks of a round."""


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """How features are eliminated.

    Attributes
    ----------
    features
        Number of features to select.
    importance, aggregate
        How features are rated, see :mod:`training.selection.importance`. Networks are combined by the mean of their
        importances, each normalised to sum 1 (``mean``), or by mean ranks (``rank``); ``effects`` ignores `aggregate`.
    dropout_masks
        Number of random dropout masks that are averaged when features are rated; 0 rates without dropout.
    screened
        Number of features that enter the first round, as a multiple of the number to select; see
        :mod:`training.selection.screening`. None lets all enter.
    copies
        Smallest correlation of near copies, of which at most one enters; None lets all enter.
    pairwise
        Whether the screening, and the networks after it, also use products of features.
    memory
        Weight of a feature's former rating in its next one. Ratings are shares of the largest. A high weight reduces
        the effect of chance in a single round. The first rating is that of the screening.
    step, fine_below, fine_step
        The share that is eliminated per round while more than `fine_below` remain; below that, `fine_step` per round.
    members, inner_folds
        Networks per round, and folds of the inner split; the held-out part is one fold, in turn.
    """

    features: int = 15
    importance: Importance = "effects"
    aggregate: Aggregate = "mean"
    dropout_masks: int = 0
    screened: float | None = 2.0
    copies: float | None = 0.9
    pairwise: bool = True
    memory: float = 0.9
    step: float = 0.2
    fine_below: int = 30
    fine_step: int = 5
    members: int = 10
    inner_folds: int = 5


PUBLISHED: Final = SelectionSettings(
    importance="loss", screened=None, copies=None, pairwise=False, memory=0.0, step=0.1, fine_below=30, fine_step=1
)
"""The published method as far as it is known: gradients of the loss, eliminate the least important, train again."""


@dataclass(frozen=True, slots=True)
class Task:
    """One selection or one ensemble to fit.

    Attributes
    ----------
    inputs
        (n, d) features of all rows, standardised by steps fitted on `rows`.
    rows
        The training rows; labels of other rows are not used.
    seed
        Seed of everything random in the task.
    covariates
        (n, c) standardised covariates. The network uses them with the selected features; they are never eliminated.
        None without covariates.
    """

    inputs: Array
    rows: Indices
    seed: tuple[int, ...]
    covariates: Array | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One round of an elimination: remaining features, their ratings, and eliminated features. Indices are columns."""

    remaining: Indices
    importance: Array
    removed: Indices


def eliminate(
    tasks: Sequence[Task],
    labels: npt.NDArray[np.bool_],
    selection: SelectionSettings,
    network: NetworkSettings,
    counts: Sequence[int] | None = None,
    *,
    rated: bool = True,
) -> list[tuple[Round, ...]]:
    """Run several eliminations in parallel, with their networks trained together; returns each task's rounds.

    The selection of a task does not depend on the others. The last round only rates the selected features; without
    `rated` it is skipped. `counts` are descending numbers of features at which networks are trained. The settings lead
    to the first of them; by default that is the final number.
    """
    everything = np.arange(tasks[0].inputs.shape[1])
    remaining = [everything for _ in tasks]
    remembered = [np.zeros(len(everything)) for _ in tasks]
    traces: list[list[Round]] = [[] for _ in tasks]
    screenings = [_screened(task, labels, selection) for task in tasks]
    for i, screened in enumerate(screenings):
        if screened is not None:
            remaining[i] = np.sort(screened.columns)
            remembered[i] = _of_the_largest(screened.gradient)
            if len(gone := np.setdiff1d(everything, remaining[i])):
                traces[i].append(Round(everything, screened.gradient, gone))
    rounds = _schedule(len(remaining[0]), selection, counts or [selection.features])
    for count, fewer in rounds if rated or not rounds[:-1] else rounds[:-1]:
        raters = [
            _raters(task, columns, labels, selection, screened)
            for task, columns, screened in zip(tasks, remaining, screenings, strict=True)
        ]
        for i, fresh in enumerate(_rate(raters, selection, network)):
            columns = remaining[i]
            if selection.memory:
                fresh = _of_the_largest(fresh)  # ratings of different rounds have different scales
                share = selection.memory if traces[i] else 0.0
                fresh = share * remembered[i][columns] + (1.0 - share) * fresh
            if (screened := screenings[i]) is not None:
                fresh = np.where(screened.copies[columns], 0.0, fresh)  # another remaining feature represents them
            remembered[i][columns] = fresh
            # A stable order: of equally important features the later one is eliminated.
            keep = np.sort(np.argsort(-fresh, kind="stable")[:fewer])
            gone = np.setdiff1d(np.arange(count), keep)
            traces[i].append(Round(columns, fresh, columns[gone]))
            remaining[i] = columns[keep]
    return [tuple(trace) for trace in traces]


@dataclass(frozen=True, slots=True)
class _Raters:
    """The networks of one round of one task, and their inputs: features, by position, then products."""

    members: list[Member]
    terms: list[tuple[int, ...]]
    features: int


def _screened(task: Task, labels: npt.NDArray[np.bool_], selection: SelectionSettings) -> Screened | None:
    if selection.screened is None:
        return None
    count = min(task.inputs.shape[1], max(selection.features, round(selection.screened * selection.features)))
    return screen(task.inputs[task.rows], labels[task.rows], count, selection.copies, pairwise=selection.pairwise)


def _raters(
    task: Task,
    columns: Indices,
    labels: npt.NDArray[np.bool_],
    selection: SelectionSettings,
    screened: Screened | None,
) -> _Raters:
    """Return the networks of one round of one task, still to be trained."""
    inputs = task.inputs[:, columns]
    terms: list[tuple[int, ...]] = [(i,) for i in range(len(columns))]
    if screened is not None and selection.pairwise:
        place = {column: i for i, column in enumerate(columns.tolist())}
        pairs = [(place[a], place[b]) for a, b in screened.pairs.tolist() if a in place and b in place][:PRODUCTS]
        # Always the same number, so that a task's networks do not depend on the other tasks of the batch.
        products = np.zeros((len(inputs), PRODUCTS))
        for i, (a, b) in enumerate(pairs):
            product = inputs[:, a] * inputs[:, b]
            own = product[task.rows]
            products[:, i] = (product - own.mean()) / max(float(own.std()), 1e-9)
        inputs, terms = np.hstack([inputs, products]), [*terms, *pairs]
    seed = np.random.SeedSequence([*task.seed, len(columns)])
    splits = inner_splits(labels, task.rows, selection.members, selection.inner_folds, seed)
    return _Raters([Member(inputs, labels, *split) for split in splits], terms, len(columns))


def _rate(raters: Sequence[_Raters], selection: SelectionSettings, network: NetworkSettings) -> list[Array]:
    """Train the networks of all tasks together, and rate the features that remain in each; (k,) each."""
    networks = train([member for own in raters for member in own.members], network)
    rated = []
    for i, own in enumerate(raters):
        theirs = networks[slice(i * selection.members, (i + 1) * selection.members)]
        if selection.importance == "effects":
            rated.append(effects(theirs, own.members, own.terms, own.features))
            continue
        each = held_out_importance(theirs, own.members, selection.importance, selection.dropout_masks, network.dropout)[
            :, : own.features
        ]
        rated.append(aggregate(each, selection.aggregate) * own.features)
    return rated


def _of_the_largest(ratings: Array) -> Array:
    """Ratings as shares of the largest."""
    shares: Array = ratings / max(float(ratings.max()), float(np.finfo(np.float64).tiny))
    return shares


def selected(trace: Sequence[Round]) -> Indices:
    """Return the selected columns of an elimination, in ascending order."""
    last = trace[-1]
    return np.setdiff1d(last.remaining, last.removed)


def in_order(trace: Sequence[Round]) -> Indices:
    """Return the selected columns of an elimination, the most important first."""
    last = trace[-1]
    kept = np.isin(last.remaining, last.removed, invert=True)
    order = np.argsort(-last.importance[kept], kind="stable")
    return last.remaining[kept][order]


class GradientLossRFE(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Gradient-loss recursive feature elimination as a scikit-learn selector.

    Parameters
    ----------
    estimator
        The networks that rate the features: a ``lungstage.training.model.classifier.DeepClassifier``. None means one
        with its defaults. Inputs must be standardised, e.g. by scikit-learn's ``StandardScaler``, because gradients
        depend on the scale.
    n_features_to_select
        Number of features to select. A float in (0, 1] is a share of the given features, rounded down, but at least one
        feature. If fewer features are given, all are kept.
    importance
        How features are rated: by their ``effects`` on the logit, alone and in products, or by one of the gradients
        ``loss`` (as published), ``logit``, ``input_gradient``, ``integrated``.
    aggregate
        How networks are combined: by the mean of their importances, each normalised to sum 1 (``mean``), or by mean
        ranks (``rank``). ``effects`` ignores it.
    dropout_masks
        Number of random dropout masks that are averaged when features are rated; 0 rates without dropout.
    screened
        Number of features that enter the first round, as a multiple of the number to select; None lets all enter.
    copies
        Smallest correlation of near copies, of which at most one enters; None lets all enter.
    pairwise
        Whether the screening, and the networks after it, also use products of features.
    memory
        Weight of a feature's former rating in its next one; 0 means none.
    step
        Share of the features that is eliminated per round while more than `fine_below` remain.
    fine_below
        Number of features from which on `fine_step` features are eliminated per round.
    fine_step
        Number of features eliminated per round at or below `fine_below`.
    random_state
        Seed.

    Attributes
    ----------
    support_ : (n_features_in_,) bool
        The selected features.
    importances_ : (n_features_in_,) float64
        Last importance of each feature; for an eliminated one, that of its last round.
    ranking_ : (n_features_in_,) int
        1 for a selected feature; higher for features that were eliminated earlier.
    trace_ : tuple of Round
        Every round in order: the columns (``remaining``), their ratings (``importance``) and the eliminated columns
        (``removed``).

    Raises
    ------
    ValueError
        By ``fit``: a parameter is invalid, `estimator` has no gradients, a value of `X` is not finite, or `y` does not
        have two classes.

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
        "screened": [None, Interval(Real, 1, None, closed="left")],
        "copies": [None, Interval(Real, 0, 1, closed="right")],
        "pairwise": ["boolean"],
        "memory": [Interval(Real, 0, 1, closed="left")],
        "step": [Interval(Real, 0, 1, closed="neither")],
        "fine_below": [Interval(Integral, 0, None, closed="left")],
        "fine_step": [Interval(Integral, 1, None, closed="left")],
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
        screened: float | None = 2.0,
        copies: float | None = 0.9,
        pairwise: bool = True,
        memory: float = 0.9,
        step: float = 0.2,
        fine_below: int = 30,
        fine_step: int = 5,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.n_features_to_select = n_features_to_select
        self.importance = importance
        self.aggregate = aggregate
        self.dropout_masks = dropout_masks
        self.screened = screened
        self.copies = copies
        self.pairwise = pairwise
        self.memory = memory
        self.step = step
        self.fine_below = fine_below
        self.fine_step = fine_step
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> GradientLossRFE:  # noqa: N803
        """Select features of `X` (n, d) for the two classes of `y` (n,)."""
        self._validate_params()
        if isinstance(self.n_features_to_select, bool):  # in Python a bool is also a number
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


def _next(count: int, aim: int, selection: SelectionSettings) -> int:
    """Return how many of `count` features the next round keeps; the final number is `aim`."""
    if count <= selection.fine_below:
        return max(aim, count - selection.fine_step)
    fewer = min(count - 1, round(count * (1.0 - selection.step)))
    return max(aim, min(fewer, count - 1), min(selection.fine_below, count - 1))


def _schedule(count: int, selection: SelectionSettings, counts: Sequence[int]) -> list[tuple[int, int]]:
    """For each round, the number of features that networks are trained on, and the number that remains."""
    rounds: list[tuple[int, int]] = []
    while count > counts[0]:
        fewer = _next(count, counts[0], selection)
        rounds.append((count, fewer))
        count = fewer
    return [*rounds, *itertools.pairwise([count, *counts[1:]]), (min(count, counts[-1]),) * 2]
