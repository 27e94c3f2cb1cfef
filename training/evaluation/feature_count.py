"""Number of features: the inner cross-validated AUC of the whole procedure as a function of their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.training.evaluation.folds import assign_folds, prepare, run_tasks
from lungstage.training.evaluation.methods import fit_ensembles, model_inputs
from lungstage.training.evaluation.metrics import auc
from lungstage.training.model.network import ensemble_logits
from lungstage.training.procedure import Procedure
from lungstage.training.selection.elimination import Task, eliminate, selected

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POINTS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40)
"""Numbers of features to evaluate. Each costs one ensemble per fold, and the AUC of close numbers is nearly equal."""
_MEMBERS: Final = 5  # networks that rate and predict; enough for a point of the curve


@dataclass(frozen=True, slots=True)
class Curve:
    """AUC by the number of features.

    Attributes
    ----------
    k
        Numbers of features, ascending.
    auc, se
        (len(k),) mean over the folds, and its standard error.

    Notes
    -----
    The one-standard-error rule is that of Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
    """

    k: tuple[int, ...]
    auc: Array
    se: Array

    @property
    def best(self) -> int:
        """Number of features with the highest mean."""
        return self.k[int(np.argmax(self.auc))]

    @property
    def one_se(self) -> int:
        """Smallest number within one standard error of the best."""
        top = int(np.argmax(self.auc))
        return self.k[int(np.argmax(self.auc >= self.auc[top] - self.se[top]))]


def curve(
    values: Array,
    labels: Bools,
    procedure: Procedure,
    report: Callable[[int, int], None],
    *,
    covariate_values: Array | None = None,
    workers: int = 1,
) -> Curve:
    """Run one elimination per inner fold, from the largest of :data:`POINTS` down to one feature.

    Parameters
    ----------
    values, labels, covariate_values
        (n, d) raw features, (n,) labels and (n, c) covariates of the training rows; no other rows are used.
    procedure
        Its number of features is also evaluated.
    report
        Called with the number of finished folds and the total.
    workers
        Processes; the curve does not depend on it.
    """
    own = {procedure.selection.features, *POINTS}
    k = sorted({min(point, values.shape[1]) for point in own if point <= max(POINTS)})
    fold = assign_folds(labels, procedure.inner_folds, 2, procedure.seed + 1)
    places = [(r, f) for r in range(len(fold)) for f in range(procedure.inner_folds)]
    tasks = [
        prepare(values, np.flatnonzero(fold[r] != f), (procedure.seed, 9, r, f), covariate_values) for r, f in places
    ]
    logits = run_tasks(tasks, labels, _Paths(procedure, tuple(k)), report, workers=workers)
    scores = np.array(
        [
            [auc(own, labels, np.zeros(len(labels), dtype=int), (fold[r] == f)[None].astype(float))[0] for own in each]
            for (r, f), each in zip(places, logits, strict=True)
        ]
    )
    return Curve(tuple(k), scores.mean(axis=0), scores.std(axis=0, ddof=1) / np.sqrt(procedure.inner_folds))


@dataclass(frozen=True, slots=True)
class _Paths:
    """Log odds of all rows by number of features, (tasks, numbers, n).

    For :func:`training.evaluation.folds.run_tasks`.
    """

    procedure: Procedure
    k: tuple[int, ...]

    def __call__(self, tasks: Sequence[Task], labels: Bools) -> Array:
        own = self.procedure.selection
        entering = None if own.screened is None else float(self.k[-1])
        selection = replace(own, features=1, screened=entering, members=min(_MEMBERS, own.members))
        light = replace(self.procedure, members=min(_MEMBERS, self.procedure.members))
        traces = eliminate(tasks, labels, selection, self.procedure.network, self.k[::-1], rated=False)
        passed = [[*(own.remaining for own in trace), selected(trace)] for trace in traces]
        logits = np.empty((len(tasks), len(self.k), len(labels)))
        for point, k in enumerate(self.k):
            columns = np.stack([next(own for own in each if len(own) == k) for each in passed])
            ensembles = fit_ensembles(tasks, columns, labels, light)
            for i, (ensemble, task, own) in enumerate(zip(ensembles, tasks, columns, strict=True)):
                logits[i, point] = ensemble_logits(ensemble, model_inputs(task, own))
        return logits
