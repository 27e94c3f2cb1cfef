"""The pictures of a study: all present slices, in the patient's directions, with the regions in their places."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from PIL import Image

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.header import Header, RoiHeader
from lungstage.appliance.staging import viewing
from lungstage.appliance.staging.one_shot import scan
from tests.appliance.report.test_patients_names import AS_BYTES, NAMES, named
from tests.support.studies import Study, rtstruct_study, seg_study

Written = Callable[[Study], tuple[tuple[Header, ...], str]]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(study: Study) -> tuple[tuple[Header, ...], str]:
        headers = scan([study.write(tmp_path / "study")]).headers
        return headers, next(h.series_instance_uid for h in headers if not isinstance(h, RoiHeader))

    return write


def roi_of(headers: tuple[Header, ...]) -> str:
    return next(header.sop_instance_uid for header in headers if isinstance(header, RoiHeader))


def pixels(picture: viewing.Picture) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))


def outlined(picture: viewing.Picture) -> npt.NDArray[np.bool_]:
    red, green, blue = np.moveaxis(pixels(picture).astype(int), -1, 0)
    found: npt.NDArray[np.bool_] = (red > 200) & (green > 150) & (blue < 60)
    return found


def test_a_whole_study(written: Written) -> None:
    headers, key = written(rtstruct_study(names=("GTV-1", "Lung")))
    scene = viewing.look(headers, key, None)
    assert scene.counts == (12, 40, 48)
    assert (scene.missing, scene.faults) == (0, ())
    assert [(one.number, one.name, one.is_drawn) for one in scene.regions] == [(1, "GTV-1", True), (2, "Lung", True)]


@pytest.mark.parametrize("study", [rtstruct_study, seg_study])
def test_the_outline_lies_around_what_was_drawn(written: Written, study: Callable[[], Study]) -> None:
    headers, key = written(study())
    region = RegionChoice(roi_of(headers), 1)
    picture = viewing.draw(headers, key, "axial", None, "soft_tissue", region)
    rows, columns = np.nonzero(outlined(picture))
    height, width = pixels(picture).shape[:2]
    # Rows 13 to 27 of 40 and columns 15 to 30 of 48 are inside.
    assert np.allclose([rows.min() / height, rows.max() / height], [13 / 40, 28 / 40], atol=0.02)
    assert np.allclose([columns.min() / width, columns.max() / width], [15 / 48, 31 / 48], atol=0.02)
    assert 12 - 1 - 8 <= picture.index <= 12 - 1 - 3  # the index counts from the head
    sagittal = viewing.draw(headers, key, "sagittal", None, "lung", region)
    rows, _ = np.nonzero(outlined(sagittal))
    height = pixels(sagittal).shape[0]
    assert np.allclose([rows.min() / height, rows.max() / height], [3 / 12, 9 / 12], atol=0.02)


def test_missing_slices_leave_a_gap_of_their_own_size(written: Written) -> None:
    study = rtstruct_study()
    del study.slices[4:6]
    headers, key = written(study)
    scene = viewing.look(headers, key, None)
    assert scene.counts == (12, 40, 48)
    assert scene.missing == 2
    empty = [
        bool((pixels(viewing.draw(headers, key, "axial", k, "lung", None))[80:-80, 80:-80] == 226).all())
        for k in range(12)
    ]
    assert [k for k, is_empty in enumerate(empty) if is_empty] == [12 - 1 - 5, 12 - 1 - 4]


def test_windows_differ_and_a_plane_that_is_not_there_is_said(written: Written) -> None:
    headers, key = written(rtstruct_study())
    drawn = {name: viewing.draw(headers, key, "coronal", 20, name, None).png for name in viewing.WINDOWS}
    assert len(set(drawn.values())) == 3
    for index in (-1, 40):
        with pytest.raises(Refused):
            viewing.draw(headers, key, "coronal", index, "lung", None)
    with pytest.raises(Refused):
        viewing.draw(headers, key, "axial", None, "lung", RegionChoice("1.2.3", 1))


def unpacked(packed: viewing.Packed, folder: Path) -> sitk.Image:
    path = folder / "volume.nii"
    path.write_bytes(gzip.decompress(packed.content))
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("study", [rtstruct_study, seg_study])
def test_a_volume_holds_the_slices_and_the_region_where_they_lie(
    written: Written, study: Callable[[], Study], tmp_path: Path
) -> None:
    made = study()
    headers, key = written(made)
    image = unpacked(viewing.pack(headers, key, "image", None), tmp_path)
    region = unpacked(viewing.pack(headers, key, "region", RegionChoice(roi_of(headers), 1)), tmp_path)
    slices = sorted(made.slices, key=lambda one: float(one.ImagePositionPatient[2]), reverse=True)
    hu = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices])
    assert np.array_equal(sitk.GetArrayFromImage(image), hu)
    # ITK's axes go to the left, the back and the head; only the last differs here.
    assert np.allclose(np.reshape(image.GetDirection(), (3, 3)), np.diag([1, 1, -1]))
    rows, columns = map(float, slices[0].PixelSpacing)
    step = abs(float(slices[0].ImagePositionPatient[2]) - float(slices[1].ImagePositionPatient[2]))
    assert np.allclose(image.GetSpacing(), (columns, rows, step))
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    assert np.allclose(middle, 0, atol=1e-4)
    inside = np.argwhere(sitk.GetArrayFromImage(region))
    assert inside[:, 1:].min(axis=0).tolist() == [13, 15]
    assert inside[:, 1:].max(axis=0).tolist() == [27, 30]
    assert region.GetDirection() == image.GetDirection()
    assert region.GetSize() == image.GetSize()


def test_a_volume_says_where_slices_are_missing_and_is_never_too_large(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = rtstruct_study()
    del study.slices[4:6]
    headers, key = written(study)
    hu = sitk.GetArrayFromImage(unpacked(viewing.pack(headers, key, "image", None), tmp_path))
    assert [k for k in range(12) if (hu[k] == -32768).all()] == [12 - 1 - 5, 12 - 1 - 4]
    for choice in (RegionChoice("1.2.3", 1), RegionChoice(roi_of(headers), 77)):
        with pytest.raises(Refused, match="region does not exist"):
            viewing.pack(headers, key, "region", choice)
    monkeypatch.setattr(viewing, "_MOST_SENT", hu.size - 1)
    with pytest.raises(Refused, match="too many"):
        viewing.pack(headers, key, "image", None)


def test_files_that_are_gone_are_said_to_be(written: Written) -> None:
    headers, key = written(rtstruct_study())
    for header in headers:
        header.path.unlink()
    scene = viewing.look(headers, key, None)
    assert scene.counts == (0, 0, 0)
    assert len(scene.faults) == 2
    (patient,) = viewing.read_patients([headers[0].path])
    assert patient == viewing.Patient(fault="The file no longer exists.")


@pytest.mark.parametrize(
    ("charset", "name", "expected"),
    [
        ("ISO_IR 100", "Müller^Jürgen", "Müller, Jürgen"),
        ("ISO_IR 144", "Люкceмбypг^Pоза", "Люкceмбypг, Pоза"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东", "Wang, XiaoDong · 王, 小东"),
        ("ISO_IR 127", "قباني^لنزار", "قباني, لنزار"),
        ("ISO_IR 192", "DOE^\u202eENAJ^\u0000X", "DOE, ENAJ X"),
        ("ISO_IR 192", "<script>alert(1)</script>^J", "<script>alert(1)</script>, J"),
        ("ISO_IR 6", "", ""),
    ],
)
def test_a_patient_is_named_as_people_write(written: Written, charset: str, name: str, expected: str) -> None:
    study = rtstruct_study()
    for dataset in (*study.slices, *study.rois):
        dataset.SpecificCharacterSet, dataset.PatientName, dataset.PatientBirthDate = charset, name, "19570317"
    headers, _ = written(study)
    (patient,) = viewing.read_patients([headers[-1].path])
    assert (patient.name, patient.born, patient.fault) == (expected, "1957-03-17", "")


@pytest.mark.parametrize("sets", [*NAMES, *AS_BYTES])
def test_a_name_is_read_in_every_character_set(sets: str, tmp_path: Path) -> None:
    name, stored = (NAMES[sets], NAMES[sets]) if sets in NAMES else AS_BYTES[sets]
    named(sets, stored)[0].save_as(tmp_path / "x", enforce_file_format=True)
    (patient,) = viewing.read_patients([tmp_path / "x"])
    assert patient.name == " · ".join(", ".join(group.split("^")) for group in name.split("=")[:2])
    assert (patient.identifier, patient.fault) == ("P-17", "")


def test_bytes_that_are_no_dicom_name_nobody(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello" * 500)
    (patient,) = viewing.read_patients([tmp_path / "x"])
    assert patient.fault
    assert not patient.name
