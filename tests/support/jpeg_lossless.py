"""A JPEG lossless encoder (ITU-T T.81, annex H), because the appliance's libraries only decode this format.

Short and slow, for small images: every difference category has a Huffman code of five bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

PREDICTORS = range(1, 8)
_CATEGORIES = 17


def encode(pixels: npt.NDArray[np.unsignedinteger], precision: int, predictor: int) -> bytes:
    """Codestream of a grey image of unsigned pixels (rows, columns), by one of the seven predictors of table H.1."""
    rows, columns = pixels.shape
    frame = struct.pack(">BHHB3B", precision, rows, columns, 1, 1, 0x11, 0)
    lengths = bytes([0, 0, 0, 0, _CATEGORIES]) + bytes(11)  # how many codes have 1, 2, … 16 bits
    table = bytes(1) + lengths + bytes(range(_CATEGORIES))
    scan = bytes([1, 1, 0, predictor, 0, 0])
    head = b"\xff\xd8" + b"".join(
        _segment(marker, body) for marker, body in ((0xC3, frame), (0xC4, table), (0xDA, scan))
    )
    bits = "".join(_codes(pixels, precision, predictor))
    bits += "1" * (-len(bits) % 8)
    entropy = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return head + entropy + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _codes(pixels: npt.NDArray[np.unsignedinteger], precision: int, predictor: int) -> Iterator[str]:
    for difference in _differences(pixels.astype(np.int64), precision, predictor).ravel().tolist():
        category = abs(difference).bit_length()
        code = f"{category:05b}"
        if 0 < category < _CATEGORIES - 1:  # a difference of 32768 needs only its category
            code += f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
        yield code


def _differences(x: npt.NDArray[np.int64], precision: int, predictor: int) -> npt.NDArray[np.int64]:
    left, above = np.roll(x, 1, axis=1), np.roll(x, 1, axis=0)
    corner = np.roll(above, 1, axis=1)
    predicted = (
        left, above, corner, left + above - corner, left + (above - corner >> 1), above + (left - corner >> 1),
        left + above >> 1,
    )[predictor - 1].copy()  # fmt: skip
    predicted[0], predicted[:, 0] = left[0], above[:, 0]
    predicted[0, 0] = 1 << precision - 1
    return (x - predicted + 32767) % 65536 - 32767
