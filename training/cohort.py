"""Feature tables: one row a patient, read strictly, together with where they come from.

A table is CSV with the columns ``patient_id``, ``stage`` (early or advanced) and features under their
PyRadiomics names. The optional column ``roi_touches_crop_edge`` (True or False) marks tumours that are not
whole in their image; such rows are left out unless asked for. Every other column is ignored.

Messages name the column, the line of the file and the value, never the patient: a table may hold record
numbers of a hospital.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.errors import ReasonCode, Refused
from appliance.spec import ALL_FEATURES, DEFAULT_SETTINGS

STAGES = MappingProxyType({"early": False, "advanced": True})
CUT_COLUMN = "roi_touches_crop_edge"
REDUNDANT_FEATURE = "original_shape_VoxelVolume"  # MeshVolume says it again
MIN_FEATURES, MIN_ROWS, MIN_ROWS_PER_CLASS = 15, 30, 10
_MISSING = frozenset({"", "na", "nan"})


class Skew(BaseModel):
    """How the appliance's own extraction differs from a table, for one case of which both are to be had.

    ``relative`` is (appliance - table) / |table| by feature, ``in_iqr`` the difference in interquartile ranges of
    the used rows. Differences only: a patient's values are never shipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    cause: str
    relative: dict[str, float]
    in_iqr: dict[str, float]


class CohortDescription(BaseModel):
    """Where a table comes from and how it was measured: a TOML file of the same keys.

    ``extraction`` is PyRadiomics' ``setting`` dictionary; ``table_sha256``, where given, ties the description
    to one table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    licence: str
    citation: str
    stages_absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    extraction: dict[str, Any] = Field(min_length=1)
    skew: Skew | None = None
    table_sha256: str | None = None


UNDECLARED = CohortDescription(
    name="undeclared",
    source="undeclared",
    licence="undeclared",
    citation="undeclared",
    notes=("The table did not declare how it was measured; PyRadiomics' default settings are assumed.",),
    extraction=dict(DEFAULT_SETTINGS),
)


@dataclass(frozen=True, slots=True)
class Cohort:
    """The used rows of a feature table.

    Attributes
    ----------
    patients
        n patient identifiers, all different: a split by rows is a split by patients.
    stage
        (n,) bool, True where advanced.
    features
        d names out of :data:`appliance.spec.ALL_FEATURES`, in that order whatever the table's.
    values
        (n, d) float64 in PyRadiomics' units, NaN where missing.
    description
        Where the table comes from and how it was measured.
    table, sha256
        File name of the table and the hash of its bytes.
    rows
        Rows in the table, before any was left out.
    excluded
        Rows left out, by the column that says why.
    """

    patients: tuple[str, ...]
    stage: npt.NDArray[np.bool_]
    features: tuple[str, ...]
    values: npt.NDArray[np.float64]
    description: CohortDescription
    table: str
    sha256: str
    rows: int
    excluded: Mapping[str, int]


def read_cohort(table: Path, description: Path | None = None, *, keep_cut_rows: bool = False) -> Cohort:
    """Read a feature table and its description.

    Parameters
    ----------
    table
        The CSV file.
    description
        A TOML file (see :class:`CohortDescription`). Without it: ``<table stem>.toml`` beside the table, else a
        description shipped with lungstage that bears the table's hash, else :data:`UNDECLARED`.
    keep_cut_rows
        Use the rows whose ``roi_touches_crop_edge`` is True as well.

    Raises
    ------
    Refused
        ``table_invalid``, where the table or its description is not what it should be.
    OSError
        Where a file cannot be read.
    """
    content = table.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    columns, lines = parse_table(content, ("patient_id", "stage"))
    features = _feature_columns(columns)
    patients = columns["patient_id"]
    stage = np.array([is_advanced(word, line) for word, line in zip(columns["stage"], lines, strict=True)], dtype=bool)
    values = np.array([_numbers(name, columns[name], lines) for name in features], dtype=np.float64).T
    cut = np.array([_flag(word, line) for word, line in zip(columns.get(CUT_COLUMN, ()), lines, strict=False)], bool)
    kept = np.ones(len(lines), dtype=bool) if keep_cut_rows or not cut.size else ~cut
    _check_usable(stage[kept], features, values[kept])
    return Cohort(
        patients=tuple(patient for patient, keep in zip(patients, kept, strict=True) if keep),
        stage=stage[kept],
        features=features,
        values=values[kept],
        description=_describe(table, sha256, description),
        table=table.name,
        sha256=sha256,
        rows=len(lines),
        excluded=MappingProxyType({CUT_COLUMN: int((~kept).sum())} if cut.size else {}),
    )


def _refuse(message: str) -> NoReturn:
    raise Refused(ReasonCode.TABLE_INVALID, message)


def parse_table(content: bytes, required: tuple[str, ...]) -> tuple[dict[str, list[str]], list[int]]:
    """Columns by name, and each row's line number in the file.

    Raises
    ------
    Refused
        ``table_invalid``: not CSV, a column missing or doubled, a ragged line, a patient without or with two rows.
    """
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = next(reader, [])
        rows, lines = [], []
        for row in reader:
            if row:  # a blank line is no row
                rows.append(row)
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        _refuse(f"The table is not CSV in UTF-8: {error}.")
    names = [name.strip() for name in header]
    if doubled := sorted(name for name, count in Counter(names).items() if count > 1):
        _refuse(f"The table has columns more than once: {doubled}.")
    if absent := [name for name in required if name not in names]:
        _refuse(f"The table lacks the columns {absent}.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            _refuse(f"Line {line} of the feature table has {len(row)} cells, the header has {len(names)}.")
    if not rows:
        _refuse("The table has no rows.")
    columns = {
        name: [cell.strip() for cell in cells] for name, cells in zip(names, zip(*rows, strict=True), strict=True)
    }
    _check_patients(columns["patient_id"], lines)
    return columns, lines


def _feature_columns(columns: Mapping[str, list[str]]) -> tuple[str, ...]:
    found = {name for name in columns if name.startswith("original_")} - {REDUNDANT_FEATURE}
    if unknown := sorted(found - set(ALL_FEATURES)):
        _refuse(f"The table has columns that are no feature of PyRadiomics 3.0.1: {unknown}.")
    if len(found) < MIN_FEATURES:
        _refuse(f"The table has {len(found)} feature columns; at least {MIN_FEATURES} are needed.")
    return tuple(name for name in ALL_FEATURES if name in found)


def _check_patients(cells: list[str], lines: list[int]) -> None:
    seen: dict[str, int] = {}
    for patient, line in zip(cells, lines, strict=True):
        if not patient:
            _refuse(f"Column patient_id is empty in line {line}.")
        if patient in seen:
            _refuse(f"Lines {seen[patient]} and {line} have the same patient_id; a table holds one row a patient.")
        seen[patient] = line


def is_advanced(word: str, line: int) -> bool:
    """Read a cell of the column ``stage``; anything but early or advanced is refused as ``table_invalid``."""
    if word not in STAGES:
        _refuse(f"Column stage, line {line}: {word!r} is neither early nor advanced.")
    return STAGES[word]


def _flag(word: str, line: int) -> bool:
    if word.lower() not in ("true", "false"):
        _refuse(f"Column {CUT_COLUMN}, line {line}: {word!r} is neither True nor False.")
    return word.lower() == "true"


def _numbers(name: str, cells: list[str], lines: list[int]) -> list[float]:
    numbers = []
    for cell, line in zip(cells, lines, strict=True):
        try:
            # float() would take an underscore for a digit separator.
            number = np.nan if cell.lower() in _MISSING else float(cell.replace("_", "?"))
        except ValueError:
            _refuse(f"Column {name}, line {line}: {cell!r} is not a number.")
        if np.isinf(number):
            _refuse(f"Column {name}, line {line}: {cell!r} is infinite.")
        numbers.append(number)
    return numbers


def _check_usable(stage: npt.NDArray[np.bool_], features: tuple[str, ...], values: npt.NDArray[np.float64]) -> None:
    """Refuse what no model can be fitted to."""
    if len(stage) < MIN_ROWS:
        _refuse(f"The table has {len(stage)} usable rows; at least {MIN_ROWS} are needed.")
    for word, advanced in STAGES.items():
        if (count := int((stage == advanced).sum())) < MIN_ROWS_PER_CLASS:
            _refuse(f"Column stage says {word!r} in {count} usable rows; at least {MIN_ROWS_PER_CLASS} are needed.")
    for name, column in zip(features, values.T, strict=True):
        present = column[~np.isnan(column)]
        if not present.size:
            _refuse(f"Column {name} has no value in any usable row.")
        if (present == present[0]).all():
            _refuse(f"Column {name} is constant ({present[0]:g}) over the usable rows.")


def _describe(table: Path, sha256: str, explicit: Path | None) -> CohortDescription:
    beside = table.with_suffix(".toml")
    file = explicit or (beside if beside.is_file() else None)
    if file is not None:
        found = _read_description(file.read_bytes(), file.name)
        if found.table_sha256 not in (None, sha256):
            _refuse(f"{file.name} describes another table: its table_sha256 is not the hash of {table.name}.")
        return found
    for shipped in sorted(resources.files("training").joinpath("cohorts").iterdir(), key=lambda entry: entry.name):
        if shipped.name.endswith(".toml"):
            found = _read_description(shipped.read_bytes(), shipped.name)
            if found.table_sha256 == sha256:
                return found
    return UNDECLARED


def read_description(file: Path) -> CohortDescription:
    """Read a description from its TOML file; what is not one is refused as ``table_invalid``."""
    return _read_description(file.read_bytes(), file.name)


def _read_description(content: bytes, name: str) -> CohortDescription:
    try:
        return CohortDescription.model_validate(tomllib.loads(content.decode("utf-8")))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        _refuse(f"{name} is not a cohort description: {problems}.")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        _refuse(f"{name} is not TOML: {error}.")
