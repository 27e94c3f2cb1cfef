"""Estimate of the processor time of a fit, shown before it starts."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from lungstage.training.cohorts.cohort import CUT_COLUMN, Cohort
from lungstage.training.evaluation.folds import assign_folds, left_out, outer_task, workers_for
from lungstage.training.evaluation.methods import fit_ensembles
from lungstage.training.evaluation.stability import pairs_of
from lungstage.training.model.network import single_threaded
from lungstage.training.procedure import Procedure
from lungstage.training.selection.elimination import eliminate

_PROBED: Final = 3  # tasks trained together; more of them add little precision
_ENSEMBLES: Final = 3  # per outer fit: on the selections of GL-RFE, ANOVA and random
_HALVES: Final = 2  # per split of the patients
_POINTS: Final = 3.0  # one fold of the curve of feature counts costs as much as so many selections and ensembles
_REST: Final = 1.15  # factor for intervals and models without networks
_START: Final = 3.0  # processor seconds of a process to load its libraries


def expected_seconds(cohort: Cohort, procedure: Procedure) -> float:
    """Return about how many seconds of processor time a fit takes on this machine, including loading the libraries.

    A few selections and ensembles are computed and timed, and the total is extrapolated. The waiting time cannot be
    predicted, because it depends on the other work of the machine.
    """
    labels = cohort.labels
    fold = assign_folds(labels, procedure.folds, procedure.repeats, procedure.seed)
    outer = left_out(fold)
    tasks = [
        outer_task(cohort.values, fold, place, procedure.seed, cohort.covariate_values) for place in outer[:_PROBED]
    ]
    some = np.tile(np.arange(min(procedure.selection.features, cohort.values.shape[1])), (len(tasks), 1))
    with single_threaded():
        fit_ensembles(tasks[:1], some[:1], labels, procedure)  # the first call also loads libraries
        started = time.process_time()
        eliminate(tasks, labels, procedure.selection, procedure.network, rated=False)
        chosen = time.process_time()
        fit_ensembles(tasks, some, labels, procedure)
        fitted = time.process_time()
    selection, ensemble = (chosen - started) / len(tasks), (fitted - chosen) / len(tasks)
    curve = _POINTS * 2 * procedure.inner_folds
    cut_rows = procedure.folds if cohort.excluded.get(CUT_COLUMN) else 0
    selections = len(outer) + _HALVES * pairs_of(procedure) + cut_rows + curve
    ensembles = _ENSEMBLES * len(outer) + cut_rows + curve
    workers = workers_for(len(outer) * procedure.members)
    processes = 1 + (workers if workers > 1 else 0)
    return _START * processes + _REST * (selections * selection + ensembles * ensemble)


def in_words(seconds: float) -> str:
    """Write a duration roughly: ``about 40 seconds``, ``about 7 minutes``."""
    if seconds < 95:
        return f"about {max(5, 5 * round(seconds / 5))} seconds"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} minutes"
    return f"about {round(minutes / 60)} hours"
