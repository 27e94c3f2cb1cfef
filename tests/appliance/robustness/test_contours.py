"""Contours as other persons might draw them: exact distances, displacements within limits, always repeatable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungstage.appliance.robustness import contours
from lungstage.appliance.robustness.chance import Chance

SPACING = (2.5, 0.8, 0.8)


def ball(radius: float, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), room: float = 6.0) -> contours.Mask:
    half = [int((radius + room) / step) for step in spacing]
    z, y, x = np.ogrid[tuple(slice(-n, n + 1) for n in half)]
    mask: contours.Mask = (z * spacing[0]) ** 2 + (y * spacing[1]) ** 2 + (x * spacing[2]) ** 2 <= radius**2
    return mask


@given(arrays(bool, (4, 5, 5)).filter(lambda mask: mask.any() and not mask.all()), st.sampled_from([1.0, 2.5]))
@settings(max_examples=60, deadline=None)
def test_distance_is_that_to_the_nearest_voxel_of_the_other_kind(mask: contours.Mask, slice_step: float) -> None:
    """Compared with every pair of voxels: the distance from a centre to the nearest point of a box."""
    spacing, furthest = (slice_step, 0.7, 1.1), 3.0
    steps = np.array(spacing)
    for kind in (mask, ~mask):
        found = contours._to_nearest(kind, spacing, furthest)
        boxes = np.argwhere(kind)
        for at in itertools.product(*map(range, mask.shape)):
            apart = np.maximum(np.abs(boxes - at) - 0.5, 0) * steps
            nearest = float(np.sqrt((apart**2).sum(axis=1).min())) if len(boxes) else furthest
            assert found[at] == pytest.approx(min(nearest, furthest), abs=1e-9)


def test_distances_of_a_ball_are_its_radius_less_the_way_from_its_centre() -> None:
    mask = ball(12)
    found = contours.signed_distances(mask, (1.0, 1.0, 1.0), 4.0)
    n = (np.array(mask.shape) - 1) / 2
    way = np.sqrt(sum((np.ogrid[tuple(map(slice, mask.shape))][axis] - n[axis]) ** 2 for axis in range(3)))
    near = np.abs(way - 12) < 3
    assert np.abs(found - (way - 12))[near].max() < 0.8
    assert abs(np.mean((found - (way - 12))[near])) < 0.15


def test_a_displacement_is_smooth_and_of_unit_variance() -> None:
    fields = [contours.displacement(Chance(bytes([k])), (12, 40, 40), SPACING, 8.0) for k in range(40)]
    values = np.array(fields)
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1, abs=0.08)
    assert values.std(axis=0).max() < 1.6  # everywhere, not only on average
    assert values.std(axis=0).min() > 0.5
    steps = np.diff(values, axis=3)
    assert np.abs(steps).max() < 0.6  # no jump: 0.8 mm is a tenth of the distance between knots; white noise gives 5


@given(st.integers(0, 10_000), st.floats(-2.2, 2.2), st.sampled_from([4.0, 7.0, 15.0]), st.sampled_from([5.0, 15.0]))
@settings(max_examples=40, deadline=None)
def test_another_hand_stays_within_the_distance_and_the_overlap(
    seed: int, generous: float, radius: float, smoothness: float
) -> None:
    mask = ball(radius, SPACING)
    surface = contours.surface_of(mask, SPACING, 4.2)
    drawn = contours.redrawn(surface, Chance(seed.to_bytes(4, "big")), generous, smoothness)
    original = surface.distance < 0
    assert contours.dice(drawn, original, int(original.sum())) >= contours.LEAST_DICE
    assert not drawn[surface.distance >= 4.2].any()
    assert drawn[surface.distance <= -4.2].all()


def test_a_generous_hand_draws_more_and_a_tight_one_less() -> None:
    surface = contours.surface_of(ball(15), (1.0, 1.0, 1.0), 4.2)
    volumes = [
        int(contours.redrawn(surface, Chance(b"same"), generous, 10.0).sum()) for generous in (-1.5, -0.5, 0.5, 1.5)
    ]
    assert volumes == sorted(set(volumes))
    assert volumes[0] < surface.voxels < volumes[-1]


def test_where_the_map_lies_in_the_volume() -> None:
    mask = np.zeros((9, 30, 30), dtype=bool)
    mask[0:4, 2:9, 10:20] = True
    surface = contours.surface_of(mask, (1.0, 1.0, 1.0), 3.0)
    assert surface.start == (-4, -2, 6)
    assert surface.distance.shape == (12, 15, 18)
    inside = surface.distance[4:, 2:, :] < 0  # the part of the map within the volume
    assert (inside == mask[: inside.shape[0], : inside.shape[1], 6:24]).mean() > 0.97
    assert (surface.distance[:4] > 0).all()
    assert surface.voxels == mask.sum()


class TestChance:
    def test_repeats_itself_on_every_machine(self) -> None:
        """The numbers are fixed: with others, no report could be made again."""
        assert Chance(b"a", b"b").normal(3).tolist() == PINNED

    def test_follows_from_all_of_the_content(self) -> None:
        streams = [Chance(b"a", b"b"), Chance(b"ab"), Chance(b"a", b"c"), Chance()]
        assert len({stream.normal(1).item() for stream in streams}) == 4
        assert Chance(b"a").branch(b"b").normal(3).tolist() == PINNED

    def test_is_near_enough_to_normal(self) -> None:
        values = Chance(b"x").normal(200_000)
        assert abs(values.mean()) < 0.01
        assert values.std() == pytest.approx(1, abs=0.01)
        assert ((values**4).mean() / values.var() ** 2) == pytest.approx(2.7, abs=0.05)
        assert np.mean(np.abs(values) > 1.96) == pytest.approx(0.05, abs=0.01)

    def test_lies_evenly(self) -> None:
        values = Chance(b"x").evenly_normal(30)
        assert values.mean() == pytest.approx(0, abs=1e-9)
        assert values.std() == pytest.approx(0.97, abs=0.02)
        assert values.tolist() != sorted(values.tolist())


PINNED = [0.8441686226043397, 1.8789431782171166, 0.5374601017276182]
