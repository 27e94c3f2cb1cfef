"""Tumours as cubes of 92 mm at 1 mm: the public crops of NSCLC-Radiomics, published for a survival challenge.

For each patient an archive contains a CT (``CROP.jls``, JPEG-LS, HU + 2048) and a mask (``CROP.mask``, packed bits,
deflated). In both x is the slowest axis.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path
from typing import Final

import jpeg_ls
import numpy as np
import numpy.typing as npt

from lungstage.training.cohorts.table import refuse

LIST: Final = "patients.csv"

_SIDE: Final = 92
_OFFSET: Final = 2048


def list_crops(folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """Find the archive of a folder of crops, and the rows of its ``patients.csv`` that have a mask.

    Raises
    ------
    Refused
        ``table_invalid``: the list or the archive is missing.
    """
    archives = sorted(folder.glob("*.zip"))
    if not (folder / LIST).is_file() or len(archives) != 1:
        refuse(f"{folder.name} is no folder of crops: it must contain {LIST} and exactly one .zip archive.")
    with (folder / LIST).open(encoding="utf-8", newline="") as file:
        return archives[0], [row for row in csv.DictReader(file) if int(row["voxels"])]


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
