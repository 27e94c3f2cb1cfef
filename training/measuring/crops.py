"""Tumours as cubes of 92 mm at 1 mm: the public crops of NSCLC-Radiomics that a survival challenge gave out.

A folder with ``patients.csv`` and one archive: of each patient a CT (``CROP.jls``, JPEG-LS, HU + 2048) and a mask
(``CROP.mask``, packed bits, deflated), both with x slowest.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import jpeg_ls
import numpy as np

from lungstage.appliance.robustness.versions import Surroundings
from lungstage.training.cohorts.table import refuse

LIST: Final = "patients.csv"
_SIDE: Final = 92
_OFFSET: Final = 2048


def read_crops(folder: Path) -> list[tuple[str, Callable[[], Surroundings]]]:
    """List the tumours that lie whole within their crop: each patient, and what reads the crop.

    Raises
    ------
    Refused
        ``table_invalid``: the folder lacks list or archive.
    """
    archives = sorted(folder.glob("*.zip"))
    if not (folder / LIST).is_file() or len(archives) != 1:
        refuse(f"{folder.name} is no folder of crops: it must hold {LIST} and one archive.")
    with (folder / LIST).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["voxels"]) and row["touches_edge"] == "0"]
    return [(row["patient_id"], partial(read_crop, archives[0], row["crop"])) for row in rows]


def read_crop(file: Path, name: str) -> Surroundings:
    """Read one crop from an archive of them."""
    with zipfile.ZipFile(file) as archive:
        image, drawn = (archive.read(f"{name}.{kind}") for kind in ("jls", "mask"))
    content, _ = jpeg_ls.decode_buffer(image)
    scan = np.frombuffer(content, "<u2").astype(np.int32).reshape(_SIDE, _SIDE, _SIDE) - _OFFSET
    bits = np.frombuffer(zlib.decompress(drawn), np.uint8)
    mask = np.unpackbits(bits, count=_SIDE**3).reshape(scan.shape).astype(bool)
    turned, inside = (np.ascontiguousarray(one.transpose(2, 1, 0)) for one in (scan.astype(np.int16), mask))
    return Surroundings(turned, inside, (1.0, 1.0, 1.0))
