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

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from training.members import Batch, Member
from training.run import Ensemble

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
    """Trained members, float32: ``weights[i]`` is (members, inputs, outputs), ``biases[i]`` (members, 1, outputs)."""

    weights: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor, ...]

    def ensemble(self, members: slice) -> Ensemble:
        """Return some members as float64 arrays."""
        return Ensemble(
            weights=tuple(w[members].double().numpy() for w in self.weights),
            biases=tuple(b[members, 0].double().numpy() for b in self.biases),
        )


def train(members: Sequence[Member], settings: NetworkSettings) -> Networks:
    """Train `members`, all of which have the same number of features and about as many rows.

    The number of rows decides how many batches make an epoch, so it is a property of the whole call.
    """
    fit = Batch.of(members, [member.fit_rows for member in members])
    stop = Batch.of(members, [member.stop_rows for member in members])
    streams = [np.random.default_rng(member.seed) for member in members]
    widths = (fit.inputs.shape[2], *settings.hidden, 1)
    flat = _initial(streams, widths)
    best = flat.clone()
    best_loss = torch.full((len(members),), torch.inf, dtype=torch.float64)
    waited = torch.zeros(len(members), dtype=torch.int64)
    alive = torch.arange(len(members))  # members still in training, by their place in `members`
    layers, optimiser = _layers(flat, widths), _optimiser(flat, settings)
    for _ in range(settings.max_epochs):
        order, masks = _draw(fit, [streams[i] for i in alive.tolist()], settings)
        batches = max(1, round(order.shape[1] / settings.batch_size))
        for first in range(batches):  # every so-many-th row: batches of equal size, padding spread over them
            piece = order[:, first::batches]
            x = fit.inputs.gather(1, piece[..., None].expand(-1, -1, widths[0]))
            loss = fit.loss(_logits(layers, x, [mask[:, first::batches] for mask in masks]), piece)
            gradients = torch.autograd.grad(loss.sum(), layers)
            flat.grad = torch.cat([*(g.flatten(1) for g in gradients), flat.new_zeros(_padding(len(flat), widths))], 1)
            optimiser.step()
        with torch.no_grad():
            loss = stop.loss(_logits(layers, stop.inputs))
        # One that has stopped stays so, however long it is carried along.
        better = (loss < best_loss[alive]) & (waited[alive] < settings.patience)
        best_loss[alive[better]] = loss[better]
        best[alive[better]] = flat[better]
        waited[alive] = torch.where(better, 0, waited[alive] + 1)
        going = waited[alive] < settings.patience
        if not going.any():
            break
        # Carrying stopped members along is cheaper than copying the rest, until they are many.
        if going.sum() <= 0.75 * len(alive):
            alive, fit, stop = alive[going], fit.keep(going), stop.keep(going)
            flat, optimiser = _keep(flat, optimiser, going, settings)
            layers = _layers(flat, widths)
    trained = [layer.detach() for layer in _layers(best, widths)]
    return Networks(tuple(trained[0::2]), tuple(trained[1::2]))


def ensemble_logits(ensemble: Ensemble, x: Array) -> Array:
    """Mean logit over the members, for standardised `x` (n, k); (n,)."""
    layers = list(zip(ensemble.weights, ensemble.biases, strict=True))
    hidden = np.broadcast_to(x, (len(layers[0][0]), *x.shape))
    for weights, biases in layers[:-1]:
        hidden = np.maximum(hidden @ weights + biases[:, None], 0.0)
    weights, biases = layers[-1]
    logits: Array = (hidden @ weights + biases[:, None])[..., 0].mean(axis=0)
    return logits


def held_out_gradients(networks: Networks, members: Sequence[Member]) -> Array:
    """Mean of ``|∂loss/∂x_j|`` over each member's stopping rows, dropout off; (members, k).

    The stopping rows are held out from the weights: on fitted rows the gradient vanishes where the fit is good
    and leans on mislabelled rows.
    """
    held_out = Batch.of(members, [member.stop_rows for member in members])
    x = held_out.inputs.clone().requires_grad_()
    parameters = [p for pair in zip(networks.weights, networks.biases, strict=True) for p in pair]
    # Each row's gradient depends on its own loss alone, so one backward pass serves all; the weighted mean
    # over rows inside `loss` becomes the mean over rows of the absolute value below.
    (gradient,) = torch.autograd.grad(held_out.loss(_logits(parameters, x)).sum(), x)
    return gradient.abs().sum(1).double().numpy()


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


def _logits(
    parameters: Sequence[torch.Tensor], x: torch.Tensor, masks: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """Forward pass of `x` (members, rows, k), with a dropout mask per hidden layer or none; (members, rows)."""
    layers = len(parameters) // 2
    for i in range(layers - 1):
        x = torch.baddbmm(parameters[2 * i + 1], x, parameters[2 * i]).relu()
        if masks is not None:
            x = x * masks[i]
    # A product with one column is a sum: bmm would take another kernel for one member than for several.
    return (x * parameters[-2].transpose(1, 2)).sum(2) + parameters[-1][..., 0]


def _draw(
    batch: Batch, streams: Sequence[np.random.Generator], settings: NetworkSettings
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One epoch's order of rows (members, rows) and dropout masks (members, rows, width), from each one's stream."""
    longest = batch.real.shape[1]
    counts = batch.real.sum(1).int().tolist()
    order = np.tile(np.arange(longest), (len(streams), 1))
    cut = min(255, round(settings.dropout * 256))
    total = sum(settings.hidden)
    masks = np.zeros((len(streams), longest, total), dtype=np.uint8)
    for i, (stream, count) in enumerate(zip(streams, counts, strict=True)):
        order[i, :count] = stream.permutation(count)
        masks[i, :count] = np.frombuffer(stream.bytes(count * total), np.uint8).reshape(count, total)
    scaled = torch.from_numpy(masks).ge(cut).float().mul_(256 / (256 - cut))
    return torch.from_numpy(order), list(torch.split(scaled, list(settings.hidden), 2))


def _optimiser(flat: torch.Tensor, settings: NetworkSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW([flat], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def _keep(
    flat: torch.Tensor, optimiser: torch.optim.AdamW, which: torch.Tensor, settings: NetworkSettings
) -> tuple[torch.Tensor, torch.optim.AdamW]:
    """Go on with some members only, with the optimiser's moments."""
    fewer = flat[which]
    successor = _optimiser(fewer, settings)
    successor.state[fewer] = {k: (v if k == "step" else v[which]) for k, v in optimiser.state[flat].items()}
    return fewer, successor
