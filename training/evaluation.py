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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from training.calibration import Thresholds, calibrate, conformal_thresholds
from training.network import Member, NetworkSettings, ensemble_logits, inner_splits, single_threaded, train
from training.preprocessing import Standardise
from training.run import Ensemble
from training.selection import SelectionSettings, Task, eliminate, selected

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the parts done, and all its parts."""

VOLUME = "original_shape_MeshVolume"
_TASKS_TOGETHER = 4  # forty networks fill the caches; results do not depend on it


@dataclass(frozen=True, slots=True)
class Procedure:
    """The whole procedure that is evaluated, and that a model is then fitted by.

    Attributes
    ----------
    members, inner_folds
        Networks of the ensemble, and the folds of the inner split that they stop early on.
    alpha
        Error rate of the conformal thresholds. At 0.2 each stage is ruled out wrongly in at most one case in
        five; at 0.1, with the AUC that tumour features give on LUNG1, nearly every case is indeterminate.
    seed
        The one seed that everything random derives from.
    jobs
        Threads; no result depends on their number.
    """

    folds: int = 5
    repeats: int = 3
    members: int = 10
    inner_folds: int = 5
    alpha: float = 0.2
    seed: int = 0
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    jobs: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))


QUICK = Procedure(
    repeats=1, members=2, selection=SelectionSettings(step=0.5, fine_below=16, members=2), network=NetworkSettings(max_epochs=15)
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
    """Run `method` on every split of `fold`.

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
        Seed, conformal error rate and jobs; the rest is the method's business.
    report, name
        Progress, and the name it goes under.
    """
    repeats, n = fold.shape
    folds = int(fold.max()) + 1
    left_out = [(r, f, g) for r in range(repeats) for f in range(folds) for g in range(f, folds)]
    # Fits of like size go together, those without one fold before those without two.
    left_out.sort(key=lambda place: place[1] != place[2])
    tasks = []
    for r, f, g in left_out:
        rows = np.flatnonzero((fold[r] != f) & (fold[r] != g))
        inputs = Standardise().fit(values[rows]).transform(values)
        tasks.append(Task(inputs, rows, (procedure.seed, 1, r, f, g)))
    fitted = run_tasks(tasks, stage, method, procedure.jobs, lambda done, total: report(name, done, total))
    logits, probabilities = np.empty((repeats, n)), np.empty((repeats, n))
    possible = np.empty((repeats, n, 2), dtype=bool)
    by_place = {place: row for place, row in zip(left_out, fitted[0], strict=True)}
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


def run_tasks(
    tasks: Sequence[Task], stage: Bools, method: Method, jobs: int, report: Callable[[int, int], None]
) -> tuple[Array, Indices | None]:
    """Run `method` over `tasks` in small groups, on a few threads."""
    groups = [tasks[i : i + _TASKS_TOGETHER] for i in range(0, len(tasks), _TASKS_TOGETHER)]
    results = []
    with single_threaded(), ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        report(0, len(tasks))
        for result in pool.map(lambda group: method(group, stage), groups):
            results.append(result)
            report(min(len(tasks), _TASKS_TOGETHER * len(results)), len(tasks))
    columns = [selection for _, selection in results if selection is not None]
    return np.concatenate([logits for logits, _ in results]), np.concatenate(columns) if columns else None


def fit_ensembles(tasks: Sequence[Task], columns: Indices, stage: Bools, procedure: Procedure) -> list[Ensemble]:
    """Train one seed ensemble per task, on that task's `columns` (tasks, k)."""
    members = [
        Member(task.inputs[:, own], stage, *split)
        for task, own in zip(tasks, columns, strict=True)
        for split in inner_splits(
            stage, task.rows, procedure.members, procedure.inner_folds, np.random.SeedSequence([*task.seed, 2])
        )
    ]
    networks = train(members, procedure.network)
    return [networks.ensemble(slice(i * procedure.members, (i + 1) * procedure.members)) for i in range(len(tasks))]


def selecting(select: Callable[[Sequence[Task], Bools], Indices], procedure: Procedure) -> Method:
    """Return the method: `select` columns, then train the ensemble on them."""

    def method(tasks: Sequence[Task], stage: Bools) -> tuple[Array, Indices | None]:
        columns = select(tasks, stage)
        ensembles = fit_ensembles(tasks, columns, stage, procedure)
        logits = [ensemble_logits(e, t.inputs[:, c]) for e, t, c in zip(ensembles, tasks, columns, strict=True)]
        return np.stack(logits), columns

    return method


def methods(procedure: Procedure, features: Sequence[str]) -> Mapping[str, Method]:
    """Return GL-RFE with its network first, then what it has to be compared with, by name."""
    k = procedure.selection.features

    def gl_rfe(tasks: Sequence[Task], stage: Bools) -> Indices:
        traces = eliminate(tasks, stage, procedure.selection, procedure.network)
        return np.stack([selected(trace) for trace in traces])

    def anova(tasks: Sequence[Task], stage: Bools) -> Indices:
        scores = [np.nan_to_num(f_classif(t.inputs[t.rows], stage[t.rows])[0]) for t in tasks]
        return np.stack([np.sort(np.argsort(-score, kind="stable")[:k]) for score in scores])

    def random(tasks: Sequence[Task], stage: Bools) -> Indices:
        streams = [np.random.default_rng(np.random.SeedSequence([*task.seed, 3])) for task in tasks]
        return np.stack([np.sort(stream.choice(len(features), k, replace=False)) for stream in streams])

    def majority(tasks: Sequence[Task], stage: Bools) -> tuple[Array, Indices | None]:
        shares = np.array([stage[task.rows].mean() for task in tasks])
        return np.repeat(np.log(shares / (1 - shares))[:, None], len(stage), axis=1), None

    def volume(tasks: Sequence[Task], stage: Bools) -> tuple[Array, Indices | None]:
        at = features.index(VOLUME)
        fits = [LogisticRegression().fit(t.inputs[t.rows][:, [at]], stage[t.rows]) for t in tasks]
        return np.stack([f.decision_function(t.inputs[:, [at]]) for f, t in zip(fits, tasks, strict=True)]), None

    offered = {
        "gl_rfe_dnn": selecting(gl_rfe, procedure),
        f"anova_{k}_dnn": selecting(anova, procedure),
        f"random_{k}_dnn": selecting(random, procedure),
        "majority": majority,
    }
    return {**offered, "volume_only": volume} if VOLUME in features else offered
