"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"  # the daemon works, but an operator should know this
    PROBLEM = "problem"  # the daemon would not start, or would not work


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    check
        One word for what was checked.
    verdict
        How serious it is.
    sentence
        What was found.
    remedy
        What to do; None if nothing needs to be done.
    """

    check: str
    verdict: Verdict
    sentence: str
    remedy: str | None = None


def ok(check: str, sentence: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(check, Verdict.OK, sentence)


def warning(check: str, sentence: str, remedy: str) -> Finding:
    """Return a finding that an operator should know."""
    return Finding(check, Verdict.WARNING, sentence, remedy)


def problem(check: str, sentence: str, remedy: str) -> Finding:
    """Return a finding because of which the appliance does not work."""
    return Finding(check, Verdict.PROBLEM, sentence, remedy)
