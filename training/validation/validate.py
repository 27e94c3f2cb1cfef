"""Validate a bundle on an external cohort: its performance, and the cohort's difference from the training cohort."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint, ExtractionSpec, Stage
from lungstage.appliance.model.answering import AnswerRule
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.model.inference import Outputs
from lungstage.appliance.model.manifest import Decision, IntendedUse
from lungstage.appliance.radiomics import parameters
from lungstage.training.cohorts.cohort import Cohort, target_record
from lungstage.training.cohorts.description import UNDECLARED
from lungstage.training.evaluation.curves import curves
from lungstage.training.evaluation.evaluate import table_record
from lungstage.training.evaluation.metrics import (
    INTERVAL,
    INTERVAL_CENSORED,
    METRICS,
    auc,
    interval,
    intervals,
    resamples,
    score,
)
from lungstage.training.evaluation.reliability import recalibration
from lungstage.training.model.calibration import Thresholds
from lungstage.training.validation.shift import compare

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Record = dict[str, Any]

PREVALENCE_MOVES: Final = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece")
"""Metrics that change when the probability is corrected to another prevalence; AUC and slope do not."""


def validate(
    bundle: Bundle,
    cohort: Cohort,
    *,
    every_row: Cohort | None = None,
    seed: int = 0,
    accept_other_extraction: bool = False,
) -> Record:
    """Score a bundle on a cohort.

    Parameters
    ----------
    bundle
        The loaded and verified bundle.
    cohort
        The cohort, read with the bundle's features and covariates, in the bundle's order.
    every_row
        The same table including the rows with cut tumours, to score whole and cut tumours separately; None if the table
        does not mark cut tumours.
    seed
        Seed of the bootstrap.
    accept_other_extraction
        Score the cohort even if its description says that it was measured with other settings.

    Returns
    -------
    dict
        Content of ``validation.json`` without the sentences; JSON-serialisable. It names no patient.

    Raises
    ------
    Refused
        ``table_invalid``: the cohort was measured with other settings than the bundle's, its classes are the bundle's
        in exchanged order, or its horizon is not that of the bundle's endpoint.
    """
    manifest, labels, endpoint = bundle.manifest, cohort.labels, bundle.manifest.endpoint.endpoint
    _require_same_way_round(endpoint, cohort.endpoint)
    _require_same_question(endpoint, cohort)
    differences = extraction_differences(bundle.spec, cohort)
    if differences and not accept_other_extraction:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"The table was measured with other settings than the bundle's ({'; '.join(differences)}), so all figures "
            "would be wrong. Measure the cohort with the bundle's extraction.yaml, or give --accept-other-extraction.",
        )
    outputs = bundle.predictor.run(cohort.values, cohort.covariate_values)
    weights = resamples(len(labels), np.random.SeedSequence([seed, 4]), counted=cohort.weights)
    training, own = manifest.provenance.prevalence_advanced, cohort.prevalence
    probabilities, shift = outputs.probability_advanced, float(logit(own) - logit(training))
    corrected = np.asarray(expit(logit(probabilities) + shift))
    scored, guessed, moved, guessed_own = (
        _score(p, labels, weights)
        for p in (probabilities, np.full(len(labels), training), corrected, np.full(len(labels), own))
    )
    drawn, drawn_own = (curves(p[None], labels, _one_fold(labels)[None], weights) for p in (probabilities, corrected))
    return {
        "schema_version": 1,
        "bundle": {"name": manifest.name, "version": manifest.version, "digest": bundle.digest},
        "trained_on_this_table": cohort.sha256 == manifest.provenance.table_sha256,
        "table": table_record(cohort),
        "cohort": cohort.description.name,
        "endpoint": asdict(endpoint),
        "target": target_record(cohort),
        "asked": endpoint.name if cohort.target.is_called(endpoint.name) else cohort.target.derived_name,
        "classes_in_table": {"negative": cohort.endpoint.negative, "positive": cohort.endpoint.positive},
        "extraction": {"declared": cohort.description != UNDECLARED, "differences": differences},
        "seed": seed,
        "interval": INTERVAL if cohort.weights is None else INTERVAL + INTERVAL_CENSORED,
        "prevalence": {"training": training, "table": own, "logit_shift": shift},
        "metrics": intervals(scored),
        "constant_guess": {
            "metrics": intervals(guessed),
            "difference": intervals({name: scored[name] - guessed[name] for name in METRICS}),
        },
        "roc": drawn["roc"],
        "decision_curve": drawn["decision_curve"],
        "calibration": _calibration(probabilities, labels, weights) | {"bins": drawn["calibration"]["bins"]},
        "at_own_prevalence": {
            "metrics": intervals({name: moved[name] for name in PREVALENCE_MOVES}),
            "constant_guess": {
                "metrics": intervals({name: guessed_own[name] for name in PREVALENCE_MOVES}),
                "difference": intervals({name: moved[name] - guessed_own[name] for name in PREVALENCE_MOVES}),
            },
            "calibration": _calibration(corrected, labels, weights) | {"bins": drawn_own["calibration"]["bins"]},
            "decision_curve": drawn_own["decision_curve"],
        },
        "answers": {
            "training": _answers(AnswerRule.of(manifest, None), endpoint, labels, probabilities, weights),
            "table": _answers(AnswerRule.of(manifest, own), endpoint, labels, probabilities, weights),
        },
        "rows": _rows(bundle, cohort, every_row),
        "conformal": _conformal(manifest.decision, endpoint, labels, probabilities, weights),
        "domain": _domain(manifest.intended_use, outputs),
        "features": compare(manifest.features, cohort.values, manifest.provenance.rows),
    }


def extraction_differences(spec: ExtractionSpec, cohort: Cohort) -> list[str]:
    """List the extraction settings that differ between a table's description and a bundle."""
    if cohort.description == UNDECLARED:
        return []
    try:
        text = parameters.render(ExtractionSpec(spec.features, cohort.description.extraction))
        declared = dict(parameters.parse(text, order=spec.features).settings)
    except Refused as refusal:
        return [str(refusal).rstrip(".")]
    own = dict(spec.settings)
    return [
        f"{key} is {declared.get(key, 'not set')} in the table and {own.get(key, 'not set')} in the bundle"
        for key in sorted(declared.keys() | own.keys())
        if declared.get(key) != own.get(key)
    ]


def _require_same_way_round(bundle: Endpoint, table: Endpoint) -> None:
    if table.positive == bundle.negative or table.negative == bundle.positive:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"The classes are exchanged: {bundle.positive!r} is the positive class of the bundle, but the table is "
            f"read with {table.positive!r} as the positive class. Exchange --positive and --negative.",
        )


def _require_same_question(bundle: Endpoint, cohort: Cohort) -> None:
    """Compare the horizons. A manifest contains the horizon only in the name of the endpoint."""
    named, asked, survival = (
        re.search(r" within (\S+) days$", bundle.name),
        cohort.target.horizon_days,
        Horizon.of(bundle),
    )
    horizon = named[1] if named is not None else None if survival is None else f"{survival.days}"
    if horizon is not None and asked is not None and horizon != f"{asked:g}":
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"The bundle predicts {bundle.name!r}, and a horizon of {asked:g} days is another endpoint. Give "
            f"--horizon-days {horizon}.",
        )
    if survival is not None and asked is None:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"The bundle predicts {bundle.name!r}, and not {cohort.target.derived_name!r}. Give the columns of the "
            f"follow-up: --target (days), --event (deaths), and --horizon-days {survival.days}.",
        )
    if bundle == STAGE_GROUP and asked is not None:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"The bundle predicts the stage, and not {cohort.target.derived_name!r}. Validate it on a column of "
            "stages, or use a bundle for survival.",
        )


def _one_fold(labels: Bools) -> npt.NDArray[np.intp]:
    """Return one fold for all predictions, because they come from the same model."""
    return np.zeros(len(labels), dtype=np.intp)


def _score(probabilities: Array, labels: Bools, weights: Array) -> dict[str, Array]:
    return score(probabilities[None], labels, _one_fold(labels)[None], weights)


def _calibration(probabilities: Array, labels: Bools, weights: Array) -> Record:
    """Slope and intercept of the recalibration, and observed share minus mean probability, with intervals."""
    slope, intercept = recalibration(probabilities, labels, _one_fold(labels), weights)
    surplus = weights @ (labels - probabilities) / weights.sum(axis=1)
    return {"slope": interval(slope), "intercept": interval(intercept), "in_the_large": interval(surplus)}


def _conformal(decision: Decision, endpoint: Endpoint, labels: Bools, probabilities: Array, weights: Array) -> Record:
    """Coverage of each class with the bundle's thresholds, and the share of indeterminate patients."""
    possible = Thresholds(decision.early_min_probability, decision.advanced_min_probability).possible(probabilities)
    decided = possible.sum(axis=1) == 1
    right = np.where(labels, possible[:, 1], possible[:, 0])

    return {
        "alpha": decision.alpha,
        "coverage": {
            endpoint.negative: _share(right, ~labels, weights),
            endpoint.positive: _share(right, labels, weights),
        },
        "indeterminate": _share(~decided, np.ones_like(labels), weights),
        "accuracy_where_decided": _share(right, decided, weights),
    }


def _answers(rule: AnswerRule, endpoint: Endpoint, labels: Bools, probabilities: Array, weights: Array) -> Record:
    """Count the answers at one prevalence, and how often each was right, with the bundle's own statement.

    ``predictive_value`` is observed, with its interval over patients; None without such an answer. ``said`` is the
    value that the appliance prints with such an answer; None if the bundle does not contain it.
    """
    answers = [rule.answer(float(p))[0] for p in probabilities]
    classes: Record = {}
    for name, stage, of_class in (
        (endpoint.negative, Stage.EARLY, ~labels),
        (endpoint.positive, Stage.ADVANCED, labels),
    ):
        so = np.array([answer is stage for answer in answers])
        told = rule.predictive_value(stage)
        classes[name] = {
            "answered": int(so.sum()),
            "right": int((so & of_class).sum()),
            "predictive_value": _share(of_class & so, so, weights),
            "said": None if told is None else told.chance.as_dict(),
        }
    undecided = np.array([answer is Stage.INDETERMINATE for answer in answers])
    return {
        "prevalence": rule.prevalence,
        "classes": classes,
        "indeterminate": int(undecided.sum()),
        "withheld": int(sum(rule.answer(float(p))[1] for p in probabilities)),
    }


def _share(of: Bools, among: Bools, weights: Array) -> dict[str, float] | None:
    """Share with its interval over patients; None if `among` is empty."""
    if not among.any():
        return None
    with np.errstate(invalid="ignore"):  # a resample without such patients gives NaN
        return interval(weights @ (of & among).astype(np.float64) / (weights @ among.astype(np.float64)))


def _rows(bundle: Bundle, cohort: Cohort, every_row: Cohort | None) -> Record:
    """Score whole and cut tumours separately; None for a group without rows.

    A metric that needs both classes is None if there is only one.
    """
    table = cohort if every_row is None else every_row
    outputs = bundle.predictor.run(table.values, table.covariate_values)
    whole = np.ones(len(table.labels), dtype=np.bool_)
    if every_row is not None:
        whole = ~every_row.cut
    counted = np.ones(len(table.labels)) if table.weights is None else table.weights
    return {
        name: _figures_of(bundle, table.labels[rows], outputs.probability_advanced[rows], counted[rows])
        if rows.any()
        else None
        for name, rows in (("whole", whole), ("cut", ~whole))
    }


def _figures_of(bundle: Bundle, labels: Bools, probabilities: Array, counted: Array) -> Record:
    weights = resamples(len(labels), np.random.SeedSequence([0, 4]), counted=counted)
    both = 0 < labels.sum() < len(labels)
    decision, endpoint = bundle.manifest.decision, bundle.manifest.endpoint.endpoint
    possible = Thresholds(decision.early_min_probability, decision.advanced_min_probability).possible(probabilities)
    with np.errstate(invalid="ignore", divide="ignore"):
        ranked = interval(auc(probabilities, labels, _one_fold(labels), weights)) if both else None
    return {
        "patients": len(labels),
        "positives": int(labels.sum()),
        "auc": ranked,
        "brier": interval(weights @ (probabilities - labels) ** 2 / weights.sum(axis=1)),
        "coverage": {
            endpoint.negative: _share(possible[:, 0], ~labels, weights),
            endpoint.positive: _share(possible[:, 1], labels, weights),
        },
    }


def _domain(use: IntendedUse, outputs: Outputs) -> Record:
    """Shares of rows above the distances at which the appliance warns and refuses."""
    shares: Record = {}
    for limit in ("warn", "max"):
        beyond = {
            name: getattr(outputs, name) > getattr(use, f"{name}_{limit}")
            for name in ("domain_distance", "neighbour_distance")
        }
        shares[limit] = {name: float(rows.mean()) for name, rows in beyond.items()}
        shares[limit]["either"] = float(np.logical_or.reduce(list(beyond.values())).mean())
    return shares
