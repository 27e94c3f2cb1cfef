"""Fit a model to a cohort: select features, train, calibrate, and record the result as a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr

from lungstage.training.cohorts.cohort import CUT_COLUMN, Cohort, target_record
from lungstage.training.evaluation.curves import reached
from lungstage.training.evaluation.evaluate import conformal_record, evaluate, input_record, table_record
from lungstage.training.evaluation.feature_count import curve
from lungstage.training.evaluation.folds import OutOfFold, Progress, assign_folds, prepare, run_tasks, workers_for
from lungstage.training.evaluation.methods import GL_RFE, SPHERICITY_VOLUME, fit_ensembles, methods, predict, select
from lungstage.training.evaluation.metrics import auc, intervals, resamples
from lungstage.training.evaluation.stability import pairs_of
from lungstage.training.model.calibration import (
    Calibration,
    Thresholds,
    calibrate,
    conformal_thresholds,
    coverage_range,
)
from lungstage.training.model.domain import fit_domain
from lungstage.training.model.network import ensemble_logits, single_threaded
from lungstage.training.model.preprocessing import Standardise, standardise, subset
from lungstage.training.procedure import Procedure
from lungstage.training.run import FittedModel, Preprocessing, Run, versions
from lungstage.training.selection.elimination import Round, Task, eliminate, selected

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

ENVELOPE: Final = ("0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1")
BOXES: Final = ("0.05", "0.25", "0.5", "0.75", "0.95")
COMPARED: Final = (GL_RFE, "anova_dnn", "random_dnn", "best_single_lr", "volume", SPHERICITY_VOLUME, "majority")
"""Methods that every fit is compared with. ``lungstage-train evaluate`` compares it with all methods."""


def fit(cohort: Cohort, every_row: Cohort, procedure: Procedure, report: Progress) -> Run:
    """Fit the model to all used rows, and record its out-of-fold metrics.

    Parameters
    ----------
    cohort
        The rows to use.
    every_row
        The same table with the rows that `cohort` leaves out, to show the effect of leaving them out.
    procedure
        Every setting.
    report
        Progress.

    Returns
    -------
    Run
        Depends only on the table, its description, the settings and the library versions.
    """
    workers = workers_for(2 * pairs_of(procedure) * procedure.members)
    evaluation, oof = evaluate(cohort, procedure, report, COMPARED, halves_of=("gl_rfe",))
    with single_threaded():
        report("final model", 0, 1)
        rows = np.arange(len(cohort.labels))
        task = prepare(cohort.values, rows, (procedure.seed, 6), cohort.covariate_values)
        trace = eliminate([task], cohort.labels, procedure.selection, procedure.network)[0]
        calibration = _calibrate(oof, cohort)
        model, domain = _final_model(cohort, task, selected(trace), calibration, procedure)
        report("final model", 1, 1)
    names, description = model.features, cohort.description
    raw = cohort.values[:, [cohort.features.index(name) for name in names]]
    figures = evaluation["methods"]
    record: dict[str, Any] = {
        "schema_version": 2,
        "seed": procedure.seed,
        "settings": asdict(procedure),
        "procedure_sha256": procedure.digest(),
        "endpoint": asdict(cohort.endpoint),
        "target": target_record(cohort),
        **input_record(cohort),
        "table": table_record(cohort),
        "cohort": description.record(cohort.endpoint),
        "extraction": description.extraction,
        "warnings": evaluation["warnings"],
        "selection": {"features": list(names), "rounds": _rounds(trace, cohort.features)},
        "stability_selection": evaluation["halves"]["gl_rfe"],
        "curve": _curve(cohort, procedure, report, workers),
        "correlation": _correlation(task.inputs, cohort.features, names),
        "distributions": _distributions(cohort, raw, names),
        "envelope": {name: _quantiles(column, ENVELOPE) for name, column in zip(names, raw.T, strict=True)},
        "domain": domain,
        "conformal": _conformal(oof, cohort, calibration, procedure.alpha),
        "out_of_fold": figures[GL_RFE]["metrics"],
        "reached": reached(oof.probabilities, cohort.labels, cohort.weights),
        "verdicts": evaluation["verdicts"],
        "interval": evaluation["interval"],
        "comparators": {name: one["metrics"] for name, one in figures.items() if name != GL_RFE},
        "stability": {name: one["stability"] for name, one in figures.items() if one["stability"] is not None},
        "selection_frequency": figures[GL_RFE]["selection_frequency"],
        "calibration": {**asdict(calibration), "informative": calibration.informative},
        "survival": evaluation["survival"],
        "cut_rows": _cut_rows(cohort, every_row, oof.logits[0], procedure, report, workers),
        "versions": versions(),
    }
    used_all = record["cut_rows"] is None
    record["cut_coverage"] = None if used_all else _cut_coverage(cohort, every_row, model, record["conformal"])
    return Run(model, record)


def _calibrate(oof: OutOfFold, cohort: Cohort) -> Calibration:
    """Fit the model's calibration on all out-of-fold logits.

    Each repeat is a sample of one model's logits for new cases. So repeats are pooled. Averaging them would narrow the
    logits.
    """
    repeats, weights = len(oof.logits), cohort.weights
    return calibrate(
        oof.logits.ravel(), np.tile(cohort.labels, repeats), None if weights is None else np.tile(weights, repeats)
    )


def _final_model(
    cohort: Cohort, task: Task, columns: Indices, calibration: Calibration, procedure: Procedure
) -> tuple[FittedModel, dict[str, Any]]:
    """Train the ensemble on all rows. Returns the model and the record of its domain."""
    ensemble = fit_ensembles([task], columns[None], cohort.labels, procedure)[0]
    features = subset(Standardise().fit(cohort.values).parameters_, columns)
    steps = features
    if cohort.covariate_values is not None:
        clinical = Standardise().fit(cohort.covariate_values).parameters_
        steps = Preprocessing(
            *(np.concatenate([getattr(features, n), getattr(clinical, n)]) for n in Preprocessing.__slots__)
        )
    domain = fit_domain(standardise(features, cohort.values[:, columns], clip=False))
    model = FittedModel(
        features=tuple(cohort.features[i] for i in columns),
        preprocessing=steps,
        ensemble=ensemble,
        calibration=(calibration.slope, calibration.intercept),
        domain_precision=domain.precision,
        domain_references=domain.references,
        covariates=cohort.covariates,
    )
    return model, {"quantiles": domain.quantiles, "neighbour_quantiles": domain.neighbour_quantiles}


def _conformal(oof: OutOfFold, cohort: Cohort, calibration: Calibration, alpha: float) -> dict[str, Any]:
    each = [conformal_thresholds(calibration(logits), cohort.labels, alpha) for logits in oof.logits]
    return {
        "alpha": alpha,
        "early_min_probability": float(np.mean([t.early_min_probability for t in each])),
        "advanced_min_probability": float(np.mean([t.advanced_min_probability for t in each])),
        "early_coverage": coverage_range(int((~cohort.labels).sum()), alpha),
        "advanced_coverage": coverage_range(int(cohort.labels.sum()), alpha),
        **conformal_record(oof, cohort.labels, cohort.endpoint),
    }


def _curve(cohort: Cohort, procedure: Procedure, report: Progress, workers: int) -> dict[str, Any]:
    found = curve(
        cohort.values, cohort.labels, procedure, partial(report, "how many"),
        covariate_values=cohort.covariate_values, workers=workers,
    )  # fmt: skip
    return {
        "k": list(found.k),
        "auc": found.auc.tolist(),
        "se": found.se.tolist(),
        "best": found.best,
        "one_se": found.one_se,
        "chosen": min(procedure.selection.features, len(cohort.features)),
    }


def _correlation(inputs: Array, features: Sequence[str], chosen: Sequence[str]) -> dict[str, Any]:
    """Spearman correlation of all features, in cluster order."""
    correlation = np.nan_to_num(np.asarray(spearmanr(inputs).statistic))
    np.fill_diagonal(correlation, 1.0)
    distance = squareform(np.clip(1.0 - np.abs(correlation), 0.0, 1.0), checks=False)
    order = leaves_list(linkage(distance, "average", optimal_ordering=True)).tolist()
    return {
        "features": [features[i] for i in order],
        "spearman": np.round(correlation[np.ix_(order, order)], 3).tolist(),
        "selected": list(chosen),
    }


def _distributions(cohort: Cohort, raw: Array, names: Sequence[str]) -> dict[str, Any]:
    classes = {cohort.endpoint.negative: ~cohort.labels, cohort.endpoint.positive: cohort.labels}
    return {
        name: {word: _quantiles(column[rows], BOXES) for word, rows in classes.items()}
        for name, column in zip(names, raw.T, strict=True)
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
    cohort: Cohort, every_row: Cohort, used_logits: Array, procedure: Procedure, report: Progress, workers: int
) -> dict[str, Any] | None:
    """AUC of one repeat with and without the cut rows that were left out; None if no row was left out."""
    if not cohort.excluded.get(CUT_COLUMN):
        return None
    labels, seed = every_row.labels, procedure.seed
    fold = assign_folds(labels, procedure.folds, 1, seed)[0]
    tasks = [
        prepare(every_row.values, np.flatnonzero(fold != f), (seed, 7, f), every_row.covariate_values)
        for f in range(procedure.folds)
    ]
    columns = run_tasks(
        tasks, labels, partial(select, "gl_rfe", procedure), partial(report, "cut rows"), workers=workers
    )
    method = methods(procedure, every_row.features, covariates=bool(every_row.covariates))[GL_RFE]
    logits = run_tasks(
        tasks, labels, partial(predict, method, procedure), lambda done, total: None, columns, workers=workers
    )[fold, np.arange(len(labels))]
    used = np.isin(every_row.patients, cohort.patients)
    counted = every_row.weights
    used_fold = assign_folds(cohort.labels, procedure.folds, procedure.repeats, seed)[0]
    return {
        "used_only": _auc_record(used_logits, cohort.labels, used_fold, seed, cohort.weights),
        "all_rows": _auc_record(logits, labels, fold, seed, counted),
        "all_rows_scored_on_used": _auc_record(logits[used], labels[used], fold[used], seed, cohort.weights),
    }


def _cut_coverage(
    cohort: Cohort, every_row: Cohort, model: FittedModel, conformal: Mapping[str, Any]
) -> dict[str, dict[str, int]]:
    """Count the left-out rows whose conformal set contains the true class, by class. Nothing was fitted to them."""
    cut = ~np.isin(every_row.patients, cohort.patients)
    features = every_row.values[:, [every_row.features.index(name) for name in model.features]]
    clinical = every_row.covariate_values
    raw = (features if clinical is None else np.hstack([features, clinical]))[cut]
    logits = ensemble_logits(model.ensemble, standardise(model.preprocessing, raw))
    slope, intercept = model.calibration
    thresholds = Thresholds(conformal["early_min_probability"], conformal["advanced_min_probability"])
    possible, labels = thresholds.possible(Calibration(slope, intercept)(logits)), every_row.labels[cut]
    return {
        name: {"patients": int((labels == of).sum()), "covered": int(possible[labels == of, int(of)].sum())}
        for name, of in ((cohort.endpoint.negative, False), (cohort.endpoint.positive, True))
    }


def _auc_record(logits: Array, labels: Bools, fold: Indices, seed: int, counted: Array | None) -> dict[str, Any]:
    weights = resamples(len(labels), np.random.SeedSequence([seed, 4]), counted=counted)
    return {"rows": len(labels), **intervals({"auc": auc(logits, labels, fold, weights)})}
