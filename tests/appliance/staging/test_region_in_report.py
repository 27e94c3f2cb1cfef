"""A report says of the region only what its file or the bundle says, and which other regions there are."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.daemon.dispatcher import _discreet
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.staging.one_shot import Options, measure_paths, stage_paths
from lungstage.export.bundle import build
from tests.appliance.dicom.test_bad_input import SPEC
from tests.appliance.dicom.test_regions import _drawn, study_of
from tests.export.conftest import make_run, without_limits
from tests.support.reports import dciodvfy_errors
from tests.support.studies import AROUND, Study, rtstruct_study, seg_study


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "made-up"
    build(without_limits(make_run()), folder)
    return load_bundle(folder, self_test=False)


def staged(study: Study, folder: Path, bundle: Bundle) -> dict:
    options = Options(documents=DocumentOptions(("sr",)), robustness=RobustnessOptions(0))
    return stage_paths([study.write(folder / "in")], bundle, folder / "out", options)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _every(item: Dataset) -> list[Dataset]:
    children = list(item.get("ContentSequence", ()))
    return children + [below for child in children for below in _every(child)]


def _coded(report: Dataset, concept: str) -> list[tuple[str, str]]:
    items = [item for item in _every(report) if item.ConceptNameCodeSequence[0].CodeValue == concept]
    return [(i.ConceptCodeSequence[0].CodeValue, i.ConceptCodeSequence[0].CodingSchemeDesignator) for i in items]


FINDING, SITE = "121071", "363698007"


def _placed(*regions: Dataset, keyword: str = "AnatomicRegionSequence") -> Study:
    study = seg_study()
    setattr(study.rois[0].SegmentSequence[0], keyword, list(regions))
    return study


ELSEWHERE = {
    "liver": [("10200004", "SCT", "Liver")],
    "liver, SRT": [("T-62000", "SRT", "Liver")],
    "heart": [("80891009", "SCT", "Heart")],
    "lymph node of thorax": [("47109002", "SCT", "lymph node")],
    "lung and liver": [("39607008", "SCT", "Lung"), ("10200004", "SCT", "Liver")],
    "private": [("LUNG", "99DOE", "Lung")],
    "nothing": [("", "", "")],
}


@pytest.mark.parametrize("where", ELSEWHERE)
@pytest.mark.parametrize("keyword", ["AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"])
def test_a_segment_that_lies_elsewhere_is_not_staged(where: str, keyword: str, bundle: Bundle, tmp_path: Path) -> None:
    study = _placed(*(_code(*code) for code in ELSEWHERE[where]), keyword=keyword)
    answer = staged(study, tmp_path, bundle)
    assert answer["reason"]["code"] == "outside_intended_use"
    assert "Anatomic Region of 'Tumour' is neither lung nor chest but " in answer["reason"]["message"]
    assert "99DOE" not in answer["reason"]["message"]
    measured = measure_paths([tmp_path / "in"], bundle.manifest.roi_rule, SPEC, Options())
    assert measured["status"] == "measured"


@pytest.mark.parametrize(
    ("code", "written"),
    [
        (("39607008", "SCT", "Lung"), "39607008"),
        (("T-28000", "SRT", "Lung"), "39607008"),
        (("T-28000", "99SDM", "Lung"), "39607008"),
        (("T-D3000", "SNM3", "Chest"), "51185008"),
        (("45653009", "SCT", "Upper lobe of lung"), "45653009"),
        (("T-28100", "SRT", "Right lung"), None),
        (("51185008", "SCT", "Thorax"), "51185008"),
    ],
)
def test_the_site_is_the_segment_s_own(
    code: tuple[str, str, str], written: str | None, bundle: Bundle, tmp_path: Path
) -> None:
    region = _code(*code)
    region.AnatomicRegionModifierSequence = [_code("24028007", "SCT", "Right")]
    report = pydicom.dcmread(staged(_placed(region), tmp_path, bundle)["sr"])
    assert _coded(report, SITE) == ([] if written is None else [(written, "SCT")] * 3)


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        (("108369006", "SCT", "Neoplasm"), ("108369006", "SCT")),
        (("372087000", "SCT", "Neoplasm, Primary"), ("372087000", "SCT")),
        (("M-80003", "SRT", "Neoplasm, Primary"), ("86049000", "SCT")),
        (("4147007", "SCT", "Mass"), ("4147007", "SCT")),
        (("MASS", "99DOE", "Jane Doe"), None),
    ],
)
def test_the_finding_is_the_segment_s_own(
    code: tuple[str, str, str], finding: tuple[str, str] | None, bundle: Bundle, tmp_path: Path
) -> None:
    study = seg_study()
    study.rois[0].SegmentSequence[0].SegmentedPropertyTypeCodeSequence = [_code(*code)]
    answer = staged(study, tmp_path, bundle)
    report = pydicom.dcmread(answer["sr"])
    assert _coded(report, FINDING) == ([] if finding is None else [finding] * 3)
    assert "Jane Doe" not in str(report)
    assert _coded(report, SITE) == [("39607008", "SCT")] * 3
    ct = next(path for path in sorted((tmp_path / "in").iterdir()) if pydicom.dcmread(path).Modality == "CT")
    assert dciodvfy_errors(Path(answer["sr"])) <= dciodvfy_errors(ct)


def test_contours_are_no_more_than_a_neoplasm(bundle: Bundle, tmp_path: Path) -> None:
    answer = staged(rtstruct_study(), tmp_path, bundle)
    assert _coded(pydicom.dcmread(answer["sr"]), FINDING) == [("108369006", "SCT")] * 3
    (path,) = (tmp_path / "out").glob("SEG-*.dcm")
    (segment,) = pydicom.dcmread(path).SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert segment.AnatomicRegionSequence[0].CodeValue == "39607008"


def test_the_report_names_the_others_and_the_ledger_only_their_numbers(bundle: Bundle, tmp_path: Path) -> None:
    def texts(answer: dict) -> list[str]:
        return [item.TextValue for item in _every(pydicom.dcmread(answer["sr"])) if item.ValueType == "TEXT"]

    alone = staged(study_of(("GTV-1", _drawn()), ("Heart", _drawn())), tmp_path / "alone", bundle)
    assert not any("not measured" in text for text in texts(alone))
    study = study_of(("GTV-1", _drawn()), ("GTV Doe", _drawn(AROUND)), ("GTV-2", _drawn()))
    answer = staged(study, tmp_path / "beside", bundle)
    beside = "Also drawn and not measured, although the name suggests a tumour: GTV Doe (number 2), GTV-2 (number 3)."
    assert beside in texts(answer)
    kept = _discreet(answer)
    assert kept["roi"]["others"] == [{"number": 2, "name": None}, {"number": 3, "name": None}]
    assert kept["roi"]["name"] == "GTV-1"
    assert "Doe" not in json.dumps({**kept, "sr": None})


def test_another_name_beside_it_makes_another_document(bundle: Bundle, tmp_path: Path) -> None:
    names = {
        Path(staged(study_of(("GTV-1", _drawn()), (other, _drawn())), tmp_path / other, bundle)["sr"]).name
        for other in ("GTV-2", "GTV-3")
    }
    assert len(names) == 2
