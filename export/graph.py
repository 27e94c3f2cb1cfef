"""ONNX graph from raw inputs to the calibrated probability, its contributions and the distances to the training cohort.

The graph is built node by node and not traced. So the same model gives the same bytes, and the file contains nothing of
the building machine. Everything is float64, so the appliance gives the same answer as training.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lungstage.appliance.model.model_file import OPSET
from lungstage.training.model.domain import NEIGHBOURS
from lungstage.training.model.preprocessing import UNCLIPPED_LIMIT, subset
from lungstage.training.run import Array, FittedModel, Preprocessing

IR_VERSION = 8  # the version that opset 18 came with

# A Yeo-Johnson exponent of 0 (or of 2, below zero) is the limit of the formula below. Double precision reaches this
# limit long before the exponent is this small: tanh(v) / v and (exp(v) + 1) / 2 are then 1 to the last bit.
_ZERO_EXPONENT = 1e-100


class Graph:
    """Nodes and constants in order, with numbered names, so that the same calls give the same bytes.

    Parameters
    ----------
    number
        Type of the numbers that become constants.
    """

    def __init__(self, number: type[np.floating[Any]] = np.float64) -> None:
        self._number = number
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._counter = itertools.count()

    def constant(self, value: Any, name: str) -> str:
        """Add a tensor and return its unique name."""
        array = np.ascontiguousarray(value)
        name = f"{name}_{next(self._counter)}"
        self.constants.append(numpy_helper.from_array(array.astype(array.dtype.newbyteorder("<")), name))
        return name

    def op(
        self, kind: str, *inputs: str | float | npt.NDArray[Any], output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output, and return the output's name. Numbers and arrays in `inputs` become constants."""
        names = [x if isinstance(x, str) else self.constant(np.asarray(x, self._number), "c") for x in inputs]
        output = output or f"{kind.lower()}_{next(self._counter)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def integers(self, *values: int) -> str:
        """Add an int64 constant: axes, sizes, counts."""
        return self.constant(np.array(values, np.int64), "integers")

    def sum(self, x: str, axis: int, *, output: str | None = None) -> str:
        """Sum over one axis, which is removed."""
        return self.op("ReduceSum", x, self.integers(axis), keepdims=0, output=output)

    def columns(self, x: str, sizes: Mapping[str, int]) -> None:
        """Split the columns of `x` (n, sum of sizes) into outputs with these names and widths."""
        self.nodes.append(helper.make_node("Split", [x, self.integers(*sizes.values())], list(sizes), axis=1))

    def smallest(self, x: str, count: int) -> str:
        """Return the `count` smallest values of each row of `x`."""
        values, places = (f"topk_{next(self._counter)}" for _ in range(2))
        self.nodes.append(helper.make_node("TopK", [x, self.integers(count)], [values, places], axis=-1, largest=0))
        return values


def _power_part(graph: Graph, u: str, exponent: Array) -> str:
    """((1 + u) ** e - 1) / e for u >= 0, and log(1 + u) for e = 0.

    Written as tanh(v / 2) * (exp(v) + 1) / e with v = e * log(1 + u), because ONNX has no expm1 and the plain
    formula loses all digits for small e.
    """
    exponent = np.where(np.abs(exponent) < _ZERO_EXPONENT, _ZERO_EXPONENT, exponent)
    v = graph.op("Mul", graph.op("Log", graph.op("Add", u, 1.0)), exponent)
    grown = graph.op("Add", graph.op("Exp", v), 1.0)
    return graph.op("Div", graph.op("Mul", graph.op("Tanh", graph.op("Mul", v, 0.5)), grown), exponent)


def _standardise(graph: Graph, x: str, steps: Preprocessing) -> str:
    """Robust scale, Yeo-Johnson, z-score. Yeo & Johnson 2000, Biometrika 87(4), eq. 2.1.

    The formula for values below zero is that for values above zero, mirrored, with exponent 2 - lambda. Each part is 0
    on the other side. So their difference is the transform, and no branch is needed.
    """
    scaled = graph.op("Div", graph.op("Sub", x, steps.center), steps.spread)
    above = _power_part(graph, graph.op("Max", scaled, 0.0), steps.lmbda)
    below = _power_part(graph, graph.op("Max", graph.op("Neg", scaled), 0.0), 2.0 - steps.lmbda)
    return graph.op("Div", graph.op("Sub", graph.op("Sub", above, below), steps.mean), steps.scale)


def _forward(graph: Graph, z: str, weights: list[str], biases: list[str]) -> tuple[list[tuple[str, str]], str]:
    """Run the ensemble: (before, after) ReLU of each hidden layer, (members, n, units); logits (members, n, 1)."""
    hidden: list[tuple[str, str]] = []
    h = z
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        before = graph.op("Add", graph.op("MatMul", h, weight), bias)
        h = graph.op("Relu", before)
        hidden.append((before, h))
    return hidden, graph.op("Add", graph.op("MatMul", h, weights[-1]), biases[-1])


def _rescale_multiplier(graph: Graph, case: tuple[str, str], baseline: tuple[str, str]) -> str:
    """(h - h0) / (a - a0) of a ReLU h(a), and its derivative for a = a0.

    The quotient is exact for every difference, because it is 1, 0, or a positive part divided by a larger sum. Only a
    difference of exactly zero needs the derivative instead.
    """
    difference = graph.op("Sub", case[0], baseline[0])
    same = graph.op("Equal", difference, 0.0)
    quotient = graph.op("Div", graph.op("Sub", case[1], baseline[1]), graph.op("Where", same, 1.0, difference))
    derivative = graph.op("Cast", graph.op("Greater", case[0], 0.0), to=TensorProto.DOUBLE)
    return graph.op("Where", same, derivative, quotient)


def _contributions(graph: Graph, z: str, z0: str, model: FittedModel, weights: list[str], biases: list[str]) -> None:
    """Add logit (n,), and the contributions of features (n, k) and covariates (n, c) against the baseline `z0`.

    DeepLIFT's rescale rule: Shrikumar, Greenside & Kundaje 2017, "Learning important features through propagating
    activation differences".
    Multipliers are propagated backwards through each member. The members' contributions are averaged like their logits.
    """
    slope, intercept = model.calibration
    members = model.ensemble.weights[0].shape[0]
    hidden, logits = _forward(graph, z, weights, biases)
    hidden0, _ = _forward(graph, z0, weights, biases)
    mean_logit = graph.op("Div", graph.sum(graph.sum(logits, -1), 0), float(members))
    logit = graph.op("Add", graph.op("Mul", mean_logit, slope), intercept, output="logit")
    graph.op("Sigmoid", logit, output="probability_advanced")
    multiplier = graph.op("Transpose", weights[-1], perm=[0, 2, 1])  # (members, 1, units)
    for weight, case, baseline in zip(weights[-2::-1], hidden[::-1], hidden0[::-1], strict=True):
        passed = graph.op("Mul", multiplier, _rescale_multiplier(graph, case, baseline))
        multiplier = graph.op("MatMul", passed, graph.op("Transpose", weight, perm=[0, 2, 1]))
    each = graph.op("Mul", multiplier, graph.op("Sub", z, z0))  # (members, n, k + c)
    shares = _shares(model)
    total = graph.op("Mul", graph.sum(each, 0), slope / members, output=None if len(shares) > 1 else "contributions")
    if len(shares) > 1:
        graph.columns(total, shares)


def _shares(model: FittedModel) -> dict[str, int]:
    """Return the outputs with contributions, and the number of columns of each."""
    k, c = len(model.features), len(model.covariate_columns)
    return {"contributions": k, "covariate_contributions": c} if c else {"contributions": k}


def _distances(graph: Graph, features: str, steps: Preprocessing, model: FittedModel) -> None:
    """Add the two distances (n,) of :mod:`training.model.domain` from features (n, k) without missing values."""
    k = len(model.features)
    z = _standardise(graph, features, steps)
    z = graph.op("Min", graph.op("Max", z, -UNCLIPPED_LIMIT), UNCLIPPED_LIMIT)
    squared = graph.sum(graph.op("Mul", graph.op("MatMul", z, model.domain_precision), z), -1)
    graph.op("Sqrt", graph.op("Max", squared, 0.0), output="domain_distance")
    # (n, 1, k) - (m, k): squared differences, because the expanded square loses digits by cancellation.
    difference = graph.op("Sub", graph.op("Unsqueeze", z, graph.integers(1)), model.domain_references)
    to_each = graph.op("Sqrt", graph.sum(graph.op("Mul", difference, difference), -1))  # (n, m)
    count = min(NEIGHBOURS, len(model.domain_references))
    total = graph.sum(graph.smallest(to_each, count), -1)
    graph.op("Div", total, count * np.sqrt(k), output="neighbour_distance")


def build_graph(model: FittedModel, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Build the graph of a fitted model.

    Parameters
    ----------
    model
        The fitted model, k features and c columns of covariates.
    metadata
        Texts to store in the file (:func:`model.bundle.carried_texts`).

    Returns
    -------
    onnx.ModelProto
        Inputs: ``features`` (n, k), and ``covariates`` (n, c) if there are any; raw values, NaN where missing. Outputs:
        ``probability_advanced`` (n,); ``contributions`` (n, k) and, with covariates, ``covariate_contributions`` (n, c)
        in logit units, whose sum is the logit minus the training median's logit; ``domain_distance`` (n,) in standard
        deviations; ``neighbour_distance`` (n,) in standard deviations per feature; ``logit`` (n,). All float64, opset
        18; identical bytes for identical input.
    """
    k, c = len(model.features), len(model.covariate_columns)
    steps = model.preprocessing
    graph = Graph()
    weights = [graph.constant(w, "weight") for w in model.ensemble.weights]
    biases = [graph.constant(b[:, np.newaxis, :], "bias") for b in model.ensemble.biases]

    inputs = graph.op("Concat", "features", "covariates", axis=1) if c else "features"
    known = graph.op("Where", graph.op("IsNaN", inputs), steps.median, inputs)
    lower, upper = graph.constant(steps.lower, "lower"), graph.constant(steps.upper, "upper")
    z = _standardise(graph, graph.op("Min", graph.op("Max", known, lower), upper), steps)
    # The baseline uses the same kind of nodes, so a case at the median differs from it by at most the last bit.
    median = graph.constant(steps.median[np.newaxis], "median")
    z0 = _standardise(graph, graph.op("Min", graph.op("Max", median, lower), upper), steps)
    _contributions(graph, z, z0, model, weights, biases)
    # The domain uses features only: a patient's age or sex does not show whether the image is unusual.
    own = subset(steps, np.arange(k))
    if c:
        known = graph.op("Where", graph.op("IsNaN", "features"), own.median, "features")
    _distances(graph, known, own, model)

    def value(name: str, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.DOUBLE, list(shape))

    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lungstage",
            [value("features", "n", k)] + ([value("covariates", "n", c)] if c else []),
            [
                *(value(name, "n") for name in ("probability_advanced", "domain_distance", "neighbour_distance")),
                *(value(name, "n", width) for name, width in _shares(model).items()),
                value("logit", "n"),
            ],
            initializer=graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lungstage",
    )
    helper.set_model_props(proto, dict(sorted((metadata or {}).items())))
    onnx.checker.check_model(proto, full_check=True)
    return proto
