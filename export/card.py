"""``MODEL_CARD.md``: what a reader must know of a model, in the run's own figures and no others.

Sections follow Mitchell et al. 2019, "Model Cards for Model Reporting", doi:10.1145/3287560.3287596. The same run gives
the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.appliance.model.manifest import CovariateEntry, Decision, FeatureEntry, IntendedUse, OutOfFold
from lungstage.export.answers import NOTE, answers, decision_curve, rules
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
        Of the bundle.
    run
        The fitted model, its record and, where there is one, its evaluation.
    entries, covariates
        The network's inputs in order.
    use
        The limits of intended use.
    decision, out_of_fold
        The conformal thresholds, and how patients did whom the model had not seen; None of an earlier run.
    model_sha256
        Of ``model.onnx``, by which what was found of the model's robustness is known to be of this one.

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
        told = f"tells early (stage I–II) from advanced (stage {advanced}) lung cancer by the primary tumour on CT"
    else:
        told = f"predicts {endpoint.name} ({endpoint.negative} or {endpoint.positive}) by the lung tumour on CT"
    beside = f" and {', '.join(c.name for c in model.covariates)}," if model.covariates else ""
    return (
        f"A radiomics model that {told}: {len(model.features)} PyRadiomics features, chosen by gradient-based "
        f"recursive feature elimination (GL-RFE),{beside} into a seed ensemble of small neural networks, calibrated. "
        "It gives a probability, each input's signed contribution (DeepLIFT rescale against the training median, in "
        "logit units) and two distances to the training cohort. **Research use only; not a medical device.**"
        + (f"\n\n**{told}**" if (told := sentence(worth_of(run))) else "")
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
                    f"neighbour distance at most {use.neighbour_distance_max:.2f}, with a warning above "
                    f"{use.neighbour_distance_warn:.2f}, likewise",
                ]
            ),
            _domain(run.model),
            f"**Not for:** {not_for}; other organs; images after treatment; other modalities.",
        ]
    )


def _domain(model: FittedModel) -> str:
    return (
        "The domain distance is Mahalanobis with a shrunk covariance (Ledoit & Wolf 2004). The neighbour distance is "
        f"the mean distance to the {NEIGHBOURS} nearest of {len(model.domain_references)} references in the "
        "standardised features, in standard deviations per feature; each reference is the mean of at least "
        f"{GROUP_SIZE} patients, so that no patient's row can be read from this bundle; of each feature alone it holds "
        "the lowest and the highest value. A feature outside the range that training saw is named in the report."
    )


def _data(run: Run) -> str:
    cohort, table = run.record["cohort"], run.record["table"]
    positives, used, share = table["positives"], table["used"], prevalence(table)
    told = (
        f"{positives} {run.endpoint.positive} of {used} ({percent(share)})"
        if "prevalence" not in table
        else f"{percent(share)} {run.endpoint.positive} by Kaplan-Meier, which counts those who were lost before the "
        f"horizon; of the {used} whose outcome is known {positives} ({percent(positives / used)})"
    )
    excluded = ", ".join(f"{count} ({reason})" for reason, count in sorted(table["excluded"].items())) or "none"
    absent = ", ".join(cohort["stages_absent"])
    facts = [
        f"Cohort: {cohort['name']}. {cohort['source']}.",
        f"Cite: {cohort['citation']}",
        f"Rows in the table: {table['rows']}; left out: {excluded}; used: {used}.",
        f"Training prevalence: {told}. The "
        "probability is calibrated to this prevalence and means little at another one, unless it is corrected.",
        f"Table `{table['name']}`, SHA-256 `{table['sha256']}`. No patient row is part of this bundle.",
        *cohort["notes"],
    ]
    if absent:
        group = "Stage" if run.endpoint == STAGE_GROUP else "TNM group"
        facts.append(f"**{group} {absent} is absent from the cohort**: the model has never seen such a case.")
    return bullets(facts)


def _licence(licence: str) -> str:
    return (
        f"The model was derived from data under **{licence}**; use of this bundle is bound by that licence, its "
        "attribution and any bar on commercial use included. The lungstage code is Apache-2.0."
    )


def _decision(run: Run, decision: Decision, out_of_fold: OutOfFold | None) -> str:
    endpoint, record, (slope, intercept) = run.endpoint, run.record, run.model.calibration
    conformal, table = record["conformal"], record["table"]
    evaluation = run.own_evaluation
    if evaluation is not None:
        conformal = conformal | evaluation["methods"][evaluation["reference"]]["conformal"]
    coverage = [f"{key}: {figure(value)}" for key, value in sorted(conformal["coverage"].items())]
    decided = conformal.get("accuracy_where_decided")
    right = f" Where there is an answer, it is right in {figure(decided)} of the cases." if decided is not None else ""
    training = prevalence(table)
    each = rules(decision, training, out_of_fold)
    silenced = " The slope rests on its lower bound: every probability is about the prevalence." * (slope <= MIN_SLOPE)
    return "\n\n".join(
        [
            f"The probability is Platt-scaled on out-of-fold logits: sigmoid({slope:.3f} × logit {intercept:+.3f})."
            + silenced,
            f"{endpoint.negative.capitalize()} stays possible from a probability of "
            f"{conformal['early_min_probability']:.3f}, {endpoint.positive} from "
            f"{conformal['advanced_min_probability']:.3f} (class-conditional cross-conformal, α = "
            f"{conformal['alpha']:g}: thresholds of models on parts of the rows, used with one on all of them, so the "
            "coverage of "
            f"{1 - conformal['alpha']:.0%} is aimed at and not guaranteed). Exactly one possible class is singled out, "
            f"otherwise nothing is: {figure(conformal['indeterminate'])} of the cases out of fold.{right} "
            "Coverage out of fold:",
            bullets(coverage),
            _coverage_elsewhere(run, conformal),
            "A site that knows its own prevalence states it with the setting `prevalence` (`--prevalence`): "
            "logit(p′) = logit(p) − logit(training prevalence, "
            f"{training:.4g}) + logit(site prevalence) (Saerens, Latinne & Decaestecker 2002). Coverage within a class "
            "does not depend on the prevalence; probability, answer and how often an answer is right do. The "
            "contributions explain the uncorrected logit.",
            *(("**What is answered at which prevalence.** " + NOTE, answers(each, endpoint)) if out_of_fold else ()),
            *(("Decision curve at the training prevalence:", decision_curve(each[0])) if out_of_fold else ()),
        ]
    )


def _coverage_elsewhere(run: Run, conformal: Mapping[str, Any]) -> str:
    """Say what coverage holds for whom."""
    endpoint, told = run.endpoint, []
    early, advanced = conformal.get("early_coverage"), conformal.get("advanced_coverage")
    if early and advanced:
        each = [
            f"{100 * low:.0f} to {100 * high:.0f} % of {name}"
            for name, (low, high) in ((endpoint.negative, early), (endpoint.positive, advanced))
        ]
        told.append(
            "The thresholds rest on the patients of one table: in new ones like them coverage lies, with a "
            f"probability of 95 %, within {' and '.join(each)}, and in a few dozen of them chance adds as much."
        )
    if cut := run.record.get("cut_coverage"):
        each = [f"{one['covered']} of {one['patients']} {name}" for name, one in sorted(cut.items())]
        told.append(
            "It does not hold for patients unlike them: of the rows that were left out and never used, "
            f"{', '.join(each)} kept their true class."
        )
    return " ".join(told)


def _limits(run: Run) -> str:
    invisible = (
        "Nodes, on which early and advanced largely depend, and metastases are invisible to it."
        if run.endpoint == STAGE_GROUP
        else f"Whatever else {run.endpoint.name} depends on is invisible to it."
    )
    return bullets(
        [
            f"It sees the tumour's region of interest alone. {invisible}",
            "One cohort, no external validation. Scanner, contrast phase, kernel and the contouring physician move "
            "radiomics features.",
            "Contributions say what moved this model's answer, not what causes "
            + ("a stage." if run.endpoint == STAGE_GROUP else "an outcome."),
            *(
                ["It says nothing of why or when somebody dies: death of any cause within one time, one yes or no."]
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
            "`extraction.yaml` is a PyRadiomics parameter file: stock PyRadiomics gives the same inputs on the volume "
            "and mask that `lungstage stage --save-volume` writes.",
        ]
    )
