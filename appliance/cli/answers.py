"""How an answer, its warnings and the moments around it are put for a person: the same in every command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lungstage.appliance.contract.horizon import Horizon
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
        positive = positive_of(endpoint).removeprefix("the ")
        return f"{endpoint['name']}: {endpoint['answer']}, P({positive}) {endpoint['probability']:.2f}"
    probability = outcome.get("probability_advanced")
    return "" if probability is None else f"{outcome.get('stage')}, P(advanced) {probability:.2f}"


def positive_of(endpoint: Mapping[str, Any]) -> str:
    """Name what the probability is one of, as far as an outcome's endpoint says."""
    horizon = Horizon.of_name(endpoint["name"])
    return "the positive class" if horizon is None else horizon.endpoint.positive


def warnings_of(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    """Say why an answer may be less than it seems, as its report does: one sentence for each of the report's."""
    first = []
    if outside := (outcome.get("domain") or {}).get("outside"):
        first.append(f"Outside the range seen in training, where the model extrapolates: {', '.join(outside)}.")
    if others := (outcome.get("roi") or {}).get("others"):
        named = ", ".join(f"{other['name']} (number {other['number']})" for other in others)
        first.append(f"Not measured, though named like a tumour and drawn beside the region: {named}.")
    return (*first, *(outcome.get("warnings") or ()))


def chance_in_words(outcome: Mapping[str, Any]) -> str:
    """Say how often such an answer is right at the prevalence in force, and whom that is worked out from."""
    if not (decision := outcome.get("decision")):
        return ""
    whose = "this site's" if decision["prevalence_of"] == "site" else "the training cohort's"
    at = f"at {whose} prevalence of {100 * decision['prevalence']:.3g} %"
    if found := outcome.get("predictive_value"):
        low, value, high = (100 * found[key] for key in ("low", "value", "high"))
        return (
            f"chance that this answer is right, {at}: {value:.0f} % ({low:.0f} to {high:.0f} %), worked out from "
            f"{found['patients']} patients of {found['cohort']} ({found['negatives']} {found['negative']}, "
            f"{found['positives']} {found['positive']}), each answered by models that had not seen them"
        )
    if decision["withheld"]:
        return f"the evidence points to one answer, which is not shown to hold {at}: the model does not decide"
    is_open = ((outcome.get("endpoint") or {}).get("answer") or outcome.get("stage")) == "indeterminate"
    return "" if is_open else f"chance that this answer is right, {at}: not known, the bundle does not say"


def robustness_in_words(outcome: Mapping[str, Any]) -> str:
    """Say how far the answer depends on contour and scan; empty where that is not known."""
    found = outcome.get("robustness")
    if not found or found["range"] is None:
        return ""
    low, high = (100 * share for share in found["range"])
    count = found["perturbations"]
    return (
        f"robustness: probability {low:.1f} to {high:.1f} % in 95 % of {count} versions with the contour redrawn and "
        f"the image perturbed; {round(found['agreement'] * count)} of {count} give the same answer"
    )


def descriptors_in_words(outcome: Mapping[str, Any]) -> str:
    """Say how large the tumour is, and the words that readers would use; empty where it was not described."""
    found = outcome.get("descriptors")
    if not found:
        return ""
    sizes = (("long axis", "long_axis_mm"), ("short axis", "short_axis_mm"), ("3D diameter", "diameter_3d_mm"))
    told = [f"{name} {found[key]:.1f} mm" for name, key in sizes]
    size = found["t_size_class"]
    told.append(f"T by size only: {size or 'cannot be said'}")
    words = [word for word in found["words"].values() if word]
    told.append(", ".join(words) if words else f"no words ({' '.join(found['outline_unfit'])})")
    return f"descriptors (none is an input of the model): {'; '.join(told)}"


def worth_in_words(outcome: Mapping[str, Any]) -> str:
    """Say that the model is not shown to be worth anything; empty where it is."""
    return str((outcome.get("worth") or {}).get("sentence") or "")


def site_time(moment: datetime) -> str:
    """Write a moment as the site's clock showed it, with its offset: an hour that comes twice is told apart."""
    here = moment.astimezone()
    offset = f"{here:%z}"
    return f"{here:%Y-%m-%d %H:%M}{offset[:3]}{f':{offset[3:]}' if offset[3:] != '00' else ''}"
