"""Importances are what their formulas say, and find what matters."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.stats import false_discovery_control, gumbel_r, norm

from lungstage.training.model.members import Member, inner_splits
from lungstage.training.model.network import (
    NetworkSettings,
    ensemble_logits,
    single_threaded,
    train,
    train_second_order,
)
from lungstage.training.selection.importance import Chance, Effects, Importance, aggregate, held_out_importance
from tests.training.tables import make_members

SETTINGS = NetworkSettings(max_epochs=40, patience=5)


def _numeric(function, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of a function of rows (n, k) -> (n,)."""
    eye = step * np.eye(x.shape[1])
    return np.stack([(function(x + e) - function(x - e)) / (2 * step) for e in eye], axis=1)


@pytest.mark.parametrize("kind", [kind for kind in get_args(Importance) if kind != "effects"])
def test_held_out_importance_against_central_differences(kind: Importance) -> None:
    """In float64, row by row, of the class-weighted loss or of the logit."""
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
    """Their defining law: signed, they sum to the logit less that of the baseline."""
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


def _evidence(y: np.ndarray, x: np.ndarray, *, pairwise: bool = True, copies: float = 0.0) -> np.ndarray:
    def read(labels: np.ndarray) -> Effects:
        splits = inner_splits(labels, np.arange(len(y)), 10, 5, np.random.SeedSequence(0))
        members = [Member(x, labels, *split) for split in splits]
        pairs = train_second_order(members, NetworkSettings()) if pairwise else None
        return Effects.of(train(members, NetworkSettings()), members, pairs, copies=copies)

    with single_threaded():
        return Chance.of([read(np.random.default_rng(i).permutation(y)) for i in range(4)]).evidence(read(y))


def test_effects_find_a_pair_that_no_feature_shows_alone() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 40))
    y = x[:, 7] * x[:, 30] + 0.5 * rng.normal(size=200) > 0
    assert set(np.argsort(-_evidence(y, x))[:2]) == {7, 30}
    assert set(np.argsort(-_evidence(y, x, pairwise=False))[:2]) != {7, 30}, "the second order is what finds it"


def test_effects_find_single_features() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(200, 40))
    y = x[:, 3] - x[:, 12] + 0.5 * rng.normal(size=200) > 0
    assert set(np.argsort(-_evidence(y, x))[:2]) == {3, 12}


def test_copies_share_their_importance() -> None:
    """Which of several near copies the networks lean on is chance; what both have is read off each."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(200, 20))
    x[:, 1] = 0.97 * x[:, 0] + 0.2 * rng.normal(size=200)
    y = x[:, 0] + x[:, 5] + 0.5 * rng.normal(size=200) > 0
    ranks = [np.argsort(np.argsort(-_evidence(y, x, pairwise=False, copies=copies))) for copies in (0.0, 1.0)]
    assert ranks[0][5] < ranks[0][1], "alone, the copy is behind another feature that decides"
    assert set(ranks[1][:2]) == {0, 1}, "together, it and its origin are ahead of it"


def test_there_is_little_evidence_of_nothing() -> None:
    """A few permutations tell the level of chance roughly: now and then a whole table comes out as convincing."""
    rng = np.random.default_rng(8)
    evidence = np.concatenate([_evidence(rng.random(120) < 0.5, rng.normal(size=(120, 30))) for _ in range(3)])
    assert (evidence < 1).mean() > 0.5
    assert (evidence < 8).all()


@pytest.mark.parametrize("way", ["single", "paired"])
def test_effects_must_be_convincing_among_all_that_were_looked_at(way: str) -> None:
    """The adjusted p-values are those of Benjamini and Hochberg; fewer survivors do not make one more convincing."""
    rng = np.random.default_rng(9)

    def draw() -> Effects:
        return Effects(np.abs(rng.normal(size=100)), np.abs(rng.normal(size=(100, 99))).max(axis=1))

    chance, own = Chance.of([draw() for _ in range(20)]), draw()
    getattr(own, way)[:3] = 7.0
    log_p = {
        "single": np.log(2) + norm.logsf(own.single / chance.scale),
        "paired": gumbel_r.logsf(own.paired, chance.location, chance.width),
    }
    adjusted = np.minimum(*(np.log(false_discovery_control(np.exp(one))) for one in log_p.values()))
    evidence = chance.evidence(own)
    np.testing.assert_allclose(evidence, -adjusted - 0.1 * np.minimum(*log_p.values()), rtol=1e-6)
    assert set(np.argsort(-evidence)[:3]) == {0, 1, 2}
    fewer = chance.evidence(Effects(own.single[2:6], own.paired[2:6]))
    assert fewer[0] <= evidence[2] + 1e-9, "the 96 that went still count"
