"""Test how far an answer depends on contour and scan: measure and answer perturbed versions of the case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.robustness import LeftOut, Robustness, RobustnessOptions, Unknown
from lungstage.appliance.contract.spec import Stage, StagingResult
from lungstage.appliance.model.answering import AnswerRule
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.robustness.summary import summarise
from lungstage.appliance.robustness.versions import Surroundings, Versions, perturb
from lungstage.appliance.staging.measure import Measurement

NOT_ROBUST: Final = (
    "Only {agreeing} of {count} versions with a redrawn contour and a perturbed image give the same answer. The answer "
    "is not robust."
)
WITHHELD: Final = (
    "Only {agreeing} of {count} versions with a redrawn contour and a perturbed image give the same answer. Therefore "
    "no answer is given."
)
FEWER: Final = (
    "The region is very large. Its robustness was tested on {count} perturbed versions instead of the usual {asked}."
)

_LEFT_OUT: Final[Mapping[LeftOut, str]] = {
    LeftOut.SLICES: "{count} of {all} perturbed versions were left out: they reach beyond the slices that were "
    "received.",
    LeftOut.EDGE: "{count} of {all} perturbed versions were left out: they reach beyond the edge of the slices.",
    LeftOut.UNMEASURED: "{count} of {all} perturbed versions were left out: they contain pixels that the scanner did "
    "not measure.",
    LeftOut.TOO_SMALL: "{count} of {all} perturbed versions were left out: too little of the region remains to be "
    "measured.",
}
_UNKNOWN: Final[Mapping[Unknown, str]] = {
    Unknown.ONE_SLICE: "The robustness of the answer is not known: the region is on one slice only.",
    Unknown.TOO_SMALL: "The robustness of the answer is not known: the region has too few voxels to be redrawn.",
    Unknown.FLAT: "The robustness of the answer is not known: all voxels of the region have the same value.",
    Unknown.TOO_FEW: "The robustness of the answer is not known: most perturbed versions could not be measured.",
    Unknown.OFF: "The robustness of the answer is not known: it was not tested.",
}
MUST_BE_ROBUST: Final = "No answer is given: on a semi-automatic contour, an answer must be robust."


def try_out(
    measurement: Measurement,
    result: StagingResult,
    bundle: Bundle,
    rule: AnswerRule,
    covariates: Mapping[str, float | str],
    options: RobustnessOptions,
) -> Robustness:
    """Perturb a case, measure the versions, and answer each of them.

    Parameters
    ----------
    measurement, result
        Of the unperturbed case; the answer at the prevalence in force.
    bundle, rule, covariates
        The bundle and the rule that answered; the known covariates of the patient.
    options
        The site's settings.
    """
    around = _surroundings(measurement)
    versions = perturb(around, measurement.roi, bundle.spec, options)
    behind = len(around.image) - around.before - len(measurement.mask)
    probabilities, alike = _answers(versions, result, bundle, rule, covariates)
    return summarise(
        versions,
        bundle.spec.features,
        result.probability_advanced,
        probabilities,
        alike,
        options.perturbations,
        (around.before, behind),
    )


def _answers(
    versions: Versions,
    result: StagingResult,
    bundle: Bundle,
    rule: AnswerRule,
    covariates: Mapping[str, float | str],
) -> tuple[npt.NDArray[np.float64], list[bool]]:
    """Answer all versions at once.

    A version too far from the training cohort has no answer. It counts as another answer than the case's.
    """
    if not len(versions.values):
        return np.empty(0), []
    found = bundle.predictor.run_alike(versions.values, covariates)
    use = bundle.manifest.intended_use
    near = (found.domain_distance <= use.domain_distance_max) & (found.neighbour_distance <= use.neighbour_distance_max)
    at_training = found.probability_advanced.tolist()
    alike = [
        bool(close) and rule.answer(p)[0] is result.stage for p, close in zip(at_training, near.tolist(), strict=True)
    ]
    return np.array([rule.probability(p) for p in at_training]), alike


def _surroundings(measurement: Measurement) -> Surroundings:
    """Join the reference volume and the slices before and behind it, in the volume's own pixel type."""
    array, mask, padding = measurement.voxels.volume.array, measurement.mask, measurement.voxels.padding
    before, behind = measurement.before, measurement.behind
    # The spacing of the measured volume may have been rounded (radiomics.grid.single_precision).
    z, y, x = (float(step) for step in measurement.voxels.volume.spacing)
    if before is None and behind is None:
        return Surroundings(array, mask, (z, y, x), unmeasured=padding)
    parts = [part for part in (before, measurement.voxels, behind) if part is not None]
    is_own = [part is measurement.voxels for part in parts]
    shapes = [part.volume.array.shape for part in parts]
    empty = [np.zeros(shape, dtype=bool) for shape in shapes]
    unmeasured = np.concatenate(
        [none if part.padding is None else part.padding for part, none in zip(parts, empty, strict=True)]
    )
    return Surroundings(
        np.concatenate([_as_type(part.volume.array, array.dtype) for part in parts]),
        np.concatenate([mask if own else none for own, none in zip(is_own, empty, strict=True)]),
        (z, y, x),
        0 if before is None else len(before.volume.array),
        unmeasured if unmeasured.any() else None,
    )


def _as_type(image: npt.NDArray[Any], wanted: np.dtype[Any]) -> npt.NDArray[Any]:
    if np.issubdtype(wanted, np.integer):
        limits = np.iinfo(wanted)
        image = np.clip(image, limits.min, limits.max)
    return image.astype(wanted, copy=False)


def withheld(result: StagingResult, options: RobustnessOptions) -> StagingResult:
    """Withhold an answer that is not robust, if the site's settings ask for that; the probability stays."""
    found = result.robustness
    if found is None or found.is_robust is not False or options.not_robust == "warn":
        return result
    return _withhold(result, found)


def withheld_unless_robust(result: StagingResult) -> StagingResult:
    """Withhold the answer on a semi-automatic contour unless it is shown to be robust, whatever the site's settings."""
    found = result.robustness or Robustness(asked=0, unknown=Unknown.OFF)
    return result if found.is_robust else _withhold(result, found)


def _withhold(result: StagingResult, found: Robustness) -> StagingResult:
    if result.stage is Stage.INDETERMINATE:
        return result
    answering = result.answering and replace(result.answering, predictive_value=None)
    return replace(result, stage=Stage.INDETERMINATE, answering=answering, robustness=replace(found, withheld=True))


def warnings(found: Robustness) -> Iterator[str]:
    """Yield the report's warnings about robustness."""
    if found.unknown is not None:
        yield _UNKNOWN[found.unknown]
        if found.withheld:
            yield MUST_BE_ROBUST
    if found.agreement is not None and not found.is_robust:
        count = found.perturbations
        yield (WITHHELD if found.withheld else NOT_ROBUST).format(agreeing=round(found.agreement * count), count=count)
    made = found.asked - found.fewer
    if found.fewer:
        yield FEWER.format(count=made, asked=found.asked)
    for why in LeftOut:
        if count := found.left_out.get(why, 0):
            yield _LEFT_OUT[why].format(all=made, count=count)
