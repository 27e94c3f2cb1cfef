"""Words of the page in the reader's language, and how it writes times and answers."""

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
    r"( Give each (region )?its own name [^.]*\.)? "
    r"(Choose one|Then choose one|If (it is|one is|one of these is the primary tumour), choose it) with --roi NAME .*"
)

NAMES: Final[Mapping[Language, str]] = {"en": "English", "de": "Deutsch", "fr": "Français"}


def translator(language: Language) -> Translator:
    """Return the translator of the page's words."""
    return Translator(language, FOLDER)


def language_of(cookie: str | None, accepted: str, default: Language) -> Language:
    """Choose a language: that of the cookie, else the first known one that the browser accepts, else the default."""
    if cookie in LANGUAGES:
        return cookie
    for part in accepted.split(","):
        name = part.partition(";")[0].strip().partition("-")[0].lower()
        if name in LANGUAGES:
            return name
    return default


def site_time(moment: datetime) -> str:
    """Write a time in the time zone of this machine, with its offset."""
    here = moment.astimezone()
    offset = f"{here:%z}"
    return f"{here:%Y-%m-%d %H:%M} {offset[:3]}:{offset[3:5]}"


def because(code: str, say: Translator) -> str:
    """Say in a few words what a reason code means; empty for a code of another release."""
    return _said(say, f"reason.{code}", "")


def happened(event: str, say: Translator) -> str:
    """Say in a few words what an event of the audit log means; an event of another release stays as it is."""
    return _said(say, f"event.{event}", event)


def checked(check: str, say: Translator) -> str:
    """Name a check of ``lungstage doctor``."""
    return _said(say, f"check.{check}", check)


def _said(say: Translator, code: str, otherwise: str) -> str:
    try:
        return say(code)
    except KeyError:
        return otherwise


def told(message: str, language: Language) -> Markup:
    """Translate a sentence of the daemon; an unknown sentence is marked as English.

    Advice on choosing a region by command line is left out: on the page people choose it with a click.
    """
    message = _BY_COMMAND.sub("", message)
    spoken = in_language(message, language)
    return Markup('<span lang="en">{}</span>').format(message) if spoken is None else Markup(escape(spoken))  # noqa: S704


def answer_of(job: Job, say: Translator) -> str:
    """Return the answer in one line; empty if there is none."""
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
    """Return the horizon of a job's endpoint; None if it is not survival in the standard words."""
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
    """Whether a person may choose the region: the software could not, or a person chose it before."""
    return job.state in RESTING_STATES and job.region_is_open


def probability_of(job: Job) -> float | None:
    """Return the probability of the positive class."""
    outcome = job.outcome or {}
    endpoint = outcome.get("endpoint")
    probability = endpoint["probability"] if endpoint else outcome.get("probability_advanced")
    return None if probability is None else float(probability)


def chance_of(job: Job, language: Language) -> str:
    """Say how often such an answer is correct at the prevalence in force; empty if the job's release did not say."""
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
    """Say how far an answer depends on contour and image; empty if it is not known."""
    found = (job.outcome or {}).get("robustness")
    if not found or found["range"] is None or found["agreement"] is None:
        return ""
    low, high = found["range"]
    known = Robustness(found["asked"], found["perturbations"], range=(low, high), agreement=found["agreement"])
    return evidence.robustness(known, Translator(language))


def descriptors_of(job: Job, language: Language) -> tuple[Described, ...]:
    """Return the descriptors of the tumour; empty if they were not computed, or the job's release had none."""
    found = (job.outcome or {}).get("descriptors")
    return described(Descriptors.of_json(found) if found else None, Translator(language))


def worth_of(job: Job, language: Language) -> str:
    """Say that the model is not shown to be better than chance or a simple model; empty if it is, or is not known."""
    found = (job.outcome or {}).get("worth")
    if not found:
        return ""
    worth = found["auc"] and Worth(
        Estimate.of(found["auc"]), found["beats_chance"], found["rival"],
        found["rival_auc"] and Estimate.of(found["rival_auc"]), found["beats_rival"],
    )  # fmt: skip
    return evidence.worth(worth or None, Translator(language))


def caveats_of(job: Job, language: Language) -> tuple[Caveat, ...]:
    """Return the reasons for caution, the most serious first."""
    outcome: Mapping[str, Any] = job.outcome or {}
    outside = (outcome.get("domain") or {}).get("outside") or []
    # The ledger contains no name that must stay private; the page then shows the number.
    say = translator(language)
    others = (outcome.get("roi") or {}).get("others") or ()
    beside = [other["name"] or say("choose.number", number=other["number"]) for other in others]
    return caveats(outcome.get("warnings") or (), outside, beside, Translator(language))
