"""The content of the refusal page: it tells a reader that there is no answer, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset

from lungstage.appliance.contract.documents import Language
from lungstage.appliance.contract.errors import Reason
from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.appliance.report.context import BundleIdentity
from lungstage.appliance.report.result_page import Heading, Names, made, not_for, page_heading
from lungstage.appliance.report.translation import Translator


@dataclass(frozen=True, slots=True)
class RefusalContext:
    """Input of a refusal page.

    Attributes
    ----------
    sources
        Header of one image of the study.
    reason
        Why there is no answer.
    bundle
        The model that was not run, or whose answer was withheld.
    identity
        Hex SHA-256 that all UIDs derive from.
    created
        Content date and time.
    software_version
        Version of lungstage.
    """

    sources: tuple[Dataset, ...]
    reason: Reason
    bundle: BundleIdentity
    identity: str
    created: datetime
    software_version: str


@dataclass(frozen=True, slots=True)
class RefusalPage:
    """A page about a study without an answer.

    Attributes
    ----------
    language, title, heading, created
        As in :class:`report.result_page.ResultPage`.
    headline
        That there is no answer.
    because
        The reason, in English as everywhere else.
    explanation
        What this page does not say, and what to do.
    facts
        Reason code, model, and when this was made.
    not_for_heading, not_for
        What the model must not be used for.
    """

    language: Language
    title: str
    heading: Heading
    headline: str
    because: str
    explanation: str
    facts: tuple[tuple[str, str], ...]
    not_for_heading: str
    not_for: str
    created: datetime


def refusal_page(context: RefusalContext, language: Language) -> RefusalPage:
    """Choose the words.

    Parameters
    ----------
    context
        Input of the page.
    language
        Language of the page; the reason itself is in English.
    """
    say = Translator(language)
    names = Names(say)
    bundle, is_stage = context.bundle, context.bundle.endpoint == STAGE_GROUP
    return RefusalPage(
        language=language,
        title=say("document.refusal_title"),
        heading=page_heading(context.sources[0], say, names),
        headline=say("refusal.headline" if is_stage else "refusal.headline_class"),
        because=say("refusal.because", reason=names(context.reason.message, 2000)),
        explanation=f"{say('refusal.no_answer')} {say('refusal.what_helps')}",
        facts=(
            (say("refusal.code"), str(context.reason.code)),
            (say("fact.model"), f"{names(bundle.name)} {names(bundle.version, 24)} ({bundle.digest[:12]})"),
            (say("fact.made"), made(context.created, context.software_version, say)),
        ),
        not_for_heading=say("heading.not_for"),
        not_for=not_for(bundle, say),
        created=context.created,
    )
