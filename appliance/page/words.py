"""What the page says, in the reader's language, and how moments and answers are put there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup, escape

from lungstage.appliance.contract.documents import LANGUAGES, Language
from lungstage.appliance.contract.evidence import Answering, Estimate, PredictiveValue, Worth
from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.robustness import Robustness
from lungstage.appliance.contract.spec import Stage
from lungstage.appliance.descriptors.values import Descriptors
from lungstage.appliance.page.sentences import in_language
from lungstage.appliance.report import evidence
from lungstage.appliance.report.caveats import Caveat, caveats
from lungstage.appliance.report.descriptor_words import Described, described
from lungstage.appliance.report.translation import Translator
from lungstage.appliance.state.job import RESTING_STATES, Job

FOLDER: Final = Path(__file__).parent / "languages"

_BY_COMMAND: Final = re.compile(
    r"( Give each its own name [^.]*\.)? (Choose one|Then choose one|If (it|one) is, choose it) with --roi NAME .*"
)

NAMES: Final[Mapping[Language, str]] = {"en": "English", "de": "Deutsch", "fr": "Français"}


def translator(language: Language) -> Translator:
    """Return who says the page's words."""
    return Translator(language, FOLDER)


def language_of(cookie: str | None, accepted: str, default: Language) -> Language:
    """Choose a language: the one that was chosen, else the first that the browser asks for, else the site's."""
    if cookie in LANGUAGES:
        return cookie
    for part in accepted.split(","):
        name = part.partition(";")[0].strip().partition("-")[0].lower()
        if name in LANGUAGES:
            return name
    return default


def site_time(moment: datetime) -> str:
    """Write a moment as the site's clock showed it, with its offset."""
    here = moment.astimezone()
    offset = f"{here:%z}"
    return f"{here:%Y-%m-%d %H:%M} {offset[:3]}:{offset[3:5]}"


def because(code: str, say: Translator) -> str:
    """Say in a few words what a reason code means; empty for one of another release. The message itself is English."""
    return _said(say, f"reason.{code}", "")


def happened(event: str, say: Translator) -> str:
    """Say in a few words what an entry of the audit log tells; one of another release is named as it is."""
    return _said(say, f"event.{event}", event)


def checked(check: str, say: Translator) -> str:
    """Say what a check of the doctor's looked at."""
    return _said(say, f"check.{check}", check)


def _said(say: Translator, code: str, otherwise: str) -> str:
    try:
        return say(code)
    except KeyError:
        return otherwise


def told(message: str, language: Language) -> Markup:
    """Put a sentence of the daemon's into the reader's language; one that is not known there is marked as English.

    How a region is chosen from the command line is left out: here it is chosen by a click.
    """
    message = _BY_COMMAND.sub("", message)
    spoken = in_language(message, language)
    return Markup('<span lang="en">{}</span>').format(message) if spoken is None else Markup(escape(spoken))  # noqa: S704


def answer_of(job: Job, say: Translator) -> str:
    """Say the answer in a line; empty where there is none."""
    outcome = job.outcome or {}
    if endpoint := outcome.get("endpoint"):
        share = say.percent(endpoint["probability"])
        if (horizon := _survival_of(endpoint)) is not None:
            return _survival(endpoint["answer"], horizon, share, say)
        return say("answer.class", endpoint=endpoint["name"], answer=endpoint["answer"], probability=share)
    probability = outcome.get("probability_advanced")
    if probability is None:
        return ""
    return say(f"answer.{outcome['stage']}", probability=say.percent(probability))


def _survival_of(endpoint: Mapping[str, Any]) -> Horizon | None:
    """Read the horizon off a job's endpoint; None where it is not survival in our own words."""
    horizon = Horizon.of_name(endpoint["name"])
    if horizon is None:
        return None
    known = (horizon.endpoint.negative, horizon.endpoint.positive, str(Stage.INDETERMINATE))
    return horizon if endpoint["answer"] in known else None


def _survival(answer: str, horizon: Horizon, share: str, say: Translator) -> str:
    report_says = Translator(say.language)
    negative, positive = evidence.survival_classes(horizon, report_says)
    if answer == str(Stage.INDETERMINATE):
        name = evidence.survival_name(horizon, report_says)
        name = name[:1].upper() + name[1:]
        return say("answer.survival_indeterminate", endpoint=name, positive=positive, probability=share)
    told = positive if answer == horizon.endpoint.positive else negative
    return say("answer.survival", answer=told, positive=positive, probability=share)


def region_is_open(job: Job) -> bool:
    """Whether a person may choose the region: none could be, or it was a person who did."""
    return job.state in RESTING_STATES and job.region_is_open


def probability_of(job: Job) -> float | None:
    """Return the probability of the positive class."""
    outcome = job.outcome or {}
    endpoint = outcome.get("endpoint")
    probability = endpoint["probability"] if endpoint else outcome.get("probability_advanced")
    return None if probability is None else float(probability)


def chance_of(job: Job, language: Language) -> str:
    """Say how often such an answer is right at the prevalence in force; empty where the job's release did not know."""
    outcome: Mapping[str, Any] = job.outcome or {}
    if not (decision := outcome.get("decision")):
        return ""
    found, say = outcome.get("predictive_value"), Translator(language)
    value = found and PredictiveValue(Estimate.of(found), found["positives"], found["negatives"])
    endpoint = outcome.get("endpoint")
    is_open = (endpoint["answer"] if endpoint else outcome.get("stage")) == str(Stage.INDETERMINATE)
    answering = Answering(
        decision["prevalence"], decision["prevalence_of"] == "site", decision["negative_up_to"],
        decision["positive_from"], decision["withheld"], value or None, is_known=is_open,
    )  # fmt: skip
    if endpoint and (horizon := _survival_of(endpoint)) is not None:
        classes = evidence.survival_classes(horizon, say)
    else:
        classes = (found["negative"], found["positive"]) if endpoint and found else evidence.stage_classes(say)
    return evidence.chance(answering, (found or {}).get("cohort", ""), classes, say)


def robustness_of(job: Job, language: Language) -> str:
    """Say how far an answer depends on contour and scan; empty where that is not known."""
    found = (job.outcome or {}).get("robustness")
    if not found or found["range"] is None or found["agreement"] is None:
        return ""
    low, high = found["range"]
    known = Robustness(found["asked"], found["perturbations"], range=(low, high), agreement=found["agreement"])
    return evidence.robustness(known, Translator(language))


def descriptors_of(job: Job, language: Language) -> tuple[Described, ...]:
    """Say what a radiologist would say of the tumour; nothing where nobody asked, or the job's release did not know."""
    found = (job.outcome or {}).get("descriptors")
    return described(Descriptors.of_json(found) if found else None, Translator(language))


def worth_of(job: Job, language: Language) -> str:
    """Say that the model is not shown to be worth anything; empty where it is, or the job's release did not know."""
    found = (job.outcome or {}).get("worth")
    if not found:
        return ""
    worth = found["auc"] and Worth(
        Estimate.of(found["auc"]), found["beats_chance"], found["rival"],
        found["rival_auc"] and Estimate.of(found["rival_auc"]), found["beats_rival"],
    )  # fmt: skip
    return evidence.worth(worth or None, Translator(language))


def caveats_of(job: Job, language: Language) -> tuple[Caveat, ...]:
    """Say why an answer may be less than it seems, the gravest first."""
    outcome: Mapping[str, Any] = job.outcome or {}
    outside = (outcome.get("domain") or {}).get("outside") or []
    # The ledger keeps no name that may not be told.
    say = translator(language)
    others = (outcome.get("roi") or {}).get("others") or ()
    beside = [other["name"] or say("choose.number", number=other["number"]) for other in others]
    return caveats(outcome.get("warnings") or (), outside, beside, Translator(language))
