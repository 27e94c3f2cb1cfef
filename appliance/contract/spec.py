"""The contract between the three packages: what is measured, and what an answer is.

Everything here is a frozen value without behaviour that touches a disk, so training, export and the
appliance can share it and none of them can drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.evidence import Answering
from lungstage.appliance.contract.robustness import Robustness

FEATURE_NAMES_BY_CLASS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "shape": (
            "Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength", "Maximum2DDiameterColumn",
            "Maximum2DDiameterRow", "Maximum2DDiameterSlice", "Maximum3DDiameter", "MeshVolume",
            "MinorAxisLength", "Sphericity", "SurfaceArea", "SurfaceVolumeRatio",
        ),
        "firstorder": (
            "10Percentile", "90Percentile", "Energy", "Entropy", "InterquartileRange", "Kurtosis", "Maximum",
            "MeanAbsoluteDeviation", "Mean", "Median", "Minimum", "Range", "RobustMeanAbsoluteDeviation",
            "RootMeanSquared", "Skewness", "TotalEnergy", "Uniformity", "Variance",
        ),
        "glcm": (
            "Autocorrelation", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast", "Correlation",
            "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "Id", "Idm", "Idmn", "Idn", "Imc1",
            "Imc2", "InverseVariance", "JointAverage", "JointEnergy", "JointEntropy", "MCC", "MaximumProbability",
            "SumAverage", "SumEntropy", "SumSquares",
        ),
        "gldm": (
            "DependenceEntropy", "DependenceNonUniformity", "DependenceNonUniformityNormalized",
            "DependenceVariance", "GrayLevelNonUniformity", "GrayLevelVariance", "HighGrayLevelEmphasis",
            "LargeDependenceEmphasis", "LargeDependenceHighGrayLevelEmphasis",
            "LargeDependenceLowGrayLevelEmphasis", "LowGrayLevelEmphasis", "SmallDependenceEmphasis",
            "SmallDependenceHighGrayLevelEmphasis", "SmallDependenceLowGrayLevelEmphasis",
        ),
        "glrlm": (
            "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance",
            "HighGrayLevelRunEmphasis", "LongRunEmphasis", "LongRunHighGrayLevelEmphasis",
            "LongRunLowGrayLevelEmphasis", "LowGrayLevelRunEmphasis", "RunEntropy", "RunLengthNonUniformity",
            "RunLengthNonUniformityNormalized", "RunPercentage", "RunVariance", "ShortRunEmphasis",
            "ShortRunHighGrayLevelEmphasis", "ShortRunLowGrayLevelEmphasis",
        ),
        "glszm": (
            "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance",
            "HighGrayLevelZoneEmphasis", "LargeAreaEmphasis", "LargeAreaHighGrayLevelEmphasis",
            "LargeAreaLowGrayLevelEmphasis", "LowGrayLevelZoneEmphasis", "SizeZoneNonUniformity",
            "SizeZoneNonUniformityNormalized", "SmallAreaEmphasis", "SmallAreaHighGrayLevelEmphasis",
            "SmallAreaLowGrayLevelEmphasis", "ZoneEntropy", "ZonePercentage", "ZoneVariance",
        ),
        "ngtdm": ("Busyness", "Coarseness", "Complexity", "Contrast", "Strength"),
    }
)  # fmt: skip
"""PyRadiomics 3.0.1's default features, less ``shape_VoxelVolume``, which MeshVolume says again."""

ALL_FEATURES: tuple[str, ...] = tuple(
    f"original_{group}_{name}" for group, names in FEATURE_NAMES_BY_CLASS.items() for name in names
)
"""The 106 features, under PyRadiomics' own names."""

SUPPORTED_INTERPOLATORS = ("sitkNearestNeighbor", "sitkLinear", "sitkBSpline")
_DEFAULT_INTERPOLATOR = "sitkBSpline"  # PyRadiomics' own

# B-spline coefficients are the answer of a recursive filter over the whole line of voxels, so a slice far
# from the ROI still has a say; 16 slices leave no difference that a double can hold (docs/decisions.md).
_MARGIN_SLICES = {"sitkNearestNeighbor": 1, "sitkLinear": 1, "sitkBSpline": 16}

Engine = Literal["compiled", "reference"]
"""What computes the features: our kernels, or PyRadiomics' own classes. The same numbers, to 1e-9 relative."""

Grid = Literal["pyradiomics", "ibsi"]
"""How images are processed before features are computed: as PyRadiomics does it, or as IBSI's manual has it."""

DEFAULT_SETTINGS: Mapping[str, Any] = MappingProxyType({"binWidth": 25.0})


@dataclass(frozen=True, slots=True)
class ExtractionSpec:
    """Which features to measure, and the PyRadiomics settings to measure them with.

    Attributes
    ----------
    features
        Names out of :data:`ALL_FEATURES`, in the order in which values are reported.
    settings
        PyRadiomics settings under PyRadiomics' own keys; only those that lungstage supports
        (see :func:`radiomics.parameters.parse`).
    engine
        What computes them; no part of a parameter file, since it changes no number.
    grid
        ``pyradiomics``, or ``ibsi`` (:mod:`radiomics.ibsi`) for comparisons with IBSI's own values. No part
        of a parameter file, since PyRadiomics knows no such grid; so never a bundle's.

    Raises
    ------
    Refused
        ``spec_unsupported``: an unknown feature or one named twice, or a setting that the grid does not have.
    """

    features: tuple[str, ...]
    settings: Mapping[str, Any]
    engine: Engine = "compiled"
    grid: Grid = "pyradiomics"

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in ALL_FEATURES]
        if unknown:
            raise Refused(
                ReasonCode.SPEC_UNSUPPORTED,
                f"The extraction spec names unknown features: {unknown}. Write them as PyRadiomics does, "
                "for example original_firstorder_Mean.",
            )
        if not self.features or len(set(self.features)) != len(self.features):
            raise Refused(
                ReasonCode.SPEC_UNSUPPORTED,
                "The extraction spec must name at least one feature, and each exactly once. Add or delete features.",
            )
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        if misfit := self._misfit():
            raise Refused(ReasonCode.SPEC_UNSUPPORTED, f"The extraction spec's {misfit}.")

    def _misfit(self) -> str | None:
        """Name the setting that the grid cannot honour, and say why; None where it can honour all."""
        resegmented = self.resegmentation is not None
        if self.grid == "pyradiomics":
            # PyRadiomics cuts the shape to the box of what re-segmentation leaves (test_ibsi_grid.py).
            return "setting 'resegmentRange' is supported on the IBSI grid only" if resegmented else None
        interpolator = self.settings.get("interpolator", _DEFAULT_INTERPOLATOR)
        if self.resampled_spacing is not None and interpolator != "sitkLinear":
            return f"interpolator is {interpolator}, but the IBSI grid is supported with sitkLinear only"
        if resegmented and "binCount" not in self.settings and self.engine == "reference":
            return "setting 'resegmentRange' is where IBSI's bins start, which needs 'binCount' in the reference engine"
        return None

    @property
    def resampled_spacing(self) -> tuple[float, float, float] | None:
        """Target voxel spacing (x, y, z) in mm, or None where nothing is resampled."""
        spacing = self.settings.get("resampledPixelSpacing")
        return None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2]))

    @property
    def resegmentation(self) -> tuple[float, float] | None:
        """Lowest and highest HU that count for every feature but shape, or None where all do."""
        limits = self.settings.get("resegmentRange")
        return None if limits is None else (float(min(limits)), float(max(limits)))

    @property
    def margin_slices(self) -> int:
        """Slices beyond the ROI, at either end, that the resampler needs."""
        if self.resampled_spacing is None:
            return 0
        return _MARGIN_SLICES[self.settings.get("interpolator", _DEFAULT_INTERPOLATOR)]


@dataclass(frozen=True, slots=True)
class FeatureVector:
    """Measured features, in the spec's order.

    Attributes
    ----------
    names
        PyRadiomics names.
    values
        (n,) float64; NaN where a feature could not be computed.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float64]

    def as_dict(self) -> dict[str, float | None]:
        """Values by name, None for a feature that could not be computed."""
        return {
            name: float(value) if np.isfinite(value) else None
            for name, value in zip(self.names, self.values, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a model tells apart: two classes, of which the model states the probability of the second.

    Attributes
    ----------
    name
        Of what is predicted, e.g. ``stage``.
    negative, positive
        Names of the two classes, e.g. ``early`` and ``advanced``.
    """

    name: str
    negative: str
    positive: str

    def answer(self, stage: Stage) -> str:
        """Name of the class that an answer stands for, or ``indeterminate``."""
        return {Stage.EARLY: self.negative, Stage.ADVANCED: self.positive}.get(stage, str(stage))


STAGE_GROUP = Endpoint("stage", "early", "advanced")
"""The endpoint that lungstage is made for; every other one is named by its bundle."""


@dataclass(frozen=True, slots=True)
class Covariate:
    """A clinical input of a model beside the radiomic features.

    Attributes
    ----------
    name
        ``age`` (years), ``sex`` or ``histology``.
    levels
        Of a category, the levels in order, the first being the reference; empty for a number.
    """

    name: str
    levels: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the network's inputs that stand for it: one for a number, one per level but the first."""
        return tuple(f"{self.name}={level}" for level in self.levels[1:]) if self.levels else (self.name,)

    def encode(self, value: float | str | None) -> tuple[float, ...]:
        """Encode one value into :attr:`columns`; NaN throughout where it is missing or of no known level."""
        if not self.levels:
            return (float("nan") if value is None else float(value),)
        if value not in self.levels:
            return (float("nan"),) * (len(self.levels) - 1)
        return tuple(float(value == level) for level in self.levels[1:])


COVARIATES = ("age", "sex", "histology")
"""The covariates that a model may take; T, N and M are never among them, because they are the stage."""


class Stage(StrEnum):
    """The predicted stage group; ``indeterminate`` where the evidence does not single one out.

    A model of another endpoint answers in the same three values: ``early`` stands for its negative class and
    ``advanced`` for its positive one, and :meth:`Endpoint.answer` says what they are called.
    """

    EARLY = "early"
    ADVANCED = "advanced"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True, slots=True)
class DomainAssessment:
    """How far a case lies from the training cohort.

    Attributes
    ----------
    distance
        Shrinkage-Mahalanobis distance to the training cohort, in standard deviations.
    neighbour_distance
        Distance to the nearest training tumours (:mod:`training.model.domain`), in standard deviations per feature.
    outside
        Features whose value lies outside the range seen in training.
    """

    distance: float
    neighbour_distance: float
    outside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StagingResult:
    """The model's answer for one region of interest.

    Attributes
    ----------
    stage
        Predicted stage group.
    probability_advanced
        Calibrated probability of advanced stage, in [0, 1], at :attr:`prevalence`.
    contributions
        Signed contribution of each feature, and of each covariate where the model takes any, in logit units; their
        sum is the logit, at the training prevalence, minus the logit of the training median.
    domain
        Distance to the training cohort.
    prevalence
        The site's prevalence that the probability was corrected to; None where it holds at the training prevalence.
    answering
        What is answered at the prevalence in force, and how often that is right; None where nobody asked.
    robustness
        How far the answer depends on contour and scan; None where nobody asked.
    """

    stage: Stage
    probability_advanced: float
    contributions: Mapping[str, float]
    domain: DomainAssessment
    prevalence: float | None = None
    answering: Answering | None = None
    robustness: Robustness | None = None
