"""The outcome of one case: as a dictionary in the form of the command contract, and as Python values."""

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
    """Return an outcome in the form of the command contract: every key is present, null if unknown.

    For another endpoint than the stage, ``stage`` and ``probability_advanced`` are null. ``endpoint`` then contains
    its name, its positive class, the answer and the probability of that class. ``answer`` and ``probability`` are
    given for every endpoint.

    `others` are :attr:`staging.pipeline.Plan.others`; `bundle` is the bundle that answered; `descriptors` is None
    unless they were requested.
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
            "positive": endpoint.positive,
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
    """Return the decision at the prevalence in force; limits are probabilities of the positive class."""
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
    """Return the probability that the answer is right at the prevalence in force, and the patients behind it."""
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
    """Return whether the model is shown to be better than chance and than a simple model; null if not known."""
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
    """Return an outcome's entries about a region; `spacing` is that of the mask's voxels, in mm."""
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
        Values by PyRadiomics name, in the spec's order; NaN if one could not be computed.
    roi
        Name of the region of interest.
    voxels
        Number of its voxels on the original slices.
    volume_mm3
        Their volume.
    others
        Names of other regions that may be the tumour.
    descriptors
        The tumour's descriptors under the keys of ``--json`` (``docs/descriptors.md``); None if they were not
        requested or cannot be computed.
    warnings
        Plain sentences.
    seconds
        Duration of each step that ran, e.g. ``read``, ``resample``, ``radiomics``, and of all (``total``).
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
        """Make the value from an outcome.

        Raises
        ------
        Refused, Held
            The case was refused or held.
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
    """A case that a bundle has answered. Research use only.

    Attributes
    ----------
    endpoint
        What is predicted, e.g. ``stage``.
    answer
        The predicted class, e.g. ``early`` or ``advanced``; ``indeterminate`` if the model does not decide.
    probability
        Of the positive class, e.g. of advanced stage; in [0, 1].
    predictive_value
        Probability that the answer is right at the prevalence in force, with its interval. None if there is no
        answer, or if the bundle gives no performance on unseen patients.
    robustness
        Results of the perturbed versions of the case under the keys of ``--json``; None if not requested.
    worth
        A sentence if the model is not shown to be better than chance or than a simple model; otherwise empty.
    contributions
        Signed contribution of each input to the answer, in logit units.
    distance
        Distance to the training cohort in standard deviations.
    outside
        The features outside the range of the training cohort.
    sr
        Path of the structured report; None if none was requested.
    documents
        Path of every written document, by its kind (``sr``, ``seg``, ``pdf``, ``sc``, ``html``).
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
        # super() does not work here: dataclass(slots=True) replaces the class that the methods were written in.
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
