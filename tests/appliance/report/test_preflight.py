"""The rules on a report: lungstage's reports keep all of them, and each rule finds its own fault."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import EnhancedSRStorage

from lungstage.appliance.report.preflight import RULES, faults_in, faults_of
from tests.support.outgoing import documents

pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def content() -> bytes:
    return bytes(documents()[-1].content)


@cache
def report() -> Dataset:
    import io

    return pydicom.dcmread(io.BytesIO(content()))


def child(item: Dataset, value: str) -> Dataset:
    found: Dataset = next(one for one in item.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == value)
    return found


def without(item: Dataset, value: str) -> None:
    item.ContentSequence = [one for one in item.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue != value]


def groups(dataset: Dataset) -> list[Dataset]:
    return list(child(dataset, "126010").ContentSequence)


def number(dataset: Dataset) -> Dataset:
    return next(one for one in groups(dataset)[0].ContentSequence if one.ValueType == "NUM")


def _set(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def _drop(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


def _algorithm(dataset: Dataset) -> None:
    for group in groups(dataset):
        without(group, "111003")


def _other_tracking(dataset: Dataset) -> None:
    child(groups(dataset)[1], "112040").UID = "1.2.3.4"


def _open_outline(dataset: Dataset) -> None:
    region = child(groups(dataset)[1], "111030")
    region.GraphicData = list(region.GraphicData)[:-2]


def _no_source(dataset: Dataset) -> None:
    without(groups(dataset)[0], "121232")


def _two_findings(dataset: Dataset) -> None:
    group = groups(dataset)[0]
    group.ContentSequence = [*group.ContentSequence, child(group, "121071")]


def _retired(dataset: Dataset) -> None:
    child(groups(dataset)[0], "121071").ConceptCodeSequence[0].CodingSchemeDesignator = "SRT"


BREAKS: dict[str, Callable[[Dataset], None]] = {
    "meta": lambda dataset: setattr(dataset.file_meta, "MediaStorageSOPInstanceUID", "1.2"),
    "uid": _set("SeriesInstanceUID", "1.02.3"),
    "required": _drop("ContentDate"),
    "listed": _drop("PerformedProcedureCodeSequence"),
    "modality": _set("Modality", "OT"),
    "flags": _set("CompletionFlag", "MAYBE"),
    "template": _set("ContentTemplateSequence", []),
    "value": lambda dataset: setattr(child(groups(dataset)[0], "112039"), "TextValue", ""),
    "number": lambda dataset: setattr(number(dataset).MeasuredValueSequence[0], "MeasurementUnitsCodeSequence", []),
    "code": lambda dataset: setattr(number(dataset).ConceptNameCodeSequence[0], "CodeMeaning", "x" * 65),
    "retired": _retired,
    "private": _drop("CodingSchemeIdentificationSequence"),
    "evidence": _set("CurrentRequestedProcedureEvidenceSequence", []),
    "title": lambda dataset: setattr(dataset.ConceptNameCodeSequence[0], "CodeValue", "18748-4"),
    "observer": lambda dataset: without(dataset, "121012"),
    "procedure": lambda dataset: without(dataset, "121058"),
    "library": lambda dataset: without(dataset, "111028"),
    "measurements": lambda dataset: without(dataset, "126010"),
    "groups": lambda dataset: setattr(child(dataset, "126010"), "ContentSequence", []),
    "tracking": lambda dataset: without(groups(dataset)[0], "112040"),
    "finding": _two_findings,
    "place": _no_source,
    "outline": _open_outline,
    "air-class": _set("SOPClassUID", EnhancedSRStorage),
    "air-study": _set("StudyInstanceUID", "1.2.3.4.5"),
    "air-algorithm": _algorithm,
    "air-tracking": _other_tracking,
    "air-unverified": _set("VerificationFlag", "VERIFIED"),
    "air-device": _set("DeviceSerialNumber", ""),
    "air-equipment": _drop("ContributingEquipmentSequence"),
    "air-series": _set("SeriesDescription", ""),
    "air-language": lambda dataset: without(dataset, "121049"),
}


def test_our_report_holds_them_all() -> None:
    assert faults_in(content()) == ()


def test_every_rule_has_one_that_breaks_it() -> None:
    assert set(BREAKS) == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("name", BREAKS)
def test_a_rule_is_broken_by_what_it_is_about(name: str) -> None:
    spoilt = copy.deepcopy(report())
    BREAKS[name](spoilt)
    assert name in {fault.rule for fault in faults_of(spoilt)}


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_file_that_was_cut_short_or_changed_is_judged_without_a_crash(data: st.DataObject) -> None:
    damaged = bytearray(content())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    faults_in(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


def test_what_is_no_dicom_says_so() -> None:
    assert [fault.rule for fault in faults_in(b"noise")] == ["file"]


def test_a_fault_never_quotes_a_value_of_a_person() -> None:
    spoilt = copy.deepcopy(report())
    for break_it in list(BREAKS.values())[:10]:
        break_it(spoilt)
    told = " ".join(f"{fault.sentence} {fault.where}" for fault in faults_of(spoilt))
    assert str(report().PatientName) not in told
    assert str(report().PatientID) not in told
