"""``MODEL_CARD.md``: what a reader must know of a model, in the run's own figures and no others.

Sections follow Mitchell et al. 2019, "Model Cards for Model Reporting", doi:10.1145/3287560.3287596. The same run gives
the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from appliance.manifest import FeatureEntry, IntendedUse
from appliance.vocabulary import CONCEPTS
from export.markdown import as_table, bullets, figure, number, percent, span
from training.calibration import MIN_SLOPE

_METRICS: Final = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_precision": "Precision (macro)",
    "macro_recall": "Recall (macro)",
    "macro_f1": "F1 (macro)",
    "brier": "Brier score (lower is better)",
}


def _metric(key: str) -> str:
    return _METRICS.get(key, key.replace("_", " ").capitalize())


def _in_order(metrics: Iterable[str]) -> list[str]:
    """Known metrics first, as listed above, then the others by name: a record has no order of its own."""
    known = list(_METRICS)
    return sorted(metrics, key=lambda key: (known.index(key) if key in known else len(known), key))


def _use(use: IntendedUse) -> str:
    return "\n\n".join(
        [
            use.statement,
            "A case is refused (`outside_intended_use`) unless all of this holds:",
            bullets(
                [
                    f"modality {use.modality}, BodyPartExamined one of {', '.join(use.body_parts)} "
                    "(where it is absent, the tumour must have aerated lung next to it)",
                    f"slice thickness {span(*use.slice_thickness_mm)} mm, pixel spacing "
                    f"{span(*use.pixel_spacing_mm)} mm",
                    f"HU inside the region of interest {span(*use.hu_range)}",
                    f"domain distance at most {use.domain_distance_max:.2f} (twice the training cohort's largest); "
                    f"above {use.domain_distance_warn:.2f}, its 99 % quantile, the answer carries a warning",
                ]
            ),
            "**Not for:** diagnosis, staging or treatment decisions; nodes, metastases or benign lesions as the region "
            "of interest; other organs; images after treatment; other modalities.",
        ]
    )


def _data(record: Mapping[str, Any]) -> str:
    cohort, table = record["cohort"], record["table"]
    positives, used = table["positives"], table["used"]
    excluded = ", ".join(f"{count} ({reason})" for reason, count in sorted(table["excluded"].items())) or "none"
    absent = ", ".join(cohort["stages_absent"])
    facts = [
        f"Cohort: {cohort['name']}. {cohort['source']}.",
        f"Cite: {cohort['citation']}",
        f"Rows in the table: {table['rows']}; left out: {excluded}; used: {used}.",
        f"Training prevalence: {positives} advanced of {used} ({percent(positives / used)}). The probability is "
        "calibrated to this prevalence and means little at another one.",
        f"Table `{table['name']}`, SHA-256 `{table['sha256']}`. No patient row is part of this bundle.",
        *cohort["notes"],
    ]
    if absent:
        facts.append(f"**Stage {absent} is absent from the cohort**: the model has never seen such a case.")
    return bullets(facts)


def _licence(licence: str) -> str:
    return (
        f"The model was derived from data under **{licence}**; use of this bundle is bound by that licence, its "
        "attribution and any bar on commercial use included. The lungstage code is Apache-2.0."
    )


def _inputs(entries: Sequence[FeatureEntry]) -> str:
    rows = []
    for position, entry in enumerate(entries, 1):
        q = entry.training_quantiles
        note = CONCEPTS[entry.name].note
        name = f"`{entry.name}`" + (f" ({note})" if note else "")
        rows.append(
            [
                str(position),
                name,
                entry.unit,
                entry.ibsi or "none",
                number(entry.training_median),
                span(q["0.05"], q["0.95"]),
            ]
        )
    return as_table(
        ["", "PyRadiomics feature", "unit (UCUM)", "IBSI", "training median", "5 % to 95 % of training"], rows
    )


def _performance(record: Mapping[str, Any]) -> str:
    table = record["table"]
    share = table["positives"] / table["used"]
    figures = record["out_of_fold"]
    rows = [[_metric(key), figure(figures[key])] for key in _in_order(figures)]
    parts = [
        "Out of fold, split by patients: every fit, feature selection included, saw the training rows of its fold "
        f"only. In brackets: {record['interval']}",
        as_table(["", "value"], rows),
        "Next to what it must be compared with, on the same folds:",
        _comparison(record),
        f"**Accuracy must be compared with the majority class:** calling every case "
        f"{'advanced' if share >= 0.5 else 'early'} is right in {percent(max(share, 1 - share))} of these patients "
        "(balanced accuracy 50 %, AUC 0.5).",
    ]
    stability = record["stability"].get("gl_rfe_dnn")
    if stability is not None:
        parts.append(
            f"Stability of the selection over the folds (Nogueira 2018): {stability:.2f}; 1 would be the same features "
            "every time, 0 is chance."
        )
    if record["cut_rows"]:
        used, every = record["cut_rows"]["used_only"], record["cut_rows"]["all_rows"]
        keys = _in_order(set(used) & set(every))
        parts += [
            "Effect of the rows that were left out, by the same procedure with and without them:",
            as_table(
                ["", "used rows only", "all rows"],
                [[_metric(key), figure(used[key]), figure(every[key])] for key in keys],
            ),
        ]
    parts.append(
        "The method's authors claim 90.22 % accuracy on a cohort that is not public (arXiv 2606.04453). The claim is "
        "theirs; it was not reproduced here and says nothing of this model."
    )
    return "\n\n".join(parts)


def _comparison(record: Mapping[str, Any]) -> str:
    """Tabulate the AUC and the balanced accuracy of this procedure and its comparators."""
    metrics = ("auc", "balanced_accuracy")
    methods = {"this model's procedure": record["out_of_fold"], **dict(sorted(record["comparators"].items()))}
    rows = [
        [name.replace("_", " "), *(figure(scores[key]) if key in scores else "" for key in metrics)]
        for name, scores in methods.items()
    ]
    return as_table(["", *map(_metric, metrics)], rows)


def _decision(record: Mapping[str, Any], slope: float, intercept: float) -> str:
    conformal = record["conformal"]
    coverage = [f"{key}: {figure(value)}" for key, value in sorted(conformal["coverage"].items())]
    silenced = " The slope rests on its lower bound: every probability is about the prevalence." * (slope <= MIN_SLOPE)
    return "\n\n".join(
        [
            f"The probability is Platt-scaled on out-of-fold logits: sigmoid({slope:.3f} × logit {intercept:+.3f})."
            + silenced,
            f"Early stays possible from a probability of {conformal['early_min_probability']:.3f}, advanced from "
            f"{conformal['advanced_min_probability']:.3f} (class-conditional split conformal, α = "
            f"{conformal['alpha']:g}). Exactly one possible class is the answer, otherwise it is `indeterminate`: "
            f"{figure(conformal['indeterminate'])} of the cases out of fold. Coverage out of fold:",
            bullets(coverage),
        ]
    )


def _skew(cohort: Mapping[str, Any], names: Sequence[str]) -> str:
    """Compare the table's values with the appliance's own for one case that both have."""
    skew = cohort.get("skew")
    if not skew:
        return (
            "The training table was not compared with the appliance's own extraction: no image of a patient in the "
            "table was at hand."
        )
    rows = [
        [f"`{name}`", f"{100 * skew['relative'][name]:+.2f} %", f"{skew['in_iqr'][name]:+.3f}"]
        for name in names
        if name in skew["relative"]
    ]
    return "\n\n".join(
        [
            f"Case: {skew['case']}. What the appliance measures of it, against the training table:",
            as_table(["feature", "relative difference", "in interquartile ranges of the training rows"], rows),
            f"Where it comes from: {skew['cause']}.",
        ]
    )


def render(
    name: str, version: str, record: Mapping[str, Any], calibration: tuple[float, float],
    entries: Sequence[FeatureEntry], use: IntendedUse,
) -> str:  # fmt: skip
    """Write the card.

    Parameters
    ----------
    name, version
        Of the bundle.
    record
        :attr:`training.run.Run.record`.
    calibration
        (slope, intercept) of the fitted model.
    entries
        The network's inputs in order.
    use
        The limits of intended use.

    Returns
    -------
    str
        Markdown.
    """
    advanced = "III" if "IV" in record["cohort"]["stages_absent"] else "III–IV"
    versions = ", ".join(f"{key} {value}" for key, value in sorted(record["versions"].items()))
    sections = {
        "What it is": (
            f"A radiomics model that tells early (stage I–II) from advanced (stage {advanced}) lung cancer by the "
            f"primary tumour on CT: {len(entries)} PyRadiomics features, chosen by gradient-based recursive feature "
            "elimination (GL-RFE), into a seed ensemble of small neural networks, calibrated. It gives a probability, "
            "each feature's signed contribution (DeepLIFT rescale against the training median, in logit units) and the "
            "distance to the training cohort. "
            "**Research use only; not a medical device.**"
        ),
        "Intended use": _use(use),
        "Data": _data(record),
        "Licence": _licence(record["cohort"]["licence"]),
        "Performance": _performance(record),
        "Calibration and decision": _decision(record, *calibration),
        "Inputs": _inputs(entries),
        "Skew between training table and appliance": _skew(record["cohort"], [entry.name for entry in entries]),
        "Limits": bullets(
            [
                "It sees the tumour's region of interest alone. Nodes, on which early and advanced largely depend, and "
                "metastases are invisible to it.",
                "One cohort, no external validation. Scanner, contrast phase, kernel and the contouring physician move "
                "radiomics features.",
                "Contributions say what moved this model's answer, not what causes a stage.",
            ]
        ),
        "How to reproduce": "\n\n".join(
            [
                f"With the table above, seed {record['seed']} and {versions}:",
                f"```\nlungstage-train fit {record['table']['name']} -o RUN\n"
                f"lungstage-export build RUN -o models/{name}\nlungstage-export verify models/{name}\n```",
                "`extraction.yaml` is a PyRadiomics parameter file: stock PyRadiomics gives the same inputs on the "
                "volume and mask that `lungstage stage --save-volume` writes.",
            ]
        ),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Model card: {name} {version}\n\n{body}\n"
