"""Types that the three packages share: what is measured, and what an answer is.

All types here are frozen values, and nothing here reads or writes a disk. Training, export and the appliance use the
same types, so they cannot disagree.
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
"""The default features of PyRadiomics 3.0.1 without ``shape_VoxelVolume``, which repeats MeshVolume."""

ALL_FEATURES: tuple[str, ...] = tuple(
    f"original_{group}_{name}" for group, names in FEATURE_NAMES_BY_CLASS.items() for name in names
)
"""The 106 features, under PyRadiomics' own names."""

SUPPORTED_INTERPOLATORS = ("sitkNearestNeighbor", "sitkLinear", "sitkBSpline")
_DEFAULT_INTERPOLATOR = "sitkBSpline"  # PyRadiomics' own

# B-spline coefficients come from a recursive filter over the whole line of voxels. So a slice far from the ROI
# still has an influence; beyond 16 slices it is smaller than the precision of a double (docs/decisions.md).
_MARGIN_SLICES = {"sitkNearestNeighbor": 1, "sitkLinear": 1, "sitkBSpline": 16}

Engine = Literal["compiled", "reference"]
"""What computes the features: lungstage's kernels, or PyRadiomics' classes. The results agree to 1e-9 relative."""

Grid = Literal["pyradiomics", "ibsi"]
"""How images are processed before features are computed: as in PyRadiomics, or as in the manual of IBSI."""

DEFAULT_SETTINGS: Mapping[str, Any] = MappingProxyType({"binWidth": 25.0})


@dataclass(frozen=True, slots=True)
class ExtractionSpec:
    """The features to measure, and the PyRadiomics settings for them.

    Attributes
    ----------
    features
        Names from :data:`ALL_FEATURES`, in the order in which values are reported.
    settings
        PyRadiomics settings under PyRadiomics' keys; only those that lungstage supports
        (see :func:`radiomics.parameters.parse`).
    engine
        What computes the features. It is not part of a parameter file, because it does not change the numbers.
    grid
        ``pyradiomics``, or ``ibsi`` (:mod:`radiomics.ibsi`) for comparisons with IBSI's values. It is not part of a
        parameter file, because PyRadiomics has no such setting. So a bundle never has it.

    Raises
    ------
    Refused
        ``spec_unsupported``: a feature is unknown or named twice, or the grid does not support a setting.
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
                f"The extraction spec contains unknown features: {unknown}. Use the names of PyRadiomics, "
                "for example original_firstorder_Mean.",
            )
        if not self.features or len(set(self.features)) != len(self.features):
            raise Refused(
                ReasonCode.SPEC_UNSUPPORTED,
                "The extraction spec must contain at least one feature, and each feature only once. Add or delete "
                "features.",
            )
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        if misfit := self._misfit():
            raise Refused(ReasonCode.SPEC_UNSUPPORTED, f"The extraction spec's {misfit}.")

    def _misfit(self) -> str | None:
        """Name the setting that the grid does not support, and why; None if it supports all."""
        resegmented = self.resegmentation is not None
        if self.grid == "pyradiomics":
            # PyRadiomics cuts the shape to the box of what remains after re-segmentation (test_ibsi_grid.py).
            return "setting 'resegmentRange' is supported on the IBSI grid only (--grid ibsi)" if resegmented else None
        interpolator = self.settings.get("interpolator", _DEFAULT_INTERPOLATOR)
        if self.resampled_spacing is not None and interpolator != "sitkLinear":
            return f"interpolator is {interpolator}, but the IBSI grid supports sitkLinear only"
        if resegmented and "binCount" not in self.settings and self.engine == "reference":
            return (
                "setting 'resegmentRange' needs 'binCount' in the reference engine: on the IBSI grid, bins start there"
            )
        return None

    @property
    def resampled_spacing(self) -> tuple[float, float, float] | None:
        """Target voxel spacing (x, y, z) in mm, or None without resampling."""
        spacing = self.settings.get("resampledPixelSpacing")
        return None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2]))

    @property
    def resegmentation(self) -> tuple[float, float] | None:
        """Lowest and highest HU that are used for all features except shape, or None if all HU are used."""
        limits = self.settings.get("resegmentRange")
        return None if limits is None else (float(min(limits)), float(max(limits)))

    @property
    def margin_slices(self) -> int:
        """Number of slices beyond each end of the ROI that the resampler needs."""
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
        (n,) float64; NaN if a feature could not be computed.
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
    """What a model predicts: one of two classes. The model gives the probability of the second.

    Attributes
    ----------
    name
        Name of what is predicted, e.g. ``stage``.
    negative, positive
        Names of the two classes, e.g. ``early`` and ``advanced``.
    """

    name: str
    negative: str
    positive: str

    def answer(self, stage: Stage) -> str:
        """Name of the class of an answer, or ``indeterminate``."""
        return {Stage.EARLY: self.negative, Stage.ADVANCED: self.positive}.get(stage, str(stage))


STAGE_GROUP = Endpoint("stage", "early", "advanced")
"""The main endpoint of lungstage; a bundle names any other endpoint."""


@dataclass(frozen=True, slots=True)
class Covariate:
    """A clinical input of a model in addition to the radiomic features.

    Attributes
    ----------
    name
        ``age`` (years), ``sex`` or ``histology``.
    levels
        Levels of a category in order, the first is the reference; empty for a number.
    """

    name: str
    levels: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its inputs of the network: one for a number, else one for each level except the first."""
        return tuple(f"{self.name}={level}" for level in self.levels[1:]) if self.levels else (self.name,)

    def encode(self, value: float | str | None) -> tuple[float, ...]:
        """Encode one value into :attr:`columns`; all NaN if it is missing or its level is unknown."""
        if not self.levels:
            return (float("nan") if value is None else float(value),)
        if value not in self.levels:
            return (float("nan"),) * (len(self.levels) - 1)
        return tuple(float(value == level) for level in self.levels[1:])


COVARIATES = ("age", "sex", "histology")
"""The covariates that a model may use. T, N and M are not allowed, because they define the stage."""


class Stage(StrEnum):
    """The predicted stage group; ``indeterminate`` if the evidence does not support a single one.

    A model of another endpoint uses the same three values: ``early`` means its negative class and ``advanced`` its
    positive class. :meth:`Endpoint.answer` gives their names.
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
        Features with a value outside the range of the training cohort.
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
        Signed contribution of each feature, and of each covariate if the model uses any, in logit units. Their sum is
        the logit at the training prevalence minus the logit of the training median.
    domain
        Distance to the training cohort.
    prevalence
        The site's prevalence to which the probability was corrected; None if it holds at the training prevalence.
    answering
        What is answered at the prevalence in force, and how often that is right; None if it was not requested.
    robustness
        How far the answer depends on contour and scan; None if it was not requested.
    """

    stage: Stage
    probability_advanced: float
    contributions: Mapping[str, float]
    domain: DomainAssessment
    prevalence: float | None = None
    answering: Answering | None = None
    robustness: Robustness | None = None
