"""For any input there is a number with its caveat, or the reason why there is none; a word only if it is sure."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.descriptors.definitions import DEFINITIONS
from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.descriptors.values import Descriptors
from tests.appliance.descriptors.shapes import LUNG, TISSUE, ball, places, ramp, volume_of

WORDED = [definition.name for definition in DEFINITIONS if definition.words]


def assert_no_word(found: Descriptors, *because: str) -> None:
    for part in because:
        assert any(part in reason for reason in found.unfit), found.unfit
    for name in WORDED:
        assert found[name].word is None
        assert found[name].percentile is None
        assert found[name].reason, name
    assert found["t_size_class"].caveats or found["t_size_class"].reason


def test_empty() -> None:
    volume, mask = ball(8)
    with pytest.raises(Refused) as refusal:
        describe(volume, np.zeros_like(mask))
    assert refusal.value.reason.code == ReasonCode.ROI_EMPTY


def test_five_millimetres() -> None:
    found = describe(*ball(2.5))
    assert_no_word(found, "words are given only for at least 10 mm")
    assert found["long_axis_mm"].value == pytest.approx(5, abs=0.5)


def test_one_slice() -> None:
    volume, mask = ball(12)
    alone = np.zeros_like(mask)
    alone[len(mask) // 2] = mask[len(mask) // 2]
    found = describe(volume, alone)
    assert_no_word(found, "one slice only")
    assert found["long_axis_mm"].value == pytest.approx(24, abs=0.7)
    for name in ("volume_mm3", "diameter_3d_mm"):
        assert any("one slice" in caveat for caveat in found[name].caveats)


def test_two_pieces() -> None:
    z, y, x = places(30)
    first, second = np.sqrt(z**2 + y**2 + (x + 14) ** 2) - 10, np.sqrt(z**2 + y**2 + (x - 14) ** 2) - 7
    found = describe(volume_of(ramp(np.minimum(first, second))), (first <= 0) | (second <= 0))
    assert_no_word(found, "2 separate parts")
    # The axes are those of the larger part; they do not reach from one part to the other.
    assert found["long_axis_mm"].value == pytest.approx(20, abs=0.7)
    assert found["components"].value == 2
    assert any("separate parts" in caveat for caveat in found["long_axis_mm"].caveats)


def test_thick_slices() -> None:
    found = describe(*ball(15, (5.0, 0.7, 0.7)))
    assert_no_word(found, "5.0 mm apart")
    assert any("coarse" in caveat for caveat in found["volume_mm3"].caveats)


def test_misplaced_into_lung() -> None:
    volume, mask = ball(12)
    found = describe(volume, np.roll(mask, 20, axis=2))
    assert_no_word(found, "air or aerated lung")


def test_planning_volume() -> None:
    """A contour with a margin of 3 mm is not the tumour's contour."""
    z, y, x = places(28)
    r = np.sqrt(z**2 + y**2 + x**2)
    found = describe(volume_of(ramp(r - 15)), r <= 18)
    assert_no_word(found, "away from the steepest fall", "planning volume")
    # At latitude φ of the drawn ball both are cut by the slice; half the largest area reaches to z = 18 / √2.
    z = np.linspace(-18 / np.sqrt(2), 18 / np.sqrt(2), 2001)
    between = np.sqrt(18**2 - z**2) - np.sqrt(15**2 - z**2)
    assert found["edge_offset_mm"].value == pytest.approx(np.median(between), abs=0.1)


def test_no_lung_around() -> None:
    volume, mask = ball(12, outside=20.0)
    found = describe(volume, mask)
    assert_no_word(found, "HU fall towards lung")
    assert found["edge_slope_hu_per_mm"].value is None
    assert found["edge_slope_hu_per_mm"].reason
    assert found["contact_share"].value == 1


def test_rib() -> None:
    volume, mask = ball(15)
    hu = volume.array.copy()
    _, y, x = places(23)
    rib = np.broadcast_to((y > 4) & (np.abs(x) < 30), hu.shape)
    hu[rib] = 700
    found = describe(volume_of(hu), mask)
    assert_no_word(found, "is bone")
    # Bone does not count as tissue, so it does not make ground glass solid.
    assert found["mean_hu"].value == pytest.approx(float(volume.array[mask & ~rib].mean()), abs=1e-3)
    assert found["dense_share"].value == 0


def test_nothing_but_bone() -> None:
    volume, mask = ball(8)
    found = describe(volume_of(np.full_like(volume.array, 900)), mask)
    assert all(found[name].word is None for name in WORDED)
    for name in ("mean_hu", "solid_share", "margin_sharpness"):
        assert found[name].value is None
        assert found[name].reason == "Without bone, cavity and cavity walls, no tissue is left within the outline."


@pytest.mark.parametrize("contrast", [True, None])
def test_contrast(contrast: bool | None) -> None:
    volume, mask = ball(12, inside=260.0)
    found = describe(volume, mask, contrast=contrast)
    assert any("raise" in caveat for caveat in found["dense_share"].caveats)
    assert describe(volume, mask, contrast=False)["dense_share"].caveats == ()


def test_cut_by_the_image() -> None:
    volume, mask = ball(15)
    found = describe(volume_of(volume.array[:, :, 6:]), mask[:, :, 6:])
    assert found.unfit == ()  # there is lung between the tumour and the edge
    column = int(np.flatnonzero(mask.any(axis=(0, 1)))[0])
    found = describe(volume_of(volume.array[:, :, column + 3 :]), mask[:, :, column + 3 :])
    assert_no_word(found, "edge of the image")
    assert any("may continue beyond it" in caveat for caveat in found["long_axis_mm"].caveats)


def test_a_reference_volume_without_a_slice_to_spare() -> None:
    """The region's slices without a margin, as the appliance reads them if it does not resample."""
    volume, mask = ball(12)
    used = mask.any(axis=(1, 2))
    found = describe(volume_of(volume.array[used]), mask[used])
    assert found["volume_mm3"].value == describe(volume, mask)["volume_mm3"].value
    assert found.unfit == ()
    # A third of the surface borders on slices that are not there, too much for a reliable share.
    assert found["contact_share"].value is None or found["contact_share"].value == pytest.approx(0, abs=0.02)


class TestTexture:
    def test_ground_glass_has_no_size_class(self) -> None:
        found = describe(*ball(12, inside=-620.0))
        assert found["mean_hu"].word == "ground glass"
        assert found["t_size_class"].value is None
        assert "T1c" in str(found["t_size_class"].reason)

    def test_part_solid_is_classed_by_its_solid_part(self) -> None:
        z, y, x = places(24)
        r = np.sqrt(z**2 + y**2 + x**2)
        hu = np.where(r <= 9, TISSUE, ramp(r - 16, inside=-560.0))
        found = describe(volume_of(hu.astype(np.int16)), r <= 16)
        assert found["mean_hu"].word == "part-solid"
        assert found["solid_long_axis_mm"].value == pytest.approx(18, abs=1.2)
        assert found["t_size_class"].value == "T1b"
        assert "by the whole tumour it would be T2a" in found["t_size_class"].caveats[0]

    def test_a_thick_walled_cavity_stays_solid(self) -> None:
        z, y, x = places(24)
        r = np.sqrt(z**2 + y**2 + x**2)
        hu = np.where(r < 13, -1000, ramp(r - 16, 1.0))
        found = describe(volume_of(hu.astype(np.int16)), r <= 16)
        assert float(np.mean(hu[r <= 16])) < -500  # the mean of all voxels inside would be that of ground glass
        assert found["mean_hu"].word == "solid"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.6, 0.6), (5.0, 0.98, 0.98)]),
    st.floats(0.02, 0.9),
)  # fmt: skip
def test_any_mask_in_any_volume(seed: int, spacing: tuple[float, float, float], share: float) -> None:
    """Numbers are finite and in their range, and the mirror image has the same numbers."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 14, 3))
    mask = random.random(shape) < share
    mask[tuple(random.integers(0, shape))] = True
    hu = random.integers(-1024, 1500, shape).astype(np.int16)
    found = describe(volume_of(hu, spacing), mask)
    values = found.as_json()
    json.dumps(values, allow_nan=False)
    for one in found.found:
        assert (one.value is None) <= (one.reason is not None), one
        if one.definition.unit == "1" and one.definition.name not in ("components", "radial_spread"):
            assert one.value is None or 0 <= float(one.value) <= 1, one
    assert 0 < float(values["short_axis_mm"]) <= float(values["long_axis_mm"]) * (1 + 1e-9)
    assert values["long_axis_mm"] <= values["diameter_3d_mm"] + 1e-9
    mirrored = describe(volume_of(hu[:, :, ::-1].copy(), spacing), mask[:, :, ::-1].copy()).as_json()
    for name in ("long_axis_mm", "volume_mm3", "irregularity", "radial_spread", "mean_hu", "contact_share"):
        assert (mirrored[name] is None) == (values[name] is None), name
        assert mirrored[name] is None or mirrored[name] == pytest.approx(values[name], rel=1e-9, abs=1e-9), name


def test_lung_value_is_air_to_the_gate() -> None:
    assert LUNG < -800
