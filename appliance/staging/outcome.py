"""The outcome of one case: in the form of the command contract, and as values for those who call from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from lungstage.appliance.contract.errors import Held, Reason, ReasonCode, Refused
from lungstage.appliance.contract.evidence import Answering, Estimate, Worth
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint, StagingResult
from lungstage.appliance.descriptors.values import Descriptors
from lungstage.appliance.report import evidence
from lungstage.appliance.report.context import BundleIdentity
from lungstage.appliance.report.translation import Translator
from lungstage.appliance.staging.measure import Mask, Measurement

Outcome = dict[str, Any]

STEPS: Final = ("scan", "read", "roi", "resample", "radiomics", "infer", "robustness", "descriptors", "report", "total")


def outcome(
    *,
    status: str,
    reason: Reason | None = None,
    measurement: Measurement | None = None,
    others: Sequence[tuple[int, str]] = (),
    result: StagingResult | None = None,
    warnings: tuple[str, ...] = (),
    seconds: Mapping[str, float] | None = None,
    endpoint: Endpoint = STAGE_GROUP,
    bundle: BundleIdentity | None = None,
    descriptors: Descriptors | None = None,
) -> Outcome:
    """Write an outcome in the form of the command contract: every key is there, null where unknown.

    An answer about another endpoint than the stage is no stage: ``stage`` and ``probability_advanced`` stay null, and
    ``endpoint`` holds its name, the answer and the probability of its positive class. ``answer`` and ``probability``
    are there whatever the endpoint.

    `others` are :attr:`staging.pipeline.Plan.others`; `bundle` is what answered; `descriptors` were asked for, or None.
    """
    timing = dict(seconds or {})
    staged = None if endpoint != STAGE_GROUP else result
    return {
        "status": status,
        "reason": None if reason is None else {"code": str(reason.code), "message": reason.message},
        "stage": None if staged is None else str(staged.stage),
        "probability_advanced": None if staged is None else staged.probability_advanced,
        "endpoint": None
        if result is None or staged is not None
        else {
            "name": endpoint.name,
            "answer": endpoint.answer(result.stage),
            "probability": result.probability_advanced,
        },
        "answer": None if result is None else endpoint.answer(result.stage),
        "probability": None if result is None else result.probability_advanced,
        "contributions": None if result is None else dict(result.contributions),
        "features": None if measurement is None else measurement.features.as_dict(),
        "domain": None
        if result is None
        else {"distance": result.domain.distance, "outside": list(result.domain.outside)},
        "decision": None if result is None else _decision(result.answering),
        "predictive_value": None if result is None or bundle is None else _predictive_value(result.answering, bundle),
        "robustness": None if result is None or result.robustness is None else result.robustness.as_dict(),
        "descriptors": None if descriptors is None else descriptors.as_json(),
        "worth": None if result is None or bundle is None else _worth(bundle.worth),
        "roi": None
        if measurement is None
        else roi_facts(measurement.region.name, measurement.mask, measurement.slices.spacing, others),
        "sr": None,
        "documents": None,
        "warnings": list(warnings),
        "seconds": {step: timing.get(step) for step in STEPS},
    }


def _decision(answering: Answering | None) -> dict[str, Any] | None:
    """Write down what is answered at the prevalence in force: limits are probabilities of the positive class there."""
    if answering is None:
        return None
    return {
        "prevalence": answering.prevalence,
        "prevalence_of": "site" if answering.is_site else "training",
        "negative_up_to": answering.negative_up_to,
        "positive_from": answering.positive_from,
        "withheld": answering.withheld,
    }


def _predictive_value(answering: Answering | None, bundle: BundleIdentity) -> dict[str, Any] | None:
    """Write down the chance that the answer is right at the prevalence in force, and whom it is worked out from."""
    if answering is None or (found := answering.predictive_value) is None:
        return None
    return {
        **found.chance.as_dict(),
        "prevalence": answering.prevalence,
        "patients": found.positives + found.negatives,
        "positives": found.positives,
        "negatives": found.negatives,
        "positive": bundle.endpoint.positive,
        "negative": bundle.endpoint.negative,
        "cohort": bundle.cohort,
    }


def _worth(worth: Worth | None) -> dict[str, Any]:
    """Write down whether the model is shown to be worth anything; what is not known is null."""
    return {
        "shown": None if worth is None else worth.is_shown,
        "sentence": evidence.worth(worth, Translator("en")) or None,
        "auc": None if worth is None else worth.auc.as_dict(),
        "beats_chance": None if worth is None else worth.beats_chance,
        "rival": None if worth is None else worth.rival,
        "rival_auc": None if worth is None or worth.rival_auc is None else worth.rival_auc.as_dict(),
        "beats_rival": None if worth is None else worth.beats_rival,
    }


def roi_facts(
    name: str, mask: Mask, spacing: Sequence[float], others: Sequence[tuple[int, str]]
) -> dict[str, str | int | float | list[dict[str, int | str]]]:
    """Return what an outcome says of a region; `spacing` is that of the mask's voxels, in mm."""
    voxels = int(mask.sum())
    return {
        "name": name,
        "voxels": voxels,
        "volume_mm3": voxels * float(np.prod(spacing)),
        "others": [{"number": number, "name": other} for number, other in others],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCase:
    """A case that was measured.

    Attributes
    ----------
    features
        Values by PyRadiomics name, in the spec's order; NaN where one could not be computed.
    roi
        Name of the region of interest.
    voxels
        How many voxels of the original slices it has.
    volume_mm3
        Their volume.
    others
        Names of the other regions that could have been meant.
    descriptors
        What a radiologist would say of it, under the keys of ``--json`` (``docs/descriptors.md``); None where nobody
        asked, or where it cannot be said.
    warnings
        Plain sentences.
    seconds
        How long each step took that there was, e.g. ``read``, ``resample``, ``radiomics``, and all (``total``).
    """

    features: dict[str, float]
    roi: str
    voxels: int
    volume_mm3: float
    others: tuple[str, ...]
    descriptors: dict[str, Any] | None
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Read it off an outcome.

        Raises
        ------
        Refused, Held
            When that is what became of the case.
        """
        if reason := outcome["reason"]:
            error = Refused if outcome["status"] == "refused" else Held
            raise error(ReasonCode(reason["code"]), reason["message"])
        return cls(**cls._values(outcome))

    @classmethod
    def _values(cls, outcome: Outcome) -> dict[str, Any]:
        return {
            "features": {name: np.nan if value is None else value for name, value in outcome["features"].items()},
            "roi": outcome["roi"]["name"],
            "voxels": outcome["roi"]["voxels"],
            "volume_mm3": outcome["roi"]["volume_mm3"],
            "others": tuple(other["name"] for other in outcome["roi"]["others"]),
            "descriptors": outcome["descriptors"],
            "warnings": tuple(outcome["warnings"]),
            "seconds": {step: seconds for step, seconds in outcome["seconds"].items() if seconds is not None},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedCase(MeasuredCase):
    """A case that a bundle gave an answer to. Research use only.

    Attributes
    ----------
    endpoint
        What was asked, e.g. ``stage``.
    answer
        The predicted class, e.g. ``early`` or ``advanced``; ``indeterminate`` where the evidence singles out none.
    probability
        That of the positive class, e.g. of advanced stage; in [0, 1].
    predictive_value
        The chance that the answer is right at the prevalence in force, with its interval; None where there is no
        answer, or the bundle does not say how it did on patients that it had not seen.
    robustness
        What became of perturbed versions of the case, under the keys of ``--json``; None where nobody asked.
    worth
        That the model is not shown to be better than chance or than a simple model, in a sentence; empty where it is.
    contributions
        Signed contribution of each input to the answer, in logit units.
    distance
        Distance to the training cohort in standard deviations.
    outside
        The features outside the range seen there.
    sr
        The structured report; None where none was asked for.
    documents
        Every document that was written, by its kind (``sr``, ``seg``, ``pdf``, ``sc``, ``html``).
    """

    endpoint: str
    answer: str
    probability: float
    predictive_value: Estimate | None
    robustness: dict[str, Any] | None
    worth: str
    contributions: dict[str, float]
    distance: float
    outside: tuple[str, ...]
    sr: Path | None
    documents: dict[str, Path]

    @classmethod
    def _values(cls, outcome: Outcome) -> dict[str, Any]:
        asked = outcome["endpoint"] or {"name": STAGE_GROUP.name}
        # Not super(): a dataclass with slots is another class than the one that its methods were written in.
        return MeasuredCase._values(outcome) | {
            "endpoint": asked["name"],
            "answer": outcome["answer"],
            "probability": outcome["probability"],
            "predictive_value": outcome["predictive_value"] and Estimate.of(outcome["predictive_value"]),
            "robustness": outcome["robustness"],
            "worth": (outcome["worth"] or {}).get("sentence") or "",
            "contributions": dict(outcome["contributions"]),
            "distance": outcome["domain"]["distance"],
            "outside": tuple(outcome["domain"]["outside"]),
            "sr": outcome["sr"] and Path(outcome["sr"]),
            "documents": {kind: Path(path) for kind, path in (outcome["documents"] or {}).items()},
        }
