"""Write a volume as NIfTI-1 in memory, for the viewer in the browser (the standard's ``nifti1.h``)."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_HEADER: Final = 352  # bytes, including the four that say that there is no extension
_MILLIMETRES: Final = 2
_SCANNER: Final = 1
_CODES: Final = {"uint8": 2, "int16": 4}


def nifti(volume: npt.NDArray[Any], steps: tuple[float, float, float]) -> bytes:
    """Return a volume as the bytes of a NIfTI-1 file.

    Parameters
    ----------
    volume
        (slices, rows, columns) of uint8 or int16; head to feet, front to back, right to left.
    steps
        Of the three axes in mm.

    Returns
    -------
    bytes
        The file. Its origin is the middle of the volume, because the volume is only displayed.
    """
    header = bytearray(_HEADER)
    counts, spacing = volume.shape[::-1], steps[::-1]
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *counts, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _CODES[volume.dtype.name], 8 * volume.dtype.itemsize)
    struct.pack_into("<8f", header, 76, 1.0, *spacing, 0.0, 0.0, 0.0, 0.0)
    struct.pack_into("<3f", header, 108, _HEADER, 1.0, 0.0)  # where the voxels begin; slope and intercept
    struct.pack_into("<B", header, 123, _MILLIMETRES)
    struct.pack_into("<2h", header, 252, 0, _SCANNER)
    for row, (count, step) in enumerate(zip(counts, spacing, strict=True)):
        # NIfTI's axes run to the right, the front and the head: opposite to each axis of the volume.
        affine = [0.0, 0.0, 0.0, step * (count - 1) / 2]
        affine[row] = -step
        struct.pack_into("<4f", header, 280 + 16 * row, *affine)
    header[344:348] = b"n+1\0"
    return bytes(header) + np.ascontiguousarray(volume, volume.dtype.newbyteorder("<")).tobytes()
