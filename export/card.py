"""``MODEL_CARD.md``: facts about a model for its users, with figures of its run only.

The sections follow Mitchell et al. 2019, "Model Cards for Model Reporting", doi:10.1145/3287560.3287596. The same run
gives the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.appliance.model.manifest import CovariateEntry, Decision, FeatureEntry, IntendedUse, OutOfFold
from lungstage.export.answers import NOTE, answers, decision_curve, rules
from lungstage.export.contour_sources import contours
from lungstage.export.inputs import inputs, skew
from lungstage.export.markdown import as_toml, bullets, figure, percent, span
from lungstage.export.performance import performance
from lungstage.export.robustness import robustness
from lungstage.export.selection import selection
from lungstage.export.survival import survival
from lungstage.export.worth import sentence, worth_of
from lungstage.training.model.calibration import MIN_SLOPE
from lungstage.training.model.domain import GROUP_SIZE, NEIGHBOURS
from lungstage.training.run import FittedModel, Run, prevalence


def render(
    name: str, version: str, run: Run,
    entries: Sequence[FeatureEntry], covariates: Sequence[CovariateEntry], use: IntendedUse,
    decision: Decision, out_of_fold: OutOfFold | None, model_sha256: str = "",
) -> str:  # fmt: skip
    """Write the card.

    Parameters
    ----------
    name, version
        Name and version of the bundle.
    run
        The fitted model, its record and its evaluation, if there is one.
    entries, covariates
        The network's inputs in order.
    use
        The limits of intended use.
    decision, out_of_fold
        The conformal thresholds, and the out-of-fold results; None for a run of an earlier release.
    model_sha256
        Hash of ``model.onnx``, to check that the robustness results belong to this model.

    Returns
    -------
    str
        Markdown.
    """
    record = run.record
    sections = {
        "What it is": _what(run),
        "Intended use": _use(run, use),
        "Data": _data(run),
        "Licence": _licence(record["cohort"]["licence"]),
        "Performance": performance(run),
        "Survival": survival(run),
        "Robustness (simulated)": robustness(run, model_sha256),
        "Contours": contours(run),
        "Selection": selection(record),
        "Calibration and decision": _decision(run, decision, out_of_fold),
        "Inputs": inputs(record, entries, covariates),
        "Skew between training table and appliance": skew(record["cohort"], [entry.name for entry in entries]),
        "Limits": _limits(run),
        "How to reproduce": _reproduce(name, run),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# Model card: {name} {version}\n\n{body}\n"


def _what(run: Run) -> str:
    endpoint, model = run.endpoint, run.model
    if endpoint == STAGE_GROUP:
        advanced = "III" if "IV" in run.record["cohort"]["stages_absent"] else "III–IV"
        task = (
            f"classifies lung cancer as early (stage I–II) or advanced (stage {advanced}) from the primary tumour on CT"
        )
    else:
        task = f"predicts {endpoint.name} ({endpoint.negative} or {endpoint.positive}) from the lung tumour on CT"
    beside = f", and {', '.join(c.name for c in model.covariates)}" if model.covariates else ""
    warning = sentence(worth_of(run))
    return (
        f"**Research use only; not a medical device.** A radiomics model that {task}. Its inputs are "
        f"{len(model.features)} PyRadiomics features, selected by gradient-based recursive feature elimination "
        f"(GL-RFE){beside}. A seed ensemble of small neural networks computes a calibrated probability. The model also "
        "gives each input's signed contribution (DeepLIFT rescale rule, relative to the training median, in logit "
        "units) and two distances to the training cohort." + (f"\n\n**{warning}**" if warning else "")
    )


def _use(run: Run, use: IntendedUse) -> str:
    not_for = (
        "diagnosis, staging or treatment decisions; nodes, metastases or benign lesions as the region of interest"
        if run.endpoint == STAGE_GROUP
        else "diagnosis, prognosis or treatment decisions"
    )
    return "\n\n".join(
        [
            use.statement,
            "A case is refused (`outside_intended_use`) unless it meets all of these conditions:",
            bullets(
                [
                    f"modality {use.modality}, BodyPartExamined one of {', '.join(use.body_parts)} "
                    "(if it is absent, the tumour must have aerated lung next to it)",
                    f"slice thickness {span(*use.slice_thickness_mm)} mm, pixel spacing "
                    f"{span(*use.pixel_spacing_mm)} mm",
                    f"HU inside the region of interest {span(*use.hu_range)}",
                    f"domain distance at most {use.domain_distance_max:.2f} (twice the training cohort's largest), "
                    f"with a warning above {use.domain_distance_warn:.2f} (the cohort's 99 % quantile)",
                    f"neighbour distance at most {use.neighbour_distance_max:.2f} (twice the training cohort's "
                    f"largest), with a warning above {use.neighbour_distance_warn:.2f} (the cohort's 99 % quantile)",
                ]
            ),
            _domain(run.model),
            f"**Not for:** {not_for}; other organs; images after treatment; other modalities.",
        ]
    )


def _domain(model: FittedModel) -> str:
    return (
        "The domain distance is the Mahalanobis distance with a shrunk covariance (Ledoit & Wolf 2004). The neighbour "
        f"distance is the mean distance to the {NEIGHBOURS} nearest of {len(model.domain_references)} references. It "
        "is computed in the standardised features, in standard deviations per feature. Each reference is the mean of "
        f"at least {GROUP_SIZE} patients, so no patient's row can be read from this bundle. The bundle contains the "
        "lowest and the highest value of each feature. The report names features outside the training range."
    )


def _data(run: Run) -> str:
    cohort, table = run.record["cohort"], run.record["table"]
    positives, used, share = table["positives"], table["used"], prevalence(table)
    shown = (
        f"{positives} {run.endpoint.positive} of {used} ({percent(share)})"
        if "prevalence" not in table
        else f"{percent(share)} {run.endpoint.positive} by Kaplan-Meier, which includes patients lost before the "
        f"horizon; {positives} of the {used} patients with known outcome ({percent(positives / used)})"
    )
    excluded = ", ".join(f"{count} ({reason})" for reason, count in sorted(table["excluded"].items())) or "none"
    absent = ", ".join(cohort["stages_absent"])
    facts = [
        f"Cohort: {cohort['name']}. {cohort['source']}.",
        f"Cite: {cohort['citation']}",
        f"Rows in the table: {table['rows']}; left out: {excluded}; used: {used}.",
        f"Training prevalence: {shown}. The probability is calibrated to this prevalence. At another prevalence it "
        "must be corrected.",
        f"Table `{table['name']}`, SHA-256 `{table['sha256']}`. No patient row is part of this bundle.",
        *cohort["notes"],
    ]
    if absent:
        group = "Stage" if run.endpoint == STAGE_GROUP else "TNM group"
        facts.append(f"**{group} {absent} is absent from the cohort**: the model was not trained on such cases.")
    return bullets(facts)


def _licence(licence: str) -> str:
    return (
        f"The model was derived from data under **{licence}**. This licence also applies to the use of this bundle, "
        "including attribution and any exclusion of commercial use. The lungstage code is under Apache-2.0."
    )


def _decision(run: Run, decision: Decision, out_of_fold: OutOfFold | None) -> str:
    endpoint, record, (slope, intercept) = run.endpoint, run.record, run.model.calibration
    conformal, table = record["conformal"], record["table"]
    evaluation = run.own_evaluation
    if evaluation is not None:
        conformal = conformal | evaluation["methods"][evaluation["reference"]]["conformal"]
    coverage = [f"{key}: {figure(value)}" for key, value in sorted(conformal["coverage"].items())]
    decided = conformal.get("accuracy_where_decided")
    right = f" If there is an answer, it is right in {figure(decided)} of the cases." if decided is not None else ""
    training = prevalence(table)
    each = rules(decision, training, out_of_fold)
    silenced = " The slope is at its lower bound: every probability is about the prevalence." * (slope <= MIN_SLOPE)
    return "\n\n".join(
        [
            f"The probability is Platt-scaled on out-of-fold logits: sigmoid({slope:.3f} × logit {intercept:+.3f})."
            + silenced,
            f"{endpoint.negative.capitalize()} is possible from a probability of {endpoint.negative} of "
            f"{conformal['early_min_probability']:.3f}, and {endpoint.positive} from a probability of "
            f"{endpoint.positive} of {conformal['advanced_min_probability']:.3f} (class-conditional cross-conformal "
            f"prediction, α = {conformal['alpha']:g}). The thresholds come from models of parts of the "
            "table and are used with a model of the whole table. So the coverage of "
            f"{1 - conformal['alpha']:.0%} is a target and not guaranteed. If exactly one class is possible, "
            "it is the conformal answer; otherwise the case is indeterminate "
            f"({figure(conformal['indeterminate'])} of the cases out of fold).{right} "
            "Coverage out of fold:",
            bullets(coverage),
            _coverage_elsewhere(run, conformal),
            "A site can set its own prevalence with the setting `prevalence` (`--prevalence`): "
            "logit(p′) = logit(p) − logit(training prevalence, "
            f"{training:.4g}) + logit(site prevalence) (Saerens, Latinne & Decaestecker 2002). Coverage within a class "
            "does not depend on the prevalence. The probability, the answer and the predictive value do. The "
            "contributions explain the uncorrected logit.",
            *(("**Answers by prevalence.** " + NOTE, answers(each, endpoint)) if out_of_fold else ()),
            *(("Decision curve at the training prevalence:", decision_curve(each[0])) if out_of_fold else ()),
        ]
    )


def _coverage_elsewhere(run: Run, conformal: Mapping[str, Any]) -> str:
    """Describe the coverage in new patients like the training patients, and in the left-out rows."""
    endpoint, told = run.endpoint, []
    early, advanced = conformal.get("early_coverage"), conformal.get("advanced_coverage")
    if early and advanced:
        each = [
            f"{100 * low:.0f} to {100 * high:.0f} % of {name}"
            for name, (low, high) in ((endpoint.negative, early), (endpoint.positive, advanced))
        ]
        told.append(
            "The thresholds come from the patients of one table. In new patients like them the coverage lies, with a "
            f"probability of 95 %, within {' and '.join(each)}. A sample of a few dozen patients varies by "
            "chance as much again."
        )
    if cut := run.record.get("cut_coverage"):
        each = [f"{one['covered']} of {one['patients']} {name}" for name, one in sorted(cut.items())]
        told.append(
            "The coverage does not apply to other patients: of the rows that were left out and never used, "
            f"{', '.join(each)} kept their true class."
        )
    return " ".join(told)


def _limits(run: Run) -> str:
    invisible = (
        "It does not use lymph nodes, on which early and advanced largely depend, or metastases."
        if run.endpoint == STAGE_GROUP
        else f"It does not use anything else that {run.endpoint.name} depends on."
    )
    return bullets(
        [
            f"The model uses only the tumour's region of interest. {invisible}",
            "One cohort, no external validation. Scanner, contrast phase, kernel and the contouring physician change "
            "radiomics features.",
            "Contributions show what changed this model's answer, not what causes "
            + ("a stage." if run.endpoint == STAGE_GROUP else "an outcome."),
            *(
                ["It does not predict the cause or the time of death, only death of any cause within one time."]
                if Horizon.of(run.endpoint)
                else []
            ),
        ]
    )


def _reproduce(name: str, run: Run) -> str:
    record = run.record
    versions = ", ".join(f"{key} {value}" for key, value in sorted(record["versions"].items()))
    table = record["table"]["name"]
    configuration, evaluation = record.get("configuration"), run.own_evaluation
    given = f"{table} --config study.toml -o RUN" if configuration else f"{table} -o RUN"
    commands = [f"lungstage-train fit {given}"]
    if evaluation is not None:
        leaks = " --demonstrate-leakage" if evaluation.get("leakage") else ""
        commands.append(f"lungstage-train evaluate {given}{leaks}")
    commands += [f"lungstage-export build RUN -o models/{name}", f"lungstage-export verify models/{name}"]
    digest = record.get("procedure_sha256")
    settings = f" settings of SHA-256 `{digest}`," if digest else ""
    return "\n\n".join(
        [
            f"With the table above, seed {record['seed']},{settings} and {versions}:",
            "```\n" + "\n".join(commands) + "\n```",
            *([f"`study.toml`:\n\n```toml\n{as_toml(configuration)}\n```"] if configuration else ()),
            "`extraction.yaml` is a PyRadiomics parameter file. Unmodified PyRadiomics gives the same inputs on the "
            "volume and mask that `lungstage stage --save-volume` writes.",
        ]
    )
