"""The outcome of one case: in the form of the command contract, and as values for those who call from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from lungstage.appliance.contract.errors import Held, Reason, ReasonCode, Refused
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint, StagingResult
from lungstage.appliance.staging.measure import Mask, Measurement

Outcome = dict[str, Any]

STEPS: Final = ("scan", "read", "roi", "resample", "radiomics", "infer", "report", "total")


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
) -> Outcome:
    """Write an outcome in the form of the command contract: every key is there, null where unknown.

    An answer about another endpoint than the stage is no stage: ``stage`` and ``probability_advanced`` stay null, and
    ``endpoint`` holds its name, the answer and the probability of its positive class.

    `others` are :attr:`staging.pipeline.Plan.others`.
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
        "contributions": None if result is None else dict(result.contributions),
        "features": None if measurement is None else measurement.features.as_dict(),
        "domain": None
        if result is None
        else {"distance": result.domain.distance, "outside": list(result.domain.outside)},
        "roi": None
        if measurement is None
        else roi_facts(measurement.region.name, measurement.mask, measurement.slices.spacing, others),
        "sr": None,
        "documents": None,
        "warnings": list(warnings),
        "seconds": {step: timing.get(step) for step in STEPS},
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
    voxels, volume_mm3
        How many voxels of the original slices it has, and their volume.
    others
        Names of the other regions that could have been meant.
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
    contributions
        Signed contribution of each input to the answer, in logit units.
    distance, outside
        Distance to the training cohort in standard deviations, and the features outside the range seen there.
    sr
        The structured report; None where none was asked for.
    documents
        Every document that was written, by its kind (``sr``, ``seg``, ``pdf``, ``sc``, ``html``).
    """

    endpoint: str
    answer: str
    probability: float
    contributions: dict[str, float]
    distance: float
    outside: tuple[str, ...]
    sr: Path | None
    documents: dict[str, Path]

    @classmethod
    def _values(cls, outcome: Outcome) -> dict[str, Any]:
        stage = {
            "name": STAGE_GROUP.name,
            "answer": outcome["stage"],
            "probability": outcome["probability_advanced"],
        }
        asked = outcome["endpoint"] or stage
        # Not super(): a dataclass with slots is another class than the one that its methods were written in.
        return MeasuredCase._values(outcome) | {
            "endpoint": asked["name"],
            "answer": asked["answer"],
            "probability": asked["probability"],
            "contributions": dict(outcome["contributions"]),
            "distance": outcome["domain"]["distance"],
            "outside": tuple(outcome["domain"]["outside"]),
            "sr": outcome["sr"] and Path(outcome["sr"]),
            "documents": {kind: Path(path) for kind, path in (outcome["documents"] or {}).items()},
        }
