"""A hundred thousand files that give no report, as in an inbox that is never cleared."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.uid import generate_uid

from lungstage.appliance.staging.phantom import ct_datasets

SLICES, PER_FOLDER = 100, 1000


def fill_crowd(folder: Path, count: int) -> None:
    """Write `count` files: half are CT series of :data:`SLICES` tiny slices, half are notes."""
    volume = hd.Volume(
        np.zeros((1, 4, 4), dtype=np.int16), np.eye(4), coordinate_system="PATIENT",
        frame_of_reference_uid=generate_uid(entropy_srcs=["crowd"]),
    )  # fmt: skip
    for n in range(count):
        place = folder / "crowd" / f"{n // PER_FOLDER:04}"
        if n % PER_FOLDER == 0:
            place.mkdir(parents=True)
        if n < count // 2:
            if n % SLICES == 0:
                (image,) = ct_datasets(volume, f"crowd-{n}", thickness=1.0)
            image.SOPInstanceUID = generate_uid(entropy_srcs=["crowd", str(n)])
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image.ImagePositionPatient = [0, 0, n % SLICES]
            image.save_as(place / str(n), enforce_file_format=True)
        else:
            (place / str(n)).write_text(f"note {n}\n")
