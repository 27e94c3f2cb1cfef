"""How far an answer depends on the hand that drew the contour: what a site asks for, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal

from lungstage.appliance.contract.errors import ReasonCode

PERTURBATIONS: Final = 30
"""How many perturbed versions of a case are made, unless a site says otherwise."""

MOST_PERTURBATIONS: Final = 1000

CONTOUR_MM: Final = 2.1
"""How far contours of different hands lie apart, as a standard deviation in mm.

Eleven radiation oncologists on sixteen peripheral lung tumours: 2.1 mm, root mean square of the local standard
deviation across the median surface, and 1.2 and 1.8 mm within institutes (Peulen et al., Radiother Oncol 114, 2015,
doi:10.1016/j.radonc.2015.02.011). Seven on ten primary tumours of any place: 2.6 to 3.3 mm (Mercieca et al., Radiother
Oncol 126, 2018).
"""

MOST_CONTOUR_MM: Final = 10

AGREEING: Final = 0.9
"""Share of the versions that must be answered alike for an answer to be called robust."""

NotRobust = Literal["warn", "indeterminate"]
"""What an answer becomes that is not robust: one with a warning, or none."""


@dataclass(frozen=True, slots=True)
class RobustnessOptions:
    """What a site wants to know of it.

    Attributes
    ----------
    perturbations
        How many perturbed versions are made; 0 asks for none, and nothing is said of robustness.
    contour_mm
        Standard deviation (mm) of the distances between contours of different hands.
    not_robust
        What an answer becomes that is not robust.
    """

    perturbations: int = PERTURBATIONS
    contour_mm: float = CONTOUR_MM
    not_robust: NotRobust = "warn"

    @property
    def reach_mm(self) -> float:
        """How far at most a contour is moved: two standard deviations; 0 where nothing is asked."""
        return 2.0 * self.contour_mm if self.perturbations else 0.0


NO_ROBUSTNESS: Final = RobustnessOptions(perturbations=0)


class LeftOut(StrEnum):
    """Why a version was not measured."""

    SLICES = "slices"  # it reaches beyond the slices that are there
    EDGE = "edge"  # it reaches beyond the edge of the slices
    UNMEASURED = "unmeasured"  # it reaches pixels that the scanner filled in
    TOO_SMALL = "too_small"  # what is left of the region cannot be measured


class Unknown(StrEnum):
    """Why nothing can be said of robustness."""

    ONE_SLICE = "one_slice"  # the region lies on one slice
    TOO_SMALL = "too_small"  # a step of one voxel is more than contours of different hands lie apart
    FLAT = "flat"  # all of its voxels have one value
    TOO_FEW = "too_few"  # most versions could not be measured


@dataclass(frozen=True, slots=True)
class Robustness:
    """What became of the answer in perturbed versions of the case.

    Attributes
    ----------
    asked
        Versions that were asked for.
    perturbations
        Versions that were measured and answered.
    range
        2.5th and 97.5th percentile of their probabilities of the positive class, at the prevalence in force, widened to
        hold the unperturbed one; None where it is not known.
    agreement
        Share of them with the unperturbed answer, in [0, 1]; None where it is not known.
    features
        Coefficient of variation of each feature: standard deviation over the mean's magnitude; None where the mean
        may be zero, or the feature could not be computed of most versions.
    left_out
        How many versions were not measured, by the reason.
    fewer
        Versions that were not made because the region is so large that they would take too long.
    contour_mm
        Standard deviation (mm) by which contours were moved: that asked for, or less for a small tumour.
    noise_hu
        Noise that was measured in the image and added to some versions; None where it could not be measured.
    unknown
        Why nothing can be said; None where it can.
    slices
        How many slices before and behind the reference volume the versions could use.
    withheld
        Whether an answer was withheld for it.
    """

    asked: int
    perturbations: int = 0
    range: tuple[float, float] | None = None
    agreement: float | None = None
    features: Mapping[str, float | None] = field(default_factory=lambda: MappingProxyType({}))
    left_out: Mapping[LeftOut, int] = field(default_factory=lambda: MappingProxyType({}))
    fewer: int = 0
    contour_mm: float = 0.0
    noise_hu: float | None = None
    unknown: Unknown | None = None
    slices: tuple[int, int] = (0, 0)
    withheld: bool = False

    @property
    def is_robust(self) -> bool | None:
        """Whether enough versions are answered alike; None where that is not known."""
        return None if self.agreement is None else self.agreement >= AGREEING

    def as_dict(self) -> dict[str, Any]:
        """Write it as plain data; every key is there, null where unknown."""
        return {
            "range": None if self.range is None else list(self.range),
            "agreement": self.agreement,
            "robust": self.is_robust,
            "code": str(ReasonCode.ANSWER_NOT_ROBUST) if self.is_robust is False else None,
            "perturbations": self.perturbations,
            "withheld": self.withheld,
            "asked": self.asked,
            "fewer": self.fewer,
            "left_out": {str(why): count for why, count in self.left_out.items()},
            "unknown": None if self.unknown is None else str(self.unknown),
            "contour_mm": self.contour_mm,
            "noise_hu": self.noise_hu,
            "features": dict(self.features),
        }
