"""What a one-shot command says about a refusal: the files, their number and place, and that nothing was written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.cases import assemble, the_one_case
from lungstage.appliance.dicom.series import read_volume
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.appliance.dicom.test_bad_input import SPEC, measured
from tests.support.studies import ROI_SLICES, Study, listing, rtstruct_study, seg_study


def _in_fragments(study: Study) -> Study:
    for dataset in study.slices:
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    return study


def test_a_slice_is_named_by_its_file_and_those_like_it_are_counted(tmp_path: Path) -> None:
    sentence = measured(_in_fragments(rtstruct_study()).write(tmp_path))["reason"]["message"]
    first, count = f"'{ROI_SLICES[0] + 1:04}'", len(ROI_SLICES)
    several = f"The pixel data of {count} of the {count} needed slices cannot be used. "
    assert sentence.startswith(f"{several}The pixel data of slice {first} are ")


def test_what_may_come_to_the_ledger_names_no_file(tmp_path: Path) -> None:
    folder = _in_fragments(rtstruct_study()).write(tmp_path / "Doe^Jane")
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"Doe {path.name}")
    case = the_one_case(assemble(scan([folder]).headers))
    plan = plan_measurement(case, ROI_RULE, SPEC, settled=True)
    with pytest.raises(Refused) as refused:
        read_volume(plan.regions[0][1])
    assert "Doe" not in refused.value.reason.message
    assert plan.regions[0][1].images[0].sop_instance_uid in refused.value.reason.message
    assert "Doe 000" in measured(folder)["reason"]["message"]


def test_a_segmentation_is_named_by_its_file(tmp_path: Path) -> None:
    study = seg_study()
    study.rois[0].PixelData += bytes(4000)
    study.rois[0].NumberOfFrames = len(study.rois[0].PerFrameFunctionalGroupsSequence)
    assert (
        "The pixel data of SEG '0000' are 4000 bytes too long" in measured(study.write(tmp_path))["reason"]["message"]
    )


def test_files_of_one_name_are_told_by_their_folders(tmp_path: Path) -> None:
    study, other = rtstruct_study(), rtstruct_study()
    for dataset in other.slices:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID = f"{study.slices[0].SeriesInstanceUID}.1"
    roi = study.rois[0]
    for item in roi.ROIContourSequence[0].ContourSequence:
        del item.ContourImageSequence
    series = roi.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    series.append(listing(other.slices[0].SeriesInstanceUID, other.slices))
    study.write(tmp_path / "a")
    other.rois.clear()
    other.write(tmp_path / "b")
    reason = measured(tmp_path)["reason"]
    assert reason["code"] == "ambiguous_input"
    assert "series of 'a/0001' (12 slices of " in reason["message"]
    assert "sending fewer series is not enough" in reason["message"]


@pytest.mark.parametrize(
    ("gone", "told"),
    [((5,), "1 of the 4 slices that 'GTV-1' needs is missing, at z = "), ((4, 5), "2 of the 4 slices")],
)
def test_missing_slices_are_told_by_number_and_place(gone: tuple[int, ...], told: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    places = sorted(float(study.slices[k].ImagePositionPatient[2]) for k in gone)
    folder = study.write(tmp_path)
    for k in gone:
        (folder / f"{k + 1:04}").unlink()
    sentence = measured(folder)["reason"]["message"]
    assert told.replace(" 4 ", f" {len(ROI_SLICES)} ") in sentence
    assert f"at z = {' to '.join(f'{place:g}' for place in places)} mm" in sentence


def test_what_is_to_be_sent_is_named(tmp_path: Path) -> None:
    """The missing series is named by its UID, because it has no file here."""
    study = rtstruct_study()
    series = study.slices[0].SeriesInstanceUID
    study.slices.clear()
    told = measured(study.write(tmp_path / "no CT"))["reason"]["message"]
    assert told.startswith(f"The CT series that the region was drawn on is missing (Series Instance UID {series}). ")
    study = rtstruct_study(reference=False)
    for dataset in study.slices:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID = f"{series}.1"
    told = measured(study.write(tmp_path / "another CT"))["reason"]["message"]
    assert f"Send the CT series that it was drawn on (Series Instance UID {series}). Or, " in told
    study = rtstruct_study()
    study.rois[0].ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence.clear()
    for item in study.rois[0].ROIContourSequence[0].ContourSequence:
        item.ContourImageSequence[0].ReferencedSOPInstanceUID = "SMITH^JOHN"
    told = measured(study.write(tmp_path / "free text"))["reason"]["message"]
    assert "(one of its images is 2.25." in told
    assert "SMITH" not in told


@pytest.mark.parametrize(
    ("keyword", "value", "told"),
    [
        ("RescaleIntercept", "-1000", "Rescale Intercept or Slope (0028,1052; 0028,1053)"),
        ("PixelSpacing", [0.5, 0.5], "Pixel Spacing (0028,0030)"),
        ("FrameOfReferenceUID", "1.2.3", "Frame of Reference UID (0020,0052)"),
    ],
)
def test_two_slices_that_differ_are_named_with_the_element(
    keyword: str, value: object, told: str, tmp_path: Path
) -> None:
    study = rtstruct_study()
    at = ROI_SLICES[1]
    setattr(study.slices[at], keyword, value)
    sentence = measured(study.write(tmp_path))["reason"]["message"]
    assert re.match(rf"Slices '\d{{4}}' and '\d{{4}}' of the series differ in {re.escape(told)}\. Send ", sentence)
    assert f"'{at + 1:04}'" in sentence  # the RTSTRUCT is the first file


@pytest.mark.parametrize(
    ("command", "undone"), [("stage", "No report was written."), ("measure", "Nothing was measured.")]
)
def test_it_is_said_that_nothing_came_of_it(command: str, undone: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois.clear()
    folder = study.write(tmp_path / "study")
    options = {
        "stage": ["--bundle", "lung1-stage", "--out", str(tmp_path / "out")],
        "measure": ["--spec", "all"],
    }[command]
    done = CliRunner().invoke(app, [command, str(folder), *options])
    assert done.exit_code == 3
    assert done.stdout.splitlines()[-1] == (
        f"{undone} When that has been received, run the command again. Research use only."
    )
    assert done.stdout.startswith("held: No region was received for this CT series. Send the RTSTRUCT or SEG ")
