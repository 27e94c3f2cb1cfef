"""In documents on an Enhanced CT, every reference names the right frame, also for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from lungstage.appliance.dicom.cases import assemble, the_one_case
from lungstage.appliance.dicom.series import read_volume
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.report.context import ReportContext
from lungstage.appliance.report.headers import source_headers
from lungstage.appliance.report.segmentation import key_slice
from lungstage.appliance.report.structured_report import SegmentReference, build_report, build_segmentation
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.appliance.dicom.test_bad_input import SPEC
from tests.support.enhanced import enhanced, enhanced_rtstruct_study
from tests.support.reports import (
    BARE,
    KNOWN_OF_PIXELMED,
    dciodvfy_errors,
    generated_sources,
    made_up_context,
    of_survival,
    pixelmed_errors,
    reread,
    tid1500reader,
    write_both,
)
from tests.support.studies import Study, list_series, listing, rtstruct_study

pytestmark = pytest.mark.usefixtures("strict_dicom")

SEGMENT = SegmentReference("1.2.840.10008.5.1.4.1.1.66.4", "1.2.3.7.1", 2)


def _context(
    folder: Path, study: Study | None = None, **changes: Any
) -> tuple[ReportContext, dict[tuple[str, int], list[float]]]:
    """The context of a study's report, and the position of every frame in the study's files."""
    study = study or enhanced_rtstruct_study()
    case = the_one_case(assemble(scan([study.write(folder)]).headers))
    _, slices = plan_measurement(case, ROI_RULE, SPEC, settled=True).regions[0]
    sources = read_volume(slices).datasets
    mask = np.zeros((len(sources), 40, 48), dtype=bool)
    mask[1:-1, 10:20, 5 + np.arange(9)] = True
    mask[3, 10:30, 5:25] = True
    context = made_up_context(sources, mask=mask, frames=tuple(image.frame for image in slices.images), **changes)
    positions = {
        (whole.SOPInstanceUID, number): [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        for whole in study.slices
        for number, group in enumerate(whole.get("PerFrameFunctionalGroupsSequence", ()), start=1)
    }
    return context, positions


def _position(dataset: Dataset) -> list[float]:
    return [float(v) for v in dataset.ImagePositionPatient]


def test_the_segmentation_refers_to_the_frames_it_lies_on(tmp_path: Path) -> None:
    context, positions = _context(tmp_path)
    segmentation = reread(build_segmentation(context))
    uid = context.sources[0].SOPInstanceUID
    assert segmentation.NumberOfFrames == len(context.sources) - 2
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        assert (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID) == (EnhancedCTImageStorage, uid)
        assert _position(group.PlanePositionSequence[0]) == positions[uid, source.ReferencedFrameNumber]
    (source,) = segmentation.SourceImageSequence
    assert (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID) == (EnhancedCTImageStorage, uid)
    assert sorted(source.ReferencedFrameNumber) == sorted(context.frames)
    (instance,) = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert (instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID) == (EnhancedCTImageStorage, uid)
    assert "2.25" not in str(segmentation.PerFrameFunctionalGroupsSequence)  # no temporary UID is left


def test_highdicom_reads_the_mask_by_the_frames_it_was_drawn_on(tmp_path: Path) -> None:
    context, _ = _context(tmp_path / "study")
    path, _ = write_both(context, tmp_path)
    segmentation = hd.seg.segread(path)
    pixels = segmentation.get_pixels_by_source_frame(
        context.sources[0].SOPInstanceUID, context.frames, segment_numbers=[1], assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels[..., 0].astype(bool), context.mask)


def _library(report: Dataset) -> list[tuple[str, str, int]]:
    """Class, instance and frame of each image of the Image Library."""
    (library,) = (item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "111028")
    entries = [item for group in library.ContentSequence for item in group.ContentSequence if item.ValueType == "IMAGE"]
    images = [entry.ReferencedSOPSequence[0] for entry in entries]
    return [
        (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber", 0))
        for image in images
    ]


def test_the_report_s_library_names_each_frame(tmp_path: Path) -> None:
    context, positions = _context(tmp_path)
    library = _library(reread(build_report(context, SEGMENT)))
    assert {sop_class for sop_class, _, _ in library} == {EnhancedCTImageStorage}
    assert [positions[uid, frame] for _, uid, frame in library] == [_position(source) for source in context.sources]


def test_the_key_slice_is_a_frame_and_the_evidence_one_image(tmp_path: Path) -> None:
    context, _ = _context(tmp_path / "study")
    _, path = write_both(context, tmp_path)
    report = hd.sr.srread(path)
    (group,) = report.content.get_planar_roi_measurement_groups()
    (image,) = group.roi.ContentSequence
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == context.sources[0].SOPInstanceUID
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == context.frames[key_slice(context.mask)]
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    uids = [
        item.ReferencedSOPInstanceUID for one in study.ReferencedSeriesSequence for item in one.ReferencedSOPSequence
    ]
    assert uids.count(context.sources[0].SOPInstanceUID) == 1


def test_frames_of_several_files_and_slices_of_their_own_keep_apart(tmp_path: Path) -> None:
    """Two parts of a concatenation, with single-frame slices between them."""
    single = rtstruct_study(reference=False)
    parts = [enhanced(single.slices, order) for order in ((4, 3, 2, 1, 0), (11, 10, 9, 8, 7))]
    study = Study([*parts, *single.slices[5:7]], single.rois)
    list_series(study.rois[0], listing(single.slices[0].SeriesInstanceUID, study.slices))
    context, positions = _context(tmp_path, study)
    assert 0 in context.frames
    segmentation = reread(build_segmentation(context))
    by_uid = {image.SOPInstanceUID: _position(image) for image in single.slices}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        uid, frame = source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")
        assert _position(group.PlanePositionSequence[0]) == (positions[uid, frame] if frame else by_uid[uid])
        assert source.ReferencedSOPClassUID == (EnhancedCTImageStorage if frame else CTImageStorage)
    instances = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len({item.ReferencedSOPInstanceUID for item in instances}) == len(instances) == 4
    library = _library(reread(build_report(context, SEGMENT)))
    assert tuple(frame for _, _, frame in library) == context.frames
    assert [uid for _, uid, _ in library] == [source.SOPInstanceUID for source in context.sources]


def test_headers_are_left_as_they_were(tmp_path: Path) -> None:
    """The report is made from the same headers after the SEG, so no temporary UID may stay in them."""
    context, _ = _context(tmp_path)
    headers = source_headers(context)
    before = [header.to_json() for header in headers]
    build_segmentation(context, headers)
    build_report(context, SEGMENT, headers)
    assert [header.to_json() for header in headers] == before


def test_the_same_bytes_again(tmp_path: Path) -> None:
    context, _ = _context(tmp_path / "study")
    contents = [[path.read_bytes() for path in write_both(context, tmp_path)] for _ in range(2)]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_the_validators_have_nothing_to_say_that_they_do_not_say_of_single_frames(tmp_path: Path) -> None:
    context, _ = _context(tmp_path / "study")
    folders = [tmp_path / name for name in ("frames", "slices")]
    for folder in folders:
        folder.mkdir()
    frames = write_both(context, folders[0])
    slices = write_both(made_up_context(generated_sources()), folders[1])
    for of_frames, of_slices in zip(frames, slices, strict=True):
        assert dciodvfy_errors(of_frames) <= dciodvfy_errors(of_slices)


@pytest.mark.slow
def test_pixelmed_finds_no_error_in_a_report_with_all_that_is_unusual(tmp_path: Path) -> None:
    """Frames, failed features, a region without information, and another endpoint with covariates."""
    context, _ = _context(tmp_path / "study", **BARE)
    _, report = write_both(of_survival(context), tmp_path)
    # It also requires a value beside the qualifier, which PS3.3 C.18.1 does not (zero or one item).
    known = (*KNOWN_OF_PIXELMED, "Missing value")
    assert [error for error in pixelmed_errors(report) if not any(part in error for part in known)] == []


def test_dcmqi_reads_the_report(tmp_path: Path) -> None:
    context, _ = _context(tmp_path / "study")
    _, path = write_both(context, tmp_path)
    assert tid1500reader(path, tmp_path / "report.json").returncode == 0
