"""What one check of a commissioning found, and how it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

Cell = str | float | int | None


class Verdict(StrEnum):
    """How a check came out, from the best to the worst."""

    PASS = "pass"  # noqa: S105
    NOTE = "note"  # nothing was judged: not in the plan, or recorded for the next time
    WARN = "warn"  # a person has to look at it and say why it may stand
    FAIL = "fail"


_ORDER = tuple(Verdict)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts; of none, a pass."""
    return max(verdicts, key=_ORDER.index, default=Verdict.PASS)


def graded(value: float, *, warn: float, fail: float) -> Verdict:
    """Judge a value of which more is worse, and of which NaN says nothing."""
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
        How it came out.
    finding
        What was found, in a sentence that names no patient.
    rows
        The figures behind it; all rows have the same keys, which are the table's head.
    """

    name: str
    verdict: Verdict
    finding: str
    rows: tuple[Mapping[str, Cell], ...] = ()
