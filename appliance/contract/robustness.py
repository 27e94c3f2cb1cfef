"""How far an answer depends on who drew the contour: the options of a site, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal

from lungstage.appliance.contract.errors import ReasonCode

PERTURBATIONS: Final = 30
"""Number of perturbed versions of a case, if a site does not set another number."""

MOST_PERTURBATIONS: Final = 1000

CONTOUR_MM: Final = 2.1
"""Distance between contours of different people, as a standard deviation in mm.

Eleven radiation oncologists and sixteen peripheral lung tumours: 2.1 mm, the root mean square of the local standard
deviation over the median surface; within institutes 1.2 and 1.8 mm (Peulen et al., Radiother Oncol 114, 2015,
doi:10.1016/j.radonc.2015.02.011). Seven observers and ten primary tumours at any site: 2.6 to 3.3 mm (Mercieca et al.,
Radiother Oncol 126, 2018).
"""

MOST_CONTOUR_MM: Final = 10

AGREEING: Final = 0.9
"""Share of the versions that must have the same answer if the answer is called robust."""

NotRobust = Literal["warn", "indeterminate"]
"""What happens to an answer that is not robust: a warning is added, or no answer is given."""


@dataclass(frozen=True, slots=True)
class RobustnessOptions:
    """The robustness options of a site.

    Attributes
    ----------
    perturbations
        Number of perturbed versions; with 0 there are none, and robustness is not reported.
    contour_mm
        Standard deviation (mm) of the distances between contours of different people.
    not_robust
        What happens to an answer that is not robust.
    """

    perturbations: int = PERTURBATIONS
    contour_mm: float = CONTOUR_MM
    not_robust: NotRobust = "warn"

    @property
    def reach_mm(self) -> float:
        """Largest distance that a contour is moved: two standard deviations; 0 without perturbed versions."""
        return 2.0 * self.contour_mm if self.perturbations else 0.0


NO_ROBUSTNESS: Final = RobustnessOptions(perturbations=0)


class LeftOut(StrEnum):
    """Why a version was not measured."""

    SLICES = "slices"  # it extends beyond the available slices
    EDGE = "edge"  # it extends beyond the edge of the slices
    UNMEASURED = "unmeasured"  # it contains pixels that the scanner filled in
    TOO_SMALL = "too_small"  # the remaining region is too small to measure


class Unknown(StrEnum):
    """Why robustness is not known."""

    ONE_SLICE = "one_slice"  # the region lies on one slice
    TOO_SMALL = "too_small"  # one voxel is larger than the distance between contours of different people
    FLAT = "flat"  # all of its voxels have the same value
    TOO_FEW = "too_few"  # most versions could not be measured
    OFF = "off"  # it was not tested


@dataclass(frozen=True, slots=True)
class Robustness:
    """The answers for the perturbed versions of a case.

    Attributes
    ----------
    asked
        Number of requested versions.
    perturbations
        Number of versions that were measured and answered.
    range
        2.5th and 97.5th percentile of their probabilities of the positive class, at the prevalence in force. The range
        is widened to include the probability of the unperturbed case. None if it is not known.
    agreement
        Share of them with the same answer as the unperturbed case, in [0, 1]; None if it is not known.
    features
        Coefficient of variation of each feature: standard deviation divided by the absolute mean. None if the mean may
        be zero, or if the feature could not be computed for most versions.
    left_out
        Number of versions that were not measured, by reason.
    fewer
        Number of versions that were not made because the region is large and they would take too long.
    contour_mm
        Standard deviation (mm) by which contours were moved: the requested value, or less for a small tumour.
    noise_hu
        Noise that was measured in the image and added to some versions; None if it could not be measured.
    unknown
        Why robustness is not known; None if it is known.
    slices
        Number of slices before and behind the reference volume that the versions could use.
    withheld
        Whether the answer was withheld because it is not robust.
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
        """Whether enough versions have the same answer; None if that is not known."""
        return None if self.agreement is None else self.agreement >= AGREEING

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data with all keys; unknown values are null."""
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
