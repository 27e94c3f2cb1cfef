"""Tables of patients as CSV: read strictly, with messages that lead to the cell at fault.

A message names the column, the line of the file and the patient as the table has it. It is for the terminal of the
person who holds the table, and goes nowhere else: what a run, a bundle or a validation writes never names a patient.
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
"""What PyRadiomics calls a feature, of whatever image type, or a note on how it measured."""
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
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
            comma = "; write decimal points, not commas" if _DECIMAL_COMMA.fullmatch(cell) else ""
            self.refuse(name, row, f"{cell!r} is not a number{comma}")
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


def column_names(content: bytes) -> tuple[str, ...]:
    """Return the names in a table's header, whatever it separates them by; none of what cannot be read at all."""
    try:
        names, _, _ = _read(content)
    except (UnicodeDecodeError, csv.Error):
        return ()
    return tuple(names)


def check_upright(first: Iterable[str]) -> None:
    """Refuse a table in whose first column, or among whose patients, features are named."""
    if any(FEATURE.fullmatch(cell.strip()) for cell in first):
        refuse(
            "The table lies on its side: features are its rows, and patients its columns. Turn it, so that each row is "
            "a patient (in pandas: read_csv(FILE, index_col=0).T.to_csv(NEW))."
        )


def parse_table(content: bytes, required: Sequence[str], *, unique: bool = True, hint: str = "") -> Table:
    """Read a table.

    Parameters
    ----------
    content
        CSV in UTF-8 with a header; separated by comma, semicolon or tab, whichever the header has most of.
    required
        Columns that must be there; the first, ``patient_id`` in most tables, tells the rows apart.
    unique
        Whether it has to; otherwise rows may share it, or have none.
    hint
        What to add to the message where the first is not there.

    Raises
    ------
    Refused
        ``table_invalid``: not CSV, a column missing or doubled, features as rows, a ragged line, a patient without or
        with two rows.
    """
    try:
        names, rows, lines = _read(content)
    except (UnicodeDecodeError, csv.Error) as error:
        refuse(f"The table is not CSV in UTF-8: {error}.")
    if doubled := sorted(name for name, count in Counter(names).items() if count > 1):
        refuse(f"The table has columns more than once: {doubled}.")
    if absent := [name for name in required if name not in names]:
        check_upright([row[0] for row in rows])
        refuse(f"The table lacks the columns {absent}{hint if required[0] in absent else ''}.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            comma = "; a decimal comma makes two cells of one" if len(row) > len(names) else ""
            refuse(f"Line {line} of the feature table has {len(row)} cells, the header has {len(names)}{comma}.")
    if not rows:
        refuse("The table has no rows.")
    cells = zip(names, zip(*rows, strict=True), strict=True)
    table = Table({name: [cell.strip() for cell in column] for name, column in cells}, lines)
    if unique:
        _check_key(table, required[0])
    return table


def _read(content: bytes) -> tuple[list[str], list[list[str]], list[int]]:
    """Return header, rows and the line that each row ends on; a separator is never guessed from the rows."""
    text = content.decode("utf-8-sig")
    unquoted = re.sub('"[^"]*"', "", io.StringIO(text, newline=None).readline())
    mark = max(",;\t", key=unquoted.count)  # the comma where there is none, or as many
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    header = next(reader, [])
    rows, lines = [], []
    for row in reader:
        if row:  # a blank line is no row
            rows.append(row)
            lines.append(reader.line_num)
    return [name.strip() for name in header], rows, lines


def _check_key(table: Table, key: str) -> None:
    seen: dict[str, int] = {}
    for cell, line in zip(table.columns[key], table.lines, strict=True):
        if not cell:
            refuse(f"Column {key} is empty in line {line}.")
        if cell in seen:
            what = "patient" if key == PATIENT else key
            refuse(f"Lines {seen[cell]} and {line} have the same {key}, {cell!r}; a table holds one row a {what}.")
        seen[cell] = line
