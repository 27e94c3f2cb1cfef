"""Text that cannot be decoded is in no report, and every report and refusal says why."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from lungstage.appliance.dicom.charset import UNREADABLE
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.staging.one_shot import Options, stage_paths
from tests.appliance.dicom.test_bad_input import measured
from tests.appliance.dicom.test_regions import _drawn, study_of
from tests.appliance.staging.test_region_in_report import _every, bundle
from tests.support.studies import AROUND, Study, rtstruct_study, seg_study

__all__ = ["bundle"]  # a fixture

GBK = "张三".encode("gbk")
STAND_IN = "XQXQ"  # the same number of bytes
NO_SET, UTF_8 = "", "ISO_IR 192"


def written(study: Study, folder: Path, value: bytes = GBK, sets: str = NO_SET) -> Path:
    """Write a study with these bytes instead of :data:`STAND_IN`, and with that character set."""
    for dataset in (*study.slices, *study.rois):
        dataset.SpecificCharacterSet = sets
    for path in study.write(folder).iterdir():
        path.write_bytes(path.read_bytes().replace(STAND_IN.encode(), value))
    return folder


@pytest.mark.parametrize("sets", [NO_SET, UTF_8])
def test_a_patient_s_name_that_cannot_be_decoded_is_left_empty_and_the_report_says_so(
    sets: str, bundle: Bundle, tmp_path: Path
) -> None:
    study = rtstruct_study()
    for dataset in (*study.slices, *study.rois):
        dataset.PatientName = STAND_IN
    answer = stage_paths([written(study, tmp_path / "in", sets=sets)], bundle, tmp_path / "out", Options())
    sentence = "Not in the character set that the images name, and so left out of the report: Patient's Name."
    assert answer["status"] == "staged"
    assert sentence in answer["warnings"]
    report = pydicom.dcmread(answer["sr"])
    assert not report.PatientName
    assert sentence in [item.TextValue for item in _every(report) if item.ValueType == "TEXT"]


def _gtv(study: Study) -> Study:
    study.rois[0].StructureSetROISequence[0].ROIName = f"GTV {STAND_IN}"
    return study


def _label(study: Study) -> Study:
    study.rois[0].SegmentSequence[0].SegmentLabel = STAND_IN
    return study


@pytest.mark.parametrize("sets", [NO_SET, UTF_8])
@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: _gtv(rtstruct_study()), GBK),
        (lambda: _gtv(rtstruct_study()), b"\xa0\xa0\xa0\xa0"),  # blanks in Latin-1
        (lambda: _label(seg_study()), GBK),
    ],
    ids=["RTSTRUCT", "RTSTRUCT, blank", "SEG with a code"],
)
def test_a_region_whose_name_cannot_be_decoded_is_not_taken_and_the_refusal_says_why(
    make: object, value: bytes, sets: str, tmp_path: Path
) -> None:
    answer = measured(written(make(), tmp_path, value, sets))  # type: ignore[operator]
    assert answer["status"] == "refused"
    assert answer["reason"]["code"] in ("roi_ambiguous", "roi_not_found")
    assert "1 name is not readable in the file's character set" in answer["reason"]["message"]
    assert "0008,0005" in answer["reason"]["message"]


def test_a_name_that_can_be_decoded_is_no_matter(tmp_path: Path) -> None:
    study = rtstruct_study(names=("GTV-1", f"Lunge {STAND_IN}"))
    answer = measured(written(study, tmp_path, "Äß".encode(), UTF_8))
    assert (answer["status"], answer["roi"]["name"]) == ("measured", "GTV-1")
    assert measured(tmp_path, roi_name="Lunge Äß")["roi"]["name"] == "Lunge Äß"


def test_beside_the_region_it_is_told_as_what_it_is(bundle: Bundle, tmp_path: Path) -> None:
    study = study_of(("GTV-1", _drawn()), (f"GTV {STAND_IN}", _drawn(AROUND)))
    answer = stage_paths([written(study, tmp_path / "in")], bundle, tmp_path / "out", Options())
    assert answer["status"] == "staged"
    assert answer["roi"]["name"] == "GTV-1"
    told = f"GTV {UNREADABLE * 4}"
    assert answer["roi"]["others"] == [{"number": 2, "name": told}]
    report = pydicom.dcmread(answer["sr"])
    assert any(told in item.TextValue for item in _every(report) if item.ValueType == "TEXT")
    assert GBK.decode("latin-1") not in str(report)


def test_an_item_that_names_a_set_of_its_own_is_not_guessed_at(tmp_path: Path) -> None:
    study = _gtv(rtstruct_study())
    study.rois[0].StructureSetROISequence[0].SpecificCharacterSet = "ISO_IR 100"
    answer = measured(written(study, tmp_path, "Äß".encode(), UTF_8))
    assert "1 name is not readable in the file's character set" in answer["reason"]["message"]
