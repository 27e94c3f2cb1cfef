"""The input of an elimination: no two near copies, and products if no single feature is relevant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import lars_path

from lungstage.training.selection.screening import distinct, screen, strongest_pairs
from lungstage.training.selection.statistics import correlation


@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.floats(0.3, 0.99))
def test_no_two_distinct_columns_are_near_and_every_other_has_one_that_is(
    seed: int, columns: int, limit: float
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(30, 4))
    x = base[:, rng.integers(4, size=columns)] * rng.choice([-1.0, 2.0], columns) + rng.normal(size=(30, columns)) * 0.4
    own = distinct(x, limit)
    near = np.abs(correlation(x, x)) >= limit
    np.fill_diagonal(near, False)
    assert not near[np.ix_(own, own)].any()
    for other in np.setdiff1d(np.arange(columns), own):
        assert near[other, own].any()


def test_the_most_central_of_near_copies_stands_for_them() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(200, 1))
    x = base + 0.35 * rng.normal(size=(200, 5))
    x[:, 2] = base[:, 0]
    assert distinct(x, 0.92).tolist() == [2]


def test_pairs_are_those_of_the_largest_score() -> None:
    """Compared with the correlation of each product with the label."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 12))
    y = x[:, 2] * x[:, 9] + rng.normal(size=150) > 0
    found = [tuple(pair) for pair in strongest_pairs(x, y, 5).tolist()]
    products = {(i, j): x[:, i] * x[:, j] for i in range(12) for j in range(i + 1, 12)}
    scores = {pair: abs(np.corrcoef(product, y)[0, 1]) for pair, product in products.items()}
    assert found == sorted(scores, key=lambda pair: -scores[pair])[:5]
    assert found[0] == (2, 9)


def test_without_products_the_order_is_least_angle_regressions() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(90, 20))
    y = x[:, 3] + 0.6 * x[:, 8] + rng.normal(size=90) > 0
    found = screen(x, y, 8, None, pairwise=False)
    taken = lars_path((x - x.mean(axis=0)) / x.std(axis=0), y - y.mean(), method="lar", max_iter=24)[1]
    assert found.columns.tolist() == list(taken)[:8]
    assert (np.diff(found.gradient[found.columns]) <= 0).all()
    assert not found.copies.any()
    assert not len(found.pairs)


def test_a_pair_that_no_feature_shows_alone_enters_with_its_product() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 50))
    y = x[:, 7] * x[:, 30] + 0.5 * rng.normal(size=200) > 0
    found = screen(x, y, 10, 0.9, pairwise=True)
    assert set(found.columns[:2].tolist()) == {7, 30}
    assert [7, 30] in np.sort(found.pairs, axis=1).tolist()
    assert not {7, 30} <= set(screen(x, y, 10, 0.9, pairwise=False).columns[:2].tolist())


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_as_many_enter_as_may_copies_last(count: int) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 6))
    x = np.column_stack([x, x[:, :3]])
    found = screen(x, x[:, 0] + rng.normal(size=60) > 0, count, 0.9, pairwise=True)
    assert len(set(found.columns.tolist())) == count
    assert found.copies.sum() == 3
    assert not found.copies[found.columns[: min(count, 6)]].any()


def test_constant_columns_never_come_before_others() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 8))
    x[:, [1, 4]] = 0.0
    found = screen(x, x[:, 0] > 0, 6, 0.9, pairwise=True)
    assert not {1, 4} & set(found.columns.tolist())
