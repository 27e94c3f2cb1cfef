"""What each network of a batch is trained on: its rows, its features, its random stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import binary_cross_entropy_with_logits

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Member:
    """What one network is trained on.

    Attributes
    ----------
    inputs
        (n, k) standardised features.
    labels
        (n,) bool; looked at in the rows named below only.
    fit_rows, stop_rows
        Rows to fit the weights on, and rows to stop early on.
    seed
        Of the member's own random stream.
    """

    inputs: Array
    labels: npt.NDArray[np.bool_]
    fit_rows: Rows
    stop_rows: Rows
    seed: np.random.SeedSequence = field(repr=False)


def inner_splits(
    labels: npt.NDArray[np.bool_], rows: Rows, members: int, folds: int, seed: np.random.SeedSequence
) -> list[tuple[Rows, Rows, np.random.SeedSequence]]:
    """Give each of `members` networks its rows to fit, its rows to stop on, and its seed.

    Members take turns at the folds of a stratified split of `rows`, which is drawn anew for every round of turns.
    With too few rows of a class for a split, every row serves for both.
    """
    here = labels[rows]
    folds = min(folds, int(here.sum()), int((~here).sum()))
    seeds = seed.spawn(members + 1)
    if folds < 2:
        return [(rows, rows, seeds[i]) for i in range(members)]
    states = np.random.default_rng(seeds[-1]).integers(2**31, size=-(-members // folds))
    splits = [
        (rows[fit], rows[stop])
        for state in states
        for fit, stop in StratifiedKFold(folds, shuffle=True, random_state=int(state)).split(here, here)
    ]
    return [(*splits[i], seeds[i]) for i in range(members)]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of several members side by side, padded to the same number with rows of weight zero."""

    inputs: torch.Tensor  # (members, rows, k)
    labels: torch.Tensor  # (members, rows)
    weights: torch.Tensor  # (members, rows): class weights, mean 1 over a member's own rows
    real: torch.Tensor  # (members, rows): 1, or 0 for padding

    @classmethod
    def of(cls, members: Sequence[Member], rows: Sequence[Rows]) -> Batch:
        """Gather the given rows of each member."""
        longest = max(len(r) for r in rows)
        shape = (len(members), longest)
        inputs = np.zeros((*shape, members[0].inputs.shape[1]), dtype=np.float32)
        labels, weights, real = (np.zeros(shape, dtype=np.float32) for _ in range(3))
        for i, (member, own) in enumerate(zip(members, rows, strict=True)):
            y = member.labels[own]
            # Class weights come from the rows that are fitted, for both losses.
            advanced = member.labels[member.fit_rows].mean()
            inputs[i, : len(own)], labels[i, : len(own)], real[i, : len(own)] = member.inputs[own], y, 1.0
            weights[i, : len(own)] = np.where(y, 0.5 / max(advanced, 1e-6), 0.5 / max(1.0 - advanced, 1e-6))
        return cls(torch.from_numpy(inputs), *(torch.from_numpy(a).double() for a in (labels, weights, real)))

    def keep(self, which: torch.Tensor) -> Batch:
        """Return the members that are named."""
        return Batch(self.inputs[which], self.labels[which], self.weights[which], self.real[which])

    def loss(self, logits: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Class-weighted binary cross-entropy, mean over each member's rows; (members,)."""
        labels, weights, real = (
            (a if rows is None else a.gather(1, rows)) for a in (self.labels, self.weights, self.real)
        )
        # In float64, so that neither padding nor place in the batch leaves a trace.
        losses = binary_cross_entropy_with_logits(logits.double(), labels, weights, reduction="none")
        return losses.sum(1) / real.sum(1).clamp(min=1.0)

    def error(self, logits: torch.Tensor) -> torch.Tensor:
        """Differentiate each row's weighted loss with respect to its logit; zero for padding; (members, rows)."""
        return (self.weights * (torch.sigmoid(logits.double()) - self.labels)).float()
