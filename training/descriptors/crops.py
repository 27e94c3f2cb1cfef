"""Study of the descriptors' words for planning volumes: tumours of NSCLC-Radiomics as crops of 92 mm."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.descriptors.calibration import LEAST_MM, Calibration
from lungstage.appliance.descriptors.definitions import BY_NAME
from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.descriptors.values import Descriptors
from lungstage.training.cohorts.crops import read_crop

Mask = npt.NDArray[np.bool_]

FILES: Final = ("patients.csv", "lung1_crops_1mm.zip")
_TISSUE_HU = -400
_REASONS = {
    "air": "air or aerated lung", "bone": "is bone", "parts": "separate parts", "no edge": "HU fall towards lung",
    "off the edge": "away from the steepest fall", "small": "The long axis is", "image's edge": "edge of the image",
    "one slice": "one slice only",
}  # fmt: skip
_WORDS: Final = tuple(name for name, definition in BY_NAME.items() if definition.words)


def read(folder: Path) -> Iterator[tuple[str, hd.Volume, Mask]]:
    """Read the tumours that lie completely within their crop.

    Yields
    ------
    tuple
        Name, volume in HU and mask, both (slices, rows, columns).
    """
    try:
        rows = list(csv.DictReader((folder / FILES[0]).open(newline="", encoding="utf-8")))
        with zipfile.ZipFile(folder / FILES[1]) as archive:
            for row in rows:
                if row["touches_edge"] not in ("0", "False", "false") or int(row["voxels"]) == 0:
                    continue
                hu, mask = read_crop(archive, row["crop"])
                volume = hd.Volume(hu, np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]], coordinate_system="PATIENT")
                yield row["crop"], volume, mask
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{' and '.join(FILES)} in {folder.name} are missing or cannot be read ({error}). Copy them again.",
        ) from error


def tightened(volume: hd.Volume, mask: Mask) -> Mask:
    """Reduce a planning volume to tissue by HU: its largest connected piece, after an opening by one voxel."""
    tissue = ndimage.binary_opening(mask & (volume.array > _TISSUE_HU))
    labels, count = ndimage.label(tissue)
    if not count:
        return np.zeros_like(mask)
    largest: Mask = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    return largest


def words(described: Descriptors, known: Calibration) -> dict[str, str]:
    """Return the words of all descriptors, without the check that the outline is fit for words."""
    return {
        name: BY_NAME[name].words[known.band(name, float(value))]
        for name in _WORDS
        if (value := described[name].value) is not None
    }


def study(folder: Path, known: Calibration) -> dict[str, Any]:
    """Describe every tumour by its planning volume and by HU, and compare the words.

    Parameters
    ----------
    folder
        Folder with the files of :data:`FILES`.
    known
        Calibration whose words are compared.
    """
    fit, unfit, same, tumours = 0, Counter[str](), Counter[str](), 0
    for _, volume, mask in read(folder):
        planned = describe(volume, mask, known=known)
        tight = tightened(volume, mask)
        if float(planned["long_axis_mm"].value or 0) < LEAST_MM or not tight.any():
            continue
        tumours += 1
        fit += not planned.unfit
        unfit.update(name for name, says in _REASONS.items() if any(says in reason for reason in planned.unfit))
        one, other = words(planned, known), words(describe(volume, tight, known=known), known)
        alike = [name for name in _WORDS if name in one and one[name] == other.get(name)]
        same.update(alike)
        same["unfit" if planned.unfit else "fit"] += len(alike) == len(_WORDS)
    return {
        "tumours": tumours, "fit": fit, "unfit": dict(sorted(unfit.items(), key=lambda item: (-item[1], item[0]))),
        "same_word": {name: same[name] / max(tumours, 1) for name in _WORDS},
        "all_the_same": {
            "of all": (same["fit"] + same["unfit"]) / max(tumours, 1),
            "where it is fit for words": same["fit"] / max(fit, 1),
            "where it is not": same["unfit"] / max(tumours - fit, 1),
        },
    }  # fmt: skip
