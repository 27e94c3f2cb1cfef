"""Check a bundle's ONNX file: it may contain only one small graph of known operators with its weights inside.

onnxruntime accepts much more: weights in other files (which the manifest's hashes do not cover), operators of other
vendors' domains, subgraphs, local functions, random numbers, and a graph of any size. A bundle needs none of them. So
this module parses the file as protobuf, against a list of the fields of a plain graph. It refuses everything else
before onnxruntime reads the file. It does not need the ``onnx`` package, which the appliance does not install.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.sealed import BUILD_AGAIN

# Field numbers of onnx.proto (ONNX 1.x, IR version 3 to 13). A value is the message inside the field, ANY for a
# field with any content, EMPTY for a field that must be an empty string.
_Fields = Mapping[int, "_Fields | bool"]
_ANY: Final = True
_EMPTY: Final = False

_OPERATOR_SET: _Fields = {1: _EMPTY, 2: _ANY}  # domain "" is ai.onnx; version
_ATTRIBUTE: _Fields = {1: _ANY, 2: _ANY, 3: _ANY, 4: _ANY, 7: _ANY, 8: _ANY, 20: _ANY}  # numbers and strings only
_NODE: _Fields = {1: _ANY, 2: _ANY, 3: _ANY, 4: _ANY, 5: _ATTRIBUTE, 7: _EMPTY}  # inputs … attribute, domain
_TENSOR: _Fields = {1: _ANY, 2: _ANY, 8: _ANY, 9: _ANY}  # dims, data_type, name, raw_data: no external_data
_GRAPH: _Fields = {1: _NODE, 2: _ANY, 5: _TENSOR, 11: _ANY, 12: _ANY}  # node, name, initializer, input, output
_MODEL: _Fields = {1: _ANY, 2: _ANY, 3: _ANY, 6: _ANY, 7: _GRAPH, 8: _OPERATOR_SET, 14: _ANY}

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

OPSET: Final = 18
"""The only accepted operator set. In others, some operators have another meaning."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What a kind of graph may contain.

    Attributes
    ----------
    operators
        Names of the operators. None is random, reads or decodes data, or takes sizes from the data.
    items
        Bytes of one item by the tensors' type (TensorProto.DataType).
    words
        The types in words.
    """

    operators: frozenset[str]
    items: Mapping[int, int]
    words: str


OPERATORS: Final = frozenset({
    "Add", "Cast", "Concat", "Div", "Equal", "Exp", "Greater", "IsNaN", "Log", "MatMul", "Max", "Min", "Mul", "Neg",
    "ReduceSum", "Relu", "Sigmoid", "Split", "Sqrt", "Sub", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""The operators that :mod:`export.graph` uses."""

ANSWERING: Final = Graph(OPERATORS, {7: 8, 11: 8}, "double-precision numbers or 64-bit integers")
"""The graph that answers for a tumour."""

CONTOUR_OPERATORS: Final = frozenset({"Add", "AveragePool", "Clip", "Concat", "Conv", "Mul", "Relu", "Resize"})
"""The operators that :mod:`export.contour_graph` uses."""

DRAWING: Final = Graph(CONTOUR_OPERATORS, {1: 4}, "single-precision numbers")
"""The graph that draws a contour."""

MAX_NODES: Final = 4096
MAX_TENSORS: Final = 4096
MAX_TENSOR_BYTES: Final = 32 * 1024**2
"""Limit for all weights together. The shipped model has 148 nodes, and 82 tensors of 0.26 MB."""

_MAX_RANK: Final = 8


class _Malformed(ValueError):
    pass


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Malformed("a number does not end")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (field number, content): bytes, or a plain number."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _LENGTH:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise _Malformed("a field has an unknown type")
        if size > len(data) - at:
            raise _Malformed("a field is longer than the file")
        content = data[at : at + size]
        yield number, content if wire == _LENGTH else int.from_bytes(content, "little")
        at += size


def _walk(data: memoryview, allowed: _Fields, path: str) -> None:
    for number, content in _fields(data):
        rule = allowed.get(number)
        if rule is None or (rule is _EMPTY and (isinstance(content, int) or len(content) > 0)):
            raise _Malformed(f"it contains a field that is not allowed (field {path}{number})")
        if isinstance(rule, Mapping):
            if isinstance(content, int):
                raise _Malformed(f"field {path}{number} is not a message")
            _walk(content, rule, f"{path}{number}.")


def _parts(data: memoryview, *path: int) -> Iterator[memoryview]:
    """Yield the messages or bytes at a path of field numbers."""
    number, *below = path
    for found, content in _fields(data):
        if found == number and not isinstance(content, int):
            yield from _parts(content, *below) if below else (content,)


def _numbers(data: memoryview, number: int) -> list[int]:
    """Return the values of a numeric field, packed or not."""
    values = []
    for found, content in _fields(data):
        if found != number:
            continue
        if isinstance(content, int):
            values.append(content)
            continue
        at = 0
        while at < len(content):
            value, at = _varint(content, at)
            values.append(value)
    return values


def _require_known(model: memoryview, kind: Graph) -> None:
    versions = [_numbers(each, 2) for each in _parts(model, 8)]
    if versions != [[OPSET]]:
        raise _Malformed(f"its operator set is not {OPSET}")
    for count, node in enumerate(_parts(model, 7, 1), 1):
        if count > MAX_NODES:
            raise _Malformed(f"it has more than {MAX_NODES} nodes")
        names = [bytes(name).decode(errors="replace") for name in _parts(node, 4)]
        if len(names) != 1 or names[0] not in kind.operators:
            raise _Malformed(f"it contains an operator that is not allowed ({', '.join(names)[:80]!r})")


def _require_small(model: memoryview, kind: Graph) -> None:
    total = 0
    for count, tensor in enumerate(_parts(model, 7, 5), 1):
        if count > MAX_TENSORS:
            raise _Malformed(f"it has more than {MAX_TENSORS} tensors")
        kinds, carried = _numbers(tensor, 2), sum(map(len, _parts(tensor, 9)))
        if len(kinds) != 1 or kinds[0] not in kind.items:
            raise _Malformed(f"a tensor contains no {kind.words}")
        # onnxruntime allocates the declared size before it reads the content. So both must be equal.
        shape = _numbers(tensor, 1)
        if len(shape) > _MAX_RANK or math.prod(shape) * kind.items[kinds[0]] != carried:
            raise _Malformed("the size of a tensor does not match its declared shape")
        total += carried
        if total > MAX_TENSOR_BYTES:
            raise _Malformed(f"its tensors take more than {MAX_TENSOR_BYTES // 1024**2} MB")


def require_plain(model: bytes, kind: Graph = ANSWERING) -> None:
    """Refuse an ONNX file that is not one small graph of known operators with its weights inside.

    Parameters
    ----------
    model
        The file's bytes.
    kind
        What it may contain.

    Raises
    ------
    Refused
        ``bundle_invalid``: external or sparse weights, operators that are not allowed, another operator set,
        subgraphs, local functions, training information, too many nodes or tensors, too large tensors, or bytes that
        are not an ONNX file.
    """
    content = memoryview(model)
    try:
        _walk(content, _MODEL, "")
        _require_known(content, kind)
        _require_small(content, kind)
    except _Malformed as error:
        raise Refused(
            ReasonCode.BUNDLE_INVALID, f"The bundle's model.onnx is not acceptable: {error}. {BUILD_AGAIN}"
        ) from error
