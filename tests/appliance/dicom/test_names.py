"""Names of regions in the ledger: usual clinical names are shown, and a person's name never is."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.names import listed, may_be_told, the_region
from tests.appliance.dicom.test_bad_input import measured
from tests.support.studies import rtstruct_study

TOLD = [
    "GTV-1", "GTVp", "gtv_n2", "GTV_Mass_CT", "Lung_L", "Lung-Right", "Lungs-Total", "Spinal-Cord", "SpinalCord",
    "Heart", "Esophagus", "Neoplasm, Primary", "PTV 60", "Chest Wall L", "Tumour", "BODY", "IGTV (old)",
]  # fmt: skip
NOT_TOLD = [
    "GTV Smith", "gtv_smith", "Jane", "GTV 19500101", "GTV 01.02.50", "GTV1950", "Doe^Jane", "MRN 12", "GTV-1 J.D.",
    "Müller", "GTV Øst", "GTV\nJane", "A" * 65, "primary Jones", "12-34-56", "GTV-1 R.T.", "L. Primary M.",
    "GTV-1; Doe", "Dr. Lung",
]  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_words_of_the_trade_are_told(name: str) -> None:
    assert may_be_told(name)


@pytest.mark.parametrize("name", NOT_TOLD)
def test_anything_else_is_not(name: str) -> None:
    assert not may_be_told(name)
    assert name not in the_region(name)


def test_every_region_name_of_the_real_patients_is_of_the_trade(shared_data: Path) -> None:
    import pydicom

    for path in (*shared_data.glob("dicom/lung1*/RS.dcm"), *shared_data.glob("ibsi/ct_phantom/dicom/mask/*.dcm")):
        for roi in pydicom.dcmread(path).StructureSetROISequence:
            assert may_be_told(roi.ROIName), roi.ROIName


def test_no_name_takes_long() -> None:
    started = time.perf_counter()
    for hostile in ("ltrt" * 16 + "?", "prim" * 15 + "x", "1 " * 32 + "!", "l" * 64):
        may_be_told(hostile)
    assert time.perf_counter() - started < 1


def test_others_are_counted() -> None:
    assert listed(["Jane Doe", "GTV-2", "Lung"]) == "'GTV-2', 'Lung', 1 region (name hidden for privacy)"
    assert listed(["Jane", "Joe"]) == "2 regions (names hidden for privacy)"
    assert listed([]) == "none"


def test_the_owner_of_the_data_is_told_all(tmp_path: Path) -> None:
    outcome = measured(rtstruct_study(names=("Heart", "Organ of Smith")).write(tmp_path))
    assert outcome["reason"]["code"] == "roi_not_found"
    assert "'Heart'" in outcome["reason"]["message"]
    assert outcome["reason"]["message"].endswith("Names of the regions: 'Organ of Smith'.")


def test_names_pass_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(Refused(ReasonCode.ROI_EMPTY, "It is empty.", ("Smith",))))
    in_full = "It is empty. Names of the regions: 'Smith'."
    assert (error.reason.message, error.in_full().message) == ("It is empty.", in_full)


def test_a_name_of_thousands_of_characters_is_cut_short() -> None:
    told = Refused(ReasonCode.ROI_EMPTY, "It is empty.", ("x" * 4000, "y" * 80)).in_full().message
    assert told == f"It is empty. Names of the regions: '{'x' * 80}…', '{'y' * 80}'."
