"""Reading, choosing and filling regions of interest."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.choice import choose
from lungstage.appliance.dicom.raster import combine, fill
from lungstage.appliance.dicom.region import Outline, Region
from lungstage.appliance.model.roi_rule import ROI_RULE


def _brute_force(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The even–odd rule, one pixel at a time, with a ray towards larger columns."""
    mask = np.zeros(shape, dtype=bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            inside = False
            for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if (r0 <= row) != (r1 <= row) and column < c0 + (row - r0) / (r1 - r0) * (c1 - c0):
                    inside = not inside
            mask[row, column] = inside
    return mask


coordinates = st.floats(-3, 13, allow_nan=False)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
@settings(max_examples=150, deadline=None)
def test_fill_is_even_odd_of_voxel_centres(corners: list[tuple[float, float]]) -> None:
    points = np.array(corners) + 1e-4 * np.pi  # no voxel centre lies exactly on an edge, where both answers are right
    # Brute force counts crossings to the right, lungstage to the left; for closed contours both agree.
    assert np.array_equal(fill(points, (10, 11)), _brute_force(points, (10, 11)))


def test_fill_keyhole_keeps_the_hole_open() -> None:
    outer = [(1, 1), (1, 9), (9, 9), (9, 1), (1, 1)]
    inner = [(3, 3), (7, 3), (7, 7), (3, 7), (3, 3)]
    keyhole = fill(np.array(outer + inner) + 0.25, (12, 12))
    assert keyhole[2, 2]
    assert not keyhole[5, 5]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_combine_cuts_holes_whatever_the_order(order: tuple[int, int]) -> None:
    polygons = [fill(np.array(square) + 0.5, (12, 12)) for square in
                ([(0, 0), (0, 9), (9, 9), (9, 0)], [(2, 2), (2, 5), (5, 5), (5, 2)])]  # fmt: skip
    ring = combine([polygons[k] for k in order])
    assert ring.sum() == 81 - 9


def test_combine_refuses_a_contour_that_is_there_twice() -> None:
    square = fill(np.array([(0, 0), (0, 5), (5, 5), (5, 0)]) + 0.5, (8, 8))
    with pytest.raises(Refused) as refusal:
        combine([square, square])
    assert refusal.value.reason.code == ReasonCode.CONTOURS_OVERLAP


DRAWN = (Outline(np.eye(3), "CLOSED_PLANAR"),)


def _regions(*names: str, codes: tuple[tuple[str, ...], ...] = ()) -> list[Region]:
    source = SimpleNamespace(kind="RTSTRUCT")
    types = codes or ((),) * len(names)
    return [
        Region(source, number, name, code, "", DRAWN)  # type: ignore[arg-type]
        for number, (name, code) in enumerate(zip(names, types, strict=True))
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("GTV-1", "Lung-Left", "Lung-Right", "Spinal-Cord"), "GTV-1"),
        (("GTV-1", "GTV-2", "gtv-3"), "GTV-1"),
        (("GTVp", "GTVn"), "GTVp"),
        (("GTV_Mass_CT",), "GTV_Mass_CT"),
        (("Heart", "Tumor"), "Tumor"),
        (("Neoplasm, Primary", "Neoplasm, Secondary"), "Neoplasm, Primary"),
    ],
)
def test_choose_finds_the_primary(names: tuple[str, ...], expected: str) -> None:
    assert choose(_regions(*names), ROI_RULE, None).name == expected


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("Lung-Left",), "roi_not_found"),
        (("GTV-2",), "roi_not_found"),
        (("GTVn",), "roi_not_found"),
        (("ROI-1", "ROI-2"), "roi_not_found"),
        ((), "roi_not_found"),
        (("GTV left", "GTV right"), "roi_ambiguous"),
        (("GTV-1", "gtv_1"), "roi_ambiguous"),
    ],
)
def test_choose_refuses_to_guess_and_lists_the_names(names: tuple[str, ...], code: str) -> None:
    with pytest.raises(Refused) as refusal:
        choose(_regions(*names), ROI_RULE, None)
    assert refusal.value.reason.code == code
    assert all(f"'{name}'" in refusal.value.reason.message for name in names)


def test_choose_by_name_overrides_the_rule() -> None:
    regions = _regions("GTV-1", "GTV-2", "Lung")
    assert choose(regions, ROI_RULE, " gtv-2 ").name == "GTV-2"
    with pytest.raises(Refused) as refusal:
        choose(regions, ROI_RULE, "GTV-9")
    assert refusal.value.reason.code == ReasonCode.ROI_NOT_FOUND


def test_names_that_differ_in_case_alone_are_told_apart_by_it() -> None:
    regions = _regions("GTV-1", "gtv-1")
    assert [choose(regions, ROI_RULE, name).number for name in ("GTV-1", " gtv-1")] == [0, 1]
    with pytest.raises(Refused) as refusal:
        choose(regions, ROI_RULE, "Gtv-1")
    assert refusal.value.reason.code == ReasonCode.ROI_AMBIGUOUS


def test_regions_of_one_name_are_to_be_renamed_for_no_name_tells_them_apart() -> None:
    for name in (None, "GTV-1"):
        with pytest.raises(Refused, match="Give each region its own name in the contouring software"):
            choose(_regions("GTV-1", "GTV-1"), ROI_RULE, name)
    with pytest.raises(Refused) as refusal:
        choose(_regions("GTV-1", "gtv_1"), ROI_RULE, None)
    assert "own name" not in refusal.value.reason.message


def test_choose_prefers_the_property_type_code() -> None:
    regions = _regions("a", "b", codes=(("39607008", "SCT"), ("372087000", "SCT")))
    assert choose(regions, ROI_RULE, None).name == "b"
