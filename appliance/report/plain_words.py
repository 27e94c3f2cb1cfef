"""Plain words for every feature: what a large and a small value of it mean.

The words only compare ("rounder than most"): the position of the value in the training cohort is known, its meaning for
a patient is not. Features that measure nearly the same share their words; their technical names are shown beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lungstage.appliance.contract.spec import ALL_FEATURES


@dataclass(frozen=True, slots=True)
class Quality:
    """Codes of two comparatives for a feature (``quality.…`` in the catalogues).

    Attributes
    ----------
    high, low
        Words for a tumour with a larger, and with a smaller value.
    """

    high: str
    low: str


_ELONGATION = Quality("less_elongated", "more_elongated")
_FLATNESS = Quality("less_flat", "flatter")
_THICKNESS = Quality("thicker", "thinner")
_LENGTH = Quality("longer", "shorter")
_BREADTH = Quality("broader", "narrower")
_DIAMETER = Quality("wider", "less_wide")
_SIZE = Quality("larger", "smaller")
_ROUNDNESS = Quality("rounder", "less_round")
_SURFACE = Quality("more_surface", "less_surface")
_SURFACE_PER_VOLUME = Quality("more_surface_for_volume", "less_surface_for_volume")
_DENSITY = Quality("denser", "less_dense")
_LOWEST = Quality("lowest_denser", "lowest_less_dense")
_HIGHEST = Quality("highest_denser", "highest_less_dense")
_MAGNITUDE = Quality("further_from_water", "nearer_to_water")
_SPREAD = Quality("more_varied", "more_uniform")
_UNIFORMITY = Quality("more_uniform", "more_varied")
_EXTREMES = Quality("more_extremes", "fewer_extremes")
_SKEW = Quality("dense_tail", "thin_tail")
_ROUGHNESS = Quality("rougher", "smoother")
_SMOOTHNESS = Quality("smoother", "rougher")
_DISORDER = Quality("more_disordered", "more_orderly")
_ORDER = Quality("more_orderly", "more_disordered")
_COHERENCE = Quality("more_coherent", "less_coherent")
_INCOHERENCE = Quality("less_coherent", "more_coherent")
_DENSE_PATCHES = Quality("more_dense_patches", "fewer_dense_patches")
_THIN_PATCHES = Quality("more_thin_patches", "fewer_thin_patches")
_UNEVENNESS = Quality("more_uneven", "more_even")
_REGULARITY = Quality("more_regular", "less_regular")
_COARSENESS = Quality("coarser", "finer")
_FINENESS = Quality("finer", "coarser")
_BUSYNESS = Quality("busier", "calmer")
_STRENGTH = Quality("more_distinct", "less_distinct")

_BY_NAME: Mapping[str, Quality] = {
    # shape
    "Elongation": _ELONGATION, "Flatness": _FLATNESS, "LeastAxisLength": _THICKNESS, "MajorAxisLength": _LENGTH,
    "MinorAxisLength": _BREADTH, "Maximum2DDiameterColumn": _DIAMETER, "Maximum2DDiameterRow": _DIAMETER,
    "Maximum2DDiameterSlice": _DIAMETER, "Maximum3DDiameter": _DIAMETER, "MeshVolume": _SIZE,
    "Sphericity": _ROUNDNESS, "SurfaceArea": _SURFACE, "SurfaceVolumeRatio": _SURFACE_PER_VOLUME,
    # firstorder
    "10Percentile": _LOWEST, "Minimum": _LOWEST, "90Percentile": _HIGHEST, "Maximum": _HIGHEST,
    "Mean": _DENSITY, "Median": _DENSITY, "RootMeanSquared": _MAGNITUDE, "Energy": _MAGNITUDE,
    "TotalEnergy": _MAGNITUDE, "Entropy": _SPREAD, "InterquartileRange": _SPREAD, "MeanAbsoluteDeviation": _SPREAD,
    "Range": _SPREAD, "RobustMeanAbsoluteDeviation": _SPREAD, "Variance": _SPREAD, "Uniformity": _UNIFORMITY,
    "Kurtosis": _EXTREMES, "Skewness": _SKEW,
    # glcm, and ngtdm's own Contrast
    "Autocorrelation": _DENSE_PATCHES, "ClusterProminence": _SPREAD, "ClusterShade": _SKEW,
    "ClusterTendency": _SPREAD, "Contrast": _ROUGHNESS, "Correlation": _COHERENCE, "DifferenceAverage": _ROUGHNESS,
    "DifferenceEntropy": _ROUGHNESS, "DifferenceVariance": _ROUGHNESS, "Id": _SMOOTHNESS, "Idm": _SMOOTHNESS,
    "Idmn": _SMOOTHNESS, "Idn": _SMOOTHNESS, "Imc1": _INCOHERENCE,  # negative, the more so the more coherent
    "Imc2": _COHERENCE, "InverseVariance": _SMOOTHNESS, "JointAverage": _DENSE_PATCHES, "JointEnergy": _ORDER,
    "JointEntropy": _DISORDER, "MCC": _COHERENCE, "MaximumProbability": _ORDER, "SumAverage": _DENSE_PATCHES,
    "SumEntropy": _DISORDER, "SumSquares": _SPREAD,
    # gldm, glrlm, glszm
    "DependenceEntropy": _DISORDER, "DependenceNonUniformity": _UNEVENNESS,
    "DependenceNonUniformityNormalized": _REGULARITY, "DependenceVariance": _COARSENESS,
    "GrayLevelNonUniformity": _UNEVENNESS, "GrayLevelNonUniformityNormalized": _UNIFORMITY,
    "GrayLevelVariance": _SPREAD, "HighGrayLevelEmphasis": _DENSE_PATCHES, "LargeDependenceEmphasis": _COARSENESS,
    "LargeDependenceHighGrayLevelEmphasis": _DENSE_PATCHES, "LargeDependenceLowGrayLevelEmphasis": _THIN_PATCHES,
    "LowGrayLevelEmphasis": _THIN_PATCHES, "SmallDependenceEmphasis": _FINENESS,
    "SmallDependenceHighGrayLevelEmphasis": _DENSE_PATCHES, "SmallDependenceLowGrayLevelEmphasis": _THIN_PATCHES,
    "HighGrayLevelRunEmphasis": _DENSE_PATCHES, "LongRunEmphasis": _COARSENESS,
    "LongRunHighGrayLevelEmphasis": _DENSE_PATCHES, "LongRunLowGrayLevelEmphasis": _THIN_PATCHES,
    "LowGrayLevelRunEmphasis": _THIN_PATCHES, "RunEntropy": _DISORDER, "RunLengthNonUniformity": _UNEVENNESS,
    "RunLengthNonUniformityNormalized": _REGULARITY, "RunPercentage": _FINENESS, "RunVariance": _COARSENESS,
    "ShortRunEmphasis": _FINENESS, "ShortRunHighGrayLevelEmphasis": _DENSE_PATCHES,
    "ShortRunLowGrayLevelEmphasis": _THIN_PATCHES, "HighGrayLevelZoneEmphasis": _DENSE_PATCHES,
    "LargeAreaEmphasis": _COARSENESS, "LargeAreaHighGrayLevelEmphasis": _DENSE_PATCHES,
    "LargeAreaLowGrayLevelEmphasis": _THIN_PATCHES, "LowGrayLevelZoneEmphasis": _THIN_PATCHES,
    "SizeZoneNonUniformity": _UNEVENNESS, "SizeZoneNonUniformityNormalized": _REGULARITY,
    "SmallAreaEmphasis": _FINENESS, "SmallAreaHighGrayLevelEmphasis": _DENSE_PATCHES,
    "SmallAreaLowGrayLevelEmphasis": _THIN_PATCHES, "ZoneEntropy": _DISORDER, "ZonePercentage": _FINENESS,
    "ZoneVariance": _COARSENESS,
    # ngtdm
    "Busyness": _BUSYNESS, "Coarseness": _COARSENESS, "Complexity": _ROUGHNESS, "Strength": _STRENGTH,
}  # fmt: skip

QUALITIES: Final[Mapping[str, Quality]] = MappingProxyType(
    {feature: _BY_NAME[feature.rpartition("_")[2]] for feature in ALL_FEATURES}
)
"""Comparatives of each of the 106 features, by PyRadiomics name."""


def technical_name(feature: str) -> str:
    """Return the technical name: ``Sphericity (shape)`` for ``original_shape_Sphericity``; covariates stay."""
    group, _, name = feature.removeprefix("original_").partition("_")
    return f"{name} ({group})" if name else feature


def short_names(features: Sequence[str], among: Sequence[str]) -> list[str]:
    """Name features without their class (``Sphericity``), except if two of `among` would have the same name."""
    rest = [technical_name(feature).partition(" ")[0] for feature in among]
    named = ((technical_name(feature), technical_name(feature).partition(" ")[0]) for feature in features)
    return [short if rest.count(short) < 2 else full for full, short in named]


def degree(share: float) -> str:
    """Return the code of a value's distance from the middle of the training cohort (``degree.…`` in the catalogues).

    Parameters
    ----------
    share
        Share of the training cohort with a smaller value; below 0 or above 1 if the value is outside its range.
    """
    beyond = abs(share - 0.5)
    if beyond > 0.5:
        return "any"
    if beyond >= 0.45:
        return "almost_all"
    return "most" if beyond >= 0.25 else "half"
