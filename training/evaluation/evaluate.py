"""Evaluate the procedure and its comparators on the same folds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.spec import Endpoint
from lungstage.training.cohorts.cohort import Cohort
from lungstage.training.evaluation.curves import curves, net_benefit_of_all
from lungstage.training.evaluation.folds import (
    OutOfFold,
    Progress,
    assign_folds,
    deal_folds,
    out_of_fold,
    outer_tasks,
    run_tasks,
    workers_for,
)
from lungstage.training.evaluation.methods import (
    COVARIATES_ALONE,
    GL_RFE,
    NO_COVARIATES,
    Method,
    methods,
    predict,
    select,
)
from lungstage.training.evaluation.metrics import (
    INTERVAL,
    INTERVAL_CENSORED,
    corrected_interval,
    fold_aucs,
    intervals,
    resamples,
    score,
)
from lungstage.training.evaluation.stability import complementary_pairs, nogueira, on_halves, pairs_of
from lungstage.training.evaluation.survival import Scored, survival_record
from lungstage.training.evaluation.verdicts import verdict, warnings
from lungstage.training.model.network import single_threaded
from lungstage.training.procedure import Procedure
from lungstage.training.selection.elimination import Task

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

ABLATION: Final = {"with": GL_RFE, "without": NO_COVARIATES, "alone": COVARIATES_ALONE}


@single_threaded()
def evaluate(
    cohort: Cohort,
    procedure: Procedure,
    report: Progress,
    only: Collection[str] | None = None,
    *,
    halves_of: Collection[str] | None = None,
    workers: int | None = None,
) -> tuple[dict[str, Any], OutOfFold]:
    """Evaluate the procedure and its comparators by repeated nested cross-validation.

    Parameters
    ----------
    cohort
        The rows to use.
    procedure
        Every setting.
    report
        Progress.
    only
        Names of the methods to evaluate, including :data:`GL_RFE`; None for all.
    halves_of
        Names of the selectors whose stability on halves of the patients is computed; None for all evaluated ones.
    workers
        Processes; by default one per core if there is enough work. The figures do not depend on it.

    Returns
    -------
    dict, OutOfFold
        Content of ``evaluation.json`` without ``versions``, and the procedure's predictions.
    """
    labels, counted, followed = cohort.labels, cohort.weights, cohort.survival
    fold = assign_folds(labels, procedure.folds, procedure.repeats, procedure.seed)
    values, clinical, other_fold = cohort.values, cohort.covariate_values, None
    if followed is not None:  # patients lost before the horizon are predicted, but never trained on
        values = np.vstack([values, followed.censored_values])
        if clinical is not None and followed.censored_covariates is not None:
            clinical = np.vstack([clinical, followed.censored_covariates])
        other_fold = deal_folds(len(followed.censored_days), procedure.folds, procedure.repeats, procedure.seed)
    tasks = outer_tasks(values, fold, procedure.seed, clinical)
    if workers is None:
        workers = workers_for(len(tasks) * procedure.members)
    offered = methods(procedure, cohort.features, covariates=bool(cohort.covariates))
    chosen = {name: method for name, method in offered.items() if only is None or name in only}
    put_together = partial(
        out_of_fold, labels=labels, fold=fold, alpha=procedure.alpha, weights=counted, other_fold=other_fold
    )
    predicted = predict_out_of_fold(chosen, tasks, labels, put_together, procedure, report, workers)
    weights = resamples(len(labels), np.random.SeedSequence([procedure.seed, 4]), counted=counted)
    scores: dict[str, dict[str, Array]] = {}
    records: dict[str, dict[str, Any]] = {}
    for name, method in chosen.items():
        report("intervals", len(records), len(chosen))
        oof = predicted[name]
        scores[name] = score(oof.probabilities, labels, fold, weights)
        records[name] = {
            "label": method.label,
            "selector": method.selector,
            "classifier": method.classifier.removeprefix("tuned_"),
            "metrics": intervals(scores[name]),
            "conformal": conformal_record(oof, labels, cohort.endpoint),
            **_differences(name, scores, predicted, cohort, procedure.folds),
            **_selection_record(oof.selections, cohort.features),
            **curves(oof.probabilities, labels, fold, weights),
        }
    report("intervals", len(records), len(chosen))
    evaluation = {
        "schema_version": 2,
        "seed": procedure.seed,
        "settings": asdict(procedure),
        "procedure_sha256": procedure.digest(),
        "table": table_record(cohort),
        "cohort": cohort.description.name,
        "endpoint": asdict(cohort.endpoint),
        **input_record(cohort),
        "interval": INTERVAL if counted is None else INTERVAL + INTERVAL_CENSORED,
        "reference": GL_RFE,
        "methods": records,
        "decision_curve_treat_all": net_benefit_of_all(labels, counted),
        "verdicts": [
            verdict(
                chosen[GL_RFE].label,
                name,
                method.label,
                records[name]["difference"]["auc"],
                records[name]["difference_corrected"],
            )
            for name, method in chosen.items()
            if name != GL_RFE
        ],
        "halves": _halves(cohort, _selectors(chosen) if halves_of is None else halves_of, procedure, report, workers),
        "survival": None
        if followed is None or other_fold is None
        else survival_record(
            followed,
            {name: Scored(method.label, predicted[name]) for name, method in chosen.items()},
            GL_RFE,
            np.hstack([fold, other_fold]),
            procedure.seed,
        ),
        "covariate_ablation": ABLATION if set(ABLATION.values()) <= set(chosen) else None,
        "leakage": None,
        "warnings": [*cohort.warnings, *warnings(records, cohort.endpoint, len(labels))],
    }
    return evaluation, predicted[GL_RFE]


def _selectors(chosen: Mapping[str, Method]) -> list[str]:
    """List the selectors of the chosen methods, each once."""
    return list(dict.fromkeys(method.selector for method in chosen.values() if method.selector))


def _halves(
    cohort: Cohort, named: Collection[str], procedure: Procedure, report: Progress, workers: int
) -> dict[str, Any]:
    """Return each selector's selections on disjoint halves of the patients, and their stability."""
    return {
        selector: on_halves(
            complementary_pairs(
                cohort.values, cohort.labels, selector, procedure, partial(report, f"halves: {selector}"),
                pairs=pairs_of(procedure), workers=workers,
            ),
            cohort.features,
        )
        for selector in named
    }  # fmt: skip


def predict_out_of_fold(
    chosen: Mapping[str, Method],
    tasks: list[Task],
    labels: Bools,
    put_together: Callable[..., OutOfFold],
    procedure: Procedure,
    report: Progress,
    workers: int,
) -> dict[str, OutOfFold]:
    """Run every needed selector once, and fit every method to the selected features.

    Parameters
    ----------
    chosen
        The methods by name.
    tasks, labels
        The fits, and the labels of all rows (n,).
    put_together
        :func:`training.evaluation.folds.out_of_fold` with everything but logits and selections.
    procedure, report, workers
        As for :func:`evaluate`.

    Returns
    -------
    dict
        The predictions by name.
    """
    selections: dict[str | None, Indices] = {}
    for selector in _selectors(chosen):
        selections[selector] = run_tasks(
            tasks, labels, partial(select, selector, procedure), partial(report, f"select: {selector}"), workers=workers
        )
    predicted = {}
    for i, (name, method) in enumerate(chosen.items()):

        def step(done: int, total: int, before: int = i) -> None:
            report("models", before * total + done, len(chosen) * total)

        own = selections.get(method.selector)
        fixed = np.tile(np.array(method.columns, dtype=np.intp), (len(tasks), 1))
        logits = run_tasks(
            tasks, labels, partial(predict, method, procedure), step, fixed if own is None else own, workers=workers
        )
        predicted[name] = put_together(logits, selections=own)
    return predicted


def table_record(cohort: Cohort) -> dict[str, Any]:
    """Return the table's entry in a record."""
    return {
        "name": cohort.table,
        "sha256": cohort.sha256,
        "rows": cohort.rows,
        "used": len(cohort.patients),
        "excluded": dict(cohort.excluded),
        "positives": int(cohort.labels.sum()),
        **({} if cohort.weights is None else {"prevalence": cohort.prevalence}),
    }


def input_record(cohort: Cohort) -> dict[str, Any]:
    """Return a record's entries on the inputs: covariates, and features left out by their ICC."""
    rated = cohort.repeatability
    return {
        "covariates": [{"name": one.name, "levels": list(one.levels)} for one in cohort.covariates],
        "repeatability": None
        if rated is None
        else {
            "table": rated.table,
            "sha256": rated.sha256,
            "minimum": rated.minimum,
            "left_out": dict(rated.left_out),
        },
    }


def conformal_record(oof: OutOfFold, labels: Bools, endpoint: Endpoint) -> dict[str, Any]:
    """Out-of-fold coverage of each class, and the share of cases left indeterminate."""
    decided = oof.possible.sum(axis=2) == 1
    right = np.take_along_axis(oof.possible, np.broadcast_to(labels, oof.fold.shape)[..., None].astype(int), 2)[..., 0]
    return {
        "coverage": {
            endpoint.negative: float(oof.possible[:, ~labels, 0].mean()),
            endpoint.positive: float(oof.possible[:, labels, 1].mean()),
        },
        "indeterminate": float(1.0 - decided.mean()),
        "accuracy_where_decided": float(right[decided].mean()) if decided.any() else None,
    }


def _differences(
    name: str, scores: Mapping[str, Mapping[str, Array]], predicted: Mapping[str, OutOfFold], cohort: Cohort, folds: int
) -> dict[str, Any]:
    """Metrics of the reference minus those of a method, on the same patients and folds."""
    if name == GL_RFE:
        return {"difference": None, "difference_corrected": None}
    own, other = (
        fold_aucs(predicted[one].probabilities, cohort.labels, predicted[one].fold, cohort.weights)
        for one in (GL_RFE, name)
    )
    return {
        "difference": intervals({metric: scores[GL_RFE][metric] - values for metric, values in scores[name].items()}),
        "difference_corrected": corrected_interval(own - other, folds),
    }


def _selection_record(selections: Indices | None, features: tuple[str, ...]) -> dict[str, Any]:
    if selections is None:
        return {"stability": None, "selection_frequency": None}
    held = np.zeros((len(selections), len(features)), dtype=bool)
    np.put_along_axis(held, selections, True, axis=1)
    value, low, high = nogueira(held)
    shares = zip(features, held.mean(axis=0), strict=True)
    return {
        "stability": {"value": value, "low": low, "high": high},
        "selection_frequency": {feature: float(share) for feature, share in shares if share},
    }
