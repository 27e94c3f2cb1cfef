"""Why an answer may be wrong: warnings, graded, the most serious first, in the reader's language.

A warning is an English sentence, as in ledger, log and structured report. The English catalogue contains the same
sentences under codes. This module recognises a warning by its sentence, grades it and translates it. An unknown warning
is shown unchanged and graded as a problem of the measurement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import MappingProxyType
from typing import Final

from lungstage.appliance.report import former
from lungstage.appliance.report.translation import Translator

_NAMED = 3  # names in one sentence; the structured report lists all


class Grade(IntEnum):
    """How serious a caveat is; the most serious first."""

    MODEL = 0  # the case is outside what the model was trained or validated on
    MEASUREMENT = 1  # the measurement may be wrong
    INPUT = 2  # the software had to assume something
    NOTE = 3  # for information only; the answer does not change


GRADES: Final = MappingProxyType(
    {
        "domain_unlike": Grade.MODEL,
        "domain_no_neighbour": Grade.MODEL,
        "assisted": Grade.MODEL,
        "assisted_not_validated": Grade.MODEL,
        "not_robust": Grade.MEASUREMENT,
        "not_robust_withheld": Grade.MEASUREMENT,
        "must_be_robust": Grade.MEASUREMENT,
        "never_came": Grade.MEASUREMENT,
        "never_came_one": Grade.MEASUREMENT,
        "left_out": Grade.MEASUREMENT,
        "clipped": Grade.MEASUREMENT,
        "lossy": Grade.MEASUREMENT,
        "unit": Grade.MEASUREMENT,
        "parts": Grade.MEASUREMENT,
        "failed": Grade.MEASUREMENT,
        "through_centres": Grade.MEASUREMENT,
        "unapproved": Grade.MEASUREMENT,
        "position_alone": Grade.INPUT,
        "by_position": Grade.INPUT,
        "frame_of_reference": Grade.INPUT,
        "covariate_unknown": Grade.INPUT,
        "covariate_other": Grade.INPUT,
        "covariate_beyond": Grade.INPUT,
        "body_part": Grade.INPUT,
        "robustness_one_slice": Grade.INPUT,
        "robustness_few_voxels": Grade.INPUT,
        "robustness_flat": Grade.INPUT,
        "robustness_too_few": Grade.INPUT,
        "robustness_off": Grade.INPUT,
        "robustness_slices": Grade.NOTE,
        "robustness_edge": Grade.NOTE,
        "robustness_unmeasured": Grade.NOTE,
        "robustness_remains": Grade.NOTE,
        "robustness_fewer": Grade.NOTE,
        "older": Grade.NOTE,
        "draft_left_out": Grade.NOTE,
        "agree": Grade.NOTE,
        "chosen": Grade.NOTE,
        "rejected": Grade.NOTE,
        "own_study": Grade.NOTE,
        "text_left_out": Grade.NOTE,
    }
)
"""The warnings that are known, by their codes (``caveat.…`` in the catalogues)."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """One reason for caution, in words.

    Attributes
    ----------
    grade
        How serious it is.
    text
        Sentence for the reader.
    """

    grade: Grade
    text: str


def caveats(
    warnings: Sequence[str], outside: Sequence[str], beside: Sequence[str], say: Translator
) -> tuple[Caveat, ...]:
    """Grade and translate warnings, and list each once.

    Parameters
    ----------
    warnings
        Warnings of a report (:class:`report.context.ReportContext`).
    outside
        Names of the measurements outside the range seen in training.
    beside
        Names of other regions that may be a tumour and were not measured.
    say
        The reader's language.

    Returns
    -------
    tuple of Caveat
        The most serious first. Caveats of one grade stay in the order in which they arose.
    """
    found = []
    if outside:
        told = say("told.outside", count=len(outside), names=in_short(outside, say))
        found.append(Caveat(Grade.MODEL, told))
    found += _of_warnings(warnings, say)
    if beside:
        told = say("told.beside", count=len(beside), names=in_short(beside, say))
        found.append(Caveat(Grade.MEASUREMENT, told))
    return tuple(sorted(dict.fromkeys(found), key=lambda caveat: caveat.grade))


def in_short(names: Sequence[str], say: Translator) -> str:
    """Write the first names, and how many more there are."""
    if len(names) <= _NAMED + 1:
        return ", ".join(names)
    few = ", ".join(names[:_NAMED])
    return say("told.names_and_more", names=few, number=len(names) - _NAMED)


def _of_warnings(warnings: Sequence[str], say: Translator) -> Iterator[Caveat]:
    for warning in warnings:
        code, values = recognise(warning)
        if code is None:
            yield Caveat(Grade.MEASUREMENT, warning)
        else:
            yield Caveat(GRADES[code], say(f"caveat.{code}", **values))


def recognise(warning: str) -> tuple[str | None, dict[str, str]]:
    """Find the code of a warning, and what stands in its place-holders; None for one that is not known."""
    for code, pattern in _patterns():
        if found := pattern.fullmatch(warning):
            return code, found.groupdict()
    return None, {}


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    templates = [(code, Translator("en").template(f"caveat.{code}")) for code in GRADES]
    return tuple((code, _pattern(template)) for code, template in (*templates, *former.WARNINGS))


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(f"(?P<{part}>.+)" if k % 2 else re.escape(part) for k, part in enumerate(parts)), re.DOTALL
    )
