"""Tables of patients as CSV: read strictly, with messages that lead to the cell at fault.

A message names the column, the line of the file and the patient as the table has it. It is for the terminal of the
person who holds the table, and goes nowhere else: what a run, a bundle or a validation writes never names a patient.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused

PATIENT: Final = "patient_id"
_MISSING: Final = frozenset({"", "na", "nan"})


class Table(NamedTuple):
    """A table with one row a patient, or whatever else its first required column names.

    Attributes
    ----------
    columns
        Cells by column, without the blanks around them.
    lines
        Line of the file on which each row ends.
    """

    columns: dict[str, list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """Cells of a column; a name that there is none of is refused with the nearest one."""
        if name not in self.columns:
            refuse(f"The table has no column {name!r}; the nearest is {nearest(name, self.columns)!r}.")
        return self.columns[name]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """(n,) numbers of a column, NaN where the cell is empty, NA or NaN; text and infinity are refused."""
        return np.array([self._number(name, row, cell) for row, cell in enumerate(self.column(name))], dtype=np.float64)

    def flags(self, name: str) -> npt.NDArray[np.bool_]:
        """(n,) bool of a column of True and False, or 1 and 0, in whatever case."""
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
            number = float(cell.replace("_", "?"))  # float() would take an underscore for a digit separator
        except ValueError:
            self.refuse(name, row, f"{cell!r} is not a number")
        if np.isinf(number):
            self.refuse(name, row, f"{cell!r} is infinite")
        return number


def refuse(message: str) -> NoReturn:
    """Refuse a table as ``table_invalid``."""
    raise Refused(ReasonCode.TABLE_INVALID, message)


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: empty, NA or NaN."""
    return cell.lower() in _MISSING


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like `name`, however little."""
    return difflib.get_close_matches(name, list(known), 1, cutoff=0.0)[0]


def parse_table(content: bytes, required: Sequence[str], *, unique: bool = True) -> Table:
    """Read a table.

    Parameters
    ----------
    content
        CSV in UTF-8 with a header.
    required
        Columns that must be there; the first, ``patient_id`` in most tables, tells the rows apart.
    unique
        Whether it has to; otherwise rows may share it, or have none.

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
        refuse(f"The table is not CSV in UTF-8: {error}.")
    names = [name.strip() for name in header]
    if doubled := sorted(name for name, count in Counter(names).items() if count > 1):
        refuse(f"The table has columns more than once: {doubled}.")
    if absent := [name for name in required if name not in names]:
        refuse(f"The table lacks the columns {absent}.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            refuse(f"Line {line} of the feature table has {len(row)} cells, the header has {len(names)}.")
    if not rows:
        refuse("The table has no rows.")
    cells = zip(names, zip(*rows, strict=True), strict=True)
    table = Table({name: [cell.strip() for cell in column] for name, column in cells}, lines)
    if unique:
        _check_key(table, required[0])
    return table


def _check_key(table: Table, key: str) -> None:
    seen: dict[str, int] = {}
    for cell, line in zip(table.columns[key], table.lines, strict=True):
        if not cell:
            refuse(f"Column {key} is empty in line {line}.")
        if cell in seen:
            what = "patient" if key == PATIENT else key
            refuse(f"Lines {seen[cell]} and {line} have the same {key}, {cell!r}; a table holds one row a {what}.")
        seen[cell] = line
