"""The segmentation beside the report, and the outline of the key slice."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from lungstage.appliance.report.segmentation import enclosed_area, key_slice, outer_contour
from lungstage.appliance.report.structured_report import build_segmentation, derive_uid
from tests.support.reports import (
    AXIAL,
    OBLIQUE,
    dciodvfy_errors,
    generated_sources,
    made_up_context,
    reread,
    write_both,
)

pytestmark = pytest.mark.usefixtures("strict_dicom")


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_mask_survives(orientation: tuple[float, ...], tmp_path: Path) -> None:
    context = made_up_context(generated_sources(orientation=orientation))
    path, _ = write_both(context, tmp_path)
    segmentation = hd.seg.segread(path)
    pixels = segmentation.get_pixels_by_source_instance([ds.SOPInstanceUID for ds in context.sources], [1])
    np.testing.assert_array_equal(pixels[..., 0].astype(bool), context.mask)
    assert segmentation.NumberOfFrames == np.count_nonzero(context.mask.any(axis=(1, 2)))
    volume = segmentation.get_volume(allow_missing_positions=True)
    assert volume.spacing == pytest.approx((2.5, 0.75, 0.5))
    assert np.count_nonzero(volume.array) == np.count_nonzero(context.mask)
    assert segmentation.FrameOfReferenceUID == context.sources[0].FrameOfReferenceUID


@pytest.mark.parametrize(("rows", "columns"), [(24, 32), (23, 31), (201, 204), (3, 8), (9, 3), (1, 1)])
def test_every_frame_begins_with_a_byte_of_its_own(rows: int, columns: int, tmp_path: Path) -> None:
    """Orthanc, OHIF and Weasis expect each frame to begin at a byte, although DICOM packs bits without a gap."""
    sources = generated_sources()
    for source in sources:
        source.Rows, source.Columns = rows, columns
    mask = np.random.default_rng(3).random((len(sources), rows, columns)) < 0.4
    mask[0, 0, 0] = True
    path, _ = write_both(made_up_context(sources, mask=mask), tmp_path)
    segmentation = hd.seg.segread(path)
    bits = segmentation.BitsAllocated * rows * columns
    assert bits % 8 == 0
    pixels = segmentation.get_pixels_by_source_instance([ds.SOPInstanceUID for ds in sources], [1])
    np.testing.assert_array_equal(pixels[..., 0] > 0, mask)
    assert set(np.unique(pixels).tolist()) <= {0.0, 1.0}
    assert (segmentation.SegmentationType == "BINARY") is (rows * columns % 8 == 0)
    sources[0].save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    assert dciodvfy_errors(path) <= dciodvfy_errors(tmp_path / "ct.dcm")


def test_segment_says_where_it_comes_from() -> None:
    context = made_up_context(generated_sources(), roi_name="GTV\\1\n links")
    segmentation = reread(build_segmentation(context))
    (segment,) = segmentation.SegmentSequence
    assert segment.SegmentLabel == "GTV 1 links"
    assert context.roi_source.sop_instance_uid in segment.SegmentDescription
    assert segment.TrackingUID == derive_uid(context.identity, "tracking")
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert segmentation.SegmentationType == "BINARY"


@pytest.mark.parametrize(("count", "drop"), [(1, ()), (2, ()), (2, ("SliceThickness",)), (7, ("SliceThickness",))])
def test_few_slices(count: int, drop: tuple[str, ...], tmp_path: Path) -> None:
    sources = generated_sources(count, drop=drop)
    mask = np.zeros((count, 24, 32), bool)
    mask[-1, 5, 6] = True
    path, _ = write_both(made_up_context(sources, mask=mask), tmp_path)
    measures = hd.seg.segread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == 2.5
    assert measures.get("SpacingBetweenSlices") == (None if count == 1 else 2.5)
    sources[0].save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    assert dciodvfy_errors(path) <= dciodvfy_errors(tmp_path / "ct.dcm")


def test_noise_in_the_orientation_is_no_obstacle() -> None:
    sources = generated_sources(orientation=OBLIQUE)
    sources[3].ImageOrientationPatient[0] += 1e-9
    segmentation = reread(build_segmentation(made_up_context(sources)))
    assert len(segmentation.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence) == 1


def test_every_uid_is_derived() -> None:
    context = made_up_context(generated_sources())
    first = reread(build_segmentation(context)).to_json()
    other = build_segmentation(replace(context, identity="ef" * 32))
    assert other.DimensionOrganizationSequence[0].DimensionOrganizationUID not in first
    assert "1.2.826.0.1.3680043.10.511" not in first  # the root of highdicom's random UIDs


def test_key_slice_is_the_largest() -> None:
    mask = np.zeros((4, 5, 5), bool)
    mask[1, :2, :2] = mask[2, :2, :3] = mask[3, :3, :2] = True
    assert key_slice(mask) == 2


def test_contour_of_one_pixel() -> None:
    region = np.zeros((4, 6), bool)
    region[2, 3] = True
    corners = outer_contour(region)
    assert {tuple(corner) for corner in corners.tolist()} == {(3, 2), (4, 2), (4, 3), (3, 3)}
    assert corners[0].tolist() == corners[-1].tolist()
    assert enclosed_area(corners) == 1


def test_contour_ignores_holes_and_smaller_parts() -> None:
    region = np.zeros((9, 9), bool)
    region[1:6, 1:6] = True
    region[3, 3] = False
    region[6, 6] = True  # only touches at a corner
    corners = outer_contour(region)
    assert len(corners) == 5
    assert enclosed_area(corners) == 25


def _inside(corners: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Even-odd rule at the pixel centres, column + 0.5 and row + 0.5."""
    rows, columns = np.indices(shape)
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in pairwise(corners):
        if x0 == x1:
            inside ^= (min(y0, y1) < rows + 0.5) & (rows + 0.5 < max(y0, y1)) & (columns + 0.5 > x0)
    return inside


@settings(deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any))
def test_contour_encloses_exactly_the_largest_part(region: npt.NDArray[np.bool_]) -> None:
    corners = outer_contour(region)
    inside = _inside(corners, region.shape)
    labels, count = ndimage.label(region)
    parts = [ndimage.binary_fill_holes(labels == label + 1, np.ones((3, 3))) for label in range(count)]
    assert any(np.array_equal(inside, part) for part in parts)
    assert enclosed_area(corners) == inside.sum() == max(part.sum() for part in parts)
    turns = np.diff(corners, axis=0)
    assert np.all(np.count_nonzero(turns, axis=1) == 1)
    assert np.all((turns[1:] * turns[:-1]).sum(axis=1) == 0)
