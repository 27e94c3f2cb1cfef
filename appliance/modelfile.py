"""What a bundle's ONNX file may hold: one graph of standard operators with its weights inside.

onnxruntime would also read weights from other files (which no hash of ours covers), run operators of other vendors'
domains, and execute subgraphs and local functions. A bundle needs none of that, so the file is read here as the
protobuf that it is, against a list of the fields that a plain graph has; whatever else stands in it is refused before
onnxruntime sees a byte. This needs no ``onnx`` package, which the appliance does not carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from appliance.errors import ReasonCode, Refused

# Field numbers of onnx.proto (ONNX 1.x, IR version 3 to 13). A value is the message inside the field, ANY for a
# field whose content is free, EMPTY for one that may only be written as an empty string.
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


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yield (field number, bytes), bytes being None for a field that is a plain number."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, at = _varint(data, at)
            yield number, None
            continue
        if wire == _LENGTH:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise _Malformed("a field is of an unknown kind")
        if size > len(data) - at:
            raise _Malformed("a field is longer than the file")
        yield number, data[at : at + size] if wire == _LENGTH else None
        at += size


def _walk(data: memoryview, allowed: _Fields, path: str) -> None:
    for number, content in _fields(data):
        rule = allowed.get(number)
        if rule is None or (rule is _EMPTY and (content is None or len(content) > 0)):
            raise _Malformed(f"it holds more than a plain graph (field {path}{number})")
        if isinstance(rule, Mapping):
            if content is None:
                raise _Malformed(f"field {path}{number} is not a message")
            _walk(content, rule, f"{path}{number}.")


def require_plain(model: bytes) -> None:
    """Refuse an ONNX file that is more than one graph of standard operators with its weights inside.

    Parameters
    ----------
    model
        The file's bytes.

    Raises
    ------
    Refused
        ``bundle_invalid``: external or sparse weights, operators outside the ``ai.onnx`` domain, subgraphs, local
        functions, training information, or bytes that are not an ONNX file.
    """
    try:
        _walk(memoryview(model), _MODEL, "")
    except _Malformed as error:
        raise Refused(ReasonCode.BUNDLE_INVALID, f"The bundle's model.onnx is not acceptable: {error}.") from error
