"""How much processor time a fit will take, said before it begins."""

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

_PROBED: Final = 3  # tasks trained together; more of them gain little
_ENSEMBLES: Final = 3  # of every outer fit: on what GL-RFE, ANOVA and chance select
_HALVES: Final = 2  # of each parting of the patients
_POINTS: Final = 3.0  # selections and ensembles that a fold of the curve of feature counts is worth
_REST: Final = 1.15  # intervals, and the models without networks
_START: Final = 3.0  # s of a processor, for a process to load its libraries


def expected_seconds(cohort: Cohort, procedure: Procedure) -> float:
    """Return about how many seconds of processor time a fit will take on this machine, loading the libraries included.

    A few of its selections and ensembles are made and timed; the rest is counting. Processor time is what can be
    foreseen: how long one waits for it depends on what else the machine does meanwhile.
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
    """Say a duration as nobody would hold a stopwatch to it: ``about 40 seconds``, ``about 7 minutes``."""
    if seconds < 95:
        return f"about {max(5, 5 * round(seconds / 5))} seconds"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} minutes"
    return f"about {round(minutes / 60)} hours"
