"""Read a folder of crops (:mod:`cohorts.crops`) as cases to perturb: ``patients.csv`` and one archive."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from lungstage.appliance.robustness.versions import Surroundings
from lungstage.training.cohorts.crops import read_crop
from lungstage.training.cohorts.table import refuse

LIST: Final = "patients.csv"


def read_crops(folder: Path) -> list[tuple[str, Callable[[], Surroundings]]]:
    """List the tumours that lie completely within their crop: each patient with a function that reads the crop.

    Raises
    ------
    Refused
        ``table_invalid``: the list or the archive is missing.
    """
    archives = sorted(folder.glob("*.zip"))
    if not (folder / LIST).is_file() or len(archives) != 1:
        refuse(f"{folder.name} is no folder of crops: it must contain {LIST} and exactly one .zip archive.")
    with (folder / LIST).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["voxels"]) and row["touches_edge"] == "0"]
    return [(row["patient_id"], partial(_surroundings, archives[0], row["crop"])) for row in rows]


def _surroundings(file: Path, name: str) -> Surroundings:
    with zipfile.ZipFile(file) as archive:
        return Surroundings(*read_crop(archive, name), (1.0, 1.0, 1.0))
