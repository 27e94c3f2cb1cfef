"""Check that ``model.onnx`` computes the fitted model, by comparison with a second, independent forward pass.

The reference shares no formula with :mod:`export.graph`. Yeo-Johnson is SciPy's. The network is torch in float64. The
contributions come from torch's automatic differentiation, with the rescale rule instead of ReLU's derivative. The
distances use the functions of training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import torch

from lungstage.training.model.domain import mahalanobis_distances, neighbour_distances
from lungstage.training.model.preprocessing import UNCLIPPED_LIMIT
from lungstage.training.run import Array, FittedModel, Preprocessing

TOLERANCE = 1e-6
"""Largest difference that a build accepts, in any output."""

ROWS = 1000


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's outputs for n rows: contributions (n, k + c), features first; all others (n,)."""

    probability_advanced: Array
    contributions: Array
    domain_distance: Array
    neighbour_distance: Array
    logit: Array


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest absolute differences between the graph and the reference, over `rows` random inputs."""

    rows: int
    probability: float
    contributions: float
    distance: float
    neighbours: float
    completeness: float  # |sum of contributions - (logit - baseline logit)|, within the graph

    def __str__(self) -> str:
        return (
            f"parity over {self.rows} random inputs: probability {self.probability:.1e}, contributions "
            f"{self.contributions:.1e}, distance {self.distance:.1e}, neighbours {self.neighbours:.1e}, completeness "
            f"{self.completeness:.1e}"
        )


class _RescaleReLU(torch.autograd.Function):
    """ReLU over a stacked (case, baseline) pair whose backward pass is DeepLIFT's rescale rule."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a)
        return a.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (a,) = ctx.saved_tensors
        case, baseline = a
        step = case - baseline
        slope = torch.where(step == 0, (case > 0).to(a.dtype), (case.clamp(min=0) - baseline.clamp(min=0)) / step)
        return grad * slope


def _standardise(x: Array, steps: Preprocessing) -> Array:
    scaled = (x - steps.center) / steps.spread
    with np.errstate(over="ignore"):
        columns = [scipy.stats.yeojohnson(column, lmbda) for column, lmbda in zip(scaled.T, steps.lmbda, strict=True)]
    return (np.stack(columns, axis=1) - steps.mean) / steps.scale


def reference(model: FittedModel, x: Array) -> Answers:
    """Compute the model's answers without the graph.

    Parameters
    ----------
    model
        The fitted model, k features and c columns of covariates.
    x
        (n, k + c) raw inputs, features first, NaN where missing.

    Returns
    -------
    Answers
        In float64.
    """
    steps = model.preprocessing
    known = np.where(np.isnan(x), steps.median, x)
    z = _standardise(np.clip(known, steps.lower, steps.upper), steps)
    z0 = _standardise(np.clip(steps.median[np.newaxis], steps.lower, steps.upper), steps)
    pair = torch.tensor(np.stack([z, np.broadcast_to(z0, z.shape)])).requires_grad_()
    last = len(model.ensemble.weights) - 1
    logits: list[torch.Tensor] = []
    for member in range(model.ensemble.weights[0].shape[0]):
        h = pair
        for i, (weight, bias) in enumerate(zip(model.ensemble.weights, model.ensemble.biases, strict=True)):
            h = h @ torch.tensor(weight[member]) + torch.tensor(bias[member])
            if i < last:
                h = _RescaleReLU.apply(h)  # type: ignore[no-untyped-call]
        logits.append(h[..., 0])
    slope, intercept = model.calibration
    logit = slope * torch.stack(logits).mean(dim=0)[0] + intercept
    (gradient,) = torch.autograd.grad(logit.sum(), pair)
    far = np.clip(_standardise(known, steps), -UNCLIPPED_LIMIT, UNCLIPPED_LIMIT)[:, : len(model.features)]
    values = logit.detach().numpy()
    return Answers(
        probability_advanced=scipy.special.expit(values),
        contributions=gradient[0].numpy() * (z - z0),
        domain_distance=mahalanobis_distances(far, model.domain_precision),
        neighbour_distance=neighbour_distances(far, model.domain_references),
        logit=values,
    )


def run_graph(onnx_model: bytes, x: Array) -> Answers:
    """Compute the same outputs for `x` (n, k + c) with onnxruntime."""
    import onnxruntime

    return run_session(onnxruntime.InferenceSession(onnx_model, providers=["CPUExecutionProvider"]), x)


def run_session(session: Any, x: Array) -> Answers:
    """Run an onnxruntime session of the graph on `x` (n, k + c)."""
    widths = np.cumsum([given.shape[1] for given in session.get_inputs()])
    parts = np.split(x, widths[:-1], axis=1)
    names = [output.name for output in session.get_outputs()]
    inputs = {given.name: part for given, part in zip(session.get_inputs(), parts, strict=True)}
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    shares = [outputs.pop(name) for name in ("contributions", "covariate_contributions") if name in outputs]
    return Answers(contributions=np.concatenate(shares, axis=1), **outputs)


def random_inputs(model: FittedModel, rows: int = ROWS, seed: int = 0) -> Array:
    """Draw inputs of every kind that the graph must handle: usual, missing, extreme and exactly at the median.

    Returns
    -------
    ndarray
        (rows, k + c) float64. Of the values 5 % are NaN, 5 % lie far outside the clipping range, 5 % on its edges and
        5 % on the median; the first row is the median throughout, the second NaN throughout.
    """
    rng = np.random.default_rng(seed)
    steps = model.preprocessing
    shape = (rows, steps.median.size)
    x = steps.center + steps.spread * rng.normal(0.0, 1.5, shape)
    far = rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(0, 4, shape)
    wild = steps.median + (steps.upper - steps.lower) * far
    kind = rng.choice(6, shape, p=[0.05, 0.05, 0.025, 0.025, 0.05, 0.8])
    for i, replacement in enumerate([np.full(shape, np.nan), wild, steps.lower, steps.upper, steps.median]):
        x = np.where(kind == i, replacement, x)
    x[0], x[1] = steps.median, np.nan
    return x


def prove(model: FittedModel, onnx_model: bytes, rows: int = ROWS, seed: int = 0) -> Parity:
    """Compare the graph with the reference over random inputs.

    Raises
    ------
    ArithmeticError
        An output differs by more than :data:`TOLERANCE`, or the contributions do not sum to the logit minus the
        baseline's logit. Then the graph is not the model, which is an internal error of export.
    """
    x = random_inputs(model, rows, seed)
    graph, expected = run_graph(onnx_model, x), reference(model, x)
    # Row 0 is the median, so its logit is the baseline's.
    gap = graph.contributions.sum(axis=1) - (graph.logit - graph.logit[0])
    parity = Parity(
        rows=rows,
        probability=float(np.abs(graph.probability_advanced - expected.probability_advanced).max()),
        contributions=float(np.abs(graph.contributions - expected.contributions).max()),
        distance=float(np.abs(graph.domain_distance - expected.domain_distance).max()),
        neighbours=float(np.abs(graph.neighbour_distance - expected.neighbour_distance).max()),
        completeness=float(np.abs(gap).max()),
    )
    differences = {name: value for name, value in asdict(parity).items() if name != "rows"}
    if not all(value <= TOLERANCE for value in differences.values()):
        raise ArithmeticError(f"the graph does not compute the fitted model: {parity}")
    return parity
