"""The rule's patterns and codes, tested with the real choice of region."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pydicom.sr import codes

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.choice import choose
from lungstage.appliance.dicom.region import Outline, Region
from lungstage.appliance.model.roi_rule import ROI_RULE


def chosen(names: list[str]) -> str:
    source = SimpleNamespace(kind="RTSTRUCT")
    drawn = (Outline(np.eye(3), "CLOSED_PLANAR"),)
    regions = [Region(source, number, name, (), "", drawn) for number, name in enumerate(names)]  # type: ignore[arg-type]
    return choose(regions, ROI_RULE, None).name


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["GTV-1", "Spinal-Cord", "Lung-Left", "Lung-Right"], "GTV-1"),  # NSCLC-Radiomics
        (["Lung-Left", "GTV-2", "GTV-1", "GTV-3", "Heart", "Esophagus"], "GTV-1"),
        (["GTV_Mass_CT"], "GTV_Mass_CT"),
        (["GTVp", "GTVn1", "GTVn2", "CTVp", "PTVp"], "GTVp"),  # TG-263
        (["gtv p1", "gtv n"], "gtv p1"),
        (["GTV_T", "GTV_N"], "GTV_T"),
        (["GTV", "CTV", "PTV", "Lungs-GTV"], "GTV"),
        (["GTV1", "GTV2"], "GTV1"),
        (["GTV_01", "GTV_02", "GTV_LN4R"], "GTV_01"),
        (["GTV primary", "GTV nodes"], "GTV primary"),
        (["Neoplasm, Primary", "Neoplasm, Secondary"], "Neoplasm, Primary"),  # TCIA SEGs
        (["Primary tumor", "Lymph node 4R", "BODY"], "Primary tumor"),
        (["Lung tumour", "Lung_L", "Lung_R", "Lungs"], "Lung tumour"),
        (["nodule", "External", "Lungs-nodule"], "nodule"),
        (["GTV-1", "IGTV", "ITV"], "GTV-1"),
        (["GTV_edema", "GTV_tumor"], "GTV_tumor"),
    ],
)
def test_the_primary_is_found(names: list[str], expected: str) -> None:
    assert chosen(names) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["GTV-2"], ["GTVn"], ["GTV_N1", "GTV-LN"], ["GTV nodal"], ["GTV node 7"], ["lymph node mass"], ["IGTV"],
        ["PTV_tumor"], ["Lung-Left", "Lung-Right", "Heart", "Spinal-Cord"], ["Brain mets"], ["metastasis 1"],
        ["Lungs-GTV"], ["lungs - tumor"], ["tumor bed"], ["Neoplasm, Secondary"], [],
    ],
)  # fmt: skip
def test_nodes_organs_and_margins_are_never_chosen(names: list[str]) -> None:
    with pytest.raises(Refused):
        chosen(names)


@pytest.mark.parametrize(
    "names",
    [["GTVp1", "GTVp2"], ["GTV-1", "GTVp"], ["Nodule 1", "Nodule 2"], ["GTV_old", "GTV_new"], ["GTV-1", "gtv 1"]],
)
def test_what_the_rule_cannot_tell_apart_stays_ambiguous(names: list[str]) -> None:
    with pytest.raises(Refused):
        chosen(names)


def test_property_types_are_the_standards_codes_of_the_tumour_itself() -> None:
    known = {
        (code.value, code.scheme_designator)
        for code in (codes.SCT.NeoplasmPrimary, codes.SCT.MalignantNeoplasmPrimary, codes.SCT.Neoplasm)
    }
    assert set(ROI_RULE.property_types) == known | {("M-80003", "SRT")}
    assert codes.SCT.NeoplasmSecondary.value not in {value for value, _ in ROI_RULE.property_types}
