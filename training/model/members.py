"""Training data of each network of a batch: its rows, its features, its random stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Training data of one network.

    Attributes
    ----------
    inputs
        (n, k) standardised features.
    labels
        (n,) bool; used in the rows below only.
    fit_rows, stop_rows
        Rows to fit the weights on, and rows for early stopping.
    seed
        Seed of the member's random stream.
    """

    inputs: Array
    labels: npt.NDArray[np.bool_]
    fit_rows: Rows
    stop_rows: Rows
    seed: np.random.SeedSequence = field(repr=False)


def inner_splits(
    labels: npt.NDArray[np.bool_], rows: Rows, members: int, folds: int, seed: np.random.SeedSequence
) -> list[tuple[Rows, Rows, np.random.SeedSequence]]:
    """Give each of `members` networks its rows to fit, its rows for early stopping, and its seed.

    Members use the folds of a stratified split of `rows` in turn. A new split is drawn when all folds have been used.
    If a class has too few rows for a split, all rows are used for both.
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
    """Rows of several members, padded to the same number with rows of weight zero."""

    inputs: torch.Tensor  # (members, rows, k)
    labels: torch.Tensor  # (members, rows)
    weights: torch.Tensor  # (members, rows): class weights, mean 1 over a member's own rows
    real: torch.Tensor  # (members, rows): 1, or 0 for padding
    counts: torch.Tensor  # (members,): number of a member's own rows

    @classmethod
    def of(cls, members: Sequence[Member], rows: Sequence[Rows]) -> Batch:
        """Gather the given rows of each member."""
        longest = max(len(r) for r in rows)
        shape = (len(members), longest)
        inputs = np.zeros((*shape, members[0].inputs.shape[1]), dtype=np.float32)
        labels, weights, real = (np.zeros(shape, dtype=np.float32) for _ in range(3))
        for i, (member, own) in enumerate(zip(members, rows, strict=True)):
            y = member.labels[own]
            # Both losses use the class weights of the fitted rows.
            advanced = member.labels[member.fit_rows].mean()
            inputs[i, : len(own)], labels[i, : len(own)], real[i, : len(own)] = member.inputs[own], y, 1.0
            weights[i, : len(own)] = np.where(y, 0.5 / max(advanced, 1e-6), 0.5 / max(1.0 - advanced, 1e-6))
        # In float64, so that padding and place in the batch do not change the result.
        labelled = (torch.from_numpy(a).double() for a in (labels, weights, real, real.sum(1)))
        return cls(torch.from_numpy(inputs), *labelled)

    def keep(self, which: torch.Tensor) -> Batch:
        """Return the given members."""
        return Batch(*(getattr(self, name)[which] for name in self.__slots__))

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Class-weighted binary cross-entropy, mean over each member's rows; (members,)."""
        losses = binary_cross_entropy_with_logits(logits.double(), self.labels, self.weights, reduction="none")
        return losses.sum(1) / self.counts.clamp(min=1.0)

    def error(self, logits: torch.Tensor) -> torch.Tensor:
        """Differentiate each row's weighted loss with respect to its logit; zero for padding; (members, rows)."""
        return (self.weights * (torch.sigmoid(logits.double()) - self.labels)).float()


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of one optimiser step."""

    inputs: torch.Tensor  # (members, rows, k)
    labels: torch.Tensor  # (members, rows)
    weights: torch.Tensor  # (members, rows)
    share: torch.Tensor  # (members, 1): 1 / number of a member's own rows

    def error(self, logits: torch.Tensor) -> torch.Tensor:
        """Differentiate each member's mean loss with respect to its logits; (members, rows)."""
        return (torch.sigmoid(logits.double()).sub_(self.labels).mul_(self.share).mul_(self.weights)).float()


class Steps:
    """The rows of a batch, distributed over the steps of an epoch: every n-th row, so that padding is spread too."""

    def __init__(self, batch: Batch, steps: int) -> None:
        members, longest, k = batch.inputs.shape
        self._places = [torch.arange(longest)[first::steps] for first in range(steps)]
        self._first = torch.arange(members)[:, None] * longest
        self._flat = batch.inputs.reshape(-1, k), batch.labels.reshape(-1), batch.weights.reshape(-1)
        self._shares = [1.0 / batch.real[:, own].sum(1, keepdim=True).clamp(min=1.0) for own in self._places]
        self._dealt = torch.cat(self._places)

    def shuffled(self, order: npt.NDArray[np.int64]) -> Iterator[Step]:
        """Distribute the rows in each member's order of the epoch, (members, rows)."""
        dealt = torch.from_numpy(order)[:, self._dealt].add_(self._first)
        inputs, labels, weights = (flat.index_select(0, dealt.view(-1)) for flat in self._flat)
        sizes = [len(own) for own in self._places]
        whole = (array.view(*dealt.shape, *array.shape[1:]) for array in (inputs, labels, weights))
        pieces = (torch.split(array, sizes, 1) for array in whole)
        return (Step(*own) for own in zip(*pieces, self._shares, strict=True))


class Streams:
    """All random numbers in the training of a batch, from each member's own stream.

    Members with the same seed and number of rows need the same numbers, so these are drawn once for all of them.
    """

    def __init__(self, generators: Sequence[np.random.Generator], owner: Rows, counts: Rows, longest: int) -> None:
        self._generators, self._owner, self._counts, self._longest = list(generators), owner, counts, longest
        self._own = bool(np.array_equal(owner, np.arange(len(generators))))
        self._orders = np.tile(np.arange(longest), (len(counts), 1))
        self._bits: npt.NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, seeds: Sequence[np.random.SeedSequence], batch: Batch) -> Streams:
        """Start the streams of a batch's members."""
        rows = batch.counts.int().tolist()
        keys = [(*seed.generate_state(4).tolist(), count) for seed, count in zip(seeds, rows, strict=True)]
        first: dict[tuple[int, ...], int] = {}
        owner = np.array([first.setdefault(key, len(first)) for key in keys])
        generators = {int(i): np.random.default_rng(seed) for i, seed in zip(owner, seeds, strict=True)}
        return cls(list(generators.values()), owner, np.array([key[-1] for key in first]), batch.real.shape[1])

    def keep(self, which: npt.NDArray[np.bool_]) -> Streams:
        """Return the given members; their streams continue."""
        left, owner = np.unique(self._owner[which], return_inverse=True)
        return Streams([self._generators[i] for i in left], owner, self._counts[left], self._longest)

    def uniform(self, bounds: Sequence[float], sizes: Sequence[int]) -> Array:
        """Draw `sizes` numbers within ±bound for each bound in turn; (members, all sizes)."""
        drawn = [
            np.concatenate([r.uniform(-bound, bound, size) for bound, size in zip(bounds, sizes, strict=True)])
            for r in self._generators
        ]
        return np.stack(drawn)[self._owner]

    def orders(self) -> npt.NDArray[np.int64]:
        """Draw an order of each member's rows, padding last; (members, rows)."""
        self._orders[:] = np.arange(self._longest)
        for generator, row, count in zip(self._generators, self._orders, self._counts.tolist(), strict=True):
            generator.shuffle(row[:count])
        return self._orders if self._own else self._orders[self._owner]

    def dropout_masks(self, widths: Sequence[int], dropout: float) -> list[torch.Tensor]:
        """Draw masks (members, rows, width) of mean 1, one per hidden layer, with the rate rounded to 1/256."""
        total = sum(widths)
        cut = min(255, round(dropout * 256))
        if self._bits is None:
            self._bits = np.zeros((len(self._counts), self._longest * total), dtype=np.uint8)
        for generator, row, count in zip(self._generators, self._bits, (self._counts * total).tolist(), strict=True):
            # The same bytes as Generator.bytes, but faster.
            words = generator.integers(0, 2**32, -(-count // 4), np.uint32)
            row[:count] = words.astype("<u4", copy=False).view(np.uint8)[:count]
        kept = torch.from_numpy(self._bits).view(-1, self._longest, total).ge(cut).float().mul_(256 / (256 - cut))
        if not self._own:
            kept = kept[torch.from_numpy(self._owner)]
        return list(torch.split(kept, list(widths), 2))
