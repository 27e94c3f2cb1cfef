"""How an answer, its warnings and the moments around it are put for a person: the same in every command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lungstage.appliance.state.job import JobState

STATES: Mapping[str, str] = {
    JobState.WAITING: "waiting",
    JobState.READY: "in line",
    JobState.CLAIMED: "in work",
    JobState.REPORT_READY: "answered",
    JobState.DELIVERED: "delivered",
    JobState.HELD: "held",
    JobState.REFUSED: "refused",
}
"""Where a job stands, in a word."""


def answer_in_words(outcome: Mapping[str, Any]) -> str:
    """Say an outcome's answer and its probability in one line; nothing where there is none yet."""
    if endpoint := outcome.get("endpoint"):
        return f"{endpoint['name']}: {endpoint['answer']}, P(positive class) {endpoint['probability']:.2f}"
    probability = outcome.get("probability_advanced")
    return "" if probability is None else f"{outcome.get('stage')}, P(advanced) {probability:.2f}"


def warnings_of(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    """Say why an answer may be less than it seems, as its report does: one sentence for each of the report's."""
    first = []
    if outside := (outcome.get("domain") or {}).get("outside"):
        first.append(f"Outside the range seen in training, where the model extrapolates: {', '.join(outside)}.")
    if others := (outcome.get("roi") or {}).get("others"):
        named = ", ".join(f"{other['name']} (number {other['number']})" for other in others)
        first.append(f"Not measured, though named like a tumour and drawn beside the region: {named}.")
    return (*first, *(outcome.get("warnings") or ()))


def site_time(moment: datetime) -> str:
    """Write a moment as the site's clock showed it, with its offset: an hour that comes twice is told apart."""
    here = moment.astimezone()
    offset = f"{here:%z}"
    return f"{here:%Y-%m-%d %H:%M}{offset[:3]}{f':{offset[3:]}' if offset[3:] != '00' else ''}"
