"""Leave out features of low repeatability, by a table of intraclass correlation coefficients (ICC)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from lungstage.appliance.contract.errors import Refused
from lungstage.training.cohorts.table import parse_table, refuse


@dataclass(frozen=True, slots=True)
class Repeatability:
    """The features that were left out for low repeatability.

    Attributes
    ----------
    table, sha256
        File name of the ICC table and the hash of its bytes.
    minimum
        The smallest accepted ICC.
    left_out
        ICC of each feature below it.
    """

    table: str
    sha256: str
    minimum: float
    left_out: Mapping[str, float]


def rate_features(file: Path, minimum: float, features: Sequence[str]) -> Repeatability:
    """Compare features with an ICC table.

    Parameters
    ----------
    file
        CSV with the columns ``feature`` and ``icc``. Features that the cohort does not have are ignored.
    minimum
        Features below it are left out. By convention 0.75 is good repeatability (Koo TK, Li MY. A guideline of
        selecting and reporting intraclass correlation coefficients. J Chiropr Med 15(2), 2016).
    features
        Features of the cohort. The table must contain each of them. Leaving out missing ones silently would hide that
        the table is of other features.

    Raises
    ------
    Refused
        ``table_invalid``; the message names the file, and the features or the line.
    """
    content = file.read_bytes()
    try:
        table = parse_table(content, ("feature", "icc"))
        icc = table.numbers("icc")
        for row in np.flatnonzero(~(np.abs(icc) <= 1)):
            table.refuse("icc", int(row), f"{table.columns['icc'][row]!r} is no ICC between -1 and 1")
    except Refused as refusal:
        refuse(f"{file.name}: {refusal}")
    rated = dict(zip(table.columns["feature"], icc.tolist(), strict=True))
    if unrated := [name for name in features if name not in rated]:
        shown = ", ".join(unrated[:5]) + (f" and {len(unrated) - 5} more" if len(unrated) > 5 else "")
        refuse(f"{file.name} has no ICC for {shown}. Add a row for every feature, or remove the features.")
    left_out = {name: rated[name] for name in features if rated[name] < minimum}
    return Repeatability(file.name, hashlib.sha256(content).hexdigest(), minimum, MappingProxyType(left_out))
