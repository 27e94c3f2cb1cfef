"""Many small networks trained together: one tensor program with a leading ensemble axis.

Every member has its own rows, features, inputs and random stream. So its result does not depend on the members that are
trained with it. Random numbers come from numpy's generators, one per member. Each program runs on one thread, so the
results do not depend on the number of cores, and several programs can run in a thread pool.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch.optim.adamw import adamw

from lungstage.training.model.members import Batch, Member, Step, Steps, Streams
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
        Probability that a hidden unit is left out, rounded to 1/256.
    max_epochs, patience
        Training ends after `patience` consecutive epochs without a lower loss on the stopping rows. The weights of the
        best epoch are kept.
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
    """Limit torch and the linear algebra libraries to one thread, and torch to deterministic kernels."""
    memory: Any = torch.utils.deterministic
    threads, mode, fill = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        memory.fill_uninitialized_memory,
    )
    torch.set_num_threads(1)
    # The same as use_deterministic_algorithms(True), which would also load torch's compiler: a second per process.
    torch.set_deterministic_debug_mode("error")
    memory.fill_uninitialized_memory = False  # uninitialised memory is never read
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fill


@dataclass(frozen=True, slots=True)
class Networks:
    """Trained perceptrons, float32.

    Attributes
    ----------
    layers
        Weights (members, inputs, outputs) and biases (members, 1, outputs) alternately, layer by layer.
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


@torch.no_grad()
def train(members: Sequence[Member], settings: NetworkSettings) -> Networks:
    """Train one perceptron per member. All have the same number of features and about the same number of rows.

    The largest number of rows decides how many batches make an epoch, for all members.
    """
    widths = (members[0].inputs.shape[1], *settings.hidden, 1)
    fit = Batch.of(members, [member.fit_rows for member in members])
    stop = Batch.of(members, [member.stop_rows for member in members])
    batches = max(1, round(fit.real.shape[1] / settings.batch_size))
    streams = Streams.of([member.seed for member in members], fit)
    state = _Perceptrons(_initial(streams, widths), widths, settings)
    steps = Steps(fit, batches)
    best = state.flat.clone()
    best_loss = np.full(len(members), np.inf)
    waited = np.zeros(len(members), dtype=np.intp)
    alive = np.arange(len(members))  # members still in training, by their place in `members`
    for _ in range(settings.max_epochs):
        rows = steps.shuffled(streams.orders())
        masks = streams.dropout_masks(settings.hidden, settings.dropout)
        for first, step in enumerate(rows):
            state.descend(step, [mask[:, first::batches] for mask in masks])
        loss = stop.loss(_logits(state.layers, stop.inputs)).numpy()
        # A stopped member stays stopped, even while it is still part of the batch.
        better = (loss < best_loss[alive]) & (waited[alive] < settings.patience)
        best_loss[alive[better]] = loss[better]
        best[torch.from_numpy(alive[better])] = state.flat[torch.from_numpy(better)]
        waited[alive] = np.where(better, 0, waited[alive] + 1)
        going = waited[alive] < settings.patience
        if not going.any():
            break
        # Keeping stopped members in the batch is cheaper than copying the others, until there are many.
        if going.sum() <= _CARRIED * len(alive):
            alive, kept = alive[going], torch.from_numpy(np.flatnonzero(going))
            fit, stop, streams, state = fit.keep(kept), stop.keep(kept), streams.keep(going), state.keep(kept)
            steps = Steps(fit, batches)
    return Networks(tuple(_layers(best, widths)))


def ensemble_logits(ensemble: Ensemble, x: Array) -> Array:
    """Mean logit over the members, for standardised `x` (n, k); (n,)."""
    layers = list(zip(ensemble.weights, ensemble.biases, strict=True))
    hidden = np.broadcast_to(x, (len(layers[0][0]), *x.shape))
    for weights, biases in layers[:-1]:
        hidden = np.maximum(hidden @ weights + biases[:, None], 0.0)
    weights, biases = layers[-1]
    logits: Array = (hidden @ weights + biases[:, None])[..., 0].mean(axis=0)
    return logits


def forward(networks: Networks, x: torch.Tensor, masks: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
    """Logits of `x` (members, rows, k), with a dropout mask per hidden layer or none; (members, rows)."""
    return _logits(networks.layers, x, masks)


_ALIGNMENT = 64
_CARRIED = 0.75  # share of members still in training below which the batch is reduced


def _sizes(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Shapes of weights and biases, layer by layer."""
    return [shape for a, b in itertools.pairwise(widths) for shape in ((a, b), (1, b))]


def _padding(members: int, widths: Sequence[int]) -> tuple[int, int]:
    """Shape of the zeros that follow each member's parameters."""
    return members, -sum(a * b for a, b in _sizes(widths)) % _ALIGNMENT


def _initial(streams: Streams, widths: Sequence[int]) -> torch.Tensor:
    """Parameters of each member in one row, uniform in ±1/√inputs as in :class:`torch.nn.Linear`.

    Rows are padded so that each starts at the boundary of a vector register. Arithmetic on a partly filled register can
    differ in the last bit, and a member's numbers must not depend on its place in the batch.
    """
    bounds = [width**-0.5 for width in widths[:-1] for _ in ("weights", "biases")]
    drawn = streams.uniform(bounds, [a * b for a, b in _sizes(widths)]).astype(np.float32)
    return torch.from_numpy(np.pad(drawn, ((0, 0), (0, _padding(1, widths)[1]))))


def _layers(flat: torch.Tensor, widths: Sequence[int]) -> list[torch.Tensor]:
    """View `flat` (members, parameters) as weights and biases, layer by layer."""
    sizes = _sizes(widths)
    pieces = torch.split(flat, [*(a * b for a, b in sizes), _padding(1, widths)[1]], 1)
    return [piece.view(-1, a, b) for piece, (a, b) in zip(pieces, sizes, strict=False)]


class _Perceptrons:
    """Multilayer perceptrons trained by AdamW, one row of parameters each; the layers are views of the rows.

    The gradient is coded by hand, because for networks this small automatic differentiation takes longer than the
    arithmetic.
    """

    def __init__(self, flat: torch.Tensor, widths: Sequence[int], settings: NetworkSettings) -> None:
        self.flat, self.layers = flat, _layers(flat, widths)
        self._widths, self._settings = widths, settings
        self._mean, self._square = torch.zeros_like(flat), torch.zeros_like(flat)
        self._step = torch.zeros(())
        self._gradient = torch.empty_like(flat)
        self._padding = flat.new_zeros(_padding(len(flat), widths))

    def descend(self, step: Step, masks: Sequence[torch.Tensor]) -> None:
        """Do one optimiser step on some rows, with one dropout mask per hidden layer."""
        torch.cat([*self._gradients(step, masks), self._padding], 1, out=self._gradient)
        adamw(
            [self.flat], [self._gradient], [self._mean], [self._square], [], [self._step], fused=True, amsgrad=False,
            beta1=0.9, beta2=0.999, lr=self._settings.learning_rate, weight_decay=self._settings.weight_decay,
            eps=1e-8, maximize=False,
        )  # fmt: skip

    def _gradients(self, step: Step, masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Gradients of the loss with respect to each layer, (members, its size)."""
        active, inputs = [], [step.inputs]
        for i, mask in enumerate(masks):
            active.append(torch.baddbmm(self.layers[2 * i + 1], inputs[-1], self.layers[2 * i]).relu_())
            inputs.append(active[-1] * mask)
        last = self.layers[-2].transpose(1, 2)
        error = step.error((inputs[-1] * last).sum(2) + self.layers[-1][..., 0])
        found = [error.sum(1, keepdim=True), (error[..., None] * inputs[-1]).sum(1)]  # starts with the last bias
        slope = error[..., None] * last
        for i in range(len(masks) - 1, -1, -1):
            slope = torch.ops.aten.threshold_backward(slope * masks[i], active[i], 0)
            found += [slope.sum(1), inputs[i].transpose(1, 2).bmm(slope).flatten(1)]
            if i:
                slope = slope.bmm(self.layers[2 * i].transpose(1, 2))
        return found[::-1]

    def keep(self, which: torch.Tensor) -> Self:
        """Return the given members."""
        fewer = type(self)(self.flat[which], self._widths, self._settings)
        fewer._mean, fewer._square, fewer._step = self._mean[which], self._square[which], self._step
        return fewer


def _logits(
    layers: Sequence[torch.Tensor], x: torch.Tensor, masks: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """Forward pass of `x` (members, rows, k), with a dropout mask per hidden layer or none; (members, rows)."""
    for i in range(len(layers) // 2 - 1):
        x = torch.baddbmm(layers[2 * i + 1], x, layers[2 * i]).relu()
        if masks is not None:
            x = x * masks[i]
    # Written as a sum, because bmm uses different kernels for one member and for several.
    return (x * layers[-2].transpose(1, 2)).sum(2) + layers[-1][..., 0]
