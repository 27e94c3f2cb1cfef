"""Write an answer, its warnings and its times for a person, in the same way in every command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lungstage.appliance.state.job import JobState

STATES: Mapping[str, str] = {
    JobState.WAITING: "waiting",
    JobState.READY: "queued",
    JobState.CLAIMED: "processing",
    JobState.REPORT_READY: "answered",
    JobState.DELIVERED: "delivered",
    JobState.HELD: "held",
    JobState.REFUSED: "refused",
}
"""The state of a job in one word."""


def answer_in_words(outcome: Mapping[str, Any]) -> str:
    """Write answer and probability of an outcome in one line; empty if there is no answer yet."""
    if endpoint := outcome.get("endpoint"):
        positive = positive_of(endpoint).removeprefix("the ")
        return f"{endpoint['name']}: {endpoint['answer']}, P({positive}) {endpoint['probability']:.2f}"
    probability = outcome.get("probability_advanced")
    return "" if probability is None else f"{outcome.get('stage')}, P(advanced) {probability:.2f}"


def positive_of(endpoint: Mapping[str, Any]) -> str:
    """Return the class that the probability is for; jobs before 0.2.0 do not give it."""
    return str(endpoint.get("positive", "the positive class"))


def warnings_of(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the warnings about an answer: one sentence for each warning of the report."""
    first = []
    if outside := (outcome.get("domain") or {}).get("outside"):
        first.append(f"Outside the range seen in training; the model extrapolates: {', '.join(outside)}.")
    if others := (outcome.get("roi") or {}).get("others"):
        named = ", ".join(f"{other['name']} (number {other['number']})" for other in others)
        first.append(f"Also drawn and not measured, although the name suggests a tumour: {named}.")
    return (*first, *(outcome.get("warnings") or ()))


def chance_in_words(outcome: Mapping[str, Any]) -> str:
    """Say how often such an answer is right at the prevalence in force, and from which patients this is computed."""
    if not (decision := outcome.get("decision")):
        return ""
    whose = "this site's" if decision["prevalence_of"] == "site" else "the training cohort's"
    at = f"at {whose} prevalence of {100 * decision['prevalence']:.3g} %"
    if found := outcome.get("predictive_value"):
        low, value, high = (100 * found[key] for key in ("low", "value", "high"))
        return (
            f"probability that this answer is right, {at}: {value:.0f} % ({low:.0f} to {high:.0f} %), computed from "
            f"{found['patients']} patients of {found['cohort']} ({found['negatives']} {found['negative']}, "
            f"{found['positives']} {found['positive']}), each answered by models that had not seen them"
        )
    if decision["withheld"]:
        return f"the model does not decide: its likely answer is not shown to be right often enough {at}"
    is_open = ((outcome.get("endpoint") or {}).get("answer") or outcome.get("stage")) == "indeterminate"
    return (
        ""
        if is_open
        else f"probability that this answer is right, {at}: not known, because the bundle does not contain it"
    )


def robustness_in_words(outcome: Mapping[str, Any]) -> str:
    """Say how much the answer depends on contour and scan; empty if that is not known."""
    found = outcome.get("robustness")
    if not found or found["range"] is None:
        return ""
    low, high = (100 * share for share in found["range"])
    count = found["perturbations"]
    return (
        f"robustness: probability {low:.1f} to {high:.1f} % in 95 % of {count} versions with changed contour and "
        f"image; {round(found['agreement'] * count)} of {count} give the same answer"
    )


def descriptors_in_words(outcome: Mapping[str, Any]) -> str:
    """Give the size of the tumour and the words of a reader; empty if it was not described."""
    found = outcome.get("descriptors")
    if not found:
        return ""
    sizes = (("long axis", "long_axis_mm"), ("short axis", "short_axis_mm"), ("3D diameter", "diameter_3d_mm"))
    told = [f"{name} {found[key]:.1f} mm" for name, key in sizes]
    size = found["t_size_class"]
    told.append(f"T by size only: {size or 'not known'}")
    words = [word for word in found["words"].values() if word]
    told.append(", ".join(words) if words else f"no words ({' '.join(found['outline_unfit'])})")
    return f"descriptors (none is an input of the model): {'; '.join(told)}"


def worth_in_words(outcome: Mapping[str, Any]) -> str:
    """Say that the performance of the model is not shown; empty if it is."""
    return str((outcome.get("worth") or {}).get("sentence") or "")


def site_time(moment: datetime) -> str:
    """Write a time in the site's time zone, with its offset, so that an hour that occurs twice is clear."""
    here = moment.astimezone()
    offset = f"{here:%z}"
    return f"{here:%Y-%m-%d %H:%M}{offset[:3]}{f':{offset[3:]}' if offset[3:] != '00' else ''}"
