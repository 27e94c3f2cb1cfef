"""Reporting checklists, answered from the records of a run. Items without an answer in the records stay open.

TRIPOD+AI: Collins GS et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use
regression or machine learning methods. BMJ 385:e078378, 2024, doi:10.1136/bmj-2023-078378 (27 items, 52 with their
parts). METRICS: Kocak B et al. METhodological RadiomICs Score (METRICS). Insights into Imaging 15:8, 2024,
doi:10.1186/s13244-023-01572-w (30 items in 9 categories). The items have the numbers of the papers and short titles of
this project, which do not replace the wording of the papers. The weights are those of the METRICS authors' calculator,
version 1.0, to three digits. No score is computed, because only authors and readers can judge many of the items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Standing(StrEnum):
    """Whether a run answers an item."""

    ANSWERED = "from the run"
    IN_PART = "in part"
    OPEN = "open"
    NOT_APPLICABLE = "does not apply"


LEFT_OPEN: Final = "not contained in the run; the authors must fill it in"
LEFT_OPEN_REST: Final = "The rest is not contained in the run; the authors must fill it in."


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a checklist.

    Attributes
    ----------
    number, section, title
        Its number and section in the paper, and a short title of this project.
    topics
        Topics of :func:`training.reporting.facts.known` that answer it; without topics only the authors can.
    best
        How completely all these topics together answer it.
    weight
        Its published weight, if the checklist has weights.
    """

    number: str
    section: str
    title: str
    topics: tuple[str, ...] = ()
    best: Standing = Standing.OPEN
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a run to an item."""

    item: Item
    standing: Standing
    text: str


def answer(items: tuple[Item, ...], facts: Mapping[str, str]) -> list[Answer]:
    """Answer every item from `facts`. An item without facts stays open and says so."""
    return [_answer(item, [facts[topic] for topic in item.topics if topic in facts]) for item in items]


def _answer(item: Item, found: list[str]) -> Answer:
    if not found:
        return Answer(item, Standing.OPEN, LEFT_OPEN)
    standing = item.best
    if standing is Standing.ANSWERED and len(found) < len(item.topics):
        standing = Standing.IN_PART
    rest = [LEFT_OPEN_REST] if standing is Standing.IN_PART else []
    return Answer(item, standing, " ".join([*found, *rest]))


_FULL, _PART, _NONE = Standing.ANSWERED, Standing.IN_PART, Standing.NOT_APPLICABLE

TRIPOD_AI: Final = (
    Item("1", "Title and abstract", "Kind of study, population and outcome in the title"),
    Item("2", "Title and abstract", "Abstract by its own checklist"),
    Item("3a", "Introduction", "Clinical context, reason for the model, earlier models"),
    Item("3b", "Introduction", "Target population, purpose in the care pathway, users", ("research",), _PART),
    Item("3c", "Introduction", "Known health inequalities"),
    Item("4", "Introduction", "Objectives: development, evaluation or both", ("development",), _FULL),
    Item("5a", "Methods", "Data: sources, reasons for them, representativeness", ("cohort", "one_table"), _PART),
    Item("5b", "Methods", "Data: dates of accrual and follow-up"),
    Item("6a", "Methods", "Participants: setting, number and place of centres"),
    Item("6b", "Methods", "Participants: eligibility", ("flow",), _PART),
    Item("6c", "Methods", "Participants: treatments and how they were handled"),
    Item("7", "Methods", "Preprocessing and quality checks", ("preprocessing",), _PART),
    Item("8a", "Methods", "Outcome: definition, time, way of assessment, reason", ("endpoint", "notes"), _PART),
    Item("8b", "Methods", "Outcome: who assessed it, if it needs judgement"),
    Item("8c", "Methods", "Outcome: blinding of its assessment"),
    Item("9a", "Methods", "Predictors: initial predictors, and any selection before modelling",
         ("candidates", "covariates", "repeatability"), _PART),
    Item("9b", "Methods", "Predictors: definitions, measurement, blinding", ("concepts", "extraction"), _PART),
    Item("9c", "Methods", "Predictors: who assessed them, if it needs judgement (the contour)"),
    Item("10", "Methods", "Sample size and its justification", ("size",), _PART),
    Item("11", "Methods", "Missing data; reasons for leaving data out", ("preprocessing", "flow"), _PART),
    Item("12a", "Methods", "Analysis: use and partition of the data", ("partition",), _FULL),
    Item("12b", "Methods", "Analysis: form, scaling and transformation of predictors", ("preprocessing",), _FULL),
    Item("12c", "Methods", "Analysis: type of model, building steps, tuning, internal validation",
         ("model", "partition"), _PART),
    Item("12d", "Methods", "Analysis: heterogeneity between clusters", ("no_groups",), _FULL),
    Item("12e", "Methods", "Analysis: measures and plots of performance, comparison of models",
         ("measures", "curves", "comparators"), _FULL),
    Item("12f", "Methods", "Analysis: updating of the model", ("no_update",), _NONE),
    Item("12g", "Methods", "Analysis: how predictions were calculated", ("predictions",), _FULL),
    Item("13", "Methods", "Class imbalance", ("imbalance",), _FULL),
    Item("14", "Methods", "Fairness", ("unfair",), _FULL),
    Item("15", "Methods", "Output of the model, thresholds and their origin", ("output",), _FULL),
    Item("16", "Methods", "Differences between development and evaluation data", ("one_table",), _FULL),
    Item("17", "Methods", "Ethical approval and consent"),
    Item("18a", "Open science", "Funding"),
    Item("18b", "Open science", "Conflicts of interest"),
    Item("18c", "Open science", "Protocol", ("digest",), _PART),
    Item("18d", "Open science", "Registration"),
    Item("18e", "Open science", "Availability of the data", ("licence",), _PART),
    Item("18f", "Open science", "Availability of the code", ("software",), _PART),
    Item("19", "Involvement", "Patient and public involvement"),
    Item("20a", "Results", "Participants: flow, with and without the outcome", ("flow",), _FULL),
    Item("20b", "Results", "Participants: characteristics, predictors, missing data", ("predictors", "absent"), _PART),
    Item("20c", "Results", "Participants: evaluation data against development data", ("one_table",), _NONE),
    Item("21", "Results", "Participants and events in each analysis", ("partition", "flow"), _FULL),
    Item("22", "Results", "The full model, and how to get and use it", ("fitted", "bundle", "licence"), _FULL),
    Item("23a", "Results", "Performance: estimates with intervals, also in subgroups",
         ("performance", "interval", "no_groups"), _FULL),
    Item("23b", "Results", "Performance: heterogeneity between clusters", ("no_groups",), _FULL),
    Item("24", "Results", "Results of updating", ("no_update",), _NONE),
    Item("25", "Discussion", "Interpretation, fairness included"),
    Item("26", "Discussion", "Limitations", ("absent", "no_external", "warnings"), _PART),
    Item("27a", "Discussion", "Usability: poor or missing input at use", ("poor_input",), _PART),
    Item("27b", "Discussion", "Usability: what users must do and know", ("user",), _PART),
    Item("27c", "Discussion", "Usability: next steps, applicability elsewhere"),
)  # fmt: skip
"""The items of TRIPOD+AI."""

METRICS: Final = (
    Item("1", "Study design", "Adherence to a checklist for radiomics or machine learning",
         ("this_report",), _PART, 0.037),
    Item("2", "Study design", "Eligibility that gives a representative population", ("flow",), _PART, 0.074),
    Item("3", "Study design", "Reference standard: quality and definition", ("endpoint", "notes"), _PART, 0.092),
    Item("4", "Imaging data", "More than one centre", weight=0.044),
    Item("5", "Imaging data", "Image source that translates to the clinic", weight=0.029),
    Item("6", "Imaging data", "Protocol with acquisition parameters", weight=0.044),
    Item("7", "Imaging data", "Time between image and reference standard", weight=0.029),
    Item("8", "Segmentation", "How the tumour was contoured", weight=0.034),
    Item("9", "Segmentation", "Evaluation of automatic contours, if any", weight=0.022),
    Item("10", "Segmentation", "Test contours by one reader or one tool", weight=0.011),
    Item("11", "Image processing and extraction", "Preprocessing of the images", ("extraction", "notes"), _PART, 0.062),
    Item("12", "Image processing and extraction", "Standardised extraction software", ("concepts",), _PART, 0.031),
    Item("13", "Image processing and extraction", "Extraction parameters", ("extraction",), _FULL, 0.041),
    Item("14", "Feature processing", "Removal of features with low repeatability", ("repeatability",), _FULL, 0.02),
    Item("15", "Feature processing", "Removal of redundant features", ("candidates", "redundancy"), _FULL, 0.02),
    Item("16", "Feature processing", "Number of features relative to the size of the data", ("size",), _PART, 0.03),
    Item("17", "Feature processing", "Robustness of end-to-end deep learning", ("not_end_to_end",), _NONE, 0.02),
    Item("18", "Preparation for modelling", "Partition of the data", ("partition",), _FULL, 0.06),
    Item("19", "Preparation for modelling", "Confounders", ("no_groups",), _PART, 0.03),
    Item("20", "Metrics and comparison", "Appropriate performance measures", ("measures",), _FULL, 0.035),
    Item("21", "Metrics and comparison", "Uncertainty", ("interval",), _FULL, 0.023),
    Item("22", "Metrics and comparison", "Calibration", ("calibration",), _FULL, 0.018),
    Item("23", "Metrics and comparison", "One imaging set, or evidence for the need of more", ("ct_only",), _FULL,
    0.012), Item("24", "Metrics and comparison", "Comparison with a method without radiomics", ("volume",), _PART,
    0.029), Item("25", "Metrics and comparison", "Comparison with simple models", ("simple",), _FULL, 0.018),
    Item("26", "Testing", "Internal testing", ("partition", "performance"), _FULL, 0.037),
    Item("27", "Testing", "External testing", ("no_external",), _FULL, 0.075),
    Item("28", "Open science", "Availability of the data", ("licence",), _PART, 0.007),
    Item("29", "Open science", "Availability of the code", ("software",), _PART, 0.007),
    Item("30", "Open science", "Availability of the model", ("fitted", "bundle"), _PART, 0.007),
)  # fmt: skip
"""The items of METRICS."""
