"""ONNX graph of the network that draws contours, built node by node like :mod:`export.graph`, in float32.

The normalisation of a layer is folded into its convolution, so the graph is the network as it answers after training.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from lungstage.appliance.contour.prompts import CHANNELS
from lungstage.appliance.model.contour_network import HU_INPUT, LOGITS_OUTPUT, PROMPT_INPUT
from lungstage.appliance.model.model_file import OPSET
from lungstage.export.graph import IR_VERSION, Graph
from lungstage.training.contour.network import LUNG_WINDOW, SOFT_WINDOW, ContourNetwork

TOLERANCE: Final = 1e-3
"""Largest difference of a logit between the graph and the trained network. Both compute in single precision."""


class _Graph(Graph):
    """The layers of the network, in single precision."""

    def __init__(self) -> None:
        super().__init__(np.float32)

    def convolution(self, x: str, conv: nn.Conv3d, norm: nn.BatchNorm3d | None = None) -> str:
        """Add a convolution that keeps the shape, with the normalisation after it."""
        weight = conv.weight.detach().double()
        bias = torch.zeros(len(weight)).double() if conv.bias is None else conv.bias.detach().double()
        if norm is not None:
            assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018
            scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
            weight = weight * scale[:, None, None, None, None]
            bias = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
        side = int(conv.kernel_size[0])
        return self.op(
            "Conv", x, weight.float().numpy(), bias.float().numpy(),
            kernel_shape=[side] * 3, pads=[side // 2] * 6,
        )  # fmt: skip

    def layer(self, x: str, layer: nn.Sequential) -> str:
        """Add convolution, normalisation and ReLU."""
        conv, norm, _ = layer
        assert isinstance(conv, nn.Conv3d)
        assert isinstance(norm, nn.BatchNorm3d)
        return self.op("Relu", self.convolution(x, conv, norm))

    def block(self, x: str, block: Any) -> str:
        """Add two layers; the second one corrects the first."""
        first = self.layer(x, block.first)
        return self.op("Add", first, self.layer(first, block.second))

    def halved(self, x: str) -> str:
        """Average over blocks of 2 × 2 × 2 voxels."""
        return self.op("AveragePool", x, kernel_shape=[2] * 3, strides=[2] * 3)

    def doubled(self, x: str, mode: str) -> str:
        """Sample on half the voxel size."""
        scales = np.array([1, 1, 2, 2, 2], np.float32)
        return self.op(
            "Resize", x, "", scales, mode=mode,
            coordinate_transformation_mode="asymmetric" if mode == "nearest" else "half_pixel",
            **({"nearest_mode": "floor"} if mode == "nearest" else {}),
        )  # fmt: skip


def build_contour_graph(network: ContourNetwork) -> onnx.ModelProto:
    """Write a trained network as ONNX.

    Returns
    -------
    ModelProto
        Inputs ``hu`` (1, 1, z, y, x) and ``prompt`` (1, 5, z, y, x), output ``logits`` (1, 1, z, y, x), all float32.
        z, y and x are multiples of 8.
    """
    graph = _Graph()
    windows = [
        graph.op("Mul", graph.op("Add", graph.op("Clip", HU_INPUT, low, high), -low), 1 / (high - low))
        for low, high in (LUNG_WINDOW, SOFT_WINDOW)
    ]
    seen = graph.op("Concat", *windows, PROMPT_INPUT, axis=1)
    x, kept = graph.halved(seen), []
    for level, block in enumerate(network.down):
        x = graph.block(graph.halved(x) if level else x, block)
        kept.append(x)
    x = graph.block(x, network.deepest)
    for block, beside in zip(network.up, kept[-2::-1], strict=True):
        x = graph.block(graph.op("Concat", graph.doubled(x, "nearest"), beside, axis=1), block)
    coarse = graph.doubled(graph.convolution(x, network.coarse), "linear")
    below = graph.doubled(graph.convolution(x, network.narrow), "linear")
    first, second, last = network.fine
    assert isinstance(first, nn.Sequential)
    assert isinstance(last, nn.Conv3d)
    fine = graph.block(graph.layer(graph.op("Concat", seen, below, coarse, axis=1), first), second)
    graph.op("Add", coarse, graph.convolution(fine, last), output=LOGITS_OUTPUT)
    shape = ["z", "y", "x"]
    made = helper.make_graph(
        graph.nodes, "lungstage-contour",
        [
            helper.make_tensor_value_info(HU_INPUT, TensorProto.FLOAT, [1, 1, *shape]),
            helper.make_tensor_value_info(PROMPT_INPUT, TensorProto.FLOAT, [1, len(CHANNELS), *shape]),
        ],
        [helper.make_tensor_value_info(LOGITS_OUTPUT, TensorProto.FLOAT, [1, 1, *shape])],
        graph.constants,
    )  # fmt: skip
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="lungstage"
    )
    onnx.checker.check_model(model, full_check=True)
    return model
