"""The domain guard: what it measures, and that it does not contain the values of any patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from lungstage.training.model.domain import (
    GROUP_SIZE,
    NEIGHBOURS,
    QUANTILES,
    fit_domain,
    mahalanobis_distances,
    micro_aggregate,
    neighbour_distances,
)


def rows(n: int, k: int = 4, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(n, k))


@settings(max_examples=60, deadline=None)
@given(st.integers(GROUP_SIZE, 70), st.integers(1, 5), st.integers(0, 5))
def test_every_patient_is_in_one_group_of_at_least_five(n: int, k: int, seed: int) -> None:
    groups = micro_aggregate(rows(n, k, seed))
    sizes = np.bincount(groups)
    assert sizes.sum() == n
    assert sizes.min() >= GROUP_SIZE == 5
    assert sizes.max() < 2 * GROUP_SIZE


@pytest.mark.parametrize("n", [30, 33, 160])
def test_references_are_means_of_groups_and_no_patient(n: int) -> None:
    z = rows(n, 15)
    groups, references = micro_aggregate(z), fit_domain(z).references
    assert len(references) == groups.max() + 1
    for group, reference in enumerate(references):
        members = z[groups == group]
        assert len(members) >= 5
        np.testing.assert_allclose(reference, members.mean(axis=0), rtol=1e-12)
    apart = np.abs(z[:, None] - references[None]).max(axis=2)
    assert apart.min() > 1e-3, "a reference equals a patient"


def test_groups_are_of_what_lies_together() -> None:
    centres = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    z = np.repeat(centres, 5, axis=0) + rows(15, 2)
    groups = micro_aggregate(z)
    for i in range(3):
        assert len(set(groups[5 * i : 5 * i + 5])) == 1
    spread = np.concatenate([z[groups == g] - z[groups == g].mean(axis=0) for g in range(3)])
    assert np.abs(spread).max() < 10


def test_identical_patients_do_not_hinder() -> None:
    domain = fit_domain(np.tile([1.0, 2.0, 3.0], (30, 1)))
    assert domain.neighbour_quantiles == dict.fromkeys(QUANTILES, 0.0)


def test_neighbour_distance_is_scikit_learns() -> None:
    z, references = rows(40, 6), rows(30, 6, seed=1)
    nearest, _ = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(references).kneighbors(z)
    np.testing.assert_allclose(neighbour_distances(z, references), nearest.mean(axis=1) / np.sqrt(6), rtol=1e-12)


def test_mahalanobis_distance_is_scikit_learns() -> None:
    z = rows(60, 5)
    oracle = LedoitWolf(assume_centered=True).fit(z)
    domain = fit_domain(z)
    np.testing.assert_array_equal(domain.precision, oracle.precision_)
    squared = oracle.mahalanobis(z)
    np.testing.assert_allclose(mahalanobis_distances(z, domain.precision) ** 2, squared, rtol=1e-10)


def test_limits_are_those_of_rows_that_were_left_out() -> None:
    z, tenth = rows(60, 3), np.arange(60) % 10
    left_out = np.empty((2, 60))
    for i in range(60):
        others = z[tenth != tenth[i]]
        groups = micro_aggregate(others)
        references = np.stack([others[groups == group].mean(axis=0) for group in np.unique(groups)])
        left_out[0, i] = np.sqrt(LedoitWolf(assume_centered=True).fit(others).mahalanobis(z[i : i + 1])[0])
        left_out[1, i] = neighbour_distances(z[i : i + 1], references)[0]
    domain = fit_domain(z)
    for level in QUANTILES:
        assert domain.quantiles[level] == pytest.approx(np.quantile(left_out[0], float(level)), rel=1e-10)
        assert domain.neighbour_quantiles[level] == pytest.approx(np.quantile(left_out[1], float(level)), rel=1e-10)
    assert left_out[0].mean() > mahalanobis_distances(z, domain.precision).mean()
    assert left_out[1].mean() > neighbour_distances(z, domain.references).mean()


def test_new_rows_of_the_same_kind_exceed_the_99_percent_quantile_seldom() -> None:
    """With the shipped model's numbers of rows and features; averaged, as one cohort's quantile depends on two rows."""
    fresh, exceed = rows(2000, 15, seed=1), []
    for seed in range(2, 12):
        domain = fit_domain(rows(160, 15, seed=seed))
        exceed.append(
            [
                (neighbour_distances(fresh, domain.references) > domain.neighbour_quantiles["0.99"]).mean(),
                (mahalanobis_distances(fresh, domain.precision) > domain.quantiles["0.99"]).mean(),
            ]
        )
    assert (np.mean(exceed, axis=0) < 0.025).all(), exceed


def test_a_gap_inside_the_cohort_is_seen_by_the_neighbours_alone() -> None:
    # Two clusters on either side of zero: there is no patient at the centre.
    z = rows(100, 4) * 0.1 + np.where(np.arange(100) % 2, 1.0, -1.0)[:, None]
    domain, middle = fit_domain(z), np.zeros((1, 4))
    assert mahalanobis_distances(middle, domain.precision)[0] < domain.quantiles["0.5"]
    assert neighbour_distances(middle, domain.references)[0] > domain.neighbour_quantiles["1"]


def test_a_combination_that_nobody_has_is_seen_by_the_ellipsoid() -> None:
    shared = rows(200, 1)
    z = shared + 0.05 * rows(200, 6, seed=2)
    domain, odd = fit_domain(z), np.array([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]])
    assert mahalanobis_distances(odd, domain.precision)[0] > 2 * domain.quantiles["1"]


def test_the_same_rows_give_the_same_domain() -> None:
    first, second = fit_domain(rows(47)), fit_domain(rows(47))
    np.testing.assert_array_equal(first.references, second.references)
    assert (first.quantiles, first.neighbour_quantiles) == (second.quantiles, second.neighbour_quantiles)
