"""Repeated stratified k-fold with everything fitted inside the fold, calibration and thresholds too.

A row is a patient (:mod:`training.cohort` sees to it), so the folds part patients.

Calibration and conformal thresholds need logits of rows that the model has not seen. Taking the other folds'
out-of-fold logits would let the test fold in by the back door, for those models were trained on it. So every pair
of folds is left out once as well: the models without folds f and g give the logits of g from which fold f is
calibrated. With k folds that is k + k(k-1)/2 fits of the whole procedure per repeat, and no label of a test row
has any say in its prediction.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import StratifiedKFold

from training.calibration import calibrate, conformal_thresholds
from training.network import NetworkSettings, single_threaded
from training.preprocessing import Standardise
from training.selection import SelectionSettings, Task

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the parts done, and all its parts."""

_TASKS_TOGETHER = 8  # about eighty networks; results do not depend on it


@dataclass(frozen=True, slots=True)
class Procedure:
    """The whole procedure that is evaluated, and that a model is then fitted by.

    Attributes
    ----------
    members, inner_folds
        Networks of the ensemble, and the folds of the inner split that they stop early on.
    alpha
        Error rate of the conformal thresholds: each stage is ruled out wrongly in at most this share of its cases.
        On LUNG1, where tumour features reach an AUC of 0.7, an alpha of 0.1 leaves two cases in three
        indeterminate, 0.2 a good third, and what is decided is right in 0.7 either way.
    seed
        The one seed that everything random derives from.
    """

    folds: int = 5
    repeats: int = 3
    members: int = 10
    inner_folds: int = 5
    alpha: float = 0.2
    seed: int = 0
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)


QUICK = Procedure(
    repeats=1,
    members=2,
    selection=SelectionSettings(step=0.5, fine_below=16, members=2),
    network=NetworkSettings(max_epochs=15),
)
"""Tiny settings that run everything in seconds; the figures are not worth reading."""


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Predictions of rows by models that never saw them.

    Attributes
    ----------
    logits, probabilities
        (repeats, n); the probabilities are calibrated, by a calibration that never saw the row's fold either.
    possible
        (repeats, n, 2) bool, whether early and advanced remain possible under the fold's conformal thresholds.
    fold
        (repeats, n), the fold each row is tested in.
    selections
        (repeats * folds, k) selected columns, None where nothing is selected.
    """

    logits: Array
    probabilities: Array
    possible: Bools
    fold: Indices
    selections: Indices | None


Method = Callable[[Sequence[Task], Bools], tuple[Array, Indices | None]]
"""Fits each task on its rows: logits of all rows (tasks, n), and the selected columns (tasks, k) or None."""


def assign_folds(stage: Bools, folds: int, repeats: int, seed: int) -> Indices:
    """Fold of each row in each repeat, stratified by stage; (repeats, n)."""
    assigned = np.empty((repeats, len(stage)), dtype=np.intp)
    states = np.random.default_rng(np.random.SeedSequence([seed, 0])).integers(2**31, size=repeats)
    for repeat, state in enumerate(states):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=int(state))
        for fold, (_, test) in enumerate(splitter.split(stage, stage)):
            assigned[repeat, test] = fold
    return assigned


def out_of_fold(
    values: Array, stage: Bools, fold: Indices, method: Method, procedure: Procedure, report: Progress, name: str
) -> OutOfFold:
    """Run `method` on every split of `fold`, with its calibration and thresholds.

    Parameters
    ----------
    values
        (n, d) features, NaN where missing.
    stage
        (n,) True where advanced.
    fold
        (repeats, n), see :func:`assign_folds`.
    method
        What is evaluated.
    procedure
        Seed and conformal error rate; the rest is the method's business.
    report, name
        Progress, and the name it goes under.
    """
    repeats, n = fold.shape
    folds = int(fold.max()) + 1
    left_out = [(r, f, g) for r in range(repeats) for f in range(folds) for g in range(f, folds)]
    # Fits of like size go together, those without one fold before those without two.
    left_out.sort(key=lambda place: place[1] != place[2])
    tasks = [
        prepare(values, np.flatnonzero((fold[r] != f) & (fold[r] != g)), (procedure.seed, 1, r, f, g))
        for r, f, g in left_out
    ]
    fitted = run_tasks(tasks, stage, method, lambda done, total: report(name, done, total))
    logits, probabilities = np.empty((repeats, n)), np.empty((repeats, n))
    possible = np.empty((repeats, n, 2), dtype=bool)
    by_place = dict(zip(left_out, fitted[0], strict=True))
    for r, f in itertools.product(range(repeats), range(folds)):
        test = fold[r] == f
        logits[r, test] = by_place[r, f, f][test]
        unseen = np.empty(n)
        for g in set(range(folds)) - {f}:
            unseen[fold[r] == g] = by_place[r, min(f, g), max(f, g)][fold[r] == g]
        calibration = calibrate(unseen[~test], stage[~test])
        thresholds = conformal_thresholds(calibration(unseen[~test]), stage[~test], procedure.alpha)
        probabilities[r, test] = calibration(logits[r, test])
        possible[r, test] = thresholds.possible(probabilities[r, test])
    selections = None if fitted[1] is None else fitted[1][: repeats * folds]
    return OutOfFold(logits, probabilities, possible, fold, selections)


def prepare(values: Array, rows: Indices, seed: tuple[int, ...]) -> Task:
    """Return the task of fitting to `rows` of `values` (n, d), standardised by steps fitted on those rows."""
    return Task(Standardise().fit(values[rows]).transform(values), rows, seed)


def run_tasks(
    tasks: Sequence[Task], stage: Bools, method: Method, report: Callable[[int, int], None]
) -> tuple[Array, Indices | None]:
    """Run `method` over `tasks` in small groups, on a few threads."""
    groups = [tasks[i : i + _TASKS_TOGETHER] for i in range(0, len(tasks), _TASKS_TOGETHER)]
    results = []
    threads = min(2, os.cpu_count() or 1)  # more only wait for the interpreter's lock
    with single_threaded(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        report(0, len(tasks))
        for result in pool.map(lambda group: method(group, stage), groups):
            results.append(result)
            report(min(len(tasks), _TASKS_TOGETHER * len(results)), len(tasks))
    columns = [selection for _, selection in results if selection is not None]
    return np.concatenate([logits for logits, _ in results]), np.concatenate(columns) if columns else None
