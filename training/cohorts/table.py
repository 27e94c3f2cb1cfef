"""Tables of patients as CSV: read strictly, with messages that name the wrong cell.

A message names the column, the line of the file and the patient's identifier in the table. It is shown only on the
terminal of the person who has the table. A run, a bundle or a validation never names a patient.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused

PATIENT: Final = "patient_id"
FEATURE: Final = re.compile(
    r"(?P<image>[A-Za-z][\w.-]*?)_(?:shape|shape2D|firstorder|glcm|gldm|glrlm|glszm|ngtdm)_[A-Z]\w*|diagnostics_\w.*"
)
"""PyRadiomics' name of a feature of any image type, or of a ``diagnostics_`` entry."""
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_MISSING: Final = frozenset({"", "na", "nan"})


class Table(NamedTuple):
    """A table with one row per patient, or per value of its first required column.

    Attributes
    ----------
    columns
        Cells by column, without surrounding blanks.
    lines
        Line of the file on which each row ends.
    """

    columns: dict[str, list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """Cells of a column; the refusal of an unknown name gives the nearest one."""
        if name not in self.columns:
            refuse(f"The table has no column {name!r}; the nearest is {nearest(name, self.columns)!r}.")
        return self.columns[name]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """(n,) numbers of a column, NaN if the cell is empty, NA or NaN; text and infinity are refused."""
        return np.array([self._number(name, row, cell) for row, cell in enumerate(self.column(name))], dtype=np.float64)

    def flags(self, name: str) -> npt.NDArray[np.bool_]:
        """(n,) bool of a column of True and False (in any case), or 1 and 0."""
        known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
        cells = self.column(name)
        for row, cell in enumerate(cells):
            if cell.lower() not in known:
                self.refuse(name, row, f"{cell!r} is neither True nor False")
        return np.array([known[cell.lower()] for cell in cells], dtype=np.bool_)

    def refuse(self, column: str, row: int, why: str) -> NoReturn:
        """Refuse the table for one cell."""
        whose = f", patient {self.columns[PATIENT][row]!r}" if PATIENT in self.columns else ""
        refuse(f"Column {column}, line {self.lines[row]}{whose}: {why}.")

    def _number(self, name: str, row: int, cell: str) -> float:
        if is_missing(cell):
            return float("nan")
        try:
            number = float(cell.replace("_", "?"))  # float() accepts an underscore as a digit separator
        except ValueError:
            comma = "; write decimal points, not commas" if _DECIMAL_COMMA.fullmatch(cell) else ""
            self.refuse(name, row, f"{cell!r} is not a number{comma}")
        if np.isinf(number):
            self.refuse(name, row, f"{cell!r} is infinite")
        return number


def refuse(message: str) -> NoReturn:
    """Refuse a table as ``table_invalid``."""
    raise Refused(ReasonCode.TABLE_INVALID, message)


def is_missing(cell: str) -> bool:
    """Whether a cell has no value: empty, NA or NaN."""
    return cell.lower() in _MISSING


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar to `name`."""
    return difflib.get_close_matches(name, list(known), 1, cutoff=0.0)[0]


def column_names(content: bytes) -> tuple[str, ...]:
    """Return the names in a table's header; none if the file cannot be read as CSV."""
    try:
        names, _, _ = _read(content)
    except (UnicodeDecodeError, csv.Error):
        return ()
    return tuple(names)


def check_upright(first: Iterable[str]) -> None:
    """Refuse a transposed table: one whose first column, or patient column, contains feature names."""
    if any(FEATURE.fullmatch(cell.strip()) for cell in first):
        refuse(
            "The table is transposed: its rows are features and its columns are patients. Transpose it, so that each "
            "row is a patient (in pandas: read_csv(FILE, index_col=0).T.to_csv(NEW))."
        )


def parse_table(content: bytes, required: Sequence[str], *, unique: bool = True, hint: str = "") -> Table:
    """Read a table.

    Parameters
    ----------
    content
        CSV in UTF-8 with a header. The separator is comma, semicolon or tab: the most frequent one in the header.
    required
        Columns that must exist. The first, ``patient_id`` in most tables, identifies the rows.
    unique
        Whether its values must be present and different in every row.
    hint
        Text to add to the message if the first column is missing.

    Raises
    ------
    Refused
        ``table_invalid``: not CSV, a missing or repeated column, features as rows, a line with a wrong number of cells,
        or a row without or with a repeated patient.
    """
    try:
        names, rows, lines = _read(content)
    except (UnicodeDecodeError, csv.Error) as error:
        refuse(f"The table is not CSV in UTF-8: {error}. Save it as CSV with the encoding UTF-8.")
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        refuse(f"The table has columns more than once: {repeated}. Rename or remove them.")
    if absent := [name for name in required if name not in names]:
        check_upright([row[0] for row in rows])
        refuse(f"These columns are missing from the table: {absent}{hint if required[0] in absent else ''}.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            comma = "; check for decimal commas, which split a cell" if len(row) > len(names) else ""
            refuse(f"Line {line} of the feature table has {len(row)} cells, the header has {len(names)}{comma}.")
    if not rows:
        refuse("The table has no rows.")
    cells = zip(names, zip(*rows, strict=True), strict=True)
    table = Table({name: [cell.strip() for cell in column] for name, column in cells}, lines)
    if unique:
        _check_key(table, required[0])
    return table


def _read(content: bytes) -> tuple[list[str], list[list[str]], list[int]]:
    """Return header, rows and the line on which each row ends. The separator is taken from the header only."""
    text = content.decode("utf-8-sig")
    unquoted = re.sub('"[^"]*"', "", io.StringIO(text, newline=None).readline())
    mark = max(",;\t", key=unquoted.count)  # the comma if counts are equal
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    header = next(reader, [])
    rows, lines = [], []
    for row in reader:
        if row:  # skip blank lines
            rows.append(row)
            lines.append(reader.line_num)
    return [name.strip() for name in header], rows, lines


def _check_key(table: Table, key: str) -> None:
    seen: dict[str, int] = {}
    for cell, line in zip(table.columns[key], table.lines, strict=True):
        if not cell:
            refuse(f"Column {key} is empty in line {line}. Fill the cell, or remove the row.")
        if cell in seen:
            what = "patient" if key == PATIENT else key
            refuse(f"Lines {seen[cell]} and {line} have the same {key}, {cell!r}; a table has one row per {what}.")
        seen[cell] = line
