"""Sentences of the structured report: the answer, reasons for caution, contributions, and notices on the model.

Every sentence can be understood without the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from lungstage.appliance.contract.spec import COVARIATES, STAGE_GROUP, Stage
from lungstage.appliance.report import evidence
from lungstage.appliance.report.context import ReportContext, label
from lungstage.appliance.report.measurements import strongest_first
from lungstage.appliance.report.translation import Translator
from lungstage.appliance.report.vocabulary import CONCEPTS, plain_name


def research_use(context: ReportContext) -> str:
    """Say what the report must not be used for."""
    words = context.words
    return (
        f"RESEARCH USE ONLY: not for diagnosis or treatment. The predicted {words.kind} is the output of a model from "
        f"one region of interest in one CT. {words.disclaimer[:1].upper()}{words.disclaimer[1:]}. No person has "
        "verified it."
    )


def answer(context: ReportContext) -> str:
    """Give the answer with its probability, and the prevalence at which the probability holds."""
    result, words = context.result, context.words
    withheld = result.answering is not None and result.answering.withheld
    unclear = ""
    if result.stage is Stage.INDETERMINATE:
        found = result.robustness
        why = (
            "the contour is semi-automatic, and it is not known if the answer is robust"
            if found is not None and found.withheld and found.unknown is not None
            else "small changes of contour and image change the answer"
            if found is not None and found.withheld
            else f"the measurements favour one {words.kind}, but it is not shown to be correct at this prevalence"
            if withheld
            else f"the measurements do not clearly favour one {words.kind}"
        )
        unclear = f" ({why})"
    whose, prevalence = "this site's", result.prevalence
    if prevalence is None:
        whose, prevalence = "the training cohort's", context.bundle.prevalence_advanced
    return (
        f"Predicted {words.endpoint}: {words.classes[result.stage].meaning}{unclear}. Probability of {words.target}: "
        f"{_percent(result.probability_advanced)}, at {whose} prevalence of {_percent(prevalence)}."
    )


def chance(context: ReportContext) -> str:
    """Say how often such an answer is correct at the prevalence in force, and on what data; may be empty."""
    endpoint = context.bundle.endpoint
    classes = endpoint.negative, endpoint.positive
    return _plain(evidence.chance(context.result.answering, context.bundle.cohort, classes, Translator("en")))


def robustness(context: ReportContext) -> str:
    """Say how far the answer depends on contour and image; empty if it is not known."""
    return _plain(evidence.robustness(context.result.robustness, Translator("en")))


def worth(context: ReportContext) -> str:
    """Say that the model is not shown to be better than chance or a simple model; empty if it is."""
    return _plain(evidence.worth(context.bundle.worth, Translator("en")))


def _plain(text: str) -> str:
    """Replace non-breaking spaces by plain ones, which every character set contains."""
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def warnings(context: ReportContext) -> Iterator[str]:
    """Give the reasons for caution: limits of the model, other tumours, properties of the input."""
    if outside := context.result.domain.outside:
        count = f"{len(outside)} of {len(context.features.names)} measurements {'lies' if len(outside) == 1 else 'lie'}"
        named = ", ".join(map(plain_name, outside))
        yield f"{count} outside the range of the training cohort. The model extrapolates there: {named}."
    if context.others:  # the reader must know that the answer is about one of several tumours
        named = ", ".join(f"{label(name)} (number {number})" for number, name in context.others)
        yield f"Also drawn and not measured, although the name suggests a tumour: {named}."
    yield from context.warnings


def no_warnings() -> str:
    """Say that there are no warnings, in the words of the result page; without it readers may think one is missing."""
    return Translator("en")("caveats.none")


def contributions(context: ReportContext) -> Iterator[str]:
    """Give for each input, strongest first: how the tumour compares, which answer it favours, and how strongly.

    The comparison has the words of the result page.
    """
    classes, say, measured = context.words.classes, Translator("en"), context.features.as_dict()
    for name, value in strongest_first(context.result):
        towards = classes[Stage.ADVANCED if value > 0 else Stage.EARLY].meaning
        moved = f"favours {towards}, logit {value:+.2g}" if value else "no effect on the answer"
        if name in COVARIATES:
            named = name
        else:
            named = f"{context.cohort.compared(name, measured[name], say)} ({plain_name(name)}, {name})"
        yield f"{named}: {moved}"


def notices(context: ReportContext) -> Iterator[str]:
    """Give the notices on model, cohort, inputs and features."""
    bundle, words, result = context.bundle, context.words, context.result
    absent = ", ".join(bundle.stages_absent)
    held_back = (result.answering and result.answering.withheld) or (result.robustness and result.robustness.withheld)
    if result.stage is Stage.INDETERMINATE and not held_back:
        yield (
            f"Indeterminate: the measurements do not clearly favour one {words.kind} (class-conditional conformal "
            f"prediction, alpha {bundle.alpha:g})."
        )
    trained = (
        f"Trained on {bundle.rows} patients of {bundle.cohort}, {100 * bundle.prevalence_advanced:.0f} % of them "
        f"{words.positive}. "
    )
    if result.prevalence is None:
        yield f"{trained}The probability is valid at this prevalence only."
    else:
        yield (
            f"{trained}The probability was corrected to this site's prevalence of {100 * result.prevalence:.3g} %. "
            f"The probability and the predicted {words.kind} are valid at this prevalence only. The contributions do "
            "not depend on it."
        )
    if bundle.endpoint != STAGE_GROUP:
        yield f"The endpoint is {bundle.endpoint.name}: {bundle.endpoint.negative} or {bundle.endpoint.positive}."
    elif absent:
        yield f"The training cohort contains no patient of stage {absent}. The model cannot recognise it."
    if context.covariates.values or context.covariates.missing:
        yield str(context.covariates)
    yield f"Intended use: {bundle.intended_use}"
    yield f"Licence of the model: {bundle.licence}"
    yield from dict.fromkeys(note for name in context.features.names if (note := CONCEPTS[name].note))


def _percent(fraction: float) -> str:
    """Write a share in whole percent; 0 % and 100 % only for an exact 0 and 1."""
    percent = round(100 * fraction)
    if percent == 0 < fraction:
        return "less than 1 %"
    return "more than 99 %" if fraction < 1 <= percent / 100 else f"{percent} %"
