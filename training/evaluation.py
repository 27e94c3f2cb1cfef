"""The procedure and what it has to be compared with, on the same folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression

from training.cohort import Cohort
from training.folds import Method, OutOfFold, Procedure, Progress, assign_folds, out_of_fold
from training.members import Member, inner_splits
from training.metrics import INTERVAL, intervals, nogueira_stability, resamples, score
from training.network import ensemble_logits, train
from training.run import Ensemble
from training.selection import Task, eliminate, selected

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

VOLUME = "original_shape_MeshVolume"
GL_RFE = "gl_rfe_dnn"


def evaluate(cohort: Cohort, procedure: Procedure, report: Progress) -> tuple[dict[str, Any], OutOfFold]:
    """Evaluate the procedure and its comparators by repeated k-fold.

    Returns
    -------
    dict, OutOfFold
        What ``evaluation.json`` holds, and the procedure's own predictions.
    """
    fold = assign_folds(cohort.stage, procedure.folds, procedure.repeats, procedure.seed)
    weights = resamples(len(cohort.stage), np.random.SeedSequence([procedure.seed, 4]))
    predicted = {
        name: out_of_fold(cohort.values, cohort.stage, fold, method, procedure, report, name)
        for name, method in methods(procedure, cohort.features).items()
    }
    scores = {name: score(oof.probabilities, cohort.stage, fold, weights) for name, oof in predicted.items()}
    own = predicted[GL_RFE]
    assert own.selections is not None
    evaluation = {
        "schema_version": 1,
        "seed": procedure.seed,
        "settings": asdict(procedure),
        "table": table_record(cohort),
        "cohort": cohort.description.name,
        "interval": INTERVAL,
        "methods": {name: intervals(values) for name, values in scores.items()},
        "difference_to_gl_rfe_dnn": {
            name: intervals({metric: scores[GL_RFE][metric] - values[metric] for metric in values})
            for name, values in scores.items()
            if name != GL_RFE
        },
        "conformal": {name: conformal_record(oof, cohort.stage) for name, oof in predicted.items()},
        "stability": {
            name: nogueira_stability(_as_mask(oof.selections, len(cohort.features)))
            for name, oof in predicted.items()
            if oof.selections is not None
        },
        "selection_frequency": {
            name: float(share)
            for name, share in zip(
                cohort.features, _as_mask(own.selections, len(cohort.features)).mean(axis=0), strict=True
            )
            if share
        },
    }
    return evaluation, own


def table_record(cohort: Cohort) -> dict[str, Any]:
    """Return the table's entry in a record."""
    return {
        "name": cohort.table,
        "sha256": cohort.sha256,
        "rows": cohort.rows,
        "used": len(cohort.patients),
        "excluded": dict(cohort.excluded),
        "positives": int(cohort.stage.sum()),
    }


def conformal_record(oof: OutOfFold, stage: Bools) -> dict[str, Any]:
    """Out-of-fold coverage of each stage, and the share of cases left indeterminate."""
    decided = oof.possible.sum(axis=2) == 1
    right = np.take_along_axis(oof.possible, np.broadcast_to(stage, oof.fold.shape)[..., None].astype(int), 2)[..., 0]
    return {
        "coverage": {
            "early": float(oof.possible[:, ~stage, 0].mean()),
            "advanced": float(oof.possible[:, stage, 1].mean()),
        },
        "indeterminate": float(1.0 - decided.mean()),
        "accuracy_where_decided": float(right[decided].mean()) if decided.any() else None,
    }


def _as_mask(selections: Indices, features: int) -> Bools:
    mask = np.zeros((len(selections), features), dtype=bool)
    np.put_along_axis(mask, selections, True, axis=1)
    return mask


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
