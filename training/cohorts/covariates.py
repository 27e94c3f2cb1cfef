"""Clinical covariates: age, sex and histology, read from columns of the table. Never T, N or M."""

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
"""Columns of each covariate; the first one that the table has is read."""

SEXES: Final = ("F", "M")
_SEX: Final = MappingProxyType({"f": "F", "female": "F", "m": "M", "male": "M"})
_NO_SEX: Final = ("o", "other", "u", "unknown")  # DICOM's O is neither level, so it is missing, as in the appliance
MIN_LEVEL_ROWS: Final = 5
# Winsorising at 1 % and 99 % would turn rows of a level below 1 % into the reference level. The limit is twice that
# share, because the shares in folds differ by chance.
MIN_LEVEL_SHARE: Final = 0.02
MAX_LEVEL_LENGTH: Final = 64  # length of a Long String in DICOM

_TNM = re.compile(
    r"(?:^|_)[yra]?[cp]?(?:t|n|m|tnm)\d?(?:_|$)"  # T, cN, ypT, clinical_m, pT1
    r"|(?:clinical|pathologic|pathological)(?:t|n|m)(?:_|$)|[tnm]_?(?:category|descriptor)"
    r"|tnm|stage|staging|ajcc|uicc"
)


def is_tnm(column: str) -> bool:
    """Whether a column's name is a usual spelling of T, N, M or stage."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column)
    return _TNM.search(re.sub(r"[^a-z0-9]+", "_", parted.lower())) is not None


def check_names(names: Sequence[str]) -> None:
    """Refuse covariates that do not exist, are given twice, or are the stage or a part of it."""
    for name in names:
        if name in COVARIATES:
            continue
        if is_tnm(name):
            refuse(
                f"{name!r} cannot be a covariate. T, N and M define the stage, so with them a model would learn "
                "nothing from the images. Remove it from the covariates."
            )
        refuse(f"There is no covariate {name!r}; the nearest is {nearest(name, COVARIATES)!r}.")
    if len(set(names)) != len(names):
        refuse(f"A covariate is given twice: {', '.join(names)}. Give each one once.")


def find_covariates(table: Table, names: Sequence[str], rows: npt.NDArray[np.bool_]) -> tuple[Covariate, ...]:
    """Find the levels of covariates in a table.

    Parameters
    ----------
    table
        The table.
    names
        Any of :data:`contract.spec.COVARIATES`.
    rows
        (n,) bool, the rows that will be used; levels are counted in these.

    Returns
    -------
    tuple of Covariate
        Levels of histology are the words of the table, in lower case, the most frequent first. A word with fewer than
        :data:`MIN_LEVEL_ROWS` rows, or less than :data:`MIN_LEVEL_SHARE` of them, is no level, because the model
        cannot learn its effect. It counts as missing. The appliance treats a word unknown to the model in the same
        way.

    Raises
    ------
    Refused
        ``table_invalid``, naming the column: the covariate is not in the table, is the stage, has an impossible value,
        or is the same in every row.
    """
    check_names(names)
    return tuple(_find(table, name, rows) for name in names)


def encode_covariates(table: Table, covariates: Sequence[Covariate]) -> npt.NDArray[np.float64]:
    """Encode covariates of every row of a table into (n, c), NaN where missing.

    Raises
    ------
    Refused
        ``table_invalid``; the message names column, line and patient.
    """
    encoded = [[covariate.encode(value) for value in _values(table, covariate.name)] for covariate in covariates]
    return np.array([np.concatenate(row) for row in zip(*encoded, strict=True)], dtype=np.float64)


def _find(table: Table, name: str, rows: npt.NDArray[np.bool_]) -> Covariate:
    column = _column(table, name)
    counts = Counter(
        value for value, used in zip(_values(table, name), rows, strict=True) if used and value is not None
    )
    if len(counts) < 2:
        refuse(f"Column {column} is constant over the usable rows. Remove it from the covariates.")
    if name != "histology":
        return Covariate(name, SEXES if name == "sex" else ())
    fewest = max(MIN_LEVEL_ROWS, math.ceil(MIN_LEVEL_SHARE * int(rows.sum())))
    common = {str(word): count for word, count in counts.items() if count >= fewest}
    if len(common) < 2:
        refuse(
            f"Column {column} has fewer than two values with at least {fewest} usable rows each. Remove it from the "
            "covariates."
        )
    for word in common:
        if len(word) > MAX_LEVEL_LENGTH:
            refuse(
                f"Column {column}: {word!r} is longer than the {MAX_LEVEL_LENGTH} characters that a report can hold. "
                "Use a shorter word."
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
    return [plausible_age(float(age)) for age in ages]  # None for a missing age (NaN)


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
