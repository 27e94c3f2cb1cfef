"""The mesh's own table of triangles is well-formed, and measures the same as PyRadiomics'."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from radiomics import cShape

from lungstage.appliance.radiomics.mesh import _CORNERS, diameters, surface_and_volume, triangles

KINDS = [frozenset(corner for bit, corner in enumerate(_CORNERS) if kind >> bit & 1) for kind in range(256)]
masks = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((5, 6, 7)) < 0.5)
spacings = st.tuples(*[st.floats(0.3, 5)] * 3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.8), (0.3, 5.0, 1.7)])
def test_every_neighbourhood_measures_what_pyradiomics_own_does(spacing: tuple[float, float, float]) -> None:
    for inside in KINDS:
        mask = np.zeros((2, 2, 2), dtype=bool)
        for corner in inside:
            mask[corner] = True
        area, volume, _ = cShape.calculate_coefficients(mask, np.array(spacing))
        assert surface_and_volume(mask, spacing) == pytest.approx((area, volume), rel=1e-14, abs=1e-14), inside


@given(masks, spacings)
@settings(max_examples=60, deadline=None)
def test_a_mesh_measures_what_pyradiomics_own_does(mask: np.ndarray, spacing: tuple[float, float, float]) -> None:
    padded = np.pad(mask, 1)
    area, volume, widths = cShape.calculate_coefficients(padded, np.array(spacing))
    assert surface_and_volume(padded, spacing) == pytest.approx((area, volume), rel=1e-11)
    assert diameters(padded, spacing) == pytest.approx(widths, rel=1e-12)


@pytest.mark.parametrize("inside", KINDS, ids=[f"{kind:08b}" for kind in range(256)])
def test_triangles_join_the_edges_that_are_cut_and_leave_no_gap(inside: frozenset[tuple[int, int, int]]) -> None:
    cut = {
        tuple(p + q for p, q in zip(a, b, strict=True))
        for a in inside
        for b in set(_CORNERS) - inside
        if sum(abs(p - q) for p, q in zip(a, b, strict=True)) == 1
    }
    found = [*triangles(inside)]
    assert {point for triangle in found for point in triangle} == cut
    sides = Counter((t[k], t[(k + 1) % 3]) for t in found for k in range(3))
    assert all(count == 1 for count in sides.values())
    for a, b in sides.keys() - {(b, a) for a, b in sides}:  # a side of only one triangle lies on a face of the cube
        assert any(p == q and p in (0, 2) for p, q in zip(a, b, strict=True))
