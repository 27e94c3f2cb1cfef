"""Many small networks trained together: one tensor program with a leading ensemble axis.

Every member has its own rows, its own features, its own inputs and its own random stream, so what it becomes
does not depend on which others it is trained with. Random numbers come from numpy's generators, one a member.
Each program runs on one thread: the results are then the same whatever the machine's number of cores, and
several programs may run side by side in a thread pool.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lungstage.training.model.members import Batch, Member
from lungstage.training.run import Ensemble

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Hyper-parameters of one network.

    Attributes
    ----------
    hidden
        Widths of the hidden layers.
    dropout
        Probability that a hidden unit is left out, to the nearest 1/256.
    max_epochs, patience
        Training ends after `patience` epochs in a row without a lower loss on the stopping rows; the weights of
        the best epoch are kept.
    """

    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    batch_size: int = 32
    max_epochs: int = 100
    patience: int = 12


@contextmanager
def single_threaded() -> Iterator[None]:
    """Hold torch and the linear algebra libraries to one thread, and torch to deterministic kernels."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


@dataclass(frozen=True, slots=True)
class Networks:
    """Trained perceptrons, float32.

    Attributes
    ----------
    layers
        Weights (members, inputs, outputs) and biases (members, 1, outputs) in turn, layer by layer.
    """

    layers: tuple[torch.Tensor, ...]

    def __getitem__(self, members: slice) -> Networks:
        return Networks(tuple(layer[members] for layer in self.layers))

    def ensemble(self, members: slice) -> Ensemble:
        """Return some members as float64 arrays."""
        return Ensemble(
            weights=tuple(w[members].double().numpy() for w in self.layers[0::2]),
            biases=tuple(b[members, 0].double().numpy() for b in self.layers[1::2]),
        )


def train(members: Sequence[Member], settings: NetworkSettings) -> Networks:
    """Train a perceptron per member; all have the same number of features and about as many rows.

    The number of rows decides how many batches make an epoch, so it is a property of the whole call.
    """
    widths = (members[0].inputs.shape[1], *settings.hidden, 1)
    fit = Batch.of(members, [member.fit_rows for member in members])
    stop = Batch.of(members, [member.stop_rows for member in members])
    streams = [np.random.default_rng(member.seed) for member in members]
    state = _Perceptrons(_initial(streams, widths), widths, settings)
    best = state.flat.clone()
    best_loss = torch.full((len(members),), torch.inf, dtype=torch.float64)
    waited = torch.zeros(len(members), dtype=torch.int64)
    alive = torch.arange(len(members))  # members still in training, by their place in `members`
    for _ in range(settings.max_epochs):
        order, masks = _draw(fit, [streams[i] for i in alive.tolist()], settings.hidden, settings.dropout)
        batches = max(1, round(order.shape[1] / settings.batch_size))
        for first in range(batches):  # every so-many-th row: batches of equal size, padding spread over them
            piece = order[:, first::batches]
            x = fit.inputs.gather(1, piece[..., None].expand(-1, -1, fit.inputs.shape[2]))
            state.descend(fit.loss(state.logits(x, [mask[:, first::batches] for mask in masks]), piece))
        with torch.no_grad():
            loss = stop.loss(state.logits(stop.inputs, None))
        # One that has stopped stays so, however long it is carried along.
        better = (loss < best_loss[alive]) & (waited[alive] < settings.patience)
        best_loss[alive[better]] = loss[better]
        best[alive[better]] = state.flat[better]
        waited[alive] = torch.where(better, 0, waited[alive] + 1)
        going = waited[alive] < settings.patience
        if not going.any():
            break
        # Carrying stopped members along is cheaper than copying the rest, until they are many.
        if going.sum() <= 0.75 * len(alive):
            alive, fit, stop = alive[going], fit.keep(going), stop.keep(going)
            state = state.keeping(going)
    return Networks(tuple(layer.detach() for layer in _layers(best, widths)))


def ensemble_logits(ensemble: Ensemble, x: Array) -> Array:
    """Mean logit over the members, for standardised `x` (n, k); (n,)."""
    layers = list(zip(ensemble.weights, ensemble.biases, strict=True))
    hidden = np.broadcast_to(x, (len(layers[0][0]), *x.shape))
    for weights, biases in layers[:-1]:
        hidden = np.maximum(hidden @ weights + biases[:, None], 0.0)
    weights, biases = layers[-1]
    logits: Array = (hidden @ weights + biases[:, None])[..., 0].mean(axis=0)
    return logits


def dropout_masks(
    batch: Batch, streams: Sequence[np.random.Generator], widths: Sequence[int], dropout: float
) -> list[torch.Tensor]:
    """Masks (members, rows, width) of mean 1, one a hidden layer, each from its member's stream."""
    longest, total = batch.real.shape[1], sum(widths)
    cut = min(255, round(dropout * 256))
    masks = np.zeros((len(streams), longest, total), dtype=np.uint8)
    for i, (stream, count) in enumerate(zip(streams, batch.real.sum(1).int().tolist(), strict=True)):
        masks[i, :count] = np.frombuffer(stream.bytes(count * total), np.uint8).reshape(count, total)
    scaled = torch.from_numpy(masks).ge(cut).float().mul_(256 / (256 - cut))
    return list(torch.split(scaled, list(widths), 2))


def forward(networks: Networks, x: torch.Tensor, masks: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
    """Logits of `x` (members, rows, k), with a dropout mask per hidden layer or none; (members, rows)."""
    return _logits(networks.layers, x, masks)


_ALIGNMENT = 64


def _sizes(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Shapes of weights and biases, layer by layer."""
    return [shape for a, b in itertools.pairwise(widths) for shape in ((a, b), (1, b))]


def _padding(members: int, widths: Sequence[int]) -> tuple[int, int]:
    """Shape of the zeros that follow each member's parameters."""
    return members, -sum(a * b for a, b in _sizes(widths)) % _ALIGNMENT


def _initial(streams: Sequence[np.random.Generator], widths: Sequence[int]) -> torch.Tensor:
    """Parameters of each member in one row, uniform in ±1/√inputs as in :class:`torch.nn.Linear`.

    Rows are padded so that each starts where a vector register would: arithmetic on a tail is not always that on
    full registers to the last bit, and a member's numbers shall not depend on its place in the batch.
    """
    bounds = [width**-0.5 for width in widths[:-1] for _ in ("weights", "biases")]
    drawn = [
        np.concatenate([r.uniform(-bound, bound, a * b) for bound, (a, b) in zip(bounds, _sizes(widths), strict=True)])
        for r in streams
    ]
    return torch.from_numpy(np.pad(np.stack(drawn).astype(np.float32), ((0, 0), (0, _padding(1, widths)[1]))))


def _layers(flat: torch.Tensor, widths: Sequence[int]) -> list[torch.Tensor]:
    """View `flat` (members, parameters) as weights and biases, layer by layer, each a leaf of its own."""
    sizes = _sizes(widths)
    pieces = torch.split(flat, [*(a * b for a, b in sizes), _padding(1, widths)[1]], 1)
    return [piece.view(-1, a, b).detach().requires_grad_() for piece, (a, b) in zip(pieces, sizes, strict=False)]


class _Perceptrons:
    """Multilayer perceptrons under AdamW, a row of parameters each; the layers are views of the rows."""

    def __init__(self, flat: torch.Tensor, widths: Sequence[int], settings: NetworkSettings) -> None:
        self.flat, self._widths, self._settings = flat, widths, settings
        self._layers = _layers(flat, widths)
        self._adam = torch.optim.AdamW(
            [flat], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def logits(self, x: torch.Tensor, masks: Sequence[torch.Tensor] | None) -> torch.Tensor:
        return _logits(self._layers, x, masks)

    def descend(self, loss: torch.Tensor) -> None:
        gradients = torch.autograd.grad(loss.sum(), self._layers)
        padding = self.flat.new_zeros(_padding(len(self.flat), self._widths))
        self.flat.grad = torch.cat([*(g.flatten(1) for g in gradients), padding], 1)
        self._adam.step()

    def keeping(self, which: torch.Tensor) -> Self:
        fewer = type(self)(self.flat[which], self._widths, self._settings)
        moments = self._adam.state[self.flat]
        fewer._adam.state[fewer.flat] = {k: (v if k == "step" else v[which]) for k, v in moments.items()}
        return fewer


def _logits(
    layers: Sequence[torch.Tensor], x: torch.Tensor, masks: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """Forward pass of `x` (members, rows, k), with a dropout mask per hidden layer or none; (members, rows)."""
    for i in range(len(layers) // 2 - 1):
        x = torch.baddbmm(layers[2 * i + 1], x, layers[2 * i]).relu()
        if masks is not None:
            x = x * masks[i]
    # A product with one column is a sum: bmm would take another kernel for one member than for several.
    return (x * layers[-2].transpose(1, 2)).sum(2) + layers[-1][..., 0]


def _draw(
    batch: Batch, streams: Sequence[np.random.Generator], widths: Sequence[int], dropout: float
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One epoch's order of rows (members, rows) and dropout masks (members, rows, width), from each one's stream."""
    longest = batch.real.shape[1]
    counts = batch.real.sum(1).int().tolist()
    order = np.tile(np.arange(longest), (len(streams), 1))
    for i, (stream, count) in enumerate(zip(streams, counts, strict=True)):
        order[i, :count] = stream.permutation(count)
    return torch.from_numpy(order), dropout_masks(batch, streams, widths, dropout)
