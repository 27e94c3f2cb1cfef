"""Tumours as cubes of 92 mm at 1 mm: the public crops of NSCLC-Radiomics, published for a survival challenge.

For each patient an archive contains a CT (``CROP.jls``, JPEG-LS, HU + 2048) and a mask (``CROP.mask``, packed bits,
deflated). In both x is the slowest axis.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import Final

import jpeg_ls
import numpy as np
import numpy.typing as npt

_SIDE: Final = 92
_OFFSET: Final = 2048


def read_crop(archive: zipfile.ZipFile, name: str) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Read one crop from an archive.

    Returns
    -------
    tuple
        HU and mask, both (slices, rows, columns).
    """
    image, drawn = (archive.read(f"{name}.{kind}") for kind in ("jls", "mask"))
    content, _ = jpeg_ls.decode_buffer(image)
    scan = np.frombuffer(content, "<u2").astype(np.int32).reshape(_SIDE, _SIDE, _SIDE) - _OFFSET
    bits = np.frombuffer(zlib.decompress(drawn), np.uint8)
    mask = np.unpackbits(bits, count=_SIDE**3).reshape(scan.shape).astype(bool)
    return (
        np.ascontiguousarray(scan.astype(np.int16).transpose(2, 1, 0)),
        np.ascontiguousarray(mask.transpose(2, 1, 0)),
    )
