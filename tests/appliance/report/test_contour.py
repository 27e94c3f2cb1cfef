"""A contour made here as a SEG: what it states, and what other software reads from it."""

from __future__ import annotations

import os
import subprocess
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileDataset

from lungstage.appliance.dicom.contours import Confirmation, RegionReference, confirmation, predecessors
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.report.contour import Contour, PersonNameError, build_contour, person_name
from lungstage.appliance.report.outbox import encode
from tests.support.contours import NOON, ORIGIN, contour_of, contour_seg, region
from tests.support.enhanced import enhanced_rtstruct_study
from tests.support.reports import AXIAL, OBLIQUE, dciodvfy_errors, ellipsoid, generated_sources, reread
from tests.support.studies import rtstruct_study, seg_study, square_mask

pytestmark = pytest.mark.usefixtures("strict_dicom")


def _written(contour: Contour, folder: Path) -> Path:
    path = folder / "contour.dcm"
    path.write_bytes(encode(build_contour(contour)).content)
    return path


def _header(path: Path) -> RoiHeader:
    (header,) = read_headers(path, hash_pixels=True)
    assert isinstance(header, RoiHeader)
    return header


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_the_mask_survives(orientation: tuple[float, ...], tmp_path: Path) -> None:
    sources = generated_sources(orientation=orientation)
    mask = ellipsoid((7, 24, 32))
    found = hd.seg.segread(_written(contour_of(sources, mask), tmp_path))
    pixels = found.get_pixels_by_source_instance([source.SOPInstanceUID for source in sources], [1])
    np.testing.assert_array_equal(pixels[..., 0] > 0, mask)


@pytest.mark.parametrize("by", [None, "Roe^Jane", "Jane Roe"])
def test_it_says_whether_a_person_confirmed_it(by: str | None) -> None:
    seg = reread(contour_seg(rtstruct_study().slices, square_mask(), by))
    (segment,) = seg.SegmentSequence
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert segment.SegmentAlgorithmName == ORIGIN.name
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmVersion, algorithm.AlgorithmSource) == ("1.2", "lungstage")
    assert str(algorithm.AlgorithmParameters) == "diameter=1,2,3 4,5,6 mm"
    assert seg.ContentLabel == ("DRAFT" if by is None else "CONFIRMED")
    assert str(seg.get("ContentCreatorName") or "") == (by or "")
    assert (seg.ContentDate, seg.ContentTime, seg.TimezoneOffsetFromUTC) == ("20260203", "120000", "+0100")
    assert segment.SegmentLabel == ("GTV-1, draft" if by is None else "GTV-1")
    assert ("not confirmed" in seg.SeriesDescription) is (by is None)
    assert "research use only" in seg.SeriesDescription
    assert confirmation(seg) is (Confirmation.DRAFT if by is None else Confirmation.CONFIRMED)


def test_the_same_contour_is_the_same_object_whenever_it_was_confirmed() -> None:
    contour = contour_of(rtstruct_study().slices, square_mask())
    later = replace(contour, created=NOON + timedelta(days=1))
    first, second = (encode(build_contour(one)) for one in (contour, later))
    assert first.content == encode(build_contour(replace(contour))).content
    assert first.sop_instance_uid == second.sop_instance_uid
    assert first.content != second.content
    assert b"1.2.826.0.1.3680043.10.511" not in first.content  # the root of highdicom's random UIDs


def test_whatever_is_confirmed_otherwise_is_another_object() -> None:
    study = rtstruct_study()
    contour = contour_of(study.slices, square_mask())
    other = square_mask()
    other[5, 14, 16] = False
    different = [
        contour,
        replace(contour, mask=other),
        replace(contour, confirmed_by="Doe^John"),
        replace(contour, confirmed_by=None),
        replace(contour, name="GTVp"),
        replace(contour, supersedes=(region(study.rois[0]),)),
        replace(contour, supersedes=(region(study.rois[0], 2),)),
        replace(contour, origin=replace(ORIGIN, account=())),
        replace(contour, sources=contour.sources[::-1]),
    ]
    assert len({one.identity for one in different}) == len(different)


def test_predecessors_are_named_and_do_not_count_as_images(tmp_path: Path) -> None:
    structures, segments = rtstruct_study(), seg_study()
    elsewhere = RegionReference(str(segments.rois[0].SOPClassUID), "1.2.3.9", "1.2.3.8", "1.2.3.7", 4)
    named = (region(structures.rois[0], 3), region(segments.rois[0]), elsewhere)
    path = _written(contour_of(structures.slices, square_mask(), supersedes=named), tmp_path)
    seg = hd.seg.segread(path)
    assert predecessors(seg) == named
    header = _header(path)
    assert header.supersedes == tuple((one.sop_instance_uid, one.number) for one in named)
    plain = _header(_written(contour_of(structures.slices, square_mask()), tmp_path))
    assert (header.listed, header.image_references) == (plain.listed, plain.image_references)
    assert header.referenced_studies == ()
    assert header.digest != plain.digest


def test_another_s_segmentation_says_nothing_here_whatever_it_refers_to(tmp_path: Path) -> None:
    """This includes a SEG that other software made from a contour of lungstage under its own name."""
    study = rtstruct_study()
    seg = contour_seg(study.slices, square_mask(), None, [region(study.rois[0])])
    for keyword, value in (("Manufacturer", "Another"), ("ManufacturerModelName", "Viewer")):
        other = deepcopy(seg)
        setattr(other, keyword, value)
        assert confirmation(other) is None
        assert predecessors(other) == ()
        path = tmp_path / "other"
        other.save_as(path, enforce_file_format=True)
        header = _header(path)
        assert (header.confirmation, header.supersedes) == ("", ())


@pytest.mark.parametrize(
    ("spoil", "is_confirmed"),
    [
        (lambda seg: None, True),
        (lambda seg: setattr(seg, "ContentCreatorName", ""), False),
        (lambda seg: setattr(seg, "ContentCreatorName", "^"), False),
        (lambda seg: setattr(seg, "ContentLabel", "SEGMENTATION"), False),
        (lambda seg: delattr(seg, "ContentLabel"), False),
        (lambda seg: (delattr(seg, "ContentCreatorName"), setattr(seg, "PatientIdentityRemoved", "YES")), True),
        (lambda seg: (setattr(seg, "ContentLabel", "DRAFT"), setattr(seg, "PatientIdentityRemoved", "YES")), False),
    ],
)
def test_what_does_not_say_wholly_that_it_is_confirmed_is_a_draft(spoil: object, is_confirmed: bool) -> None:
    seg = contour_seg(rtstruct_study().slices, square_mask())
    spoil(seg)  # type: ignore[operator]
    assert (confirmation(seg) is Confirmation.CONFIRMED) is is_confirmed


def test_a_reference_for_another_purpose_supersedes_nothing() -> None:
    study = rtstruct_study()
    seg = contour_seg(study.slices, square_mask(), supersedes=[region(study.rois[0])])
    (item,) = seg.SourceInstanceSequence
    item.PurposeOfReferenceCodeSequence[0].CodeValue = "121322"
    assert predecessors(seg) == ()
    del item.PurposeOfReferenceCodeSequence
    assert predecessors(seg) == ()


@pytest.mark.parametrize("by", [None, "Roe^Jane"])
@pytest.mark.parametrize(("rows", "columns"), [(24, 32), (23, 31)], ids=["bits", "bytes"])
def test_dciodvfy_finds_no_error(by: str | None, rows: int, columns: int, tmp_path: Path) -> None:
    sources = generated_sources(Rows=rows, Columns=columns)
    structures, segments = rtstruct_study(), seg_study()
    named = [region(structures.rois[0]), replace(region(segments.rois[0]), study_instance_uid="1.2.3")]
    path = _written(contour_of(sources, ellipsoid((7, rows, columns)), by, named), tmp_path)
    sources[0].save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    assert dciodvfy_errors(path) <= dciodvfy_errors(tmp_path / "ct.dcm")


def test_dcmqi_reads_it(tmp_path: Path) -> None:
    tool = Path(os.environ.get("LUNGSTAGE_TID1500READER", "")).parent / "segimage2itkimage"
    if not tool.is_file():
        pytest.skip("dcmqi is not installed")
    study = rtstruct_study()
    path = _written(contour_of(study.slices, square_mask(), supersedes=[region(study.rois[0])]), tmp_path)
    subprocess.run(
        [tool, "--inputDICOM", path, "--outputDirectory", tmp_path, "--prefix", "p", "-t", "nrrd"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p-1.nrrd")))
    inside = square_mask()[square_mask().any(axis=(1, 2))]
    assert np.count_nonzero(array) == np.count_nonzero(inside)
    np.testing.assert_array_equal(array[array.any(axis=(1, 2))] > 0, inside)


def test_it_is_drawn_on_frames_of_an_enhanced_ct(tmp_path: Path) -> None:
    whole = enhanced_rtstruct_study().slices[0]
    headers = generated_sources(5)
    for header in headers:
        header.SOPClassUID, header.SOPInstanceUID = whole.SOPClassUID, whole.SOPInstanceUID
    contour = replace(contour_of(headers, ellipsoid((5, 24, 32))), frames=(9, 8, 7, 6, 5))
    header = _header(_written(contour, tmp_path))
    assert header.image_references == (whole.SOPInstanceUID,)
    assert header.listed == (("1.2.3.4", (whole.SOPInstanceUID,)),)


@pytest.mark.parametrize(
    "name",
    [
        "", "  ", "^", "--", "17", "a\\b", "A=B", "x" * 65, "a\nb", "a\tb", "a\x00", "a^b^c^d^e^f",
        "\u200b", "\u2800", "Anna\u200b", "\u202eEVIL", "\udcff\udcfe", "A\ue000", "A\u2028B",
    ],
)  # fmt: skip
def test_what_is_no_person_s_name_is_refused(name: str) -> None:
    with pytest.raises(PersonNameError, match="at most 64 characters"):
        person_name(name)


def test_spaces_more_or_less_make_no_other_name() -> None:
    assert person_name(" Anna  Weber ") == person_name("Anna Weber") == "Anna Weber"


@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="\\=", exclude_categories=["C", "Z"]), min_size=1, max_size=20
    )
)
def test_any_other_name_is_written_as_it_is(name: str) -> None:
    if not any(map(str.isalpha, name)) or name.count("^") > 4:
        return
    seg: FileDataset | Dataset = Dataset()
    seg.ContentCreatorName = person_name(name)
    assert str(seg.ContentCreatorName) == name


@given(st.text(max_size=90))
def test_a_draft_s_label_says_so_and_a_confirmed_one_s_does_not(name: str) -> None:
    draft = contour_of(_SLICES, square_mask(), None, name=name)
    assert draft.label.endswith(", draft")
    assert len(draft.label) <= 64
    confirmed = contour_of(_SLICES, square_mask(), name=draft.label)
    assert not confirmed.label.endswith(", draft")


_SLICES = rtstruct_study().slices
