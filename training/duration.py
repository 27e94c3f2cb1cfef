"""How long a fit will take, said before it begins."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from lungstage.training.cohorts.cohort import Cohort
from lungstage.training.evaluation.folds import assign_folds, left_out, outer_task, workers_for
from lungstage.training.evaluation.methods import fit_ensembles
from lungstage.training.evaluation.stability import pairs_of
from lungstage.training.model.network import single_threaded
from lungstage.training.procedure import Procedure
from lungstage.training.selection.elimination import eliminate

_PROBED: Final = 3  # tasks trained together; more of them gain little
_ENSEMBLES: Final = 3  # of every outer fit: on what GL-RFE, ANOVA and chance select
_POINTS: Final = 3.0  # selections and ensembles that a fold of the curve of feature counts is worth
_REST: Final = 1.15  # intervals, and the models without networks
_START: Final = 20.0  # s, for processes to start and to load their libraries


def expected_seconds(cohort: Cohort, procedure: Procedure) -> float:
    """Return about how many seconds :func:`training.fit.fit` will take on this machine as it is now.

    A few of its selections and ensembles are made and timed; the rest is counting.
    """
    labels = cohort.labels
    fold = assign_folds(labels, procedure.folds, procedure.repeats, procedure.seed)
    outer = left_out(fold)
    tasks = [
        outer_task(cohort.values, fold, place, procedure.seed, cohort.covariate_values) for place in outer[:_PROBED]
    ]
    some = np.tile(np.arange(min(procedure.selection.features, cohort.values.shape[1])), (len(tasks), 1))
    with single_threaded():
        fit_ensembles(tasks[:1], some[:1], labels, procedure)  # the first time, libraries are still being loaded
        started = time.perf_counter()
        eliminate(tasks, labels, procedure.selection, procedure.network)
        chosen = time.perf_counter()
        fit_ensembles(tasks, some, labels, procedure)
        fitted = time.perf_counter()
    selection, ensemble = (chosen - started) / len(tasks), (fitted - chosen) / len(tasks)
    curve = _POINTS * 2 * procedure.inner_folds
    selections = len(outer) + 2 * pairs_of(procedure) + procedure.folds + curve
    ensembles = _ENSEMBLES * len(outer) + procedure.folds + curve
    workers = workers_for(len(outer) * procedure.members)
    started_processes = _START if workers > 1 else 0.0
    return started_processes + _REST * (selections * selection + ensembles * ensemble) / workers


def in_words(seconds: float) -> str:
    """Say a duration as nobody would hold a stopwatch to it: ``less than a minute``, ``about 7 minutes``."""
    if seconds < 45:
        return "less than a minute"
    minutes = max(1, round(seconds / 60))
    if minutes < 90:
        return f"about {minutes} minute{'s' if minutes > 1 else ''}"
    return f"about {round(minutes / 60)} hours"
