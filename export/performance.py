"""Section of the card on performance: out-of-fold metrics of the procedure and of its comparators.

The metrics come from the run's ``evaluation.json`` if it has the same procedure and table. Otherwise they come from the
shorter evaluation of the fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.export.markdown import as_table, bullets, figure, percent
from lungstage.export.worth import sentence, worth_of
from lungstage.training.run import Run, prevalence

_METRICS: Final = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_precision": "Precision (macro)",
    "macro_recall": "Recall (macro)",
    "macro_f1": "F1 (macro)",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier": "Brier score (lower is better)",
    "calibration_slope": "Calibration slope (1 is best)",
    "ece": "Expected calibration error (lower is better)",
}
_COMPARED: Final = ("auc", "balanced_accuracy", "brier")

Metrics = Mapping[str, Any]


def performance(run: Run) -> str:
    """Write the section *Performance*."""
    record, evaluation = run.record, run.own_evaluation
    if evaluation is None:
        own, interval = record.get("out_of_fold", {}), record.get("interval", "no interval was computed.")
    else:
        own, interval = evaluation["methods"][evaluation["reference"]]["metrics"], evaluation["interval"]
    told = sentence(worth_of(run))
    parts = [
        f"**{told}**" if told else "",
        "Out-of-fold metrics, with folds of patients. Every fit, including feature selection, used only the training "
        f"rows of its fold. An AUC is the mean over folds. In brackets: {interval}",
        as_table(["", "value"], [[_metric(key), figure(own[key])] for key in _in_order(own)]),
        "Comparators on the same folds:",
        _light_comparison(record, own) if evaluation is None else _comparison(evaluation),
        _majority(run),
        _two_features(record.get("comparators", {}) if evaluation is None else evaluation["methods"]),
    ]
    parts += [_stability_of_the_run(record)] if evaluation is None else _evaluated(evaluation)
    warnings = (evaluation or record).get("warnings", [])
    parts += [f"**Warning:** {warning}" for warning in warnings]
    parts += _cut_rows(record)
    if run.endpoint == STAGE_GROUP:
        parts.append(
            "The method's authors claim 90.22 % accuracy on a cohort that is not public (arXiv 2606.04453). This is "
            "their figure. It was not reproduced here and does not apply to this model."
        )
    return "\n\n".join(part for part in parts if part)


def _metric(key: str) -> str:
    return _METRICS.get(key, key.replace("_", " ").capitalize())


def _in_order(metrics: Iterable[str]) -> list[str]:
    """Known metrics first, as listed above, then the others by name, because a record has no order."""
    known = list(_METRICS)
    return sorted(metrics, key=lambda key: (known.index(key) if key in known else len(known), key))


def _cells(metrics: Metrics, keys: Sequence[str]) -> list[str]:
    return [figure(metrics.get(key)) for key in keys]


def _light_comparison(record: Mapping[str, Any], own: Metrics) -> str:
    methods = {"this model's procedure": own, **dict(sorted(record.get("comparators", {}).items()))}
    rows = [[name.replace("_", " "), *_cells(scores, _COMPARED)] for name, scores in methods.items()]
    return as_table(["", *map(_metric, _COMPARED)], rows)


def _comparison(evaluation: Mapping[str, Any]) -> str:
    """Tabulate every method by its AUC, with the difference between the reference and it."""
    methods, reference, halves = evaluation["methods"], evaluation["reference"], evaluation.get("halves", {})
    order = sorted(methods, key=lambda name: (name != reference, -methods[name]["metrics"]["auc"]["value"], name))
    rows = []
    for name in order:
        method = methods[name]
        difference = (method["difference"] or {}).get("auc")
        label = f"**{method['label']}**" if name == reference else method["label"]
        rows.append(
            [
                label,
                *_cells(method["metrics"], _COMPARED),
                figure(difference),
                figure(method["difference_corrected"]),
                figure(method["stability"]),
                figure((halves.get(method["selector"]) or {}).get("nogueira")),
            ]
        )
    head = [
        "",
        *map(_metric, _COMPARED),
        "AUC of this procedure minus it, paired",
        "the same, corrected",
        "stability over folds",
        "stability on halves",
    ]
    return "\n\n".join(
        [
            as_table(head, rows),
            "Paired: on the same patients and folds. Corrected: t interval over the folds, corrected for their common "
            "training rows (Nadeau & Bengio 2003). Stability: of the selections over the folds, which share most "
            "patients, and on disjoint halves, which share none (Nogueira, Sechidis & Brown 2018). 1 means always the "
            "same features, 0 is chance.",
        ]
    )


def _majority(run: Run) -> str:
    table = run.record["table"]
    share = prevalence(table)
    common = run.endpoint.positive if share >= 0.5 else run.endpoint.negative
    return (
        f"**Compare the accuracy with the majority class:** calling every case {common} is right in "
        f"{percent(max(share, 1 - share))} of these patients (balanced accuracy 50 %, AUC 0.5)."
    )


def _two_features(methods: Mapping[str, Any]) -> str:
    """Give the AUC of the two-feature model, if it was compared."""
    if (simple := methods.get("sphericity_volume")) is None:
        return ""
    auc = simple.get("metrics", simple)["auc"]
    return (
        "**Compare it with a simple model:** logistic regression on two features, sphericity and volume, has an AUC of "
        f"{figure(auc)} on the same folds."
    )


def _evaluated(evaluation: Mapping[str, Any]) -> list[str]:
    """Write the parts of a full evaluation: verdicts, ablation of the covariates, leakage."""
    methods = evaluation["methods"]
    parts = []
    if verdicts := [verdict["sentence"] for verdict in evaluation["verdicts"]]:
        parts += ["Added value over each method (both intervals of the AUC difference exclude 0):", bullets(verdicts)]
    if ablation := evaluation.get("covariate_ablation"):
        rows = [
            [f"{role}: {methods[name]['label']}", *_cells(methods[name]["metrics"], _COMPARED)]
            for role, name in ((role, ablation[role]) for role in ("with", "without", "alone"))
        ]
        parts += ["Ablation of the covariates:", as_table(["covariates", *map(_metric, _COMPARED)], rows)]
    if leakage := evaluation.get("leakage"):
        shown = _in_order(leakage["honest"])
        rows = [["none", "", *_cells(leakage["honest"], shown)]]
        rows += [[v["label"], v["what_is_wrong"], *_cells(v["metrics"], shown)] for v in leakage["variants"]]
        parts += [
            f"**Effect of data leakage.** {leakage['warning']}",
            as_table(["leak", "what is wrong", *map(_metric, shown)], rows),
        ]
    return parts


def _stability_of_the_run(record: Mapping[str, Any]) -> str:
    stability = record.get("stability", {}).get("gl_rfe_dnn")
    if stability is None:
        return ""
    return (
        f"Stability of the selection over the folds (Nogueira, Sechidis & Brown 2018): {figure(stability)}. 1 means "
        "always the same features, 0 is chance."
    )


def _cut_rows(record: Mapping[str, Any]) -> list[str]:
    if not record.get("cut_rows"):
        return []
    figures = [record["cut_rows"][key] for key in ("used_only", "all_rows_scored_on_used", "all_rows")]
    keys = _in_order(set.intersection(*map(set, figures)))
    return [
        "Effect of the left-out rows: the same procedure with and without them. Columns that are scored on different "
        "patients are not comparable:",
        as_table(
            ["", "used rows only", "trained on all rows, scored on used rows", "trained and scored on all rows"],
            [[_metric(key), *(figure(one[key]) for one in figures)] for key in keys],
        ),
    ]
