"""Read the clinical covariates of a case from the DICOM header and from the site's table.

The table takes precedence over the header. No message quotes a patient's value: errors name column and line, warnings
name the covariate.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from pydicom.dataset import Dataset

from lungstage.appliance.contract.case import KnownCovariates, Values
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import COVARIATES
from lungstage.appliance.model.manifest import CovariateEntry

STUDY_COLUMN: Final = "study_instance_uid"
MAX_AGE: Final = 120.0  # years; an age of 0 or above this is a placeholder

_DAYS_PER_YEAR: Final = 365.25
_DAYS_PER_UNIT: Final = {"D": 1.0, "W": 7.0, "M": _DAYS_PER_YEAR / 12, "Y": _DAYS_PER_YEAR}  # PS3.5, VR AS
_SEXES: Final = {"m": "M", "male": "M", "f": "F", "female": "F", **dict.fromkeys(("o", "other", "u", "unknown"), "O")}
_MISSING: Final = frozenset({"", "na", "nan"})


@dataclass(frozen=True, slots=True)
class Site:
    """The site's own knowledge, which neither study nor bundle contains.

    Attributes
    ----------
    prevalence
        Share of the positive class among its patients, strictly between 0 and 1; None if not known.
    covariates
        Known covariates by Study Instance UID; they take precedence over the header.
    """

    prevalence: float | None = None
    covariates: Mapping[str, Values] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def read(cls, prevalence: float | None, table: Path | None) -> Site:
        """Read the table, if there is one; raises the same errors as :func:`read_table`."""
        return cls(prevalence) if table is None else cls(prevalence, read_table(table))

    def of_study(self, study_instance_uid: str) -> Site:
        """Return what is known of one study. Its staging sees nothing else, and another process can receive it."""
        known = self.covariates.get(study_instance_uid)
        return Site(self.prevalence, {} if known is None else {study_instance_uid: dict(known)})


def known_covariates(entries: Sequence[CovariateEntry], header: Dataset, given: Values) -> KnownCovariates:
    """Collect the covariates that a model uses.

    Parameters
    ----------
    entries
        The model's covariates.
    header
        Of one slice of the CT.
    given
        The study's values in the site's table.
    """
    found = {**from_header(header), **given}
    values: dict[str, float | str] = {}
    missing, told = [], []
    for entry in entries:
        value = found.get(entry.name)
        if isinstance(value, str):
            value = next((level for level in entry.levels if as_word(level) == as_word(value)), None)
        if value is not None:
            values[entry.name] = value
            low, high = entry.columns[0].limits
            if isinstance(value, float) and not low <= value <= high:
                told.append(
                    f"The patient's {entry.name} is outside the range that the model uses. The nearest limit of the "
                    "range was used instead."
                )
            continue
        missing.append(entry.name)
        what = f"is none of {', '.join(entry.levels)}" if entry.name in found else "is not known"
        told.append(f"The patient's {entry.name} {what}. The median of the training cohort was used instead.")
    return KnownCovariates(MappingProxyType(values), tuple(missing), tuple(told))


def from_header(header: Dataset) -> dict[str, float | str]:
    """Read age and sex from a DICOM header.

    Returns
    -------
    dict
        ``age`` in years from Patient's Age (0010,1010); if it is missing, from Patient's Birth Date (0010,0030) and
        Study Date (0008,0020). ``sex`` from Patient's Sex (0010,0040): M, F or O.
    """
    found: dict[str, float | str] = {}
    age = _age_string(_text(header, "PatientAge"))
    if age is None:
        age = _age_at(_text(header, "PatientBirthDate"), _text(header, "StudyDate"))
    if age is not None:
        found["age"] = age
    if (sex := _text(header, "PatientSex").upper()) in ("M", "F", "O"):
        found["sex"] = sex
    return found


def _text(header: Dataset, keyword: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings would quote the patient's data
            return str(header.get(keyword) or "").strip()
    except Exception:  # malformed bytes count as missing
        return ""


def as_word(text: str) -> str:
    """Normalise a category as training does: letter case, underscores and spaces make no difference."""
    return " ".join(text.lower().replace("_", " ").split())


def plausible_age(years: float) -> float | None:
    """Return an age in years; None if it is a placeholder."""
    return years if 0 < years <= MAX_AGE else None


def _age_string(text: str) -> float | None:
    """Read an Age String. A leading zero may be missing, but not the unit: without it the age is unclear."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", text.upper(), re.ASCII)
    return plausible_age(int(found[1]) * _DAYS_PER_UNIT[found[2]] / _DAYS_PER_YEAR) if found else None


def _age_at(birth: str, study: str) -> float | None:
    if not (re.fullmatch(r"\d{8}", birth, re.ASCII) and re.fullmatch(r"\d{8}", study, re.ASCII)):
        return None
    try:
        born, seen = date.fromisoformat(birth), date.fromisoformat(study)
    except ValueError:  # a 31 February
        return None
    return plausible_age((seen - born).days / _DAYS_PER_YEAR)


def read_table(path: Path) -> Mapping[str, Values]:
    """Read a site's table of covariates.

    Parameters
    ----------
    path
        CSV in UTF-8 with the column ``study_instance_uid`` and any of ``age`` (years), ``sex`` (M, F or O) and
        ``histology``. For an empty cell the header's value is used.

    Returns
    -------
    Mapping
        Known values by Study Instance UID.

    Raises
    ------
    Refused
        ``table_invalid``; the message names column and line.
    OSError
        The file cannot be read.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        names = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(
            ReasonCode.TABLE_INVALID, "The covariates table is not CSV in UTF-8. Save it as CSV in UTF-8."
        ) from error
    if STUDY_COLUMN not in names or len(set(names)) < len(names) or not set(names) <= {STUDY_COLUMN, *COVARIATES}:
        # The message names no column found: without a header line, the first line holds a patient's values.
        _refuse(1, f"the columns must be {STUDY_COLUMN} and any of {', '.join(COVARIATES)}, each once, and no others")
    table: dict[str, Values] = {}
    for line, cells in rows:
        if len(cells) != len(names):
            _refuse(line, f"it has {len(cells)} cells, but the header has {len(names)}")
        row = dict(zip(names, cells, strict=True))
        study = row.pop(STUDY_COLUMN)
        if not re.fullmatch(r"[0-9.]{1,64}", study, re.ASCII):
            _refuse(line, f"column {STUDY_COLUMN} does not contain a UID")
        if study in table:
            _refuse(line, f"column {STUDY_COLUMN} repeats a UID of an earlier line")
        known = {name: _cell(name, cell, line) for name, cell in row.items() if cell.lower() not in _MISSING}
        table[study] = MappingProxyType(known)
    return MappingProxyType(table)


def _cell(name: str, cell: str, line: int) -> float | str:
    if name == "age":
        try:
            age = plausible_age(float(cell.replace("_", "?")))  # float() would take an underscore for a separator
        except ValueError:
            age = None
        if age is None:
            _refuse(line, f"column age does not contain a number of years between 0 and {MAX_AGE:g}")
        return age
    if name == "sex":
        if cell.lower() not in _SEXES:
            _refuse(line, "column sex contains another value than M, F or O")
        return _SEXES[cell.lower()]
    return cell


def _refuse(line: int, what: str) -> NoReturn:
    raise Refused(ReasonCode.TABLE_INVALID, f"The covariates table, line {line}: {what}. Correct the table.")
