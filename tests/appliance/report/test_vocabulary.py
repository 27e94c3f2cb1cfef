"""The codes of the features: complete, real, unique and of the right dimension."""

from __future__ import annotations

from collections import Counter

import pytest
from pydicom.sr.codedict import codes

from lungstage.appliance.contract.spec import ALL_FEATURES, Stage
from lungstage.appliance.report.vocabulary import CONCEPTS, PRIVATE_SCHEME, UNIT_MEANINGS, stage_code, unit_code

# IBSI reference manual, section 3.3; DICOM's context groups do not list them.
INTENSITY_STATISTICS = {
    "Mean": "Q4LE", "Variance": "ECT3", "Skewness": "KE2A", "Median": "Y12H", "Minimum": "1GSF",
    "10Percentile": "QG58", "90Percentile": "8DWT", "Maximum": "84IY", "InterquartileRange": "SALO",
    "Range": "2OJQ", "MeanAbsoluteDeviation": "4FUA", "RobustMeanAbsoluteDeviation": "1128", "Energy": "N8CA",
    "RootMeanSquared": "5ZWQ",
}  # fmt: skip

CONTEXT_GROUPS = {
    "shape": codes.cid7477,
    "firstorder": codes.cid7478,
    "glcm": codes.cid7467,
    "gldm": codes.cid7501,
    "glrlm": codes.cid7475,
    "glszm": codes.cid7476,
    "ngtdm": codes.cid7500,
}

# Features with a wrong or missing code in PyRadiomics' own table.
OFTEN_MISTAKEN = {
    "glcm_Idm": "WF0Z", "glcm_Idmn": "1QCO", "glcm_Idn": "NDRX", "glcm_Id": "IB1Z", "glcm_Autocorrelation": "QWB0",
    "glcm_Imc1": "R8DG", "glcm_Imc2": "JN9H", "glszm_SmallAreaLowGrayLevelEmphasis": "5RAI",
    "glszm_SmallAreaHighGrayLevelEmphasis": "HW1V", "glszm_LargeAreaLowGrayLevelEmphasis": "YH51",
    "glszm_LargeAreaHighGrayLevelEmphasis": "J17V", "glszm_LowGrayLevelZoneEmphasis": "XMSY",
    "glszm_HighGrayLevelZoneEmphasis": "5GN9", "glszm_ZoneVariance": "3NSA", "glszm_ZoneEntropy": "GU8N",
    "firstorder_Entropy": "TLU2", "firstorder_Uniformity": "BJ5W", "gldm_SmallDependenceEmphasis": "SODN",
    "gldm_LargeDependenceEmphasis": "IMOQ",
}  # fmt: skip

WITHOUT_IBSI = {
    "original_shape_Maximum2DDiameterColumn", "original_shape_Maximum2DDiameterRow",
    "original_shape_Maximum2DDiameterSlice", "original_firstorder_Kurtosis", "original_firstorder_TotalEnergy",
    "original_glcm_MCC",
}  # fmt: skip


def test_all_features_are_there_in_order() -> None:
    assert tuple(CONCEPTS) == ALL_FEATURES
    assert len(CONCEPTS) == 106


@pytest.mark.parametrize("name", ALL_FEATURES)
def test_ibsi_codes_exist(name: str) -> None:
    entry = CONCEPTS[name]
    group, feature = name.removeprefix("original_").split("_")
    if entry.ibsi is None:
        assert name in WITHOUT_IBSI
        assert entry.concept.scheme_designator != "IBSI"
    elif entry.concept.scheme_designator == "IBSI":
        assert entry.concept in CONTEXT_GROUPS[group].concepts.values()
        assert entry.concept.value == entry.ibsi
        assert entry.derivation is None
    else:
        assert group == "firstorder"
        assert entry.ibsi == INTENSITY_STATISTICS[feature]


@pytest.mark.parametrize(("name", "code"), OFTEN_MISTAKEN.items())
def test_codes_that_other_tables_have_wrong(name: str, code: str) -> None:
    assert CONCEPTS[f"original_{name}"].ibsi == code
    assert CONCEPTS[f"original_{name}"].concept.value == code


def test_codes_are_unique() -> None:
    identifiers = Counter(entry.ibsi for entry in CONCEPTS.values() if entry.ibsi)
    assert max(identifiers.values()) == 1
    pairs = Counter(
        (entry.concept.scheme_designator, entry.concept.value, entry.derivation and entry.derivation.value)
        for entry in CONCEPTS.values()
    )
    assert max(pairs.values()) == 1


def test_codes_fit_their_value_representations() -> None:
    for entry in CONCEPTS.values():
        for code in (entry.concept, entry.derivation, unit_code(entry.unit)):
            if code is not None:
                assert 0 < len(code.value) <= 16
                assert 0 < len(code.meaning) <= 64


def test_statistics_of_attenuation_are_derived_from_it() -> None:
    for name, entry in CONCEPTS.items():
        if entry.derivation is not None:
            assert name.startswith("original_firstorder_")
            assert (entry.concept.value, entry.concept.scheme_designator) == ("112031", "DCM")
    assert CONCEPTS["original_firstorder_Mean"].derivation == codes.SCT.Mean
    assert CONCEPTS["original_firstorder_Skewness"].derivation == codes.DCM.Skewness


def _power(name: str) -> tuple[int, int]:
    """The powers of mm and HU in the unit of a feature."""
    group, feature = name.removeprefix("original_").split("_")
    if group == "shape":
        if feature in ("Elongation", "Flatness", "Sphericity"):
            return 0, 0
        return {"MeshVolume": 3, "SurfaceArea": 2, "SurfaceVolumeRatio": -1}.get(feature, 1), 0
    if group == "firstorder" and feature not in ("Entropy", "Uniformity", "Skewness", "Kurtosis"):
        return 3 * (feature == "TotalEnergy"), 2 if feature in ("Energy", "TotalEnergy", "Variance") else 1
    return 0, 0


@pytest.mark.parametrize("name", ALL_FEATURES)
def test_units_have_the_right_dimension(name: str) -> None:
    powers = {
        "1": (0, 0), "mm": (1, 0), "mm2": (2, 0), "mm3": (3, 0), "/mm": (-1, 0),
        "[hnsf'U]": (0, 1), "[hnsf'U]2": (0, 2), "mm3.[hnsf'U]2": (3, 2),
    }  # fmt: skip
    assert powers[CONCEPTS[name].unit] == _power(name)
    assert CONCEPTS[name].unit in UNIT_MEANINGS


def test_deviations_from_ibsi_are_noted() -> None:
    noted = {name.rsplit("_", 1)[1] for name, entry in CONCEPTS.items() if entry.note}
    assert noted == {"Kurtosis", "LeastAxisLength", "MinorAxisLength", "MajorAxisLength"}


def test_stage_code_says_which_stages_the_cohort_holds() -> None:
    assert stage_code(Stage.ADVANCED, ("IV",)).meaning == "advanced (III)"
    assert stage_code(Stage.ADVANCED, ()).meaning == "advanced (III-IV)"
    assert stage_code(Stage.ADVANCED, ()).value != stage_code(Stage.ADVANCED, ("IV",)).value
    assert {stage_code(stage, ()).scheme_designator for stage in Stage} == {PRIVATE_SCHEME}
