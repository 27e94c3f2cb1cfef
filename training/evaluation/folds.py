"""Repeated stratified k-fold in which everything is fitted inside the fold, including calibration and thresholds.

A row is a patient (:mod:`training.cohorts.cohort` ensures it), so the folds are folds of patients.

Calibration and conformal thresholds need logits of rows that the model has not seen. The out-of-fold logits of the
other folds cannot be used, because those models were trained on the test fold. So every pair of folds is also left out
once: the models without folds f and g give the logits of g for the calibration of fold f. With k folds this needs
k + k(k-1)/2 fits of the whole procedure per repeat. No label of a test row is used for its prediction.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed  # type: ignore[import-untyped]
from sklearn.model_selection import StratifiedKFold

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.training.model.calibration import calibrate, conformal_thresholds
from lungstage.training.model.network import single_threaded
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.selection.elimination import Task

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the number of finished parts, and the total."""
Result = TypeVar("Result", Array, Indices)
Fit = Callable[..., Result]
"""Fits several tasks, given the tasks, the labels of all rows, and one array entry per task; (tasks, …)."""

_WORTH_PROCESSES = 100  # networks; for fewer, starting processes takes longer than the work
MIN_FOLDS = 3  # with two folds, nothing is left when a pair is left out
_TASKS_TOGETHER = 13  # more than a hundred networks; training more together is not faster


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Predictions of rows by models that were not trained on them.

    Attributes
    ----------
    logits, probabilities
        (repeats, n) of the positive class. The probabilities are calibrated; the calibration also did not use the
        row's fold.
    possible
        (repeats, n, 2) bool, whether the conformal set contains the negative and the positive class, by the fold's
        thresholds.
    fold
        (repeats, n), the test fold of each row.
    selections
        (repeats * folds, k) selected columns; None without a selector.
    of_others
        (repeats, m) probabilities of rows that are never trained on, each by the models of one fold; m can be 0.
    """

    logits: Array
    probabilities: Array
    possible: Bools
    fold: Indices
    selections: Indices | None
    of_others: Array


def assign_folds(labels: Bools, folds: int, repeats: int, seed: int) -> Indices:
    """Fold of each row in each repeat, stratified by label; (repeats, n).

    Raises
    ------
    Refused
        ``table_invalid``: a class has fewer rows than there are folds, or there are fewer than three folds.
    """
    fewest = int(min(labels.sum(), (~labels).sum()))
    if not MIN_FOLDS <= folds <= fewest:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{folds} folds are requested. Choose from {MIN_FOLDS} to {fewest}: the smaller class has {fewest} rows.",
        )
    assigned = np.empty((repeats, len(labels)), dtype=np.intp)
    states = np.random.default_rng(np.random.SeedSequence([seed, 0])).integers(2**31, size=repeats)
    for repeat, state in enumerate(states):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=int(state))
        for fold, (_, test) in enumerate(splitter.split(labels, labels)):
            assigned[repeat, test] = fold
    return assigned


def deal_folds(rows: int, folds: int, repeats: int, seed: int) -> Indices:
    """Assign rows that are never trained on to the fold whose models predict them; (repeats, rows)."""
    stream = np.random.default_rng(np.random.SeedSequence([seed, 10]))
    return np.array([stream.permutation(rows) % folds for _ in range(repeats)], dtype=np.intp).reshape(repeats, rows)


def left_out(fold: Indices) -> list[tuple[int, int, int]]:
    """Repeat and the two folds that each fit leaves out: first single folds (f, f), then every pair (f, g)."""
    repeats, folds = range(len(fold)), range(int(fold.max()) + 1)
    singles = [(r, f, f) for r in repeats for f in folds]
    return singles + [(r, f, g) for r in repeats for f, g in itertools.combinations(folds, 2)]


def outer_tasks(values: Array, fold: Indices, seed: int, covariate_values: Array | None = None) -> list[Task]:
    """Return the fits of an evaluation in the order of :func:`left_out`.

    Parameters
    ----------
    values
        (n + m, d) features, NaN where missing; the last m rows are never trained on.
    fold
        (repeats, n), see :func:`assign_folds`.
    seed
        The seed.
    covariate_values
        (n + m, c) covariates, NaN where missing.
    """
    return [outer_task(values, fold, place, seed, covariate_values) for place in left_out(fold)]


def outer_task(
    values: Array, fold: Indices, place: tuple[int, int, int], seed: int, covariate_values: Array | None = None
) -> Task:
    """Return the fit of :func:`outer_tasks` for one entry of :func:`left_out`."""
    r, f, g = place
    return prepare(values, np.flatnonzero((fold[r] != f) & (fold[r] != g)), (seed, 1, r, f, g), covariate_values)


def prepare(values: Array, rows: Indices, seed: tuple[int, ...], covariate_values: Array | None = None) -> Task:
    """Return the task of fitting to `rows` of `values` (n, d), standardised by steps fitted on those rows."""

    def standardised(raw: Array) -> Array:
        inputs: Array = Standardise().fit(raw[rows]).transform(raw)
        return inputs

    return Task(standardised(values), rows, seed, None if covariate_values is None else standardised(covariate_values))


def workers_for(networks: int) -> int:
    """Return the number of processes to train so many networks: one per core, or 1 if there is little work."""
    return int(cpu_count()) if networks > _WORTH_PROCESSES else 1


def run_tasks(
    tasks: Sequence[Task],
    labels: Bools,
    fit: Fit[Result],
    report: Callable[[int, int], None],
    *per_task: Indices,
    workers: int = 1,
) -> Result:
    """Run `fit` over `tasks` in small groups, which do not depend on the number of workers.

    Parameters
    ----------
    tasks, labels
        The tasks, and the labels of all rows (n,).
    fit
        The function to run; with several workers it must be picklable.
    report
        Called with the number of finished tasks and the total.
    per_task
        Arrays with one entry per task; `fit` gets the group's entries after the labels.
    workers
        Processes; 1 uses this process. Processes stay open for the next call, since starting them takes seconds.

    Returns
    -------
    array
        Results of `fit`, along the tasks.
    """
    groups = _groups(tasks)
    results, done = [], 0
    report(0, len(tasks))
    jobs = (delayed(_alone)(fit, tasks[g], labels, *(array[g] for array in per_task)) for g in groups)
    for group, result in zip(
        groups, Parallel(n_jobs=workers, return_as="generator", max_nbytes=None)(jobs), strict=True
    ):
        results.append(result)
        done += len(tasks[group])
        report(done, len(tasks))
    return np.concatenate(results)


def _alone(fit: Fit[Result], tasks: Sequence[Task], labels: Bools, *per_task: Indices) -> Result:
    with single_threaded():
        return fit(tasks, labels, *per_task)


def _groups(tasks: Sequence[Task]) -> list[slice]:
    """Group tasks with about the same number of rows, which decides how many batches make an epoch."""
    starts = [0]
    for i, task in enumerate(tasks):
        first = len(tasks[starts[-1]].rows)
        if i - starts[-1] == _TASKS_TOGETHER or abs(len(task.rows) - first) > 0.1 * first:
            starts.append(i)
    return [slice(a, b) for a, b in itertools.pairwise([*starts, len(tasks)])]


def out_of_fold(
    logits: Array,
    labels: Bools,
    fold: Indices,
    alpha: float,
    selections: Indices | None = None,
    *,
    weights: Array | None = None,
    other_fold: Indices | None = None,
) -> OutOfFold:
    """Combine the predictions of the fits of :func:`outer_tasks` for the rows that they left out.

    Parameters
    ----------
    logits
        (tasks, n + m) of all rows, by every fit; rows that a fit was trained on are ignored.
    labels
        (n,)
    fold
        (repeats, n)
    alpha
        Error rate of the conformal thresholds.
    selections
        (tasks, k) selected columns; None without a selector.
    weights
        (n,) number of patients that each row stands for in the calibration; None if each stands for one.
    other_fold
        (repeats, m), see :func:`deal_folds`; None if m is 0.
    """
    repeats, n = fold.shape
    folds = int(fold.max()) + 1
    by_place = dict(zip(left_out(fold), logits[:, :n], strict=True))
    others = logits[:, n:]
    of_others = np.empty((repeats, others.shape[1]))
    own, probabilities = np.empty((repeats, n)), np.empty((repeats, n))
    possible = np.empty((repeats, n, 2), dtype=bool)
    for r, f in itertools.product(range(repeats), range(folds)):
        test = fold[r] == f
        own[r, test] = by_place[r, f, f][test]
        unseen = np.empty(n)
        for g in set(range(folds)) - {f}:
            unseen[fold[r] == g] = by_place[r, min(f, g), max(f, g)][fold[r] == g]
        calibration = calibrate(unseen[~test], labels[~test], None if weights is None else weights[~test])
        thresholds = conformal_thresholds(calibration(unseen[~test]), labels[~test], alpha)
        probabilities[r, test] = calibration(own[r, test])
        possible[r, test] = thresholds.possible(probabilities[r, test])
        if other_fold is not None:  # the fits that leave out a single fold come first
            of_others[r, other_fold[r] == f] = calibration(others[r * folds + f, other_fold[r] == f])
    chosen = None if selections is None else selections[: repeats * folds]
    return OutOfFold(own, probabilities, possible, fold, chosen, of_others)
