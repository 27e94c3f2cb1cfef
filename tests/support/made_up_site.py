"""A generated hospital for the commissioning: phantoms of many sizes, each scanned and drawn twice, and a plan.

``python -m tests.support.made_up_site FOLDER [PATIENTS]`` writes one; docs/commissioning.md shows the result.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from lungstage.appliance.staging import phantom
from tests.conftest import ROOT

NOISE = 20.0  # HU, one standard deviation
WOBBLE = 2  # pixels, at most, along rows and columns
SIZES = (0.85, 2.2)  # factors for the phantom's pixels and slices, within the shipped bundle's intended use

_PLAN = """\
title = "A made-up site"
bundle = "{bundle}"
cases = "cases.csv"
pairs = "pairs.csv"
patients = "patients.csv"
"""


def scan(study: str, size: float, seed: int | None) -> list[Dataset]:
    """Make one scan of the phantom, `size` times as large; SEG first, then the slices.

    With a `seed`, it has random noise, and its region is shifted a little in each slice.
    """
    volume, mask = phantom.make()
    hu = volume.array.astype(np.float64)
    if seed is not None:
        random = np.random.default_rng(seed)
        hu += random.normal(scale=NOISE, size=hu.shape)
        by = random.integers(-WOBBLE, WOBBLE + 1, size=(len(mask), 2))
        mask = np.stack([np.roll(plane, tuple(shift), axis=(0, 1)) for plane, shift in zip(mask, by, strict=True)])
    affine = volume.affine * np.array([size, size, size, 1.0])
    noisy = hd.Volume(
        np.clip(np.rint(hu), -1024, 3071).astype(np.int16),
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=volume.frame_of_reference_uid,
    )
    slices = phantom.ct_datasets(noisy, study)
    return [phantom.segmentation(slices, mask), *slices]


def write(datasets: Sequence[Dataset], folder: Path) -> None:
    """Write the files of a study."""
    folder.mkdir(parents=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)


def make_site(folder: Path, patients: int = 30, bundle: Path = ROOT / "models" / "lung1-stage") -> Path:
    """Write studies, lists and plan; return the folder.

    Two reference cases are answered, one has the wrong part of the body, and in one a slice is missing.
    """
    sizes = np.linspace(*SIZES, patients).round(3).tolist()
    for number, size in enumerate(sizes):
        for repetition in (1, 2):
            study = f"made-up patient {number} scan {repetition}"
            write(scan(study, size, 2 * number + repetition), folder / "studies" / f"p{number:02}-{repetition}")
    write(scan("made-up small", 1.0, None), folder / "studies" / "small")
    write(scan("made-up large", 2.0, None), folder / "studies" / "large")
    knee = scan("made-up knee", 1.0, None)
    for dataset in knee[1:]:
        dataset.BodyPartExamined = "KNEE"
    write(knee, folder / "studies" / "knee")
    torn = scan("made-up torn", 1.0, None)
    write([*torn[:16], *torn[17:]], folder / "studies" / "torn")
    cases = [("small", "staged"), ("large", "staged"), ("knee", "outside_intended_use"), ("torn", "slices_missing")]
    _write_list(folder / "cases.csv", ["case", "path", "expect"], [[n, f"studies/{n}", e] for n, e in cases])
    names = [f"p{number:02}" for number in range(patients)]
    pairs = [[name, f"studies/{name}-1", f"studies/{name}-2"] for name in names]
    _write_list(folder / "pairs.csv", ["patient", "path1", "path2"], pairs)
    _write_list(folder / "patients.csv", ["case", "path"], [[name, f"studies/{name}-1"] for name in names])
    (folder / "plan.toml").write_text(_PLAN.format(bundle=bundle), encoding="utf-8")
    return folder


def _write_list(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


if __name__ == "__main__":
    make_site(Path(sys.argv[1]), *map(int, sys.argv[2:]))
