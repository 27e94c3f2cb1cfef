"""What a model answers on semi-automatic contours, beside experts': on patients that neither network was trained on.

The procedure of a run is repeated without these patients, so that no model knows them. Its models then answer for each
of them three times: on the expert's contour, on the contour drawn from a diameter, and on that contour corrected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contour.drawing import Network
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics import extract
from lungstage.training.cohorts.cohort import Cohort
from lungstage.training.cohorts.table import refuse
from lungstage.training.contour import evaluation
from lungstage.training.contour.cases import Case, is_held_out
from lungstage.training.evaluation.evaluate import predict_out_of_fold
from lungstage.training.evaluation.folds import (
    Progress,
    assign_folds,
    deal_folds,
    out_of_fold,
    outer_tasks,
    workers_for,
)
from lungstage.training.evaluation.methods import GL_RFE, methods
from lungstage.training.evaluation.metrics import auc, interval, resamples
from lungstage.training.model.calibration import Thresholds
from lungstage.training.procedure import Procedure

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

EXPERT: Final = "expert"
UNEDITED: Final = "diameter"
CORRECTED: Final = f"diameter, {evaluation.CORRECTIONS} corrections"
CONTOURS: Final = (EXPERT, UNEDITED, CORRECTED)

FEWEST: Final = 10
"""Fewest patients that figures are given for."""

_REPEATS: Final = 2  # of the cross-validation; each needs k + k(k - 1)/2 fits


def compare(
    cohort: Cohort,
    cases: Sequence[Case],
    network: Network,
    procedure: Procedure,
    conformal: Mapping[str, Any],
    report: Progress,
) -> dict[str, Any]:
    """Compare a procedure's answers on three contours of each held-out patient.

    Parameters
    ----------
    cohort
        The rows of the run.
    cases
        Crops of the same patients.
    network
        Draws the contours. It was not trained on the held-out patients (:func:`contour.cases.is_held_out`).
    procedure
        Settings of the run.
    conformal
        The run's thresholds.
    report
        Progress.

    Returns
    -------
    dict
        ``patients`` and ``left_out``; by contour ``auc`` with its interval, and for semi-automatic contours
        ``difference`` of the probability from that on the expert's contour (``median`` and ``ninth_decile`` of its
        size) and ``same_answer``, the share of patients with the same answer.

    Raises
    ------
    Refused
        ``table_invalid``: table and crops have too few held-out patients in common.
    """
    rows = {patient: row for row, patient in enumerate(cohort.patients)}
    wanted = [case for case in cases if case.is_whole and is_held_out(case.patient) and case.patient in rows]
    spec = ExtractionSpec(cohort.features, cohort.description.extraction)
    measured: dict[str, Array] = {}
    for done, case in enumerate(wanted, 1):
        try:
            _, drawn, corrected = evaluation.from_diameter(case, network)
            masks = (case.mask, drawn, corrected)  # in the order of CONTOURS
            measured[case.patient] = np.stack([_measure(case, mask, spec) for mask in masks])
        except Refused:  # nothing was drawn, or too little
            continue
        finally:
            report("contours", done, len(wanted))
    if len(measured) < FEWEST:
        refuse(
            f"Table and crops have only {len(measured)} held-out patients in common, but {FEWEST} are needed. Give the "
            "crops of the same cohort."
        )
    probabilities = _predict(cohort, measured, procedure, report)
    there = [rows[patient] for patient in measured]
    weights = None if cohort.weights is None else cohort.weights[there]
    return {
        "patients": len(measured),
        "left_out": len(wanted) - len(measured),
        "contours": _figures(probabilities, cohort.labels[there], weights, conformal, procedure.seed),
    }


def _measure(case: Case, mask: Mask, spec: ExtractionSpec) -> Array:
    values: Array = np.asarray(extract.extract(evaluation.volume_of(case), mask, spec).values, dtype=np.float64)
    return values


def _predict(cohort: Cohort, measured: Mapping[str, Array], procedure: Procedure, report: Progress) -> Array:
    """Probabilities of the positive class by models without the held-out patients; (contours, patients)."""
    kept = np.array([not is_held_out(patient) for patient in cohort.patients])
    labels, weights = cohort.labels[kept], None if cohort.weights is None else cohort.weights[kept]
    procedure = replace(procedure, repeats=min(_REPEATS, procedure.repeats))
    fold = assign_folds(labels, procedure.folds, procedure.repeats, procedure.seed)
    # All contours of a patient are predicted by the models of one fold.
    dealt = deal_folds(len(measured), procedure.folds, procedure.repeats, procedure.seed)
    other_fold = np.tile(dealt, (1, len(CONTOURS)))
    others = np.stack(list(measured.values()), axis=1).reshape(-1, len(cohort.features))
    clinical = cohort.covariate_values
    if clinical is not None:
        rows = [cohort.patients.index(patient) for patient in measured]
        clinical = np.vstack([clinical[kept], *[clinical[rows]] * len(CONTOURS)])
    tasks = outer_tasks(np.vstack([cohort.values[kept], others]), fold, procedure.seed, clinical)
    put_together = partial(
        out_of_fold, labels=labels, fold=fold, alpha=procedure.alpha, weights=weights, other_fold=other_fold
    )
    chosen = {GL_RFE: methods(procedure, cohort.features, covariates=bool(cohort.covariates))[GL_RFE]}
    workers = workers_for(len(tasks) * procedure.members)
    found = predict_out_of_fold(chosen, tasks, labels, put_together, procedure, report, workers)[GL_RFE]
    means: Array = found.of_others.mean(axis=0).reshape(len(CONTOURS), -1)
    return means


def _figures(
    probabilities: Array,
    labels: npt.NDArray[np.bool_],
    weights: Array | None,
    conformal: Mapping[str, Any],
    seed: int,
) -> dict[str, dict[str, Any]]:
    together = np.zeros(len(labels), dtype=np.intp)  # all patients are ranked together
    resampled = resamples(len(labels), np.random.SeedSequence([seed, 11]), counted=weights)
    thresholds = Thresholds(conformal["early_min_probability"], conformal["advanced_min_probability"])
    possible = thresholds.possible(probabilities)
    figures: dict[str, dict[str, Any]] = {}
    for which, name in enumerate(CONTOURS):
        with np.errstate(invalid="ignore"):  # a resample may contain one class only
            figures[name] = {"auc": interval(auc(probabilities[which], labels, together, resampled))}
        if name != EXPERT:
            apart = np.abs(probabilities[which] - probabilities[0])
            figures[name]["difference"] = dict(
                zip(("median", "ninth_decile"), np.percentile(apart, (50, 90)).tolist(), strict=True)
            )
            figures[name]["same_answer"] = float((possible[which] == possible[0]).all(axis=-1).mean())
    return figures
