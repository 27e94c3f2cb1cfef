"""Clinical inputs beside the features: age, sex and histology out of a table's own columns. Never T, N or M."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.spec import COVARIATES, Covariate
from lungstage.appliance.staging.covariates import MAX_AGE, as_word, plausible_age
from lungstage.training.cohorts.table import Table, is_missing, nearest, refuse

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"age": ("age_years", "age"), "sex": ("sex",), "histology": ("histology",)}
)
"""Where a table keeps each covariate; the first of the columns that is there is read."""

SEXES: Final = ("F", "M")
_SEX: Final = MappingProxyType({"f": "F", "female": "F", "m": "M", "male": "M"})
_NO_SEX: Final = ("o", "other", "u", "unknown")  # DICOM's O is neither level: missing, as at the appliance
MIN_LEVEL_ROWS: Final = 5
# Winsorising at 1 % and 99 % would turn the rows of a level under 1 % into the reference; twice that share, so that
# folds, whose shares differ by chance, seldom fall below it.
MIN_LEVEL_SHARE: Final = 0.02
MAX_LEVEL_LENGTH: Final = 64  # of a Long String in DICOM

_TNM = re.compile(
    r"(?:^|_)[yra]?[cp]?(?:t|n|m|tnm)\d?(?:_|$)"  # T, cN, ypT, clinical_m, pT1
    r"|(?:clinical|pathologic|pathological)(?:t|n|m)(?:_|$)|[tnm]_?(?:category|descriptor)"
    r"|tnm|stage|staging|ajcc|uicc"
)


def is_tnm(column: str) -> bool:
    """Whether a column's name says that it is T, N, M or a stage, in one of the usual spellings."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column)
    return _TNM.search(re.sub(r"[^a-z0-9]+", "_", parted.lower())) is not None


def check_names(names: Sequence[str]) -> None:
    """Refuse covariates that there are none of, that are named twice, or that are the stage itself."""
    for name in names:
        if name in COVARIATES:
            continue
        if is_tnm(name):
            refuse(
                f"{name!r} cannot be a covariate: T, N, M and stage are never a model's input, because the stage is "
                "made of them, and a model that is told the answer learns nothing from the images."
            )
        refuse(f"There is no covariate {name!r}; the nearest is {nearest(name, COVARIATES)!r}.")
    if len(set(names)) != len(names):
        refuse(f"A covariate is named twice: {', '.join(names)}.")


def find_covariates(table: Table, names: Sequence[str], rows: npt.NDArray[np.bool_]) -> tuple[Covariate, ...]:
    """Find the levels of covariates in a table.

    Parameters
    ----------
    table
        The table.
    names
        Out of :data:`contract.spec.COVARIATES`.
    rows
        (n,) bool, the rows that will be used; levels are counted in these.

    Returns
    -------
    tuple of Covariate
        Levels of histology are the table's own, in lower case, the commonest first. A word with fewer than
        :data:`MIN_LEVEL_ROWS` rows, or than :data:`MIN_LEVEL_SHARE` of them, is no level: nothing can be learned of
        it, so it counts as missing, which is what the appliance makes of a word that the model does not know.

    Raises
    ------
    Refused
        ``table_invalid``, naming the column: a covariate that is not there, is the stage, has a value that it cannot
        have, or is the same in every row.
    """
    check_names(names)
    return tuple(_find(table, name, rows) for name in names)


def encode_covariates(table: Table, covariates: Sequence[Covariate]) -> npt.NDArray[np.float64]:
    """Encode covariates of every row of a table into (n, c), NaN where missing.

    Raises
    ------
    Refused
        ``table_invalid``, naming column, line and patient.
    """
    encoded = [[covariate.encode(value) for value in _values(table, covariate.name)] for covariate in covariates]
    return np.array([np.concatenate(row) for row in zip(*encoded, strict=True)], dtype=np.float64)


def _find(table: Table, name: str, rows: npt.NDArray[np.bool_]) -> Covariate:
    column = _column(table, name)
    counts = Counter(
        value for value, used in zip(_values(table, name), rows, strict=True) if used and value is not None
    )
    if len(counts) < 2:
        refuse(f"Column {column} is constant over the usable rows, so it cannot be a covariate.")
    if name != "histology":
        return Covariate(name, SEXES if name == "sex" else ())
    fewest = max(MIN_LEVEL_ROWS, math.ceil(MIN_LEVEL_SHARE * int(rows.sum())))
    common = {str(word): count for word, count in counts.items() if count >= fewest}
    if len(common) < 2:
        refuse(f"Column {column} has fewer than two values with at least {fewest} usable rows each.")
    for word in common:
        if len(word) > MAX_LEVEL_LENGTH:
            refuse(
                f"Column {column}: {word!r} is longer than the {MAX_LEVEL_LENGTH} characters that a report can hold."
            )
    return Covariate(name, tuple(sorted(common, key=lambda word: (-common[word], word))))


def _values(table: Table, name: str) -> Sequence[float | str | None]:
    if name == "age":
        return _ages(table)
    return _sexes(table) if name == "sex" else _histologies(table)


def _column(table: Table, name: str) -> str:
    return next((column for column in COLUMNS[name] if column in table.columns), COLUMNS[name][0])


def _ages(table: Table) -> list[float | None]:
    column = _column(table, "age")
    ages = table.numbers(column)
    for row in np.flatnonzero((ages < 0) | (ages > MAX_AGE)):
        table.refuse(column, int(row), f"{ages[row]:g} is no age between 0 and {MAX_AGE:g} years")
    return [plausible_age(float(age)) for age in ages]  # of one that is missing, NaN, as well


def _sexes(table: Table) -> list[str | None]:
    column = _column(table, "sex")
    cells = table.column(column)
    for row, cell in enumerate(cells):
        if not is_missing(cell) and cell.lower() not in (*_SEX, *_NO_SEX):
            table.refuse(column, row, f"{cell!r} is neither M nor F, male nor female")
    return [_SEX.get(cell.lower()) for cell in cells]


def _histologies(table: Table) -> list[str | None]:
    cells = table.column(_column(table, "histology"))
    return [None if is_missing(cell) else as_word(cell) for cell in cells]
