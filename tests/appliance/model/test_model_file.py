"""What a bundle's ONNX file may contain. onnxruntime alone would accept most of the refused models."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model import model_file as modelfile
from lungstage.appliance.model.model_file import (
    MAX_NODES,
    MAX_TENSOR_BYTES,
    MAX_TENSORS,
    OPERATORS,
    OPSET,
    require_plain,
)
from lungstage.export.graph import build_graph
from tests.export.conftest import make_model
from tests.support.covariates import AGE, HISTOLOGY


def model_of(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto] | None = None, opset: int = OPSET
) -> onnx.ModelProto:
    """A valid model from x (n, 2) to y."""
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 2])
    graph = helper.make_graph(nodes, "graph", [x], [y], initializer=tensors or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def chain(length: int, kind: str = "Neg") -> list[onnx.NodeProto]:
    names = ["x", *(f"h{n}" for n in range(length - 1)), "y"]
    return [helper.make_node(kind, [a], [b]) for a, b in itertools.pairwise(names)]


def weights(count: int, size: int = 2) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.zeros(size), f"w{n}") for n in range(count)]


def onnxruntime_takes(model: onnx.ModelProto) -> None:
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def why_refused(model: onnx.ModelProto) -> str:
    with pytest.raises(Refused) as caught:
        require_plain(model.SerializeToString())
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID
    return caught.value.reason.message


def test_what_export_builds_passes(shipped_bundle: Path) -> None:
    require_plain((shipped_bundle / "model.onnx").read_bytes())
    for covariates in ((), (AGE,), (AGE, HISTOLOGY)):
        require_plain(build_graph(make_model(covariates=covariates)).SerializeToString())


def test_every_known_operator_is_needed() -> None:
    proto = build_graph(make_model(covariates=(AGE, HISTOLOGY)))
    assert {node.op_type for node in proto.graph.node} == OPERATORS


def test_the_largest_that_is_allowed_passes() -> None:
    size = MAX_TENSOR_BYTES // 8 // MAX_TENSORS
    require_plain(model_of(chain(MAX_NODES), weights(MAX_TENSORS, size)).SerializeToString())


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: model_of(chain(MAX_NODES + 1)), "nodes"),
        (lambda: model_of(chain(1), weights(MAX_TENSORS + 1)), "tensors"),
        (lambda: model_of(chain(1), weights(1, MAX_TENSOR_BYTES // 8 + 1)), "32 MB"),
        (lambda: model_of(chain(1), weights(2, MAX_TENSOR_BYTES // 16 + 1)), "32 MB"),
        (lambda: model_of(chain(1), opset=OPSET - 1), "operator set"),
        (lambda: model_of(chain(1), opset=OPSET + 1), "operator set"),
        (lambda: model_of([helper.make_node("RandomNormalLike", ["x"], ["y"])]), "'RandomNormalLike'"),
        (lambda: model_of([helper.make_node("Abs", ["x"], ["y"])]), "'Abs'"),
        (lambda: model_of(chain(1), [numpy_helper.from_array(np.zeros(2, np.float32), "w")]), "precision"),
        (lambda: model_of(chain(1), [numpy_helper.from_array(np.zeros((1,) * 9), "w")]), "its declared shape"),
    ],
)  # fmt: skip
def test_what_onnxruntime_alone_would_take_is_refused(model: Callable[[], onnx.ModelProto], why: str) -> None:
    made = model()
    onnxruntime_takes(made)
    assert why in why_refused(made)


def test_a_graph_that_draws_at_random_would_answer_differently_each_time() -> None:
    made = model_of([helper.make_node("RandomNormalLike", ["x"], ["y"])])
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    first, second = (session.run(["y"], {"x": np.zeros((4, 2))})[0] for _ in range(2))
    assert not np.array_equal(first, second)  # therefore lungstage has its own list of operators


@pytest.mark.parametrize("shape", [[3], [1], [2**40, 2**20], [2, 2**64 - 1], [], [2] * 100])
def test_a_tensor_that_is_not_as_large_as_it_says_is_refused(shape: list[int]) -> None:
    made = model_of(chain(1), weights(1))
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(n if n < 2**63 else n - 2**64 for n in shape)
    assert "its declared shape" in why_refused(made)


def test_a_packed_shape_is_read_too() -> None:
    # Protobuf readers accept repeated numbers in both forms; onnx only writes one of them.
    content = model_of(chain(1), [numpy_helper.from_array(np.zeros((3, 2)), "w")]).SerializeToString()
    plain, packed = b"\x08\x03\x08\x02", b"\x0a\x02\x03\x02"
    assert content.count(plain) == 1
    require_plain(content.replace(plain, packed))
    assert onnx.load_from_string(content.replace(plain, packed)).graph.initializer[0].dims == [3, 2]
    with pytest.raises(Refused, match="its declared shape"):
        require_plain(content.replace(plain, b"\x0a\x02\x03\x03"))


def test_two_claims_about_one_thing_are_refused() -> None:
    twice = model_of(chain(1))
    twice.opset_import.append(helper.make_opsetid("", OPSET))
    assert "operator set" in why_refused(twice)
    none = model_of(chain(1))
    del none.opset_import[:]
    assert "operator set" in why_refused(none)
    # A node with two op_types: protobuf uses the last, a careless reader the first.
    bare = model_of(chain(1))
    node = bare.graph.node[0].SerializeToString() + b"\x22\x03Abs"
    del bare.graph.node[:]
    graph = b"\x0a" + bytes([len(node)]) + node
    content = bare.SerializeToString() + b"\x3a" + bytes([len(graph)]) + graph
    assert [node.op_type for node in onnx.load_from_string(content).graph.node] == ["Abs"]
    with pytest.raises(Refused, match="that is not allowed"):
        require_plain(content)


def test_limits_hold_over_all_parts_of_a_graph_that_comes_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelfile, "MAX_NODES", 3)
    half = model_of(chain(2)).SerializeToString()
    require_plain(half)
    only_graph = onnx.ModelProto(graph=model_of(chain(2)).graph).SerializeToString()
    assert len(onnx.load_from_string(half + only_graph).graph.node) == 4  # protobuf joins both graphs
    with pytest.raises(Refused, match="more than 3 nodes"):
        require_plain(half + only_graph)
