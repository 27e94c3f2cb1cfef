"""What the words of a region's name say, and which region the rule then selects, as its documentation says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.choice import choose
from lungstage.appliance.dicom.region import Outline, Region
from lungstage.appliance.dicom.tumour_names import Reading, reading
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.roi_rule import ROI_RULE

ROOT = Path(__file__).resolve().parents[3]
ORGANS = ("Heart", "Lung_L", "SpinalCord", "Esophagus")

# Names as planning systems and people write them; a semicolon stands for a comma.
PRIMARY = """
    GTV, GTV1, GTV-1, GTV_1, GTV 1, gtv1, GTV01, GTV_01, GTV 001, GTV (1), GTV[1], GTV.1, GTV:1, GTV  1, gtv_p
    GTVp, GTVP, GTV-P, GTV_p, GTV p, GTVp1, GTVp2, GTV_p_1, GTV p 2, GTVp_RUL, GTVp_LLL, GTV_Prim, GTVprim, GTVprimary
    GTV Primary, GTV_PRIMARY, gtv primary, GTVPrimary, GTV primary 1, GTVt, GTV_T, GTV-T, GTV T, GTVT, GTVt1, GTV_T1
    GTV_RUL, GTV RML, GTV-RLL, GTVRLL, GTV_LUL, GTV LLL, GTV lingula, GTV_L, GTV-R, GTV_Left, GTV right, GTV Rt, GTV_Lt
    GTV left upper lobe, GTV_right_lower_lobe, GTV lung, GTV_lung, GTV_Lung_L, GTVLung, GTV_Lung R, GTV pulmonary
    GTV tumor, GTV_tumour, GTVtumor, GTV_mass, GTV_Mass_CT, GTV_CT, GTV_cect, GTV nodule, GTV lesion, GTV_manual
    GTV contour, GTV vol, GTV_volume, GTV/RUL, GTV^RUL, GTV_RUL_1, GTV p tumour, Gross tumor volume, Gross Tumour Volume
    gross_tumor_volume, Tumor, Tumour, TUMOR, tumour 1, Tumor_1, primary tumor, Primary Tumour, PrimaryTumor
    primary_tumor, Tumor primary, Tumor (primary), Lung tumor, lung tumour, LungTumor, Lung_tumor_R, Lung tumour RUL
    R lung tumor, Rt Lung Tumor, tumor right lung, Tumour LLL, RUL tumor, LUL_tumour, Lung mass, Mass, mass RUL
    LLL mass
    Lung nodule, Pulmonary nodule, Nodule, nodule 1, Nodule RUL, right upper lobe nodule, lung lesion, Lesion, Lesion 1
    malignant lesion, malignant neoplasm, Neoplasm, Neoplasm; Primary, Neoplasm primary, Primary, Primary lesion
    Primary neoplasm lung, Primary lung tumor, Primary GTV, ＧＴＶ－１, GTV‐1, GTV–p
"""

OTHER = """
    GTVn, GTV_n, GTV-N, GTV N, GTVN, GTVn1, GTV_N1, GTV n2, GTVp_n, GTVpn, GTVtn, GTVnd, GTV_nd, GTV LN, GTV_LN4R, GTVln
    GTVln7, GTV LNs, GTV node, GTV nodes, GTV_nodal, GTVnode, GTV Node 7, GTV lymph, GTV_lymph_node, GTV lymphnode
    Lymph node, lymph node mass, nodal mass, Node 4R, LN 7, GTV 4R, GTV_4L, GTV 2R, GTV-2R, GTV_10L, GTV 11R, GTV7
    GTV 7
    GTV_station 7, GTV1_7R, tumour 4R, 4R lesion, GTV_hilar, GTV hilum, GTV hilus, hilar mass, GTV_mediastinum
    GTV mediastinal, mediastinal mass, GTV_mediast. node, GTV_subcarinal, GTV paratracheal, GTV supraclav, GTV_SCV
    GTV axilla, adenopathy mass, GTV_ganglion, GTV2, GTV-2, GTV_02, GTV 3, GTV-10, GTV_12, GTV 2 RUL, GTV 4D
    GTVp+n, GTV p + n, GTV+N, GTVp+GTVn, GTV T&N, GTV_p&n, GTV+5mm, GTV_5mm, GTV 3 mm, GTVall, GTV_all, GTV all, GTV_sum
    GTVsum, GTV sum, GTVtotal, GTV_tot, GTVtot, GTV total, GTV combined, GTV_comb, GTV union, GTV_both, GTV and nodes
    GTV p and n, GTV p et n, GTV merged, GTV composite, GTV_bool, GTV plus CTV, total tumor, all lesions
    GTV-1 REJECTED, GTV_rejected, GTV reject, GTV old, GTV_old, GTVold, GTV-1 old, GTVp_old, GTV OLD 1, GTV previous
    GTV_prev, GTV_prior, GTV-1_DO NOT USE, GTV do not use, GTV not used, GTV_unused, GTV_DNU, GTV donot use, GTV deleted
    GTV-1 (deleted), GTV_del, GTV ignore, GTV wrong, GTV_bad, GTV_tmp, GTV temp, GTV_test, GTV_dummy, GTV copy, GTV_copy
    GTV backup, GTV_draft, GTV_archive, tumor (old), Tumour do not use, tumor copy, Tumor (deleted), primary tumor old
    no tumour, No tumor, no GTV, No lesion, GTV none, non tumour, tumour free, tumor negative, not tumor, Normal tissue
    benign nodule, benign lesion, GTV_benign, hamartoma mass, granuloma nodule, nodule (benign), cyst lesion
    scar nodule
    CTV, CTV1, CTV_tumor, PTV, PTV_tumor, PTV_primary, PTV 60, ITV, ITV1, ITV tumour, IGTV, iGTV, IGTV_1, ICTV, PRV
    GTV_CTV, GTV/PTV, GTV ring, GTV_shell, tumour ring, GTV margin, GTV minus, GTV less lung, GTV_exp, GTV expanded
    subGTV
    GTV sub, GTV_opt, GTV boost, GTVboost, tumor bed, tumour-bed, Tumor_bed, GTV avoid, avoid tumor, tumor avoidance
    GTV_Edema, GTV oedema, GTV necrosis, necrotic tumor, GTV atelectasis, GTV_MIP, cavity lesion, tumour effusion
    Lungs-GTV, Lung-GTV, Lung - GTV, Lung_L-GTV, Lung L - tumour, Lungs-nodule, lungs - tumor, Lungs-PTV, Lung_minus_GTV
    LungGTV, BilatLung - GTV, Both Lungs-GTV, total lung - gtv
    Met, Mets, brain mets, Brain metastasis, metastasis 1, lung metastasis, metastatic nodule, GTV_met, GTV M, GTV_M1
    GTV mets, secondary tumor, Neoplasm; Secondary, satellite nodule, satellite lesion
    thyroid nodule, Thyroid mass, adrenal mass, adrenal nodule L, GTV_adrenal, liver lesion, GTV Liver, hepatic lesion
    GTV_brain, brain tumor, cerebellar lesion, kidney mass, renal mass, renal lesion, spleen lesion, pancreas mass
    breast mass, Breast lesion L, rectum tumor, bladder tumor, prostate lesion, parotid mass, neck mass, thymus mass
    thymic mass, pleural mass, pleura lesion, pericardial mass, cardiac mass, tracheal lesion, esophageal tumor
    oesophagus tumour, spine lesion, vertebral lesion, bone lesion, rib lesion, sternum lesion, chest wall mass
    chestwall tumor, skin lesion, muscle mass, pelvic mass, abdominal mass, retroperitoneal mass, GTV_rib, GTV spine
    Masseter_L, Masseter, Massa, Massive, Lesional, Massage, Tumoral, Amassed, Heart, Lung_L, Lungs
    SpinalCord, Esophagus, BODY, External, Couch, ROI_1, Contour 1, Region, LungTotal, zRing, xPTV, Structure1, GT, VGT
    A, 1, -, _
"""

OPEN = """
    GTV_MK, GTV Smith, GTV_new, GTV new, GTV final, GTV_v2x, GTV_auto, GTV_AI, GTV_PET, GTV PET/CT, GTV_MR, GTV_FB
    GTV_DIBH, GTV_ave, GTV_exhale, GTV_T10, GTV T5, GTV_T2, GTV_L3, GTV_R1, GTV 1 L, GTV_C2, GTV0, GTV-0, GTV a
    GTV I, GTV II, GTV_1_2, GTV 1.5, GTV1 20240101, GTV?, GTV ?, possible tumour, GTV*, GTV!, GTV~, GTV=1, GTV%
    GTV p50, GTV-Lung, GTV - lung, GTV-lung R, tumor - lung, GTV lungs, GTVs, tumors, Tumours, nodules, lesions
    masses, Nodule 2, Nodule_3, Lesion 4, Tumor 2, tumour links, GTV gauche, GTV rechts, GTV poumon, GTV Lunge
    GTV Tumeur
    GTV lesione, GTV 原発, GTV опухоль, psoas mass, spiculated nodule, solid nodule, chest mass, primary beam
    suspicious lesion, Tumour X, GTV_apex, GTV main, GTV NSCLC, GTV SBRT, GTV SABR
"""


def _listed(names: str) -> list[str]:
    return [name.strip().replace(";", ",") for line in names.strip().splitlines() for name in line.split(",")]


def _unlike(names: str, expected: Reading) -> dict[str, Reading]:
    return {name: found for name in _listed(names) if (found := reading(name)) is not expected}


def test_plain_names_of_a_primary_tumour() -> None:
    assert _unlike(PRIMARY, Reading.PRIMARY) == {}


def test_one_word_says_that_it_is_something_else() -> None:
    assert _unlike(OTHER, Reading.OTHER) == {}


def test_what_is_not_known_is_left_open() -> None:
    assert _unlike(OPEN, Reading.OPEN) == {}


@pytest.mark.parametrize("kind", ["ORGAN", "AVOIDANCE", "OAR", "SOMETHING"])
def test_a_type_against_it_is_outweighed_by_an_express_gtv_alone(kind: str) -> None:
    assert reading("GTV Primary", (kind,)) is reading("gross tumor volume", (kind,)) is Reading.PRIMARY
    for name in ("Tumour", "Lung nodule", "Primary tumor", "Mass"):
        assert reading(name, (kind,)) is Reading.OTHER
        assert reading(name, ("GTV", kind)) is Reading.OTHER
        assert reading(name, ("GTV",)) is reading(name, ("",)) is Reading.PRIMARY


@pytest.mark.parametrize("kind", ["CTV", "PTV", "EXTERNAL", "CONTROL", "BOLUS", "MARKER", "SUPPORT", "TREATED_VOLUME"])
def test_types_of_what_no_tumour_is_outweigh_every_name(kind: str) -> None:
    assert reading("GTV-1", (kind,)) is reading("GTV-1", ("GTV", kind)) is Reading.OTHER


names = st.sampled_from(_listed(PRIMARY))


@given(names, st.sampled_from(["n", "LN", "old", "NOT", "PTV", "all", "mets", "liver", "4R"]), st.booleans())
def test_a_word_against_it_outweighs_whatever_else_is_said(name: str, word: str, first: bool) -> None:
    assert reading(f"{word} {name}" if first else f"{name}_{word}") is Reading.OTHER


@given(names, st.text(min_size=1, max_size=12))
def test_nothing_unknown_is_ever_taken(name: str, more: str) -> None:
    """A name with an unknown word is never read as that of a primary tumour."""
    words = re.findall(r"[^\W\d_]+", more)
    if any(len(word) > 2 and word.lower() not in PRIMARY.lower() for word in words):
        assert reading(f"{name} {more}") is not Reading.PRIMARY


@given(st.text(max_size=80))
def test_no_name_is_a_defect(name: str) -> None:
    assert reading(name) in Reading


def test_no_name_takes_long() -> None:
    started = time.process_time()
    for hostile in ("GTV" * 20_000, "1" * 60_000, "gT" * 30_000, "GTV 1 " * 10_000, "-" * 60_000):
        reading(hostile)
    assert time.process_time() - started < 2


# --- through the choice ------------------------------------------------------------------------------------------

DRAWN = (Outline(np.eye(3), "CLOSED_PLANAR"),)


def _regions(names: list[str], kind: str) -> list[Region]:
    source = SimpleNamespace(kind="RTSTRUCT")
    types = [*((name, kind) for name in names), *((name, "ORGAN") for name in ORGANS)]
    return [
        Region(source, number, name, (), "", DRAWN, interpreted_types=(of,))  # type: ignore[arg-type]
        for number, (name, of) in enumerate(types, start=1)
    ]


def _chosen(names: list[str], kind: str, rule: object = ROI_RULE) -> str:
    try:
        return choose(_regions(names, kind), rule, None).name  # type: ignore[arg-type]
    except Refused as refused:
        told = all(what in str(refused) for what in ("--roi NAME", "roi_name in the settings"))
        return "asked" if told else str(refused)


def test_names_from_the_field(shared_data: Path, shipped_bundle: Path) -> None:
    """Each name beside organs only, by the current rule and by the rule of the shipped bundle."""
    path = shared_data / "field-cases" / "roi-names.json"
    if not path.is_file():
        pytest.skip("the field cases are not here")
    listed = json.loads(path.read_text())
    for rule in (ROI_RULE, load_bundle(shipped_bundle).manifest.roi_rule):
        assert {(name, kind): _chosen([name], kind, rule) for name, kind in map(tuple, listed["primary"])} == {
            (name, kind): name for name, kind in map(tuple, listed["primary"])
        }
        assert {_chosen([name], kind, rule) for name, kind in map(tuple, listed["not"])} == {"asked"}


def test_only_plain_names_are_ever_chosen() -> None:
    names = [*_listed(OTHER), *_listed(OPEN)]
    assert len(names) > 300
    assert {name: found for name in names if (found := _chosen([name], "GTV")) != "asked"} == {}


def _rows() -> list[tuple[list[str], str, str]]:
    page = (ROOT / "docs" / "regions.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| (\w*) ?\| (.+) \|$", page, re.MULTILINE)
    return [(re.findall(r"`([^`]+)`", names), kind, measured.strip("`")) for names, kind, measured in rows]


@pytest.mark.parametrize("row", _rows(), ids=lambda row: ",".join(row[0]))
def test_the_page_s_examples(row: tuple[list[str], str, str]) -> None:
    names, kind, measured = row
    assert _chosen(names, kind) == measured


def test_the_page_has_examples() -> None:
    assert len(_rows()) >= 15
