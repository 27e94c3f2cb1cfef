"""Plain data for messages between processes: JSON and the bytes that it refers to, never a pickle.

The type defines how a value is written. On reading, values are checked against the expected type without conversion,
and no other objects are created. So bytes from a process that a hostile file has taken over are also safe to read.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, PlainSerializer, PlainValidator, SerializationInfo, TypeAdapter, ValidationInfo

T = TypeVar("T")

_STRICT = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")
_LENGTH = 8  # bytes of the number that gives the length of a part
_MOST_ROWS = 2**31


class _Parts:
    """The byte strings that a JSON text refers to by number; each is stored once, even if it is used twice."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self._numbers: dict[int, int] = {}

    def add(self, value: bytes | npt.NDArray[Any]) -> int:
        """Return the number of a value; the value must exist as long as this object."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self.contents)
            self.contents.append(value if isinstance(value, bytes) else _packed(value))
        return number


def _packed(array: npt.NDArray[Any]) -> bytes:
    if array.dtype == np.bool_:
        return np.packbits(array).tobytes()
    if array.dtype == np.float64:
        return array.tobytes()
    raise TypeError("an array is neither of bool nor of float64")


def _write_bytes(value: bytes, info: SerializationInfo[_Parts]) -> int:
    return info.context.add(value)


def _write_array(array: npt.NDArray[Any], info: SerializationInfo[_Parts]) -> list[int]:
    return [info.context.add(array), *array.shape]


def _read_bytes(value: object, info: ValidationInfo[list[bytes]]) -> bytes:
    if type(value) is not int or not 0 <= value < len(info.context):
        raise ValueError("no byte string has this number")
    return info.context[value]


def _read_array(value: object, info: ValidationInfo[list[bytes]]) -> tuple[bytes, list[int]]:
    if not isinstance(value, list) or not value:
        raise ValueError("an array is written as numbers")
    number, *shape = value
    if not all(type(length) is int and 0 <= length < _MOST_ROWS for length in shape):
        raise ValueError("the shape of an array is invalid")
    return _read_bytes(number, info), shape


def _read_floats(value: object, info: ValidationInfo[list[bytes]]) -> npt.NDArray[np.float64]:
    content, shape = _read_array(value, info)
    return np.frombuffer(content, np.float64).reshape(shape)


def _read_bits(value: object, info: ValidationInfo[list[bytes]]) -> npt.NDArray[np.bool_]:
    content, shape = _read_array(value, info)
    count = math.prod(shape)
    if len(content) != -(-count // 8):
        raise ValueError("the number of an array's bits does not match its shape")
    return np.unpackbits(np.frombuffer(content, np.uint8), count=count).view(np.bool_).reshape(shape)


def _write_path(path: Path) -> str:
    return os.fsencode(path).decode("latin-1")  # a file name may not be valid UTF-8, but JSON must be


def _read_path(value: object) -> Path:
    if not isinstance(value, str):
        raise ValueError("a path is written as text")
    return Path(os.fsdecode(value.encode("latin-1")))


Content = Annotated[bytes, PlainValidator(_read_bytes), PlainSerializer(_write_bytes)]
Floats = Annotated[npt.NDArray[np.float64], PlainValidator(_read_floats), PlainSerializer(_write_array)]
Bits = Annotated[npt.NDArray[np.bool_], PlainValidator(_read_bits), PlainSerializer(_write_array)]
FilePath = Annotated[Path, PlainValidator(_read_path), PlainSerializer(_write_path)]


class Form(Generic[T]):
    """Writes and reads values of one type: strictly, without conversion, and without unknown keys.

    Parameters
    ----------
    of
        The type; pydantic must know it and its parts.
    """

    def __init__(self, of: Any) -> None:
        # A dataclass inside another type uses the configuration of that type; alone, it would have none.
        alone: Any = GenericAlias(tuple, (of,))
        self._adapter: TypeAdapter[tuple[T]] = TypeAdapter(alone, config=_STRICT)

    def encode(self, value: T) -> bytes:
        """Write a value.

        Raises
        ------
        ValueError, TypeError
            The value is not of the type, or cannot be written.
        """
        parts = _Parts()
        text = self._adapter.dump_json((value,), context=parts, warnings="error")
        return b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in (text, *parts.contents))

    def decode(self, content: bytes) -> T:
        """Read a value.

        Raises
        ------
        ValueError
            The bytes are not a value of the type.
        """
        parts = []
        at = 0
        while at < len(content):
            start = at + _LENGTH
            at = start + int.from_bytes(content[at:start], "big")
            parts.append(content[start:at])
        if not parts or at != len(content):
            raise ValueError("a byte string does not have its stated length")
        return self._adapter.validate_json(parts[0], context=parts[1:])[0]
