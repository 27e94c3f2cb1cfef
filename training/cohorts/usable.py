"""Check that a table can be used for training or validation: enough rows of both classes, and none twice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.training.cohorts.endpoint import Outcome, Target
from lungstage.training.cohorts.table import PATIENT, Table, refuse

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIN_ROWS, MIN_ROWS_PER_CLASS = 30, 10
# TotalEnergy is Energy times the voxel volume, which is 1 mm3 after the usual resampling.
_SAME_BY_DEFINITION: Final = {"original_firstorder_Energy", "original_firstorder_TotalEnergy"}


def check_usable(
    table: Table, target: Target, outcome: Outcome, kept: Bools, features: Sequence[str], values: Array
) -> None:
    """Refuse a table that no model can be fitted to or validated on.

    Parameters
    ----------
    table, target, outcome
        The table, and the classes of its rows.
    kept
        (n,) bool, the rows that are used.
    features, values
        Names (d) and values (n, d) of the features.

    Raises
    ------
    Refused
        ``table_invalid``: too few rows in total or in a class; an empty or constant column; two columns, or two
        patients, with the same values.
    """
    if (usable := int(kept.sum())) < MIN_ROWS:
        refuse(f"The table has {usable} usable rows; at least {MIN_ROWS} are needed.")
    for word, positive in ((outcome.endpoint.negative, False), (outcome.endpoint.positive, True)):
        if (count := int((outcome.labels[kept] == positive).sum())) < MIN_ROWS_PER_CLASS:
            needed = f"at least {MIN_ROWS_PER_CLASS} are needed."
            if target.event is None:
                refuse(f"Column {target.target} contains {word!r} in {count} usable rows; {needed}")
            refuse(_too_few_followed(target, count, needed, positive=positive))
    for name, column in zip(features, values[kept].T, strict=True):
        present = column[~np.isnan(column)]
        if not present.size:
            refuse(f"Column {name} has no value in any usable row. Remove the column.")
        if (present == present[0]).all():
            refuse(f"Column {name} is constant ({present[0]:g}) over the usable rows. Remove the column.")
    _check_copies(table, features, np.flatnonzero(kept), values[kept])


def _too_few_followed(target: Target, count: int, needed: str, *, positive: bool) -> str:
    """Say which outcomes are too few, and which columns contain them."""
    day = f"day {target.horizon_days:g}"
    if positive:
        return (
            f"The event is known to have occurred by {day} in {count} usable rows ({target.event} true, "
            f"{target.target} up to that day); {needed} Give more patients with the event, or a longer horizon."
        )
    return (
        f"Follow-up to {day} without the event is known in {count} usable rows ({target.target} that or more); "
        f"{needed} Give more patients, or a shorter horizon."
    )


def _check_copies(table: Table, features: Sequence[str], rows: npt.NDArray[np.intp], values: Array) -> None:
    for i, j in _copies(values.T):
        if {features[i], features[j]} != _SAME_BY_DEFINITION:
            refuse(f"Columns {features[i]} and {features[j]} hold the same values in every usable row. Remove one.")
    patients, lines = ([of[row] for row in rows] for of in (table.columns[PATIENT], table.lines))
    for i, j in _copies(values):
        if not np.isnan(values[i]).all():
            refuse(
                f"Lines {lines[i]} and {lines[j]}, patients {patients[i]!r} and {patients[j]!r}: "
                "every feature is the same. One tumour under two patients would be in training and test data. Remove "
                "one of the rows."
            )


def _copies(vectors: Array) -> list[tuple[int, int]]:
    """Pairs of equal rows of `vectors` (m, n); NaN equals NaN."""
    alike: dict[bytes, list[int]] = {}
    for i, vector in enumerate(vectors):
        alike.setdefault((np.where(np.isnan(vector), np.nan, vector) + 0.0).tobytes(), []).append(i)  # -0.0 becomes 0.0
    return sorted(pair for group in alike.values() for pair in itertools.combinations(group, 2))
