"""How often an answer is correct at this site, and what is shown of the model's performance, in words."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from lungstage.appliance.contract.evidence import Answering, Estimate, Worth
from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.robustness import Robustness
from lungstage.appliance.report.translation import Translator

_RIVALS: Final = MappingProxyType(
    {
        "sphericity_volume": "rival.sphericity_volume",
        "volume": "rival.volume",
        "best_single_lr": "rival.best_single_lr",
        "covariates_alone": "rival.covariates_alone",
    }
)


def chance(answering: Answering | None, cohort: str, classes: tuple[str, str], say: Translator) -> str:
    """Say how often such an answer is correct at the prevalence in force, and which patients the figure comes from.

    Parameters
    ----------
    answering
        What is answered; None if the answer was never stated at a prevalence.
    cohort
        Name of the training cohort.
    classes
        Names of the negative and of the positive class.
    say
        The reader's language.

    Returns
    -------
    str
        Empty if there is no answer that could be correct.
    """
    if answering is None:
        return ""
    if answering.withheld:
        return say("evidence.withheld", prevalence=say.percent(answering.prevalence))
    if (found := answering.predictive_value) is not None:
        return say(
            "evidence.chance_site" if answering.is_site else "evidence.chance_training",
            prevalence=say.percent(answering.prevalence),
            chance=say.percent(found.chance.value),
            low=say.percent(found.chance.low),
            high=say.percent(found.chance.high),
            patients=found.positives + found.negatives,
            cohort=cohort,
            negatives=found.negatives,
            negative=classes[0],
            positives=found.positives,
            positive=classes[1],
        )
    return "" if answering.is_known else say("evidence.chance_unknown")


def robustness(found: Robustness | None, say: Translator) -> str:
    """Say how far an answer depends on contour and image; empty if this was not tested, or is not known.

    Parameters
    ----------
    found
        Result of the perturbed versions.
    say
        The reader's language.
    """
    if found is None or found.range is None or found.agreement is None:
        return ""
    low, high = found.range
    return say(
        "evidence.robustness",
        versions=found.perturbations,
        low=say.percent(low),
        high=say.percent(high),
        agreeing=round(found.agreement * found.perturbations),
    )


def stage_classes(say: Translator) -> tuple[str, str]:
    """Name the negative and the positive class of a model for stage groups."""
    return say("class.early"), say("class.advanced")


def survival_classes(horizon: Horizon, say: Translator) -> tuple[str, str]:
    """Name survival beyond a time and death within it."""
    return (
        say(f"survival.beyond_{horizon.unit}s", count=horizon.count),
        say(f"survival.death_{horizon.unit}s", count=horizon.count),
    )


def survival_name(horizon: Horizon, say: Translator) -> str:
    """Name survival at a time."""
    return say(f"survival.at_{horizon.unit}s", count=horizon.count)


def worth(found: Worth | None, say: Translator) -> str:
    """Say that a model is not shown to be better than chance or than the simple model; empty if it is.

    Parameters
    ----------
    found
        None if the bundle does not say.
    say
        The reader's language.
    """
    if found is None:
        return say("evidence.worth_unknown")
    own = _figure(found.auc, say)
    if not found.beats_chance:
        return say("evidence.worth_chance", auc=own)
    if found.rival is None or found.rival_auc is None:
        return say("evidence.worth_uncompared", auc=own)
    if not found.beats_rival:
        return say(
            "evidence.worth_rival",
            auc=own,
            rival=say(_RIVALS[found.rival]),
            other=_figure(found.rival_auc, say),
        )
    return ""


def worth_in_short(found: Worth | None, say: Translator) -> str:
    """Say the same in one short line, for a picture that has no room for more."""
    if found is None:
        return say("worth.unknown")
    if not found.beats_chance:
        return say("worth.chance")
    if found.rival is None or found.rival_auc is None:
        return say("worth.uncompared")
    return "" if found.beats_rival else say("worth.rival")


def _figure(estimate: Estimate, say: Translator) -> str:
    value, low, high = (
        f"{figure:.3f}".replace(".", say("number.decimal_mark"))
        for figure in (estimate.value, estimate.low, estimate.high)
    )
    return say("evidence.interval", value=value, low=low, high=high)
