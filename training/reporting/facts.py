"""Facts of a run in plain sentences, as answers for the reporting checklists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final

from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.training.reporting.figures.canvas import METRIC_LABELS, estimate, short

Record = Mapping[str, Any]

ALWAYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "research": "Research use only; not a medical device and not for any decision about a patient's care.",
        "development": "Development of a prediction model, with internal evaluation by cross-validation.",
        "preprocessing": "Fitted to the training rows of each fold: median imputation, winsorising at the 1 % and 99 % "
        "quantiles, Yeo-Johnson transform, and z-score.",
        "imbalance": "No over- or undersampling. The networks' loss is weighted by class; the Platt scaling that "
        "follows brings the probabilities back to the prevalence of the training table.",
        "unfair": "None: the procedure has no step for fairness.",
        "no_groups": "Not examined: performance is not reported by centre or by group of patients.",
        "no_update": "No existing model is evaluated or updated here.",
        "one_table": "Both come from one table; within a fold, no row is in both parts.",
        "no_external": "This run contains no external cohort; `lungstage-train validate` scores a bundle on one.",
        "curves": "Plots: ROC with band, reliability, decision curve, paired differences, conformal coverage.",
        "bundle": "`lungstage-export build RUN` packs the fitted model into one ONNX bundle with its preprocessing, "
        "calibration, thresholds and hashes.",
        "poor_input": "During use, the appliance holds or refuses a study with missing slices, unclear geometry or an "
        "ambiguous contour. It names features outside the training range.",
        "user": "During use, a person supplies the tumour's contour (RTSTRUCT or SEG).",
        "ct_only": "One imaging set: CT.",
        "concepts": "The table of selected features gives the unit and the IBSI code of each.",
        "not_end_to_end": "The features are hand-crafted; no network uses an image.",
        "this_report": "This report answers TRIPOD+AI and METRICS item by item.",
    }
)
"""Facts of every run, given by the software."""


def known(run: Record | None, evaluation: Record | None) -> dict[str, str]:
    """Collect the facts of a run's records, by topic.

    Parameters
    ----------
    run, evaluation
        Contents of ``run.json`` and ``evaluation.json``; None without the file.

    Returns
    -------
    dict
        Sentences by topic; topics that the records do not contain are absent.
    """
    facts = dict(ALWAYS)
    for tell, record in ((_of_either, evaluation or run), (_of_run, run), (_of_evaluation, evaluation)):
        for topic, sentence in tell(record).items() if record is not None else ():
            try:
                facts[topic] = sentence()
            except KeyError:  # an optional part of the record
                continue
    return {topic: sentence for topic, sentence in facts.items() if sentence}


Sentences = dict[str, Callable[[], str]]


def _of_either(record: Record) -> Sentences:
    settings, table, endpoint = record["settings"], record["table"], record["endpoint"]
    positives, used = table["positives"], table["used"]
    left_out = ", ".join(f"{count} ({why})" for why, count in sorted(table["excluded"].items()) if count) or "none"
    k = settings["selection"]["features"]
    return {
        "endpoint": lambda: (
            f"{endpoint['name']}: {endpoint['negative']} or {endpoint['positive']}; the model gives the probability "
            f"of {endpoint['positive']}."
        ),
        "flow": lambda: (
            f"{table['rows']} rows in {table['name']}; left out: {left_out}; used: {used}, of them {positives} "
            f"{endpoint['positive']} and {used - positives} {endpoint['negative']}."
        ),
        "size": lambda: (
            f"{used} patients, {min(positives, used - positives)} in the rarer class: "
            f"{min(positives, used - positives) / k:.1f} per selected feature. This software did not calculate a "
            "sample size."
        ),
        "partition": lambda: (
            f"{settings['folds']}-fold cross-validation over patients, repeated {settings['repeats']} times; "
            f"preprocessing, selection and calibration are fitted to the training rows of each fold. Each fit uses "
            f"about {used - round(used / settings['folds'])} of {used} patients and is scored on the others. The final "
            "model is fitted to all patients."
        ),
        "model": lambda: (
            f"Recursive feature elimination by networks' gradients (GL-RFE) to {k} features; then an ensemble of "
            f"{settings['members']} small networks whose logits are averaged and Platt-scaled. The section Settings "
            "lists every setting."
        ),
        "redundancy": lambda: f"The selection leaves {k} features; figures show the correlation before and after.",
        "digest": lambda: f"SHA-256 of all settings: {record['procedure_sha256']}, seed {record['seed']}.",
        "software": lambda: (
            "lungstage "
            + record["versions"]["lungstage"]
            + ", Apache-2.0; the run lists the versions of its libraries."
        ),
    }


def _of_run(run: Record) -> Sentences:
    cohort, extraction = run.get("cohort", {}), run.get("extraction", {})
    return {
        "cohort": lambda: f"{cohort['name']}. {cohort['source']}.",
        "licence": lambda: f"Licence of the data: {cohort['licence']}. Citation: {cohort['citation'].rstrip('.')}.",
        "notes": lambda: " ".join(cohort["notes"]),
        "absent": lambda: (
            f"Absent from the cohort: {_group(run)} {', '.join(cohort['stages_absent'])}."
            if cohort["stages_absent"]
            else ""
        ),
        "candidates": lambda: (
            f"{run['selection']['rounds'][0]['remaining']} features enter the selection: all of PyRadiomics' default "
            "features that the table contains."
        ),
        "predictors": lambda: "Selected: " + ", ".join(short(name) for name in run["selection"]["features"]) + ".",
        "extraction": lambda: (
            "PyRadiomics settings of the table: "
            + ", ".join(f"{key} {value}" for key, value in sorted(extraction.items()))
            + "."
        ),
        "covariates": lambda: (
            "Clinical covariates: " + (", ".join(one["name"] for one in run["covariates"]) or "none") + "."
        ),
        "repeatability": lambda: _repeatability(run["repeatability"]),
        "output": lambda: _thresholds(run["conformal"], run["endpoint"]),
        "fitted": lambda: "The fitted model is in this run (model.npz).",
    }


def _group(run: Record) -> str:
    return "stage" if run["endpoint"] == asdict(STAGE_GROUP) else "TNM group"


def _repeatability(filtered: Record | None) -> str:
    if filtered is None:
        return "No feature was left out for low repeatability: no table of intraclass correlations was given."
    names = ", ".join(short(name) for name in filtered["left_out"]) or "none"
    return (
        f"Features whose intraclass correlation in {filtered['table']} is below {filtered['minimum']:g} were left out: "
        f"{names}."
    )


def _thresholds(conformal: Record, endpoint: Record) -> str:
    return (
        f"A calibrated probability of {endpoint['positive']}. Class-conditional conformal thresholds at alpha "
        f"{conformal['alpha']:g} turn it into {endpoint['negative']}, {endpoint['positive']} or indeterminate."
    )


def _of_evaluation(evaluation: Record) -> Sentences:
    methods, own = evaluation["methods"], evaluation["methods"][evaluation["reference"]]
    rows = len(methods) - 1
    verdicts = {one["against"]: one["sentence"] for one in evaluation["verdicts"]}
    return {
        "measures": lambda: "Measures: " + ", ".join(METRIC_LABELS[name] for name in METRIC_LABELS) + ".",
        "comparators": lambda: f"{rows} other methods are scored on the same patients and folds, compared in pairs.",
        "interval": lambda: f"Intervals: {evaluation['interval']}",
        "performance": lambda: (
            f"{own['label']}, out of fold: "
            + ", ".join(f"{METRIC_LABELS[key]} {estimate(own['metrics'][key])}" for key in ("auc", "accuracy", "brier"))
            + "; the section Performance lists all measures."
        ),
        "calibration": lambda: (
            f"Calibration slope {estimate(own['metrics']['calibration_slope'], 2)}, expected calibration error "
            f"{estimate(own['metrics']['ece'])}."
        ),
        "predictions": lambda: (
            "Predictions are those of the whole procedure, fitted again without the scored fold."
        ),
        "volume": lambda: " ".join(verdicts[name] for name in ("volume", "sphericity_volume") if name in verdicts),
        "simple": lambda: f"{verdicts['majority']} {verdicts['l2_lr']}",
        "warnings": lambda: " ".join(evaluation["warnings"]) or "The run raised no warning.",
    }  # fmt: skip
