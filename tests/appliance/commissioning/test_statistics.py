"""The repeatability figures agree with a textbook, with scipy and with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from lungstage.appliance.commissioning.statistics import (
    REPEATABILITY_FACTOR,
    intraclass_correlations,
    more_than_chance,
    repeatability,
    within_subject_sd,
)

# Shrout & Fleiss, Psychol Bull 86(2), 1979, table 2: six subjects, four judges.
TEXTBOOK = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)

tables = arrays(np.float64, st.tuples(st.integers(3, 12), st.just(2)), elements=st.floats(-1e3, 1e3))


def test_shrout_and_fleiss() -> None:
    agreement, consistency = intraclass_correlations(TEXTBOOK)
    assert agreement == pytest.approx(0.2898, abs=5e-5)  # ICC(2,1) in their table 4: .29
    assert consistency == pytest.approx(0.7148, abs=5e-5)  # ICC(3,1): .71


def by_definition(table: np.ndarray) -> tuple[float, float]:
    """The mean squares term by term, as a textbook writes them."""
    n, k = table.shape
    grand = table.sum() / (n * k)
    r = sum(k * (table[i].sum() / k - grand) ** 2 for i in range(n)) / (n - 1)
    c = sum(n * (table[:, j].sum() / n - grand) ** 2 for j in range(k)) / (k - 1)
    e = sum(
        (table[i, j] - table[i].sum() / k - table[:, j].sum() / n + grand) ** 2 for i in range(n) for j in range(k)
    ) / ((n - 1) * (k - 1))
    return (r - e) / (r + (k - 1) * e + k * (c - e) / n), (r - e) / (r + (k - 1) * e)


@given(tables)
def test_mean_squares(table: np.ndarray) -> None:
    if np.ptp(table) < 1e-3:
        return
    agreement, consistency = intraclass_correlations(table)
    assert (agreement, consistency) == pytest.approx(by_definition(table), abs=1e-6, nan_ok=True)


@given(tables, st.floats(-100, 100), st.floats(0.1, 10))
def test_neither_unit_nor_zero_matters(table: np.ndarray, shift: float, scale: float) -> None:
    if np.ptp(table) < 1:
        return
    moved = intraclass_correlations(shift + scale * table)
    assert np.allclose(moved, intraclass_correlations(table), atol=1e-6, equal_nan=True)


@given(tables, st.floats(1, 100))
def test_a_shift_between_the_sessions_costs_agreement_alone(table: np.ndarray, shift: float) -> None:
    level = table - table.mean(axis=0)  # no shift at first
    if level.std(axis=0).min() < 1 or np.corrcoef(level.T)[0, 1] < 0.1:
        return
    before, after = intraclass_correlations(level), intraclass_correlations(level + np.array([0.0, shift]))
    assert after[1] == pytest.approx(before[1], abs=1e-6)
    assert after[0] < before[0]


def test_a_stack_of_tables_is_each_of_them() -> None:
    stack = np.random.default_rng(3).normal(size=(5, 8, 3))
    agreement, consistency = intraclass_correlations(stack)
    for table, a, c in zip(stack, agreement, consistency, strict=True):
        assert (a, c) == pytest.approx(intraclass_correlations(table))


@given(tables)
def test_within_subject_sd_of_pairs(table: np.ndarray) -> None:
    halved_squares = (table[:, 0] - table[:, 1]) ** 2 / 2
    assert within_subject_sd(table) == pytest.approx(math.sqrt(halved_squares.mean()), abs=1e-9)


def test_repeatability_coefficient_holds_95_of_100_differences() -> None:
    random = np.random.default_rng(5)
    table = random.normal(scale=40, size=(20000, 1)) + random.normal(scale=3, size=(20000, 2))
    coefficient = repeatability(table).coefficient
    assert coefficient == pytest.approx(2.77 * 3, rel=0.02)
    assert np.mean(np.abs(table[:, 0] - table[:, 1]) < coefficient) == pytest.approx(0.95, abs=0.005)
    assert pytest.approx(2.77, abs=0.005) == REPEATABILITY_FACTOR


@pytest.mark.parametrize("icc", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("n", [10, 30])
def test_interval_covers_what_it_says(icc: float, n: int) -> None:
    random = np.random.default_rng(int(100 * icc) + n)
    held = 0
    for _ in range(1000):
        table = math.sqrt(icc) * random.normal(size=(n, 1)) + math.sqrt(1 - icc) * random.normal(size=(n, 2))
        low, high = repeatability(table).interval
        held += low <= icc <= high
    assert 0.93 < held / 1000 < 0.97


def test_perfect_repetition() -> None:
    figures = repeatability(np.repeat(np.arange(5.0)[:, None], 2, axis=1))
    assert (figures.agreement, figures.consistency, figures.within_sd) == (1.0, 1.0, 0.0)
    assert figures.interval == (1.0, 1.0)


def test_what_cannot_be_told_is_not_told() -> None:
    alike = repeatability(np.ones((6, 2)))
    assert math.isnan(alike.agreement)
    assert alike.within_sd == 0.0
    few = repeatability(np.array([[1.0, 1.1], [2.0, math.nan], [3.0, 3.1]]))
    assert few.subjects == 2
    assert math.isnan(few.within_sd)


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0.01, 0.99))
def test_binomial_tail(of: int, count: int, share: float) -> None:
    count = min(count, of)
    assert more_than_chance(count, of, share) == pytest.approx(stats.binom.sf(count - 1, of, share), rel=1e-9)
