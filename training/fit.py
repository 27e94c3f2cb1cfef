"""From a cohort to a run: select, train, calibrate, describe."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf

from training.calibration import calibrate, conformal_thresholds
from training.cohort import Cohort
from training.evaluation import GL_RFE, conformal_record, evaluate, fit_ensembles, methods, table_record
from training.folds import Procedure, Progress, assign_folds, prepare, run_tasks
from training.metrics import auc, intervals, resamples
from training.network import single_threaded
from training.preprocessing import Standardise, standardise, subset
from training.run import FittedModel, Run
from training.selection import Round, eliminate, selected

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ENVELOPE = ("0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1")
DOMAIN = ("0.5", "0.95", "0.99", "1")


def fit(cohort: Cohort, every_row: Cohort, procedure: Procedure, report: Progress) -> Run:
    """Fit the model to all used rows, and record how it does on rows it has not seen.

    Parameters
    ----------
    cohort
        The rows to use.
    every_row
        The same table with the rows that `cohort` leaves out, to show what leaving them out does.
    procedure
        Every setting.
    report
        Progress.

    Returns
    -------
    Run
        Depends on the table, its description, the settings and the library versions, and on nothing else.
    """
    with single_threaded():
        evaluation, oof = evaluate(cohort, procedure, report)
        report("final model", 0, 1)
        task = prepare(cohort.values, np.arange(len(cohort.stage)), (procedure.seed, 6))
        trace = eliminate([task], cohort.stage, procedure.selection, procedure.network)[0]
        columns = selected(trace)
        ensemble = fit_ensembles([task], columns[None], cohort.stage, procedure)[0]
        # The calibration that ships is fitted on every out-of-fold logit; each repeat is a sample of what one
        # model says of new cases, so repeats are pooled and not averaged, which would narrow the logits.
        calibration = calibrate(oof.logits.ravel(), np.tile(cohort.stage, len(oof.logits)))
        per_repeat = [conformal_thresholds(calibration(logits), cohort.stage, procedure.alpha) for logits in oof.logits]
        preprocessing = subset(Standardise().fit(cohort.values).parameters_, columns)
        raw = cohort.values[:, columns]
        unclipped = standardise(preprocessing, raw, clip=False)
        precision = LedoitWolf(assume_centered=True).fit(unclipped).precision_
        distances = np.sqrt(np.einsum("ni,ij,nj->n", unclipped, precision, unclipped))
        report("final model", 1, 1)
        names = tuple(cohort.features[i] for i in columns)
        model = FittedModel(
            names, preprocessing, ensemble, (calibration.slope, calibration.intercept), precision
        )  # fmt: skip
        description = cohort.description
        record: dict[str, Any] = {
            "schema_version": 1,
            "seed": procedure.seed,
            "settings": asdict(procedure),
            "table": table_record(cohort),
            "cohort": description.model_dump(mode="json", exclude={"extraction", "table_sha256"}),
            "extraction": description.extraction,
            "selection": {"features": list(names), "rounds": _rounds(trace, cohort.features)},
            "envelope": {name: _quantiles(column, ENVELOPE) for name, column in zip(names, raw.T, strict=True)},
            "domain": {"quantiles": _quantiles(distances, DOMAIN)},
            "conformal": {
                "alpha": procedure.alpha,
                "early_min_probability": float(np.mean([t.early_min_probability for t in per_repeat])),
                "advanced_min_probability": float(np.mean([t.advanced_min_probability for t in per_repeat])),
                **conformal_record(oof, cohort.stage),
            },
            "out_of_fold": evaluation["methods"].pop(GL_RFE),
            "interval": evaluation["interval"],
            "comparators": evaluation["methods"],
            "stability": evaluation["stability"],
            "selection_frequency": evaluation["selection_frequency"],
            "calibration": {**asdict(calibration), "informative": calibration.informative},
            "cut_rows": _cut_rows(cohort, every_row, oof.logits[0], procedure, report),
            "versions": versions(),
        }
    return Run(model, record)


def versions() -> dict[str, str]:
    """Return the versions of what a run depends on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("numpy", "scipy", "scikit-learn", "torch", "lungstage")
    }


def _rounds(trace: Sequence[Round], features: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "remaining": len(passed.remaining),
            "removed": [features[i] for i in passed.removed],
            "importance": {
                features[i]: float(value) for i, value in zip(passed.remaining, passed.importance, strict=True)
            },
        }
        for passed in trace
    ]


def _quantiles(values: Array, levels: Sequence[str]) -> dict[str, float]:
    present = values[~np.isnan(values)]
    return {level: float(np.quantile(present, float(level))) for level in levels}


def _cut_rows(
    cohort: Cohort, every_row: Cohort, used_logits: Array, procedure: Procedure, report: Progress
) -> dict[str, Any] | None:
    """AUC of one repeat with and without the rows that were left out; None where none was."""
    if not sum(cohort.excluded.values()):
        return None
    stage, seed = every_row.stage, procedure.seed
    fold = assign_folds(stage, procedure.folds, 1, seed)[0]
    tasks = [prepare(every_row.values, np.flatnonzero(fold != f), (seed, 7, f)) for f in range(procedure.folds)]
    method = methods(procedure, every_row.features)[GL_RFE]
    fitted, _ = run_tasks(tasks, stage, method, lambda done, total: report("cut rows", done, total))
    logits = fitted[fold, np.arange(len(stage))]
    used = np.isin(every_row.patients, cohort.patients)
    used_fold = assign_folds(cohort.stage, procedure.folds, procedure.repeats, seed)[0]
    return {
        "used_only": _auc_record(used_logits, cohort.stage, used_fold, seed),
        "all_rows": _auc_record(logits, stage, fold, seed),
        "all_rows_scored_on_used": _auc_record(logits[used], stage[used], fold[used], seed),
    }


def _auc_record(logits: Array, stage: Bools, fold: npt.NDArray[np.intp], seed: int) -> dict[str, Any]:
    weights = resamples(len(stage), np.random.SeedSequence([seed, 4]))
    return {"rows": len(stage), **intervals({"auc": auc(logits, stage, fold, weights)})}
