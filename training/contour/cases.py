"""The crops with an expert's contour, and which patients are never trained on."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungstage.training.cohorts.crops import LIST, list_crops, read_crop
from lungstage.training.cohorts.table import refuse

_SHARE = 5


@dataclass(frozen=True, slots=True)
class Case:
    """A tumour in a cube of 1 mm voxels.

    Attributes
    ----------
    patient
        Identifier of the patient.
    hu
        (z, y, x) int16.
    mask
        The expert's contour, (z, y, x).
    is_whole
        Whether the contour lies completely within the cube.
    """

    patient: str
    hu: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    is_whole: bool


def is_held_out(patient: str) -> bool:
    """Whether a patient is in the fifth that is only evaluated; the hash of the identifier decides."""
    digest = hashlib.sha256(f"lungstage contour {patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SHARE == 0


def read(folder: Path) -> tuple[Case, ...]:
    """Read all crops with a contour, sorted by patient.

    Raises
    ------
    Refused
        ``table_invalid``: the list or the archive is missing, or cannot be read.
    """
    cases = []
    try:
        file, rows = list_crops(folder)
        with zipfile.ZipFile(file) as archive:
            for row in rows:
                hu, mask = read_crop(archive, row["crop"])
                cases.append(Case(row["patient_id"], hu, mask, row["touches_edge"] == "0"))
    except (KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        refuse(f"{folder.name} cannot be read ({error}). Copy its {LIST} and archive again.")
    return tuple(sorted(cases, key=lambda case: case.patient))
