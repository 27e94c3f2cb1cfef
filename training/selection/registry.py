"""All selectors by name, with one interface: tasks in, the features of each task out, the best first.

A selector gets only the training rows of a task and their labels. All comparisons of selectors, on one table or on
many, use this registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.training.model.network import NetworkSettings
from lungstage.training.selection import comparators, products, trees
from lungstage.training.selection.elimination import PUBLISHED, SelectionSettings, Task, eliminate, in_order, selected

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

Choose = Callable[[Sequence[Task], Bools, int, bool], list[Indices]]
"""Tasks, the labels of all rows (n,), number of features, whether in order -> features of each task, the best first."""
Rank = Callable[[Array, Bools, int, int], Indices]
"""Standardised training rows (n, d), their labels (n,), number of columns k, seed -> k columns, the best first."""

GL_RFE: Final = "gl_rfe"
PAPER: Final = "gl_rfe_paper"
BEST_SINGLE: Final = "best_single"


@dataclass(frozen=True, slots=True)
class Selector:
    """A method of feature selection.

    Attributes
    ----------
    label
        Its name for readers; reports add a hyphen and the number of features.
    choose
        See :data:`Choose`.
    at_most
        Largest number of features that it selects; None for no limit.
    """

    label: str
    choose: Choose
    at_most: int | None = None

    def features(self, asked: int, columns: int) -> int:
        """Return how many features it selects, given the requested number and the number of columns."""
        return min(asked, columns, self.at_most or asked)

    def __call__(self, tasks: Sequence[Task], labels: Bools, asked: int, *, in_order: bool = True) -> list[Indices]:
        """Select features in each task. All tasks have the same columns. The order can be arbitrary (`in_order`)."""
        return self.choose(tasks, labels, self.features(asked, tasks[0].inputs.shape[1]), in_order)


_RIVALS: Final = MappingProxyType(
    {
        "anova": ("ANOVA", comparators.anova),
        "mrmr": ("mRMR", comparators.mrmr),
        "mutual_information": ("mutual information", comparators.mutual_information),
        "rfe_lr": ("RFE-LR", comparators.rfe_lr),
        "lasso": ("LASSO", comparators.lasso),
        "lassonet": ("LassoNet", comparators.lassonet),
        "f_products": ("F of products", products.f_of_products),
        "lars_products": ("LARS on products", products.lars_on_products),
        "boosted_trees": ("boosted trees", trees.boosted_trees),
        "boruta": ("Boruta", trees.boruta),
        "random": ("random", comparators.random),
    }
)

LABELS: Final = MappingProxyType(
    {
        GL_RFE: "GL-RFE",
        PAPER: "GL-RFE (paper)",
        **{name: label for name, (label, _) in _RIVALS.items()},
        BEST_SINGLE: "best single feature",
    }
)
"""Label of each selector, by its name in records; GL-RFE first."""


def selectors(selection: SelectionSettings, network: NetworkSettings) -> dict[str, Selector]:
    """Return every selector by name.

    Parameters
    ----------
    selection, network
        Settings of GL-RFE, and of the networks that rate the features. The published variant is left out if these are
        its settings. It trains at most as many networks per round.
    """
    published = replace(PUBLISHED, features=selection.features, members=min(PUBLISHED.members, selection.members))
    found = {GL_RFE: Selector(LABELS[GL_RFE], partial(_by_gradients, selection, network))}
    if published != selection:
        found[PAPER] = Selector(LABELS[PAPER], partial(_by_gradients, published, network))
    found |= {name: Selector(label, partial(_one_by_one, rank)) for name, (label, rank) in _RIVALS.items()}
    found[BEST_SINGLE] = Selector(LABELS[BEST_SINGLE], partial(_one_by_one, comparators.anova), at_most=1)
    return found


def seed_for(task: Task, purpose: int) -> int:
    """Return the seed of one random part of a task."""
    return int(np.random.SeedSequence([*task.seed, purpose]).generate_state(1)[0])


def _by_gradients(
    selection: SelectionSettings, network: NetworkSettings, tasks: Sequence[Task], labels: Bools, k: int, ordered: bool
) -> list[Indices]:
    traces = eliminate(tasks, labels, replace(selection, features=k), network, rated=ordered)
    return [in_order(trace) if ordered else selected(trace) for trace in traces]


def _one_by_one(rank: Rank, tasks: Sequence[Task], labels: Bools, k: int, _ordered: bool) -> list[Indices]:
    return [rank(task.inputs[task.rows], labels[task.rows], k, seed_for(task, 3)) for task in tasks]
