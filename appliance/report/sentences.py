"""What a report says in words: the answer, why not to trust it, what moved it, and what must be known of the model.

Every sentence stands for itself, for a reader who sees no other.
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
        f"RESEARCH USE ONLY: not for diagnosis or treatment. The predicted {words.kind} is a model's output from one "
        f"region of interest in one CT; {words.disclaimer} and has been verified by no one."
    )


def answer(context: ReportContext) -> str:
    """Give the answer with its probability, and the prevalence that this holds at."""
    result, words = context.result, context.words
    withheld = result.answering is not None and result.answering.withheld
    unclear = ""
    if result.stage is Stage.INDETERMINATE:
        found = result.robustness
        why = (
            "changes with the contour"
            if found is not None and found.withheld
            else f"points to one {words.kind}, which is not shown to hold here"
            if withheld
            else f"does not single out a {words.kind}"
        )
        unclear = f" (the evidence {why})"
    whose, prevalence = "this site's", result.prevalence
    if prevalence is None:
        whose, prevalence = "the training cohort's", context.bundle.prevalence_advanced
    return (
        f"Predicted {words.endpoint}: {words.classes[result.stage].meaning}{unclear}. Probability of {words.target}: "
        f"{_percent(result.probability_advanced)}, at {whose} prevalence of {_percent(prevalence)}."
    )


def chance(context: ReportContext) -> str:
    """Say how often such an answer is right at the prevalence in force, and where that comes from; may be empty."""
    endpoint = context.bundle.endpoint
    classes = endpoint.negative, endpoint.positive
    return _plain(evidence.chance(context.result.answering, context.bundle.cohort, classes, Translator("en")))


def robustness(context: ReportContext) -> str:
    """Say how far the answer depends on contour and scan; empty where that is not known."""
    return _plain(evidence.robustness(context.result.robustness, Translator("en")))


def worth(context: ReportContext) -> str:
    """Say that the model is not shown to be worth anything; empty where it is."""
    return _plain(evidence.worth(context.bundle.worth, Translator("en")))


def _plain(text: str) -> str:
    """Write the page's spaces that do not break as plain ones, which every character set has."""
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def warnings(context: ReportContext) -> Iterator[str]:
    """Say why the answer may be less than it seems: of the model's limits, of other tumours, of what the input was."""
    if outside := context.result.domain.outside:
        count = f"{len(outside)} of {len(context.features.names)} measurements {'lies' if len(outside) == 1 else 'lie'}"
        named = ", ".join(map(plain_name, outside))
        yield f"{count} outside the range seen in training, where the model extrapolates: {named}."
    if context.others:  # an answer on one of several is read otherwise
        named = ", ".join(f"{label(name)} (number {number})" for number, name in context.others)
        yield f"Not measured, though named like a tumour and drawn beside the region: {named}."
    yield from context.warnings


def no_warnings() -> str:
    """Say that there is none, in the words of the result page; or a reader must wonder whether any was left out."""
    return Translator("en")("caveats.none")


def contributions(context: ReportContext) -> Iterator[str]:
    """Say of each input, strongest first, how the tumour compares in it, to which answer it moved the model, how far.

    The comparison is that of the result page.
    """
    classes, say, measured = context.words.classes, Translator("en"), context.features.as_dict()
    for name, value in strongest_first(context.result):
        towards = classes[Stage.ADVANCED if value > 0 else Stage.EARLY].meaning
        moved = f"towards {towards}, {value:+.2g} of the logit" if value else "to neither side"
        if name in COVARIATES:
            named = name
        else:
            named = f"{context.cohort.compared(name, measured[name], say)} ({plain_name(name)}, {name})"
        yield f"{named}: {moved}"


def notices(context: ReportContext) -> Iterator[str]:
    """Say what a reader must know of model, cohort, inputs and features."""
    bundle, words, result = context.bundle, context.words, context.result
    absent = ", ".join(bundle.stages_absent)
    held_back = (result.answering and result.answering.withheld) or (result.robustness and result.robustness.withheld)
    if result.stage is Stage.INDETERMINATE and not held_back:
        yield (
            f"Indeterminate: the evidence does not single out a {words.kind} (class-conditional conformal prediction, "
            f"alpha {bundle.alpha:g})."
        )
    trained = (
        f"Trained on {bundle.rows} patients of {bundle.cohort}, {100 * bundle.prevalence_advanced:.0f} % of them "
        f"{words.positive}; "
    )
    if result.prevalence is None:
        yield f"{trained}the probability holds at that prevalence only."
    else:
        yield (
            f"{trained}the probability was corrected to this site's prevalence of {100 * result.prevalence:.3g} % and "
            f"holds at that one only, and so does the predicted {words.kind}. The contributions do not depend on it."
        )
    if bundle.endpoint != STAGE_GROUP:
        yield f"The endpoint is {bundle.endpoint.name}: {bundle.endpoint.negative} or {bundle.endpoint.positive}."
    elif absent:
        yield f"The training cohort holds no patient of stage {absent}: the model cannot tell it."
    if context.covariates.values or context.covariates.missing:
        yield str(context.covariates)
    yield f"Intended use: {bundle.intended_use}"
    yield f"Licence of the model: {bundle.licence}"
    yield from dict.fromkeys(note for name in context.features.names if (note := CONCEPTS[name].note))


def _percent(fraction: float) -> str:
    """Write a share in whole percent, and never as a certainty that it is not."""
    percent = round(100 * fraction)
    if percent == 0 < fraction:
        return "less than 1 %"
    return "more than 99 %" if fraction < 1 <= percent / 100 else f"{percent} %"
