"""Importances follow their formulas and find the relevant features."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from lungstage.training.model.members import Member, inner_splits
from lungstage.training.model.network import (
    NetworkSettings,
    ensemble_logits,
    single_threaded,
    train,
)
from lungstage.training.selection.importance import Importance, aggregate, effects, held_out_importance
from tests.training.tables import make_members

SETTINGS = NetworkSettings(max_epochs=40, patience=5)


def _numeric(function, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of a function of rows (n, k) -> (n,)."""
    eye = step * np.eye(x.shape[1])
    return np.stack([(function(x + e) - function(x - e)) / (2 * step) for e in eye], axis=1)


@pytest.mark.parametrize("kind", [kind for kind in get_args(Importance) if kind != "effects"])
def test_held_out_importance_against_central_differences(kind: Importance) -> None:
    """Differences in float64, row by row, of the class-weighted loss or of the logit."""
    members = make_members(2)
    with single_threaded():
        networks = train(members, SETTINGS)
        found = held_out_importance(networks, members, kind)
    for i, member in enumerate(members):
        ensemble = networks.ensemble(slice(i, i + 1))
        x, y = member.inputs[member.stop_rows], member.labels[member.stop_rows]
        share = member.labels[member.fit_rows].mean()
        weight = np.where(y, 0.5 / share, 0.5 / (1 - share))

        def logit(x, ensemble=ensemble):
            return ensemble_logits(ensemble, x)

        def loss(x, y=y, weight=weight, logit=logit):
            return weight * (np.logaddexp(0, logit(x)) - y * logit(x))

        expected = {
            "loss": lambda x=x, loss=loss: _numeric(loss, x),
            "logit": lambda x=x, logit=logit: _numeric(logit, x),
            "input_gradient": lambda x=x, logit=logit: x * _numeric(logit, x),
            "integrated": lambda x=x, logit=logit: x * np.mean(
                [_numeric(logit, (step + 0.5) / 16 * x) for step in range(16)], axis=0
            ),
        }[kind]()  # fmt: skip
        np.testing.assert_allclose(found[i], np.abs(expected).mean(axis=0), rtol=5e-3)


def test_integrated_gradients_add_up_to_the_logit() -> None:
    """By definition, their signed sum is the logit minus the logit of the baseline."""
    members = make_members(1)
    with single_threaded():
        networks = train(members, SETTINGS)
        one = [Member(m.inputs, m.labels, m.fit_rows, m.stop_rows[:1], m.seed) for m in members]
        total = held_out_importance(networks, one, "integrated")[0]
    ensemble = networks.ensemble(slice(None))
    x = members[0].inputs[members[0].stop_rows[:1]]
    steps = np.mean([_numeric(lambda v: ensemble_logits(ensemble, v), (s + 0.5) / 16 * x) for s in range(16)], axis=0)
    gap = ensemble_logits(ensemble, x) - ensemble_logits(ensemble, np.zeros_like(x))
    assert (x * steps).sum() == pytest.approx(gap[0], rel=0.05)
    np.testing.assert_allclose(total, np.abs(x * steps)[0], rtol=5e-3)


def test_dropout_masks_move_the_importance_a_little_and_repeat_themselves() -> None:
    members = make_members(3)
    with single_threaded():
        networks = train(members, SETTINGS)
        still = held_out_importance(networks, members, "logit")
        masked = [held_out_importance(networks, make_members(3), "logit", masks=8, dropout=0.3) for _ in range(2)]
    np.testing.assert_array_equal(masked[0], masked[1])
    assert not np.allclose(masked[0], still)
    np.testing.assert_allclose(masked[0], still, rtol=0.6)


@pytest.mark.parametrize("how", ["mean", "rank"])
def test_no_network_outweighs_the_others(how) -> None:
    one = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    louder = one * np.array([[1.0], [1e6]])
    np.testing.assert_allclose(aggregate(one, how), aggregate(louder, how))
    np.testing.assert_allclose(aggregate(one, how), aggregate(one, how)[::-1])


def _members(y: np.ndarray, x: np.ndarray, members: int = 10) -> list[Member]:
    return [Member(x, y, *split) for split in inner_splits(y, np.arange(len(y)), members, 5, np.random.SeedSequence(0))]


def test_effects_are_mean_gradients_in_the_spread_between_networks() -> None:
    """Compared with central differences; signed values are averaged over rows and networks before abs()."""
    members = make_members(4)
    k = members[0].inputs.shape[1]
    with single_threaded():
        networks = train(members, SETTINGS)
        found = effects(networks, members, [(i,) for i in range(k)], k)
    own = []
    for i, member in enumerate(members):
        ensemble = networks.ensemble(slice(i, i + 1))
        x = member.inputs[member.stop_rows]
        own.append(_numeric(lambda v, e=ensemble: ensemble_logits(e, v), x).mean(axis=0))
    spread = np.sqrt(np.median(np.var(own, axis=0, ddof=1)))
    np.testing.assert_allclose(found, np.abs(np.mean(own, axis=0)) / spread, rtol=5e-3)


def test_effects_find_single_features() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(200, 40))
    members = _members(x[:, 3] - x[:, 12] + 0.5 * rng.normal(size=200) > 0, x)
    with single_threaded():
        found = effects(train(members, NetworkSettings()), members, [(i,) for i in range(40)], 40)
    assert set(np.argsort(-found)[:2]) == {3, 12}


def test_a_feature_counts_by_its_strongest_term() -> None:
    """A relevant product raises the importance of both its features; a padding input raises none."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 20))
    y = x[:, 7] * x[:, 15] + 0.5 * rng.normal(size=200) > 0
    terms = [*((i,) for i in range(20)), (7, 15), (2, 4)]
    inputs = np.column_stack([x, x[:, 7] * x[:, 15], x[:, 2] * x[:, 4], np.zeros((200, 3))])
    members = _members(y, inputs)
    with single_threaded():
        found = effects(train(members, NetworkSettings()), members, terms, 20)
        alone = effects(train(_members(y, x), NetworkSettings()), _members(y, x), terms[:20], 20)
    assert found.shape == (20,)
    assert found[7] == found[15] > 2 * np.delete(found, [7, 15]).max()
    assert set(np.argsort(-alone)[:2]) != {7, 15}, "the features are found only by their product"
