"""The content of the result page: all words, numbers and pictures, before anything is drawn.

It is made once. :mod:`report.page_pdf` draws it as PDF (the Secondary Capture is a picture of that PDF), and
:mod:`report.page_html` as HTML. The order follows a reader with ten seconds: research use only; the answer; its
probability; reasons for caution; then what was measured, and from which data.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage

from lungstage.appliance.contract.documents import Language
from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import COVARIATES, STAGE_GROUP, Stage
from lungstage.appliance.report import evidence, fonts
from lungstage.appliance.report.caveats import Caveat, Grade, caveats
from lungstage.appliance.report.cohort import Cohort
from lungstage.appliance.report.context import BundleIdentity, ReportContext, label
from lungstage.appliance.report.descriptor_words import Described, described
from lungstage.appliance.report.headers import copied_header
from lungstage.appliance.report.key_views import KeyViews, key_views
from lungstage.appliance.report.plain_words import short_names, technical_name
from lungstage.appliance.report.translation import Translator
from lungstage.appliance.report.vocabulary import CONCEPTS

MOST_ROWS: Final = 15
"""Number of model inputs that the page lists; the rest of a larger model is one line with their sum."""

_LONGEST_NAME = 64
_UNITS = {"1": "", "mm2": "mm²", "mm3": "mm³", "/mm": "1/mm"}


@dataclass(frozen=True, slots=True)
class PageContext:
    """Input of a result page.

    Attributes
    ----------
    report
        Content of the structured report.
    hu
        Reference volume, (slices, rows, columns) in HU.
    affine
        (4, 4) from its indices to patient coordinates (LPS) in mm.
    """

    report: ReportContext
    hu: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heading:
    """The top of every page.

    Attributes
    ----------
    notice, notice_in_english
        The research-use notice in the reader's language, and also in English if that is another language.
    not_for_care
        What the page is not for, in a few words.
    patient
        Name, identifier, birth date and study of the patient.
    """

    notice: str
    notice_in_english: str
    not_for_care: str
    patient: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """The probability, on a line from 0 to 1.

    Attributes
    ----------
    probability
        Probability of the positive class.
    open_between
        Probabilities between which the model does not decide.
    negative, open, positive
        Names of the three parts of the line.
    range
        Range of the probability in perturbed versions; None if it is not known.
    """

    probability: float
    open_between: tuple[float, float]
    negative: str
    open: str
    positive: str
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One input of the model.

    Attributes
    ----------
    words, name
        Comparison in plain words, and technical name.
    value, unit
        Measured value and its unit.
    share
        Share of the training cohort below the value, in [0, 1]; -1 or 2 outside its range; None if not known.
    range
        Range of the cohort, if the value lies outside it; else empty.
    contribution
        Contribution to the logit of the positive class.
    """

    words: str
    name: str
    value: str
    unit: str
    share: float | None
    range: str
    contribution: float


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A page about one region of interest.

    Attributes
    ----------
    language
        Language of the words.
    title
        Title of the document.
    heading
        Research notice and patient.
    headline
        The answer.
    doubt
        The most important reason for caution; empty if there is none.
    probability, certainty
        The probability in a sentence, and what it means.
    chance
        How often such an answer is correct at the prevalence in force, and on what data; may be empty.
    robustness
        How far the answer depends on contour and image; empty if it is not known.
    worth, worth_in_short
        That the model is not shown to perform better than chance or a simple model, in full and as one short line;
        both empty if it is.
    scale
        The probability as a picture.
    descriptors
        Description of the tumour by level of evidence; empty if no descriptors were computed.
    caveats
        Reasons for caution, the most serious first.
    views
        Pictures.
    view_names, window_names, empty_note
        Captions of the pictures.
    rows
        Inputs of the model, the largest contribution first.
    rows_note
        How many inputs are not listed; empty if all are.
    speaks_for
        Classes that a negative and a positive contribution favour.
    facts
        Data and model, as pairs of name and text.
    not_for
        What the page must not be used for.
    created
        Time of creation.
    words
        Headings of the sections and columns, by code.
    """

    language: Language
    title: str
    heading: Heading
    headline: str
    doubt: str
    probability: str
    certainty: str
    chance: str
    robustness: str
    worth: str
    worth_in_short: str
    scale: Scale
    descriptors: tuple[Described, ...]
    caveats: tuple[Caveat, ...]
    views: KeyViews
    view_names: tuple[str, ...]
    window_names: tuple[str, ...]
    empty_note: str
    rows: tuple[Row, ...]
    rows_note: str
    speaks_for: tuple[str, str]
    facts: tuple[tuple[str, str], ...]
    not_for: str
    created: datetime
    words: Mapping[str, str]


class Names:
    """Writes names from the input, if an installed font can display them.

    Parameters
    ----------
    say
        The reader's language.

    Attributes
    ----------
    left_out
        Whether a name could not be displayed.
    """

    def __init__(self, say: Translator) -> None:
        self._say = say
        self.left_out = False

    def __call__(self, name: str, longest: int = _LONGEST_NAME) -> str:
        """Fit a name for the page, or say that it cannot be displayed."""
        name = printable_line(name)
        if fonts.runs(name) is None:
            self.left_out = True
            return self._say("name.undrawable")
        return name if len(name) <= longest else f"{name[: longest - 1]}…"


def printable_line(text: str) -> str:
    """Return one line without control characters and without marks that change the writing direction."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in unicodedata.normalize("NFC", text))
    return " ".join("".join(c for c in kept if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn")).split())


def result_page(context: PageContext, language: Language) -> ResultPage:
    """Choose words, numbers and pictures.

    Parameters
    ----------
    context
        Input of the page.
    language
        Language of the page. The codes of the documents do not depend on it.
    """
    say = Translator(language)
    names = Names(say)
    report = context.report
    result, bundle, cohort = report.result, report.bundle, report.cohort
    outside = result.domain.outside
    told = list(
        caveats(
            report.warnings,
            short_names(outside, report.features.names),
            [names(name) for _, name in report.others],
            say,
        )
    )
    heading = page_heading(report.sources[0], say, names)
    negative, positive = _classes(bundle, say, names)
    if bundle.endpoint == STAGE_GROUP:
        positive_class = say("class.advanced_stage")
    else:
        positive_class = positive if Horizon.of(bundle.endpoint) else say("class.of", name=positive)
    rows, rows_note = _rows(report, say, names)
    facts = _facts(context, positive, say, names)
    if names.left_out:
        told.append(Caveat(Grade.NOTE, say("told.names_left_out")))
    share = say.percent(result.probability_advanced)
    at = bundle.prevalence_advanced if result.prevalence is None else result.prevalence
    where = "training" if result.prevalence is None else "site"
    views = key_views(context.hu, context.affine, report.mask)
    return ResultPage(
        language=language,
        title=say("document.title"),
        heading=heading,
        headline=_headline(report, say, names),
        doubt=_doubt(told, report, say),
        probability=say(
            f"answer.probability_{where}", positive=positive_class, probability=share, prevalence=say.percent(at)
        ),
        certainty=_certainty(report, say),
        chance=evidence.chance(result.answering, names(bundle.cohort), (negative, positive), say),
        robustness=evidence.robustness(result.robustness, say),
        worth=evidence.worth(bundle.worth, say),
        worth_in_short=evidence.worth_in_short(bundle.worth, say),
        scale=Scale(
            result.probability_advanced,
            cohort.open_between,
            negative,
            say("scale.open"),
            positive,
            None if result.robustness is None else result.robustness.range,
        ),
        descriptors=described(report.descriptors, say),
        caveats=tuple(told),
        views=views,
        view_names=tuple(say(f"view.{view.plane}") for view in views.views),
        window_names=tuple(say(f"window.{window.code}") for window in views.windows),
        empty_note=say("views.empty"),
        rows=rows,
        rows_note=rows_note,
        speaks_for=(say("survival.short"), say("death.short")) if Horizon.of(bundle.endpoint) else (negative, positive),
        facts=facts,
        not_for=not_for(bundle, say),
        created=report.created,
        words=section_words(say),
    )


def _classes(bundle: BundleIdentity, say: Translator, names: Names) -> tuple[str, str]:
    """Name the negative and the positive class."""
    endpoint = bundle.endpoint
    if endpoint == STAGE_GROUP:
        return evidence.stage_classes(say)
    if horizon := Horizon.of(endpoint):
        return evidence.survival_classes(horizon, say)
    return names(endpoint.negative), names(endpoint.positive)


def section_words(say: Translator) -> dict[str, str]:
    """Return the headings of sections and columns."""
    codes = (
        "heading.caveats", "heading.views", "heading.rows", "heading.facts", "heading.not_for", "column.value",
        "column.cohort", "column.lowest", "column.median", "column.highest", "column.speaks_for", "caveats.none",
        "heading.descriptors", "descriptors.apart",
    )  # fmt: skip
    return {code: say(code) for code in codes}


def page_heading(source: Dataset, say: Translator, names: Names) -> Heading:
    """Make the top of a page: research notice and patient."""
    notice = say("notice.research")
    english = Translator("en")("notice.research")
    return Heading(
        notice=notice,
        notice_in_english=english if english != notice else "",
        not_for_care=say("notice.not_for_care"),
        patient=_patient(copied_header(source), say, names),
    )


def _patient(header: Dataset, say: Translator, names: Names) -> tuple[str, ...]:
    groups = [group for group in str(header.get("PatientName") or "").split("=")[:2] if group.strip("^ ")]
    written = [name for group in groups if (name := names(_person(group)))]
    drawn = [name for name in written if name != say("name.undrawable")]
    told = [" · ".join(dict.fromkeys(drawn or written)) or say("patient.unknown")]
    if identifier := names(str(header.get("PatientID") or "")):
        told.append(f"ID {identifier}")
    if born := _date(header.get("PatientBirthDate")):
        told.append(say("patient.born", date=born))
    if seen := _date(header.get("StudyDate")):
        told.append(say("patient.study", date=seen))
    return tuple(told)


def _person(group: str) -> str:
    """Write a person's name: family name, given name (PS3.5 6.2.1.1)."""
    family, _, rest = group.partition("^")
    return ", ".join(part for part in (family.strip(), rest.replace("^", " ").strip()) if part)


def _date(value: object) -> str:
    text = str(value or "")
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isascii() and text.isdigit() else text[:10]


def _headline(report: ReportContext, say: Translator, names: Names) -> str:
    stage, endpoint = report.result.stage, report.bundle.endpoint
    if horizon := Horizon.of(endpoint):
        if stage is Stage.INDETERMINATE:
            answer = say("answer.indeterminate")
            return say("answer.predicted_class", endpoint=evidence.survival_name(horizon, say), answer=answer)
        return say("answer.predicted", answer=_classes(report.bundle, say, names)[stage is Stage.ADVANCED])
    if endpoint != STAGE_GROUP:
        answer = say("answer.indeterminate") if stage is Stage.INDETERMINATE else names(endpoint.answer(stage))
        return say("answer.predicted_class", endpoint=names(endpoint.name), answer=answer)
    code = str(stage)
    if stage is Stage.ADVANCED:
        code = f"advanced_{'III' if 'IV' in report.bundle.stages_absent else 'III-IV'}"
    return say("answer.predicted", answer=say(f"answer.{code}"))


def _doubt(told: Sequence[Caveat], report: ReportContext, say: Translator) -> str:
    outside = len(report.result.domain.outside)
    grave = sum(caveat.grade is Grade.MODEL for caveat in told)
    if grave > bool(outside):
        return say("doubt.unlike")
    if report.result.robustness is not None and report.result.robustness.is_robust is False:
        return say("doubt.not_robust")
    return say("doubt.outside", count=outside, all=len(report.features.names)) if outside else ""


def _certainty(report: ReportContext, say: Translator) -> str:
    answering = report.result.answering
    robustness = report.result.robustness
    held_back = (answering is not None and answering.withheld) or (robustness is not None and robustness.withheld)
    is_open = report.result.stage is Stage.INDETERMINATE and not held_back
    told = [say("certainty.open")] if is_open else []
    number = round(100 * report.result.probability_advanced)
    if 0 < number < 100:
        told.append(say("certainty.in_100", number=number))
    wrong, coverage = say.number(100 * report.bundle.alpha, 2), report.bundle.coverage
    if coverage is None:
        told.append(say("certainty.rule", wrong=wrong))
    else:
        low, high = (round(100 * (1 - share)) for share in reversed(coverage))
        told.append(say("certainty.rule_range", wrong=wrong, low=low, high=high))
    return " ".join(told)


def _rows(report: ReportContext, say: Translator, names: Names) -> tuple[tuple[Row, ...], str]:
    measured = report.features.as_dict()
    contributions = sorted(report.result.contributions.items(), key=lambda item: -abs(item[1]))
    rows = []
    for name, contribution in contributions[:MOST_ROWS]:
        if name in COVARIATES:
            rows.append(_covariate_row(report, name, contribution, say, names))
        else:
            rows.append(_feature_row(report.cohort, name, measured[name], contribution, say))
    left = contributions[MOST_ROWS:]
    if not left:
        return tuple(rows), ""
    return tuple(rows), say("rows.more", count=len(left), sum=signed(sum(value for _, value in left), say))


def signed(value: float, say: Translator) -> str:
    """Write a contribution with its sign, to two decimals."""
    digits = f"{abs(value):.2f}".replace(".", say("number.decimal_mark"))
    return f"{'−' if value < 0 else '+'}{digits}"


def _feature_row(cohort: Cohort, name: str, value: float | None, contribution: float, say: Translator) -> Row:
    unit = CONCEPTS[name].unit.replace("[hnsf'U]", "HU").replace("HU2", "HU²").replace("mm3.", "mm³ ")
    unit = _UNITS.get(unit, unit)
    words = cohort.compared(name, value, say)
    if value is None:
        return Row(words, technical_name(name), "–", "", None, "", contribution)
    share = cohort.share_below(name, value)
    beyond = ""
    if not 0 <= share <= 1:
        low, high = cohort.quantiles[name][0], cohort.quantiles[name][-1]
        beyond = say("rows.range", low=say.number(low), high=say.number(high))
    return Row(words, technical_name(name), say.number(value), unit, share, beyond, contribution)


def _covariate_row(report: ReportContext, name: str, contribution: float, say: Translator, names: Names) -> Row:
    value = report.covariates.values.get(name)
    written = say("rows.imputed") if value is None else names(value) if isinstance(value, str) else say.number(value)
    unit = say("unit.years") if isinstance(value, float) and name == "age" else ""
    return Row(say(f"covariate.{name}"), name, written, unit, None, "", contribution)


def _facts(context: PageContext, positive: str, say: Translator, names: Names) -> tuple[tuple[str, str], ...]:
    report = context.report
    bundle = report.bundle
    spacing = np.linalg.norm(context.affine[:3, :3], axis=0)
    voxel = float(np.prod(spacing))
    sides = " × ".join(say.number(float(step), 2) for step in (spacing[2], spacing[1], spacing[0]))
    images = say("fact.images_text", count=len(report.sources), spacing=sides)
    if (number := _whole(report.sources[0].get("SeriesNumber"))) is not None:
        images += f", {say('fact.series', number=number)}"
    kind = "RTSTRUCT" if report.roi_source.sop_class_uid == RTStructureSetStorage else "SEG"
    volume = say.number(np.count_nonzero(report.mask) * voxel / 1000)
    trained = say(
        "fact.trained_text",
        rows=bundle.rows,
        cohort=names(bundle.cohort),
        share=say.percent(bundle.prevalence_advanced),
        positive=positive,
    )
    if bundle.stages_absent and bundle.endpoint == STAGE_GROUP:
        trained += f"; {say('fact.absent', stages=', '.join(bundle.stages_absent))}"
    return (
        (say("fact.images"), images),
        (
            say("fact.region"),
            say("fact.region_text", name=names(label(report.roi_name), 40), kind=kind, volume=volume),
        ),
        (say("fact.model"), f"{names(bundle.name)} {names(bundle.version, 24)} ({bundle.digest[:12]})"),
        (say("fact.trained"), trained),
        (say("fact.licence"), names(bundle.licence)),
        (say("fact.made"), made(report.created, report.software_version, say)),
    )


def made(created: datetime, version: str, say: Translator) -> str:
    """Say when a page was made, with the offset from UTC, and by which version."""
    offset = created.strftime("%z")
    time = created.strftime("%Y-%m-%d %H:%M") + (f" UTC{offset[:3]}:{offset[3:5]}" if offset else "")
    return say("fact.made_text", time=time, version=version)


def _whole(value: object) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if math.log10(abs(number) or 1) < 9 else None


def not_for(bundle: BundleIdentity, say: Translator) -> str:
    """Say what a model must not be used for."""
    if bundle.endpoint != STAGE_GROUP:
        return say("not_for.class")
    text = say("not_for.stage")
    return f"{text} {say('not_for.absent', stages=', '.join(bundle.stages_absent))}" if bundle.stages_absent else text
