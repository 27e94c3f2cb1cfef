"""From a prompt to a mask, with a network that gives a known answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contour.drawing import CERTAIN_MM, CORRECTION_SHARE, LEAST_REACH_MM, draw
from lungstage.appliance.contour.prompts import CHANNELS, Prompt

Place = tuple[float, float, float]
CENTRE = (50.0, 50.0, 45.0)
LINE = ((35.0, 50.0, 45.0), (65.0, 50.0, 45.0))


def ball(hu: Any, told: Any) -> Any:
    """The ball that the prompt describes, plus what is included and minus what is excluded."""
    size, _, _, include, exclude = told
    return (size - 0.5 + include - exclude).astype(np.float32)


def ct(spacing: float = 3.0) -> hd.Volume:
    affine = np.diag([1.0, 1.0, spacing, 1.0])[:, [2, 1, 0, 3]]
    return hd.Volume(np.zeros((int(90 / spacing), 100, 100), np.float32), affine, coordinate_system="PATIENT")


def distances(volume: hd.Volume, place: Place) -> Any:
    steps = np.linalg.norm(volume.affine[:3, :3], axis=0)
    axes = [np.arange(size) * step for size, step in zip(volume.spatial_shape, steps, strict=True)]
    x, y, z = place
    return np.sqrt(((axes[0] - z) ** 2)[:, None, None] + ((axes[1] - y) ** 2)[:, None] + (axes[2] - x) ** 2)


@pytest.mark.parametrize("spacing", [0.5, 1.0, 3.0, 5.0])
def test_a_line_becomes_the_ball_that_the_network_says_on_the_voxels_of_the_ct(spacing: float) -> None:
    volume = ct(spacing)
    drawn = draw(volume, Prompt("diameter", LINE), ball)
    wrong = drawn ^ (distances(volume, CENTRE) <= 15)
    assert distances(volume, CENTRE)[wrong].min(initial=15) > 14.5
    assert distances(volume, CENTRE)[wrong].max(initial=15) < 15.5


corrections = st.lists(
    st.tuples(st.tuples(st.floats(20, 80), st.floats(20, 80), st.floats(10, 80)), st.booleans()), max_size=4
)


@settings(max_examples=25, deadline=None)
@given(corrections)
def test_corrections_change_the_mask_around_their_points_only_and_only_in_their_direction(
    points: list[tuple[Place, bool]],
) -> None:
    volume = ct()
    plain = Prompt("diameter", LINE)
    include, exclude = (tuple(place for place, belongs in points if belongs is which) for which in (True, False))
    before = draw(volume, plain, ball)
    after = draw(volume, Prompt("diameter", LINE, include, exclude), ball)
    reach = max(LEAST_REACH_MM, CORRECTION_SHARE * 15)
    for changed, allowed in ((after & ~before, include), (before & ~after, exclude)):
        near = np.zeros_like(changed)
        for place in allowed:
            near |= distances(volume, place) <= reach
        assert not (changed & ~near).any()
    for place in exclude:  # they are applied last
        assert not after[distances(volume, place) <= CERTAIN_MM].any()


def test_a_correction_reaches_as_far_as_the_network_says_but_not_further() -> None:
    volume = ct(1.0)
    out = (67.0, 50.0, 45.0)
    after = draw(volume, Prompt("diameter", LINE, include=(out,)), ball)
    added = after & ~draw(volume, Prompt("diameter", LINE), ball)
    assert added.sum() > 50
    assert distances(volume, out)[added].max() <= CORRECTION_SHARE * 15


def test_an_existing_contour_is_changed_only_where_it_is_corrected() -> None:
    volume = ct()
    base = distances(volume, CENTRE) <= 10
    base[2, 5:8, 5:8] = True  # a separate part, far away
    box = Prompt("box", ((40.0, 40.0, 35.0), (60.0, 60.0, 55.0)))
    np.testing.assert_array_equal(draw(volume, box, ball, base), base)
    out = (62.0, 50.0, 45.0)
    after = draw(volume, Prompt("box", box.points, include=(out,)), ball, base)
    assert after[2, 5:8, 5:8].all()
    assert (after & ~base).any()
    assert distances(volume, out)[after ^ base].max() <= LEAST_REACH_MM


def test_a_correction_far_from_the_prompt_is_seen_too() -> None:
    volume, far = ct(1.0), (50.0, 8.0, 45.0)
    after = draw(volume, Prompt("diameter", LINE, include=(far,)), ball)
    added = after & ~draw(volume, Prompt("diameter", LINE), ball)
    assert added[45, 8, 50]
    assert distances(volume, far)[added].max() <= LEAST_REACH_MM


def test_a_correction_far_away_leaves_the_others_as_they_are() -> None:
    volume, near, far = ct(1.0), (66.0, 50.0, 45.0), (50.0, 3.0, 80.0)
    one = draw(volume, Prompt("diameter", LINE, include=(near,)), ball)
    both = draw(volume, Prompt("diameter", LINE, include=(near,), exclude=(far,)), ball)
    np.testing.assert_array_equal(one, both)


def test_between_contrary_corrections_the_nearer_one_counts() -> None:
    volume, line = ct(1.0), Prompt("diameter", LINE)
    include, exclude = (66.0, 50.0, 45.0), (66.0, 56.0, 45.0)
    after = draw(volume, replace(line, include=(include,), exclude=(exclude,)), ball)
    before = draw(volume, line, ball)
    nearer = distances(volume, include) <= distances(volume, exclude)
    assert not (after & ~before & ~nearer).any()
    assert not (before & ~after & nearer).any()
    assert after[45, 50, 66]
    assert not after[45, 56, 66]


@pytest.mark.parametrize("z", [45.0, 46.99, 49.01])
def test_the_voxel_of_a_correction_follows_it_however_thick_the_slices_are(z: float) -> None:
    volume = ct(6.0)
    for include, exclude in ((((72.0, 50.0, z),), ()), ((), ((50.0, 50.0, z),))):
        after = draw(volume, Prompt("diameter", LINE, include, exclude), ball)
        x, y, _ = (include or exclude)[0]
        assert after[round(z / 6), int(y), int(x)] == bool(include)


def test_smoothing_takes_no_correction_back() -> None:
    exclude = (50.0, 50.0, 45.0)
    after = draw(ct(1.0), Prompt("diameter", LINE, exclude=(exclude,), smooth=4.0), ball)
    assert not after[distances(ct(1.0), exclude) <= CERTAIN_MM].any()


def test_smoothing_shows_no_end_of_the_ct() -> None:
    """Of a long body that leaves the CT, the last slices are smoothed like those inside."""
    volume = ct(1.0)
    rod = np.broadcast_to(distances(volume, CENTRE)[45] <= 15, volume.spatial_shape).copy()
    box = ((35.0, 35.0, 0.0), (65.0, 65.0, 89.0))
    smooth = draw(volume, Prompt("box", box, smooth=4.0), ball, rod)
    np.testing.assert_array_equal(smooth[-1], smooth[45])


def test_of_several_parts_that_at_the_prompt_is_kept_and_holes_are_filled() -> None:
    def two_rings(hu: Any, told: Any) -> Any:
        size = told[CHANNELS.index("size")]
        here = (size > 0.5) & (size < 0.9)
        here[:, :3, :3] = True
        return np.where(here, 1, -1).astype(np.float32)

    volume = ct(1.0)
    drawn = draw(volume, Prompt("diameter", LINE), two_rings)
    assert drawn[45, 50, 50]
    assert distances(volume, CENTRE)[drawn].max() < 16


def test_smoothing_takes_away_what_is_thin_and_keeps_the_volume() -> None:
    volume = ct(1.0)
    base = distances(volume, CENTRE) <= 15
    rough = base.copy()
    rough[45, 50, 60:75] = True
    box = ((35.0, 35.0, 30.0), (65.0, 65.0, 60.0))
    smooth = draw(volume, Prompt("box", box, smooth=2.0), ball, rough)
    assert not smooth[45, 50, 70:].any()
    assert smooth.sum() == pytest.approx(base.sum(), rel=0.03)


def test_nothing_is_drawn_where_the_network_finds_nothing() -> None:
    assert not draw(ct(), Prompt("point", (CENTRE,)), lambda hu, told: np.full(hu.shape, -1, np.float32)).any()
