"""Contours of other tools are taken over: a person chooses the part, and a refusal writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydicom.sr.codedict import codes
from scipy import ndimage
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.dicom.contours import Confirmation, confirmation, predecessors
from lungstage.appliance.radiomics.components import components
from lungstage.appliance.staging.phantom import ct_datasets
from tests.appliance.dicom.test_bad_input import measured
from tests.support.enhanced import enhanced_rtstruct_study
from tests.support.studies import Study, rtstruct_study, seg_study, square_mask, volume


def _nodules() -> npt.NDArray[np.bool_]:
    """The square, a part of 12 voxels further up, and one voxel on another slice."""
    mask = square_mask()
    mask[1, 2:5, 40:44] = True
    mask[11, 36, 3] = True
    return mask


def _tool_s_seg(study: Study, masks: dict[str, npt.NDArray[np.bool_]]) -> pydicom.Dataset:
    """A SEG as from an auto-segmentation tool: AUTOMATIC, with other codes."""
    segments = [
        hd.seg.SegmentDescription(
            segment_number=k,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                "lung nodules", codes.DCM.ArtificialIntelligence, "2.4"
            ),
        )
        for k, name in enumerate(masks, start=1)
    ]
    return hd.seg.Segmentation(
        source_images=study.slices,
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid="1.2.826.0.1.41",
        series_number=4,
        sop_instance_uid="1.2.826.0.1.42",
        instance_number=1,
        manufacturer="A tool",
        manufacturer_model_name="Tool",
        software_versions="2.4",
        device_serial_number="1",
    )


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return Study(rtstruct_study().slices).write(tmp_path / "ct")


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    path = tmp_path / "tool.dcm"
    masks = {"lung_nodules": _nodules(), "lung": square_mask()}
    _tool_s_seg(rtstruct_study(), masks).save_as(path, enforce_file_format=True)
    return path


def run(*arguments: object) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["contour", *map(str, arguments), "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout else {}


def test_several_parts_are_listed_and_none_is_picked(ct: Path, seg: Path, tmp_path: Path) -> None:
    status, answer = run(ct, "--from", seg, "--segment", 1, "--out", tmp_path / "out")
    assert status == 3
    assert (answer["status"], answer["reason"]["code"]) == ("refused", "roi_ambiguous")
    assert [part["voxels"] for part in answer["components"]] == [int(square_mask().sum()), 12, 1]
    assert [part["volume_mm3"] for part in answer["components"]] == pytest.approx([n * 3.75 for n in (1440, 12, 1)])
    # Computed by hand: slice 1, rows 2 to 4, columns 40 to 43; 3 × 1 × 1.25 mm, from (-21.25, 33.5, -120) on.
    assert answer["components"][1]["centre"] == pytest.approx([-21.25 + 41.5 * 1.25, 33.5 + 3, -120 + 3])
    assert "--component" in answer["reason"]["message"]
    assert "2: centre (30.6, 36.5, -117.0) mm, 0.04 ml" in answer["reason"]["message"]
    assert not (tmp_path / "out").exists()


def test_the_part_that_is_picked_becomes_a_draft(ct: Path, seg: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, answer = run(ct, "--from", seg, "--segment", 1, "--component", 1, "--out", out)
    assert (status, answer["status"], answer["reason"]) == (0, "draft", None)
    (path,) = out.iterdir()
    assert answer["seg"] == str(path)
    assert path.name == f"SEG-{pydicom.dcmread(path).SOPInstanceUID}.dcm"
    written = hd.seg.segread(path)
    images = [slice_.SOPInstanceUID for slice_ in rtstruct_study().slices]
    found = written.get_pixels_by_source_instance(
        images, [1], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found[..., 0] > 0, square_mask())
    (segment,) = written.SegmentSequence
    assert segment.SegmentAlgorithmName == "lung nodules"
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert str(algorithm.AlgorithmParameters) == "from=1.2.826.0.1.42,segment=1,component=1"
    assert [(one.sop_instance_uid, one.number) for one in predecessors(written)] == [("1.2.826.0.1.42", 1)]
    assert confirmation(written) is Confirmation.DRAFT


def test_a_draft_that_is_confirmed_takes_the_place_of_all_before_it(ct: Path, seg: Path, tmp_path: Path) -> None:
    _, draft = run(ct, "--from", seg, "--segment", 1, "--component", 1, "--out", tmp_path / "draft")
    status, answer = run(ct, "--from", draft["seg"], "--confirmed-by", "Jane Roe", "--out", ct)
    assert (status, answer["status"], answer["roi"]["name"]) == (0, "confirmed", "lung_nodules")
    written = pydicom.dcmread(answer["seg"])
    named = [(one.sop_instance_uid, one.number) for one in predecessors(written)]
    assert named == [(str(pydicom.dcmread(draft["seg"]).SOPInstanceUID), 1), ("1.2.826.0.1.42", 1)]
    assert str(written.ContentCreatorName) == "Jane Roe"
    assert "component=1" not in str(
        written.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    )
    seg.rename(ct / "tool.dcm")
    Path(draft["seg"]).rename(ct / "draft.dcm")
    answer = measured(ct)
    assert answer["status"] == "measured"
    assert answer["roi"]["voxels"] == int(square_mask().sum())


def test_a_repetition_finds_its_own_file(ct: Path, seg: Path, tmp_path: Path) -> None:
    arguments = (ct, "--from", seg, "--segment", 2, "--confirmed-by", "Roe^Jane", "--out", tmp_path / "out")
    _, first = run(*arguments)
    before = Path(first["seg"]).read_bytes()
    assert run(*arguments)[1]["seg"] == first["seg"]
    assert Path(first["seg"]).read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == [Path(first["seg"]).name]


def _mask_file(
    path: Path, labels: npt.NDArray[np.integer], turn: tuple[bool, bool, bool] = (False, False, False)
) -> Path:
    source = volume()
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing(source.spacing[::-1])
    image.SetOrigin(tuple(source.affine[:3, 3]))
    sitk.WriteImage(sitk.Flip(image, turn), str(path))
    return path


@pytest.mark.parametrize("turn", [(False, False, False), (False, True, False), (True, True, True)])
def test_a_nifti_mask_is_taken_over_whichever_way_its_axes_run(
    turn: tuple[bool, bool, bool], ct: Path, tmp_path: Path
) -> None:
    path = _mask_file(tmp_path / "mask.nii.gz", square_mask().astype(np.uint8), turn)
    status, answer = run(ct, "--from", path, "--confirmed-by", "Roe^Jane", "--out", ct)
    assert (status, answer["status"]) == (0, "confirmed")
    there = measured(ct)
    assert there["roi"]["voxels"] == int(square_mask().sum())
    theirs = measured(seg_study().write(tmp_path / "theirs"))
    assert there["features"] == theirs["features"]


def test_a_label_is_a_person_s_to_say(ct: Path, tmp_path: Path) -> None:
    labels = square_mask().astype(np.uint8)
    labels[10, 2:5, 40:44] = 7
    path = _mask_file(tmp_path / "mask.nii.gz", labels)
    status, answer = run(ct, "--from", path, "--out", tmp_path / "out")
    assert (status, answer["reason"]["code"]) == (3, "roi_ambiguous")
    assert "1, 7" in answer["reason"]["message"]
    status, answer = run(ct, "--from", path, "--label", 7, "--out", tmp_path / "out")
    assert (status, answer["roi"]["voxels"]) == (0, 12)
    status, answer = run(ct, "--from", path, "--label", 2, "--out", tmp_path / "out")
    assert (status, answer["reason"]["code"]) == (3, "roi_not_found")


def test_frames_of_an_enhanced_ct(tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    study.rois = []
    folder = study.write(tmp_path / "ct")
    first = next(iter(ct_datasets(volume(), "enhanced")))
    labels = square_mask((len(study.slices[0].PerFrameFunctionalGroupsSequence), first.Rows, first.Columns))
    path = _mask_file(tmp_path / "mask.nii.gz", labels.astype(np.uint8))
    status, answer = run(folder, "--from", path, "--confirmed-by", "Roe^Jane", "--out", folder)
    assert status == 0, answer
    assert measured(folder)["roi"]["voxels"] == int(labels.sum())


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--segment", "9"], 3, "roi_not_found"),
        (["--segment", "1", "--component", "4"], 3, "roi_not_found"),
        (["--segment", "1", "--component", "0"], 3, "roi_not_found"),
        ([], 3, "roi_ambiguous"),
        (["--label", "1"], 2, ""),
        (["--segment", "2", "--confirmed-by", "a\\b"], 2, ""),
        (["--segment", "2", "--confirmed-by", ""], 2, ""),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_written(
    more: list[str], status: int, said: str, ct: Path, seg: Path, tmp_path: Path
) -> None:
    found, answer = run(ct, "--from", seg, "--out", tmp_path / "out", *more)
    assert found == status
    if said:
        assert answer["reason"]["code"] == said
        assert "roi" in answer
        assert answer["seg"] is None
    assert not (tmp_path / "out").exists()


def test_what_is_no_source_is_refused(ct: Path, tmp_path: Path) -> None:
    slice_ = next(path for path in ct.iterdir())
    assert run(ct, "--from", slice_, "--out", tmp_path / "out")[1]["reason"]["code"] == "no_roi"
    text = tmp_path / "text.dcm"
    text.write_text("this is no DICOM")
    assert run(ct, "--from", text, "--out", tmp_path / "out")[1]["reason"]["code"] == "dicom_unreadable"
    assert CliRunner().invoke(app, ["contour", str(ct), "--from", str(tmp_path / "none"), "--out", "o"]).exit_code != 0


def test_another_patient_s_segmentation_is_refused(ct: Path, seg: Path, tmp_path: Path) -> None:
    other = pydicom.dcmread(seg)
    other.PatientID = "ANOTHER"
    other.save_as(seg)
    status, answer = run(ct, "--from", seg, "--segment", 2, "--out", tmp_path / "out")
    assert (status, answer["reason"]["code"]) == (3, "patient_mismatch")
    assert "ANOTHER" not in json.dumps(answer)


@given(arrays.arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))).filter(np.any))
@settings(deadline=None)
def test_parts_are_scipy_s_largest_first(mask: npt.NDArray[np.bool_]) -> None:
    affine = np.diag([3.0, 2.0, 1.5, 1.0])
    affine[:3, 3] = (5, -6, 7)
    parts, numbers = components(mask, affine)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert len(parts) == count
    assert [part.voxels for part in parts] == sorted((part.voxels for part in parts), reverse=True)
    np.testing.assert_array_equal(numbers > 0, mask)
    for k, part in enumerate(parts, start=1):
        assert len(np.unique(labels[numbers == k])) == 1
        assert part.voxels == np.count_nonzero(numbers == k)
        assert part.volume == pytest.approx(part.voxels * 9.0)
        centre = np.argwhere(numbers == k).mean(axis=0) * [3, 2, 1.5] + [5, -6, 7]
        assert part.centre == pytest.approx(tuple(centre))
