"""The result of one check of a commissioning, and its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

Cell = str | float | int | None


class Verdict(StrEnum):
    """The verdict of a check, from the best to the worst."""

    PASS = "pass"  # noqa: S105
    NOTE = "note"  # no verdict: not in the plan, or recorded for the next time
    WARN = "warn"  # a person must look at it, and write down why it is acceptable
    FAIL = "fail"


_ORDER = tuple(Verdict)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts; PASS if there is none."""
    return max(verdicts, key=_ORDER.index, default=Verdict.PASS)


def graded(value: float, *, warn: float, fail: float) -> Verdict:
    """Return the verdict for a value that is worse when larger; NOTE for NaN."""
    if value > fail:
        return Verdict.FAIL
    if value > warn:
        return Verdict.WARN
    return Verdict.PASS if value <= warn else Verdict.NOTE


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the sheet.

    Attributes
    ----------
    name
        What was checked.
    verdict
        Its verdict.
    finding
        The result, in a sentence without data of patients.
    rows
        The numbers behind it. All rows have the same keys, which are the head of the table.
    """

    name: str
    verdict: Verdict
    finding: str
    rows: tuple[Mapping[str, Cell], ...] = ()
