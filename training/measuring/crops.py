"""Read a folder of crops (:mod:`cohorts.crops`) as cases to perturb: ``patients.csv`` and one archive."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lungstage.appliance.robustness.versions import Surroundings
from lungstage.training.cohorts.crops import list_crops, read_crop


def read_crops(folder: Path) -> list[tuple[str, Callable[[], Surroundings]]]:
    """List the tumours that lie completely within their crop: each patient with a function that reads the crop.

    Raises
    ------
    Refused
        ``table_invalid``: the list or the archive is missing.
    """
    archive, rows = list_crops(folder)
    return [
        (row["patient_id"], partial(_surroundings, archive, row["crop"])) for row in rows if row["touches_edge"] == "0"
    ]


def _surroundings(file: Path, name: str) -> Surroundings:
    with zipfile.ZipFile(file) as archive:
        return Surroundings(*read_crop(archive, name), (1.0, 1.0, 1.0))
