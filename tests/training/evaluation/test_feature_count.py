"""How many features to select, and which features are selected again in other halves of the patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.training.evaluation import stability
from lungstage.training.evaluation.feature_count import Curve, curve
from lungstage.training.evaluation.stability import complementary_pairs
from lungstage.training.procedure import QUICK

SMALL = replace(QUICK, inner_folds=3, selection=replace(QUICK.selection, features=3, fine_below=4))


def _silent(done: int, total: int) -> None:
    assert 0 <= done <= total


def _table(n: int = 90, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.random(n) < 0.5
    values = rng.normal(size=(n, d))
    values[:, :2] += 1.5 * labels[:, None]
    return values, labels


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5)), min_size=1, max_size=40).map(
        lambda points: np.array(points).T
    )
)
def test_the_rule_of_one_standard_error(points: np.ndarray) -> None:
    auc, se = points
    found = Curve(tuple(range(1, len(auc) + 1)), auc, se)
    best, chosen = auc[found.best - 1], auc[found.one_se - 1]
    assert best == auc.max()
    assert found.one_se <= found.best
    assert chosen >= best - se[found.best - 1]
    assert (auc[: found.one_se - 1] < best - se[found.best - 1]).all(), "the smallest number that may be chosen"


def test_the_curve_rises_to_the_features_that_matter_and_stays() -> None:
    values, labels = _table()
    found = curve(values, labels, SMALL, _silent)
    assert found.k == (1, 2, 3, 4, 5, 6, 8)  # at most all eight features
    assert found.auc[1:].min() > 0.75
    assert found.one_se <= 3


def test_clinical_inputs_join_at_every_point_of_the_curve() -> None:
    values, labels = _table()
    noise = np.random.default_rng(1).normal(size=values.shape)
    told = curve(noise, labels, SMALL, _silent, covariate_values=labels[:, None] + 0.1 * noise[:, :1])
    assert told.auc.min() > 0.9
    assert curve(noise, labels, SMALL, _silent).auc.mean() < 0.75


def test_each_pair_of_halves_holds_every_patient_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = _table()
    seen: list[np.ndarray] = []
    real = stability.prepare
    monkeypatch.setattr(stability, "prepare", lambda v, rows, seed: (seen.append(rows), real(v, rows, seed))[1])
    held = complementary_pairs(values, labels, "gl_rfe", SMALL, _silent, pairs=3)
    assert held.shape == (6, 8)
    assert (held.sum(axis=1) == 3).all()
    assert held[:, :2].mean() > 0.6 > held[:, 2:].mean()
    for a, b in zip(seen[0::2], seen[1::2], strict=True):
        assert np.array_equal(np.sort(np.concatenate([a, b])), np.arange(90))
        assert abs(int(labels[a].sum()) - int(labels[b].sum())) <= 1
    assert not np.array_equal(seen[0], seen[2])
