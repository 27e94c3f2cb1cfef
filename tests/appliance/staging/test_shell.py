"""The shell around a region where lung is searched contains exactly the voxels with a near enough centre."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lungstage.appliance.staging.intended_use import shell_around

SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.7, 0.9765625, 1.0, 2.5, 3.0, 12.0])] * 3)


@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=7)), SPACINGS, st.sampled_from([1.0, 2.5, 10.0]))
def test_it_is_what_every_pair_of_voxels_says(
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], spacing: tuple[float, float, float], reach: float
) -> None:
    inside, every = (np.argwhere(which) * np.array(spacing) for which in (mask, np.ones_like(mask)))
    near = np.zeros(mask.shape, dtype=bool)
    if len(inside):
        squares = ((every[:, None] - inside[None]) ** 2).sum(axis=2).min(axis=1)
        near = (squares <= (reach * (1 + 1e-6)) ** 2).reshape(mask.shape)
    assert np.array_equal(shell_around(mask, spacing, reach), near & ~mask)
