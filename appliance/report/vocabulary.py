"""Codes of each feature: its unit, its IBSI identifier and its concept in a DICOM measurement.

IBSI (Image Biomarker Standardisation Initiative, Zwanenburg et al., Radiology 2020, doi:10.1148/radiol.2020191145;
reference manual arXiv:1612.07003) gives every feature a permanent four-character identifier. DICOM PS3.16 uses the
identifiers of shape, histogram and texture features as codes of scheme ``IBSI`` (CIDs 7467, 7475, 7476, 7477, 7478,
7500 and 7501). It does not use those of the intensity statistics (IBSI section 3.3): these are written as (112031, DCM,
Attenuation Coefficient) with a Derivation of CID 7464. Features that have no code in DICOM are in the private scheme
``99LUNGSTAGE``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from lungstage.appliance.contract.spec import ALL_FEATURES, FEATURE_NAMES_BY_CLASS, Stage

PRIVATE_SCHEME = "99LUNGSTAGE"

HOUNSFIELD = "[hnsf'U]"

UNIT_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "1": "no units",
        "%": "percent",
        "mm": "millimeter",
        "mm2": "square millimeter",
        "mm3": "cubic millimeter",
        "/mm": "per millimeter",
        HOUNSFIELD: "Hounsfield unit",
        f"{HOUNSFIELD}2": "square Hounsfield unit",
        f"{HOUNSFIELD}/mm": "Hounsfield unit per millimeter",
        f"mm3.{HOUNSFIELD}2": "cubic millimeter square Hounsfield unit",
    }
)
"""The UCUM units in use, with their code meanings."""


@dataclass(frozen=True, slots=True)
class FeatureConcept:
    """Codes of one feature.

    Attributes
    ----------
    unit
        UCUM code.
    ibsi
        IBSI identifier; None if IBSI does not define the feature, or PyRadiomics computes another quantity.
    concept
        Concept name of the measurement.
    derivation
        Value of the measurement's Derivation (121401, DCM); None if the concept is sufficient.
    note
        What a reader must know in addition to the codes; may be empty.
    """

    unit: str
    ibsi: str | None
    concept: Code
    derivation: Code | None = None
    note: str = ""


def unit_code(unit: str) -> Code:
    """Return the code of a UCUM unit of :data:`UNIT_MEANINGS`."""
    return Code(unit, "UCUM", UNIT_MEANINGS[unit])


def stage_code(stage: Stage, stages_absent: Collection[str]) -> Code:
    """Return the code of a stage group. The meaning of *advanced* depends on the stages in the training cohort.

    The code is private on purpose: (399537006, SCT, Clinical TNM stage grouping) would present the output of a model as
    the clinical stage.
    """
    advanced = "III" if "IV" in stages_absent else "III-IV"
    return {
        Stage.EARLY: private("EARLY", "early (I-II)"),
        Stage.ADVANCED: private(f"ADVANCED-{advanced}", f"advanced ({advanced})"),
        Stage.INDETERMINATE: private("INDETERMINATE", "indeterminate"),
    }[stage]


# PyRadiomics names -> IBSI identifiers. PyRadiomics' GLDM (alpha 0, distance 1) is IBSI's NGLDM (Sun and Wee 1983): it
# counts the centre voxel as its own dependant, as IBSI's column index j = k + 1 does. "Area" in PyRadiomics' GLSZM is
# IBSI's zone size. SumSquares is the joint variance, JointEnergy the angular second moment. GLCM and GLRLM values are
# the mean over the 13 directions (IBSI aggregation ITBB).
_IBSI_BY_CLASS: Mapping[str, Mapping[str, str]] = {
    "shape": {
        "Elongation": "Q3CK", "Flatness": "N17B", "LeastAxisLength": "7J51", "MajorAxisLength": "TDIC",
        "Maximum3DDiameter": "L0JK", "MeshVolume": "RNU0", "MinorAxisLength": "P9VJ", "Sphericity": "QCFX",
        "SurfaceArea": "C0JK", "SurfaceVolumeRatio": "2PR5",
    },
    # Entropy and Uniformity use the discretised grey levels, so they are intensity *histogram* features.
    "firstorder": {"Entropy": "TLU2", "Uniformity": "BJ5W"},
    "glcm": {
        "Autocorrelation": "QWB0", "ClusterProminence": "AE86", "ClusterShade": "7NFM", "ClusterTendency": "DG8W",
        "Contrast": "ACUI", "Correlation": "NI2N", "DifferenceAverage": "TF7R", "DifferenceEntropy": "NTRS",
        "DifferenceVariance": "D3YU", "Id": "IB1Z", "Idm": "WF0Z", "Idmn": "1QCO", "Idn": "NDRX", "Imc1": "R8DG",
        "Imc2": "JN9H", "InverseVariance": "E8JP", "JointAverage": "60VM", "JointEnergy": "8ZQL",
        "JointEntropy": "TU9B", "MaximumProbability": "GYBY", "SumAverage": "ZGXS", "SumEntropy": "P6QZ",
        "SumSquares": "UR99",
    },
    "gldm": {
        "DependenceEntropy": "FCBV", "DependenceNonUniformity": "Z87G", "DependenceNonUniformityNormalized": "OKJI",
        "DependenceVariance": "DNX2", "GrayLevelNonUniformity": "FP8K", "GrayLevelVariance": "1PFV",
        "HighGrayLevelEmphasis": "OAE7", "LargeDependenceEmphasis": "IMOQ",
        "LargeDependenceHighGrayLevelEmphasis": "9QMG", "LargeDependenceLowGrayLevelEmphasis": "NBZI",
        "LowGrayLevelEmphasis": "TL9H", "SmallDependenceEmphasis": "SODN",
        "SmallDependenceHighGrayLevelEmphasis": "JA6D", "SmallDependenceLowGrayLevelEmphasis": "EQ3F",
    },
    "glrlm": {
        "GrayLevelNonUniformity": "R5YN", "GrayLevelNonUniformityNormalized": "OVBL", "GrayLevelVariance": "8CE5",
        "HighGrayLevelRunEmphasis": "G3QZ", "LongRunEmphasis": "W4KF", "LongRunHighGrayLevelEmphasis": "3KUM",
        "LongRunLowGrayLevelEmphasis": "IVPO", "LowGrayLevelRunEmphasis": "V3SW", "RunEntropy": "HJ9O",
        "RunLengthNonUniformity": "W92Y", "RunLengthNonUniformityNormalized": "IC23", "RunPercentage": "9ZK5",
        "RunVariance": "SXLW", "ShortRunEmphasis": "22OV", "ShortRunHighGrayLevelEmphasis": "GD3A",
        "ShortRunLowGrayLevelEmphasis": "HTZT",
    },
    "glszm": {
        "GrayLevelNonUniformity": "JNSA", "GrayLevelNonUniformityNormalized": "Y1RO", "GrayLevelVariance": "BYLV",
        "HighGrayLevelZoneEmphasis": "5GN9", "LargeAreaEmphasis": "48P8", "LargeAreaHighGrayLevelEmphasis": "J17V",
        "LargeAreaLowGrayLevelEmphasis": "YH51", "LowGrayLevelZoneEmphasis": "XMSY",
        "SizeZoneNonUniformity": "4JP3", "SizeZoneNonUniformityNormalized": "VB3A", "SmallAreaEmphasis": "5QRC",
        "SmallAreaHighGrayLevelEmphasis": "HW1V", "SmallAreaLowGrayLevelEmphasis": "5RAI", "ZoneEntropy": "GU8N",
        "ZonePercentage": "P30P", "ZoneVariance": "3NSA",
    },
    "ngtdm": {"Busyness": "NQ30", "Coarseness": "QCDE", "Complexity": "HDEZ", "Contrast": "65HE", "Strength": "1X9X"},
}  # fmt: skip

# PyRadiomics divides the covariance of the voxel centres by N, IBSI's reference values by N - 1.
_AXIS_NOTE = (
    "Axis lengths use the covariance over N voxels. IBSI uses N - 1, which makes them longer by a factor 1 + 1/(2N)."
)

_SHAPE_UNITS = {
    "Elongation": "1", "Flatness": "1", "Sphericity": "1",
    "MeshVolume": "mm3", "SurfaceArea": "mm2", "SurfaceVolumeRatio": "/mm",
}  # fmt: skip


def private(value: str, meaning: str) -> Code:
    """Return a concept of the private scheme."""
    return Code(value, PRIVATE_SCHEME, meaning)


_CODE_BY_IBSI: Mapping[str, Code] = {code.value: code for code in codes.IBSI.concepts.values()}

_ATTENUATION = codes.DCM.AttenuationCoefficient
_HU, _HU2 = HOUNSFIELD, f"{HOUNSFIELD}2"

# (112031, DCM) has the unit of the derived quantity: skewness and kurtosis of an attenuation have no unit.
_STATISTICS: Mapping[str, FeatureConcept] = {
    "10Percentile": FeatureConcept(_HU, "QG58", _ATTENUATION, codes.SCT.TenthPercentile),
    "90Percentile": FeatureConcept(_HU, "8DWT", _ATTENUATION, codes.SCT.NinetiethPercentile),
    "Energy": FeatureConcept(_HU2, "N8CA", private("ENERGY", "Energy of attenuation (sum of squares)")),
    "InterquartileRange": FeatureConcept(_HU, "SALO", private("IQR", "Interquartile range of attenuation")),
    "Kurtosis": FeatureConcept(
        "1", None, _ATTENUATION, codes.DCM.Kurtosis,
        "Kurtosis is not excess kurtosis: it is 3 for a normal distribution (IBSI's IPH6 plus 3).",
    ),
    "Maximum": FeatureConcept(_HU, "84IY", _ATTENUATION, codes.cid7464.Maximum),
    "MeanAbsoluteDeviation": FeatureConcept(_HU, "4FUA", private("MAD", "Mean absolute deviation of attenuation")),
    "Mean": FeatureConcept(_HU, "Q4LE", _ATTENUATION, codes.cid7464.Mean),
    "Median": FeatureConcept(_HU, "Y12H", _ATTENUATION, codes.cid7464.Median),
    "Minimum": FeatureConcept(_HU, "1GSF", _ATTENUATION, codes.cid7464.Minimum),
    "Range": FeatureConcept(_HU, "2OJQ", private("RANGE", "Range of attenuation")),
    "RobustMeanAbsoluteDeviation": FeatureConcept(
        _HU, "1128", private("RMAD", "Robust mean absolute deviation of attenuation")
    ),
    "RootMeanSquared": FeatureConcept(_HU, "5ZWQ", _ATTENUATION, codes.cid7464.RootMeanSquare),
    "Skewness": FeatureConcept("1", "KE2A", _ATTENUATION, codes.cid7464.Skewness),
    "TotalEnergy": FeatureConcept(
        f"mm3.{_HU2}", None, private("TOTALENERGY", "Total energy of attenuation (energy x voxel volume)")
    ),
    "Variance": FeatureConcept(_HU2, "ECT3", _ATTENUATION, codes.cid7464.Variance),
}  # fmt: skip

_PRIVATE: Mapping[str, Code] = {
    "Maximum2DDiameterColumn": private("MAX2DDIAMCOLUMN", "Maximum 2D diameter across columns"),
    "Maximum2DDiameterRow": private("MAX2DDIAMROW", "Maximum 2D diameter across rows"),
    "Maximum2DDiameterSlice": private("MAX2DDIAMSLICE", "Maximum 2D diameter in the slice plane"),
    "MCC": private("GLCMMCC", "Maximal Correlation Coefficient of GLCM"),
}


def _concept_of(group: str, name: str) -> FeatureConcept:
    if group == "firstorder" and name in _STATISTICS:
        return _STATISTICS[name]
    unit = _SHAPE_UNITS.get(name, "mm") if group == "shape" else "1"
    identifier = _IBSI_BY_CLASS[group].get(name)
    concept = _CODE_BY_IBSI[identifier] if identifier else _PRIVATE[name]
    return FeatureConcept(unit, identifier, concept, note=_AXIS_NOTE if name.endswith("AxisLength") else "")


CONCEPTS: Mapping[str, FeatureConcept] = MappingProxyType(
    dict(
        zip(
            ALL_FEATURES,
            (_concept_of(group, name) for group, names in FEATURE_NAMES_BY_CLASS.items() for name in names),
            strict=True,
        )
    )
)
"""Codes of each of the 106 features, by PyRadiomics name."""


def plain_name(feature: str) -> str:
    """Return a name for people: the meaning of the concept, and for a statistic which one it is."""
    concept = CONCEPTS[feature]
    meaning = concept.concept.meaning
    if concept.derivation is None:
        return meaning
    return f"{concept.derivation.meaning.removesuffix(' (qualifier value)')} of attenuation"


FEATURES_BY_CODES: Mapping[tuple[str, str, str | None], str] = MappingProxyType(
    {
        (c.concept.value, c.concept.scheme_designator, c.derivation and c.derivation.value): name
        for name, c in CONCEPTS.items()
    }
)
"""PyRadiomics names by code value and scheme of the concept, and by the code value of the Derivation, if any."""
