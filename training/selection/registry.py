"""Every selector under its name, by one protocol: tasks in, for each task its features out, the best first.

What a selector is given of a task are the training rows and their labels; nothing of another row reaches it. Whoever
compares selectors, on one table or on many, takes them from here.
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
"""Tasks, the labels of all rows (n,), how many features, and whether in order; those of each task, the best first."""
Rank = Callable[[Array, Bools, int, int], Indices]
"""Standardised training rows (n, d), their labels (n,), how many columns k, seed; k columns, the best first."""

GL_RFE: Final = "gl_rfe"
PAPER: Final = "gl_rfe_paper"
BEST_SINGLE: Final = "best_single"


@dataclass(frozen=True, slots=True)
class Selector:
    """A way to choose features.

    Attributes
    ----------
    label
        Its name for a reader; the number of features follows after a hyphen.
    choose
        See :data:`Choose`.
    at_most
        How many features it takes at most; None for as many as are asked for.
    """

    label: str
    choose: Choose
    at_most: int | None = None

    def features(self, asked: int, columns: int) -> int:
        """Return how many features it takes where so many are asked for and there are so many columns."""
        return min(asked, columns, self.at_most or asked)

    def __call__(self, tasks: Sequence[Task], labels: Bools, asked: int, *, in_order: bool = True) -> list[Indices]:
        """Choose features in each task, which all have the same columns; their order may be left to chance."""
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
"""What each selector is called, by the name that it has in records; GL-RFE first."""


def selectors(selection: SelectionSettings, network: NetworkSettings) -> dict[str, Selector]:
    """Return every selector by name.

    Parameters
    ----------
    selection, network
        GL-RFE's settings, and those of the networks that rate. The published variant is left out where it is what they
        say anyway; it trains no more networks a round than they do.
    """
    published = replace(PUBLISHED, features=selection.features, members=min(PUBLISHED.members, selection.members))
    found = {GL_RFE: Selector(LABELS[GL_RFE], partial(_by_gradients, selection, network))}
    if published != selection:
        found[PAPER] = Selector(LABELS[PAPER], partial(_by_gradients, published, network))
    found |= {name: Selector(label, partial(_one_by_one, rank)) for name, (label, rank) in _RIVALS.items()}
    found[BEST_SINGLE] = Selector(LABELS[BEST_SINGLE], partial(_one_by_one, comparators.anova), at_most=1)
    return found


def seed_for(task: Task, purpose: int) -> int:
    """Seed of one random part of a task."""
    return int(np.random.SeedSequence([*task.seed, purpose]).generate_state(1)[0])


def _by_gradients(
    selection: SelectionSettings, network: NetworkSettings, tasks: Sequence[Task], labels: Bools, k: int, ordered: bool
) -> list[Indices]:
    traces = eliminate(tasks, labels, replace(selection, features=k), network, rated=ordered)
    return [in_order(trace) if ordered else selected(trace) for trace in traces]


def _one_by_one(rank: Rank, tasks: Sequence[Task], labels: Bools, k: int, _ordered: bool) -> list[Indices]:
    return [rank(task.inputs[task.rows], labels[task.rows], k, seed_for(task, 3)) for task in tasks]
