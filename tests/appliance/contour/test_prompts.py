"""What a prompt says, and the channels that give it to the network."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lungstage.appliance.contour.prompts import CHANNELS, CORRECTION_MM, LINE_MM, POINT_MM, Prompt, channels
from lungstage.appliance.contour.windows import Window

WINDOW = Window((-16.0, -16.0, -16.0), (33, 33, 33))
"""Its middle voxel, number 16, lies at 0."""

places = st.tuples(*[st.floats(-10, 10)] * 3)


def at(prompt: Prompt, channel: str, place: tuple[float, float, float], window: Window = WINDOW) -> float:
    x, y, z = (round((p - o) / window.spacing) for p, o in zip(place, window.origin, strict=True))
    return float(channels(prompt, window)[CHANNELS.index(channel), z, y, x])


def test_a_diameter_is_a_ball_around_its_middle_and_a_line() -> None:
    prompt = Prompt("diameter", ((-8.0, 0.0, 2.0), (8.0, 0.0, 2.0)))
    assert prompt.centre == (0, 0, 2)
    assert prompt.radii == (8, 8, 8)
    assert at(prompt, "size", (0, 0, 2)) == 1
    for edge in ((8, 0, 2), (-8, 0, 2), (0, 8, 2), (0, 0, 10), (0, 0, -6)):
        assert at(prompt, "size", edge) == pytest.approx(0.5)
    assert at(prompt, "line", (3, 0, 2)) == at(prompt, "line", (-8, 0, 2)) == 1
    assert at(prompt, "line", (3, 3, 2)) == pytest.approx(math.exp(-0.5 * (3 / LINE_MM) ** 2))
    assert at(prompt, "line", (11, 0, 2)) == pytest.approx(math.exp(-0.5 * (3 / LINE_MM) ** 2))
    assert at(prompt, "size known", (0, 0, 0)) == 1


def test_a_box_has_three_half_axes_and_no_line() -> None:
    prompt = Prompt("box", ((-4.0, 6.0, 2.0), (4.0, -6.0, -2.0)))
    assert prompt.radii == (4, 6, 2)
    assert all(at(prompt, "size", edge) == pytest.approx(0.5) for edge in ((4, 0, 0), (0, 6, 0), (0, 0, -2)))
    assert not channels(prompt, WINDOW)[CHANNELS.index("line")].any()


def test_a_point_says_nothing_about_the_size() -> None:
    prompt = Prompt("point", ((1.0, 2.0, 3.0),))
    assert prompt.radii is None
    assert at(prompt, "size known", (0, 0, 0)) == 0
    assert at(prompt, "size", (1 + POINT_MM, 2, 3)) == pytest.approx(0.5)
    assert at(prompt, "line", (1, 2, 3)) == 1


def test_corrections_are_told_apart_and_do_not_add_up() -> None:
    prompt = Prompt(
        "point", ((0.0, 0.0, 0.0),), include=((5.0, 0.0, 0.0), (5.0, 0.0, 0.0)), exclude=((0.0, -5.0, 0.0),)
    )
    assert at(prompt, "include", (5, 0, 0)) == at(prompt, "exclude", (0, -5, 0)) == 1
    assert at(prompt, "include", (5, 4, 0)) == pytest.approx(math.exp(-0.5 * (4 / CORRECTION_MM) ** 2))
    assert at(prompt, "exclude", (5, 0, 0)) < 0.25


@given(places, places)
def test_the_order_of_the_ends_does_not_matter(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> None:
    assume(math.dist(first, second) > 1)
    one, other = (channels(Prompt("diameter", ends), WINDOW) for ends in ((first, second), (second, first)))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.isfinite(one).all()
    assert one.min() >= 0
    assert one.max() <= 1


def test_in_a_window_of_larger_voxels_the_network_sees_the_same() -> None:
    fine = channels(Prompt("diameter", ((-8.0, 0, 0), (8.0, 0, 0)), include=((4.0, 4.0, 0),)), WINDOW)
    larger = Window((-32.0, -32.0, -32.0), (33, 33, 33), 2.0)
    coarse = channels(Prompt("diameter", ((-16.0, 0, 0), (16.0, 0, 0)), include=((8.0, 8.0, 0),)), larger)
    np.testing.assert_allclose(fine, coarse, atol=1e-6)
