"""Tables of any study in one folder: CSV, gzipped or not, with ``ID``, a ``Target`` of two values, and features.

Selectors are compared on tables as they were published. Rows and columns that cannot be used are left out and listed. A
table with too few usable rows or columns is refused by name; the others are still used.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.training.cohorts.table import Table, is_missing, parse_table, refuse

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Names = Literal["PyRadiomics", "WORC", "other"]

ID, TARGET = "ID", "Target"
SUFFIXES: Final = (".csv", ".csv.gz", ".gz")
MIN_ROWS, MIN_ROWS_PER_CLASS = 30, 10
_MAX_BYTES: Final = 2**28  # unpacked: ten times the largest known table; protects against decompression bombs
_YES, _NO = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "false", "no"})
# Columns that are not features: PyRadiomics' diagnostics and label, and WORC's patient and settings columns.
_NO_FEATURE: Final[Mapping[Names, re.Pattern[str]]] = {
    "PyRadiomics": re.compile(r"(^|_)diagnostics_|^Label(_channel)?$"),
    "WORC": re.compile(r"^(Patient|Modality|feature_labels?|WORC_)"),
    "other": re.compile(r"(?!)"),
}
_PYRADIOMICS = re.compile(r"(firstorder|glcm|glrlm|glszm|gldm|ngtdm)_[A-Z]|original_shape(2D)?_[A-Z]")
_WORC = re.compile(r"(^|_)(sf|hf|tf|logf|vf|phasef|of|semf|df)_[a-zA-Z]")
_SPHERICITY = re.compile(r"^(?P<region>.*?)(shape_)?sphericity(?P<end>.*)$", re.IGNORECASE)
_VOLUME = re.compile(r"^(?P<region>.*?)(shape_|sf_)?(mesh|voxel)?_?volume(?P<end>.*)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """The usable part of a table.

    Attributes
    ----------
    name, sha256
        Name of the file without its ending, and the hash of its bytes.
    names
        The software whose naming scheme the features have.
    features
        d names.
    values, labels
        (n, d) float64, NaN where missing, and (n,) bool, True for the positive value of the target.
    rows
        Rows in the file.
    left_out_rows, left_out_columns
        Number of rows, and names of columns, that were left out, by reason.
    """

    name: str
    sha256: str
    names: Names
    features: tuple[str, ...]
    values: Array
    labels: Bools
    rows: int
    left_out_rows: Mapping[str, int]
    left_out_columns: Mapping[str, tuple[str, ...]]

    @property
    def sphericity_and_volume(self) -> tuple[int, int] | None:
        """Columns of sphericity and volume of the first region that has both; None if no region has both."""
        volumes = {(m["region"], m["end"]): i for i, name in enumerate(self.features) if (m := _VOLUME.match(name))}
        for i, name in enumerate(self.features):
            if (m := _SPHERICITY.match(name)) and (found := volumes.get((m["region"], m["end"]))) is not None:
                return i, found
        return None


def find_tables(folder: Path) -> dict[str, Path]:
    """Return the files of the tables of a folder by name; other files are ignored.

    Raises
    ------
    Refused
        ``table_invalid``: there is no table, or two have the same name.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name.startswith(".") or not file.name.lower().endswith(SUFFIXES):
            continue
        name = re.sub(r"(\.csv)?(\.gz)?$", "", file.name, flags=re.IGNORECASE)
        if name in found:
            refuse(f"{found[name].name} and {file.name} give the same table name. Rename one of them.")
        found[name] = file
    if not found:
        refuse(f"{folder} contains no table. A table is a file that ends in {', '.join(SUFFIXES)}.")
    return found


def read_table(file: Path, *, name: str, features: int, folds: int) -> FeatureTable:
    """Read one table.

    Parameters
    ----------
    file, name
        The file and the table's name.
    features, folds
        Number of features to select, and of folds. A table must have more features, and enough rows for the folds.

    Raises
    ------
    Refused
        ``table_invalid``; the message says what is wrong and what is needed.
    OSError
        The file cannot be read.
    """
    packed = file.read_bytes()
    table = parse_table(_unpacked(packed, file.name), (ID, TARGET), unique=False)
    kept, labels, rows_out = _rows(table)
    kind, columns, values, columns_out = _columns(table, kept)
    first = _first_of_equal(values)
    if columns and len(first) < len(kept):
        rows_out["the same in every feature as a row before"] = len(kept) - len(first)
        labels, values = labels[first], values[first]
    found = FeatureTable(
        name, hashlib.sha256(packed).hexdigest(), kind, columns, values, labels, len(table.lines), rows_out, columns_out
    )
    _check_enough(found, features, folds)
    return found


def _unpacked(content: bytes, name: str) -> bytes:
    if not name.lower().endswith(".gz"):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            unpacked = stream.read(_MAX_BYTES + 1)
    except (OSError, EOFError, ValueError) as error:
        raise Refused(ReasonCode.TABLE_INVALID, f"{name} cannot be unpacked: {error}. Copy the file again.") from error
    if len(unpacked) > _MAX_BYTES:
        refuse(f"{name} unpacks to more than {_MAX_BYTES >> 20} MB, the limit for a feature table. Reduce the table.")
    return unpacked


def _rows(table: Table) -> tuple[list[int], Bools, dict[str, int]]:
    """Rows with a class and a new ID, their labels, and the number of other rows by reason."""
    left_out: dict[str, int] = {}
    kept, seen = [], set()
    for row, (patient, cell) in enumerate(zip(table.columns[ID], table.columns[TARGET], strict=True)):
        why = (
            f"without {TARGET}" if is_missing(cell)
            else f"without {ID}" if not patient
            else f"of an {ID} that was there before" if patient in seen
            else None
        )  # fmt: skip
        if why is None:
            kept.append(row)
            seen.add(patient)
        else:
            left_out[why] = left_out.get(why, 0) + 1
    return kept, _labels([table.columns[TARGET][row] for row in kept]), left_out


def _labels(cells: Sequence[str]) -> Bools:
    """Return whether each cell is the positive value: 1, True or yes, else the second value in sorted order."""
    lowered = [cell.lower() for cell in cells]
    if {*lowered} <= _YES | _NO:
        labels = [cell in _YES for cell in lowered]
    else:
        values = sorted({*cells})
        if len(values) > 2:
            shown = ", ".join(map(repr, values[:4]))
            refuse(f"Column {TARGET} has {len(values)} values ({shown}, ...); exactly two are needed.")
        labels = [cell == values[-1] for cell in cells]
    return np.array(labels, dtype=np.bool_)


def _columns(table: Table, rows: Sequence[int]) -> tuple[Names, tuple[str, ...], Array, dict[str, tuple[str, ...]]]:
    """Naming scheme, usable features, their values over `rows`, and the other columns by reason."""
    names = [name for name in table.columns if name not in (ID, TARGET)]
    kind = _whose(names)
    left_out: dict[str, list[str]] = {}
    used: dict[str, Array] = {}
    known: set[bytes] = set()
    for name in names:
        values = _numbers([table.columns[name][row] for row in rows])
        why = "no feature" if _NO_FEATURE[kind].search(name) else "text or infinite" if values is None else None
        if values is not None and why is None:
            present = values[~np.isnan(values)]
            if not present.size:
                why = "empty"
            elif (present == present[0]).all():
                why = "constant"
            elif values.tobytes() in known:
                why = "the same as a column before"
        if why is None and values is not None:
            used[name] = values
            known.add(values.tobytes())
        else:
            left_out.setdefault(str(why), []).append(name)
    stacked = np.column_stack([*used.values()]) if used else np.empty((len(rows), 0))
    return kind, tuple(used), stacked, {why: tuple(which) for why, which in left_out.items()}


def _whose(names: Sequence[str]) -> Names:
    """Return the naming scheme of most names."""
    shares: dict[Names, int] = {
        "PyRadiomics": sum(bool(_PYRADIOMICS.search(name)) for name in names),
        "WORC": sum(bool(_WORC.search(name)) for name in names),
    }
    best = max(shares, key=lambda kind: shares[kind])
    return best if shares[best] > len(names) / 2 else "other"


def _numbers(cells: Sequence[str]) -> Array | None:
    """Numbers, NaN for a cell that is empty, NA or NaN, with one bit pattern per value; None if a cell is no number."""
    try:
        values = np.array([np.nan if is_missing(cell) else float(cell.replace("_", "?")) for cell in cells])
    except ValueError:
        return None
    return None if np.isinf(values).any() else np.where(np.isnan(values), np.nan, values) + 0.0  # -0.0 becomes 0.0


def _first_of_equal(values: Array) -> npt.NDArray[np.intp]:
    """Rows of `values` (n, d) without those that repeat an earlier one; NaN equals NaN."""
    first: dict[bytes, int] = {}
    for row, of_row in enumerate(np.ascontiguousarray(values)):
        first.setdefault(of_row.tobytes(), row)
    return np.array([*first.values()], dtype=np.intp)


def _check_enough(table: FeatureTable, features: int, folds: int) -> None:
    positives = int(table.labels.sum())
    fewest, needed = min(positives, len(table.labels) - positives), max(MIN_ROWS_PER_CLASS, folds)
    if len(table.features) <= features:
        refuse(f"The table has {len(table.features)} usable features; more than {features} are needed.")
    if len(table.labels) < MIN_ROWS:
        refuse(f"The table has {len(table.labels)} usable rows; at least {MIN_ROWS} are needed.")
    if fewest < needed:
        refuse(f"The smaller class has {fewest} usable rows; at least {needed} are needed.")
