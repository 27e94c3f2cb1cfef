"""The outcome of one case in the form of the command contract: every key is there, null where unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from lungstage.appliance.contract.errors import Reason
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint, StagingResult
from lungstage.appliance.staging.measure import Measurement

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
) -> dict[str, Any]:
    """Write an outcome in the form of the command contract: every key is there, null where unknown.

    An answer about another endpoint than the stage is no stage: ``stage`` and ``probability_advanced`` stay null, and
    the key ``endpoint`` joins the others with its name, the answer and the probability of its positive class.

    `others` are :attr:`staging.pipeline.Plan.others`.
    """
    timing = dict(seconds or {})
    staged = None if endpoint != STAGE_GROUP else result
    answer = {
        "status": status,
        "reason": None if reason is None else {"code": str(reason.code), "message": reason.message},
        "stage": None if staged is None else str(staged.stage),
        "probability_advanced": None if staged is None else staged.probability_advanced,
        "contributions": None if result is None else dict(result.contributions),
        "features": None if measurement is None else measurement.features.as_dict(),
        "domain": None
        if result is None
        else {"distance": result.domain.distance, "outside": list(result.domain.outside)},
        "roi": None if measurement is None else _roi_facts(measurement, others),
        "sr": None,
        "warnings": list(warnings),
        "seconds": {step: timing.get(step) for step in STEPS},
    }
    if staged is not result and result is not None:
        answer["endpoint"] = {
            "name": endpoint.name,
            "answer": endpoint.answer(result.stage),
            "probability": result.probability_advanced,
        }
    return answer


def _roi_facts(measurement: Measurement, others: Sequence[tuple[int, str]]) -> dict[str, Any]:
    voxels = int(measurement.mask.sum())
    return {
        "name": measurement.region.name,
        "voxels": voxels,
        "volume_mm3": voxels * float(np.prod(measurement.slices.spacing)),
        "others": [{"number": number, "name": name} for number, name in others],
    }
