"""Statistics over tables, compared with published examples and with their mathematical properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.training.comparison import statistics

# Demšar, JMLR 7, 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip


def test_ranks_and_tests_are_those_of_demsars_example() -> None:
    mean = statistics.ranks(DEMSAR).mean(axis=0)
    np.testing.assert_allclose(mean, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    found = statistics.friedman(DEMSAR)
    assert found is not None
    uncorrected = 12 * 14 / (4 * 5) * ((mean**2).sum() - 4 * 5**2 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.01), "as published"
    each = [np.unique(row, return_counts=True)[1] for row in DEMSAR]
    ties = sum(float((counts**3 - counts).sum()) for counts in each) / (14 * 4 * (4**2 - 1))
    assert found["statistic"] == pytest.approx(uncorrected / (1 - ties)), "corrected for ties"
    assert statistics.critical_difference(4, 14, 0.05) == pytest.approx(1.25, abs=5e-3)
    assert statistics.critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=5e-3)


@pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_nemenyis_quantiles_are_the_published_ones(methods: int, quantile: float) -> None:
    found = statistics.critical_difference(methods, 1, 0.05) / np.sqrt(methods * (methods + 1) / 6)
    assert found == pytest.approx(quantile, abs=1e-3)


def test_holm_is_that_of_a_worked_example() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = statistics.holm(p_values)
    assert all(after >= before and after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert adjusted[order[0]] == pytest.approx(min(1.0, len(p_values) * p_values[order[0]]))


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(1, 8), min_size=2), st.floats(0.1, 4))
def test_cliques_join_what_is_near_and_hold_no_other(ranks: dict[str, float], difference: float) -> None:
    found = statistics.cliques(ranks, difference)
    for run in found:
        assert max(ranks[name] for name in run) - min(ranks[name] for name in run) <= difference
    for a in ranks:
        for b in ranks:
            near = a != b and abs(ranks[a] - ranks[b]) <= difference
            assert any({a, b} <= set(run) for run in found) == near or a == b
    assert not any(set(one) < set(other) for one in found for other in found)


def test_an_interval_over_tables_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [statistics.mean_interval(rng.normal(0.01, 0.04, 22), 0.05) for _ in range(2000)]
    covers = np.mean([one["low"] <= 0.01 <= one["high"] for one in found])  # type: ignore[operator]
    assert covers == pytest.approx(0.95, abs=0.015)


def test_a_single_table_has_no_interval_and_no_test() -> None:
    assert statistics.mean_interval(np.array([0.7]), 0.05) == {"value": 0.7, "low": None, "high": None, "tables": 1}
    assert statistics.friedman(np.array([[0.5, 0.6, 0.7]])) is None
    assert statistics.compared(np.array([0.7]), np.array([0.6]), 0.05)["p"] == 1.0


def test_methods_that_are_the_same_are_not_told_apart() -> None:
    same = np.tile(np.linspace(0.5, 0.9, 8)[:, None], 3)
    assert statistics.friedman(same) is None
    found = statistics.compared(same[:, 0], same[:, 1], 0.05)
    assert (found["wins"], found["ties"], found["losses"], found["p"]) == (0, 8, 0, 1.0)


def test_wins_and_differences_are_counted_from_the_first() -> None:
    own, other = np.array([0.8, 0.7, 0.6, 0.9]), np.array([0.7, 0.7, 0.7, 0.6])
    found = statistics.compared(own, other, 0.05)
    assert (found["wins"], found["ties"], found["losses"]) == (2, 1, 1)
    assert found["difference"]["value"] == pytest.approx(0.075)
