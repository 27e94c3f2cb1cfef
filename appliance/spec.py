"""The contract between the three packages: what is measured, and what an answer is.

Everything here is a frozen value without behaviour that touches a disk, so training, export and the
appliance can share it and none of them can drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.errors import ReasonCode, Refused

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

# B-spline coefficients are the answer of a recursive filter over the whole line of voxels, so a slice far
# from the ROI still has a say; 16 slices leave no difference that a double can hold (docs/decisions.md).
_MARGIN_SLICES = {"sitkNearestNeighbor": 1, "sitkLinear": 1, "sitkBSpline": 16}

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
        (see :func:`appliance.radiomics.parameters.parse`).
    """

    features: tuple[str, ...]
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in ALL_FEATURES]
        if unknown:
            raise Refused(ReasonCode.SPEC_UNSUPPORTED, f"The extraction spec names unknown features: {unknown}.")
        if not self.features or len(set(self.features)) != len(self.features):
            raise Refused(ReasonCode.SPEC_UNSUPPORTED, "The extraction spec must name each feature exactly once.")
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    @property
    def resampled_spacing(self) -> tuple[float, float, float] | None:
        """Target voxel spacing (x, y, z) in mm, or None where nothing is resampled."""
        spacing = self.settings.get("resampledPixelSpacing")
        return None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2]))

    @property
    def margin_slices(self) -> int:
        """Slices beyond the ROI, at either end, that the resampler needs."""
        if self.resampled_spacing is None:
            return 0
        return _MARGIN_SLICES[self.settings.get("interpolator", "sitkBSpline")]


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


class Stage(StrEnum):
    """The predicted stage group; ``indeterminate`` where the evidence does not single one out."""

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
    outside
        Features whose value lies outside the range seen in training.
    """

    distance: float
    outside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StagingResult:
    """The model's answer for one region of interest.

    Attributes
    ----------
    stage
        Predicted stage group.
    probability_advanced
        Calibrated probability of advanced stage, at the training prevalence, in [0, 1].
    contributions
        Signed contribution of each feature in logit units; their sum is the logit minus the logit of the
        training median.
    domain
        Distance to the training cohort.
    """

    stage: Stage
    probability_advanced: float
    contributions: Mapping[str, float]
    domain: DomainAssessment
