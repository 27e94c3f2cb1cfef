"""Networks that are trained together give the same result as networks that are trained alone."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from lungstage.training.model.members import Batch, Member, Streams, inner_splits
from lungstage.training.model.network import (
    Networks,
    NetworkSettings,
    ensemble_logits,
    single_threaded,
    train,
)
from tests.training.tables import make_members

SETTINGS = NetworkSettings(max_epochs=40, patience=5)


def _equal(a: Networks, b: Networks) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.layers, b.layers, strict=True))


def test_a_member_does_not_depend_on_its_companions() -> None:
    members = make_members(12)
    with single_threaded():
        together = train(members, SETTINGS)
        for part in (slice(3, 4), slice(5, 9)):
            assert _equal(together[part], train(members[part], SETTINGS))


def test_members_of_one_seed_become_what_each_becomes_alone() -> None:
    first, second = make_members(2)
    twin = Member(first.inputs[:, ::-1].copy(), first.labels, first.fit_rows, first.stop_rows, first.seed)
    with single_threaded():
        together = train([first, second, twin], SETTINGS)
        for i, member in enumerate((first, second, twin)):
            assert _equal(together[i : i + 1], train([member], SETTINGS))


def test_training_descends_as_automatic_differentiation_would() -> None:
    (member,) = make_members(1)
    member = Member(member.inputs, member.labels, member.fit_rows, member.fit_rows, member.seed)
    settings = NetworkSettings(batch_size=200, max_epochs=15)
    with single_threaded():
        found = train([member], settings)
        batch = Batch.of([member], [member.fit_rows])
        streams = Streams.of([member.seed], batch)
        layers: list[torch.Tensor] = []
        for a, b in itertools.pairwise((7, *settings.hidden, 1)):
            drawn = torch.from_numpy(streams.uniform([a**-0.5] * 2, [a * b, b])).float()[0]
            layers += [drawn[: a * b].view(a, b).clone().requires_grad_(), drawn[a * b :].clone().requires_grad_()]
        adam = torch.optim.AdamW(layers, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        for _ in range(settings.max_epochs):
            order = torch.from_numpy(streams.orders()[0].copy())
            hidden = batch.inputs[0, order]
            masks = streams.dropout_masks(settings.hidden, settings.dropout)
            for weights, biases, mask in zip(layers[0:-2:2], layers[1:-2:2], masks, strict=True):
                hidden = torch.relu(hidden @ weights + biases) * mask[0]
            logits = (hidden @ layers[-2] + layers[-1])[:, 0].double()
            labels, weighted = batch.labels[0, order], batch.weights[0, order]
            adam.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, weighted).backward()
            adam.step()
    for own, reference in zip(found.layers, layers, strict=True):
        torch.testing.assert_close(own.reshape(-1), reference.detach().reshape(-1), rtol=1e-4, atol=1e-5)


def test_labels_and_inputs_of_other_rows_are_never_looked_at() -> None:
    (member,) = make_members(1)
    seen = np.union1d(member.fit_rows[:40], member.stop_rows)
    rows = np.setdiff1d(np.arange(90), seen)
    labels, inputs = member.labels.copy(), member.inputs.copy()
    labels[rows], inputs[rows] = ~labels[rows], 1e6
    with single_threaded():
        a = train([Member(member.inputs, member.labels, member.fit_rows[:40], member.stop_rows, member.seed)], SETTINGS)
        b = train([Member(inputs, labels, member.fit_rows[:40], member.stop_rows, member.seed)], SETTINGS)
    assert _equal(a, b)


def test_networks_learn() -> None:
    members = make_members(4)
    with single_threaded():
        networks = train(members, NetworkSettings())
    fresh = make_members(4, n=400, seed=9)[0]
    logits = ensemble_logits(networks.ensemble(slice(None)), fresh.inputs)
    assert ((logits > 0) == fresh.labels).mean() > 0.85


def test_the_early_stop_keeps_the_best_epoch() -> None:
    """With the labels of the stopping rows inverted, their loss rises with training, so training must stop at once."""
    (member,) = make_members(1)
    labels = member.labels.copy()
    labels[member.stop_rows] = ~labels[member.stop_rows]
    with single_threaded():
        stopped = train([Member(member.inputs, labels, member.fit_rows, member.stop_rows, member.seed)], SETTINGS)
        once = train(
            [Member(member.inputs, labels, member.fit_rows, member.stop_rows, member.seed)],
            NetworkSettings(max_epochs=1),
        )
    assert _equal(stopped, once)


def test_the_ensemble_in_float64_says_what_the_networks_say() -> None:
    members = make_members(5)
    with single_threaded():
        networks = train(members, SETTINGS)
    x = torch.from_numpy(members[0].inputs.astype(np.float32))
    logits = []
    for i in range(5):
        hidden = x
        for weights, biases in zip(networks.layers[0:-2:2], networks.layers[1:-2:2], strict=True):
            hidden = torch.relu(hidden @ weights[i] + biases[i])
        logits.append(hidden @ networks.layers[-2][i] + networks.layers[-1][i])
    expected = torch.stack(logits).mean(0)[:, 0].numpy()
    np.testing.assert_allclose(
        ensemble_logits(networks.ensemble(slice(None)), members[0].inputs), expected, rtol=1e-4, atol=1e-5
    )


def test_inner_splits_take_turns_and_part_the_rows() -> None:
    labels = np.arange(50) % 3 == 0
    rows = np.arange(5, 50)
    splits = inner_splits(labels, rows, 7, 5, np.random.SeedSequence(1))
    assert len(splits) == 7
    for fit, stop, _ in splits:
        assert np.array_equal(np.sort(np.concatenate([fit, stop])), rows)
        assert 0 < labels[stop].sum() < len(stop)
    held_out = np.concatenate([stop for _, stop, _ in splits[:5]])
    assert np.array_equal(np.sort(held_out), rows), "five consecutive splits hold out every row once"


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with single_threaded():
        assert torch.get_num_threads() == 1
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
