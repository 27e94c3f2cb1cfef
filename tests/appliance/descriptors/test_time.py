"""Descriptors of a tumour of 40 mm take at most a tenth of a second of processor time."""

from __future__ import annotations

import time

import pytest

from lungstage.appliance.descriptors.describe import describe
from tests.appliance.descriptors.shapes import ball


@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (1.0, 1.0, 1.0), (0.7, 0.6, 0.6)])
def test_a_tumour_of_40_mm(spacing: tuple[float, float, float]) -> None:
    volume, mask = ball(20, spacing)
    took = []
    for _ in range(5):
        start = time.process_time()
        describe(volume, mask)
        took.append(time.process_time() - start)
    print(f"\n{spacing}: {1000 * min(took):.0f} ms")
    # Twice the documented figure, because other work on the machine makes memory slower.
    assert min(took) < 0.2
