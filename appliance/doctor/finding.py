"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARNING = "warning"  # it works, but an operator should know
    PROBLEM = "problem"  # a daemon would not start, or would not do its work


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check
        One word for what was looked at.
    verdict
        How grave it is.
    sentence
        What was found.
    remedy
        What helps; None where nothing need be done.
    """

    check: str
    verdict: Verdict
    sentence: str
    remedy: str | None = None


def ok(check: str, sentence: str) -> Finding:
    """Return a finding that is well."""
    return Finding(check, Verdict.OK, sentence)


def warning(check: str, sentence: str, remedy: str) -> Finding:
    """Return a finding that an operator should know of."""
    return Finding(check, Verdict.WARNING, sentence, remedy)


def problem(check: str, sentence: str, remedy: str) -> Finding:
    """Return a finding that keeps the appliance from its work."""
    return Finding(check, Verdict.PROBLEM, sentence, remedy)
