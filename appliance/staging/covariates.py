"""Clinical covariates of a case: out of the DICOM header, or out of a table of the site that outranks it.

Values of patients pass through here, so no message quotes one: errors name column and line, warnings the covariate.
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
MAX_AGE: Final = 120.0  # years; an age of 0 or beyond this is a place-holder

_DAYS_PER_YEAR: Final = 365.25
_DAYS_PER_UNIT: Final = {"D": 1.0, "W": 7.0, "M": _DAYS_PER_YEAR / 12, "Y": _DAYS_PER_YEAR}  # PS3.5, VR AS
_SEXES: Final = {"m": "M", "male": "M", "f": "F", "female": "F", **dict.fromkeys(("o", "other", "u", "unknown"), "O")}
_MISSING: Final = frozenset({"", "na", "nan"})


@dataclass(frozen=True, slots=True)
class Site:
    """What a site knows that neither the study nor the bundle says.

    Attributes
    ----------
    prevalence
        Share of the positive class among its patients, strictly between 0 and 1; None where it is not known.
    covariates
        Known covariates by Study Instance UID; they outrank the header.
    """

    prevalence: float | None = None
    covariates: Mapping[str, Values] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def read(cls, prevalence: float | None, table: Path | None) -> Site:
        """Read the table, where there is one; raises what :func:`read_table` does."""
        return cls(prevalence) if table is None else cls(prevalence, read_table(table))

    def of_study(self, study_instance_uid: str) -> Site:
        """Return what is known of one study: all that its staging may see, and fit to pass to another process."""
        known = self.covariates.get(study_instance_uid)
        return Site(self.prevalence, {} if known is None else {study_instance_uid: dict(known)})


def known_covariates(entries: Sequence[CovariateEntry], header: Dataset, given: Values) -> KnownCovariates:
    """Gather the covariates that a model takes.

    Parameters
    ----------
    entries
        The model's covariates.
    header
        Of one slice of the CT.
    given
        What the site's table says of the study.
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
                told.append(f"The patient's {entry.name} is beyond the range that the model uses; its edge was taken.")
            continue
        missing.append(entry.name)
        what = f"is none of {', '.join(entry.levels)}" if entry.name in found else "is not known"
        told.append(f"The patient's {entry.name} {what}; it was imputed by the training median.")
    return KnownCovariates(MappingProxyType(values), tuple(missing), tuple(told))


def from_header(header: Dataset) -> dict[str, float | str]:
    """Read age and sex out of a DICOM header.

    Returns
    -------
    dict
        ``age`` in years from Patient's Age (0010,1010), failing that from Patient's Birth Date (0010,0030) at the
        Study Date (0008,0020); ``sex`` from Patient's Sex (0010,0040): M, F or O.
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
            warnings.simplefilter("ignore")  # pydicom's would quote the patient's data
            return str(header.get(keyword) or "").strip()
    except Exception:  # hostile bytes: as good as nothing
        return ""


def as_word(text: str) -> str:
    """Write a category as training writes its levels: letter case, underscores and spaces make no difference."""
    return " ".join(text.lower().replace("_", " ").split())


def plausible_age(years: float) -> float | None:
    """Return an age in years, None where it is a place-holder."""
    return years if 0 < years <= MAX_AGE else None


def _age_string(text: str) -> float | None:
    """Read an Age String; a missing leading zero leaves no doubt, a missing unit does."""
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
        ``histology``. An empty cell says nothing, and leaves the word to the header.

    Returns
    -------
    Mapping
        What is known, by Study Instance UID.

    Raises
    ------
    Refused
        ``table_invalid``, naming column and line.
    OSError
        The file cannot be read.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        names = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(ReasonCode.TABLE_INVALID, "The covariates table is not CSV in UTF-8.") from error
    if STUDY_COLUMN not in names or len(set(names)) < len(names) or not set(names) <= {STUDY_COLUMN, *COVARIATES}:
        # Unnamed: in a table without a header the first line is a patient's.
        _refuse(1, f"the columns must be {STUDY_COLUMN}, any of {', '.join(COVARIATES)}, and no other, each once")
    table: dict[str, Values] = {}
    for line, cells in rows:
        if len(cells) != len(names):
            _refuse(line, f"it has {len(cells)} cells, the header has {len(names)}")
        row = dict(zip(names, cells, strict=True))
        study = row.pop(STUDY_COLUMN)
        if not re.fullmatch(r"[0-9.]{1,64}", study, re.ASCII):
            _refuse(line, f"column {STUDY_COLUMN} holds no UID")
        if study in table:
            _refuse(line, f"column {STUDY_COLUMN} holds a UID that stands above already")
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
            _refuse(line, f"column age holds no number of years between 0 and {MAX_AGE:g}")
        return age
    if name == "sex":
        if cell.lower() not in _SEXES:
            _refuse(line, "column sex holds neither M nor F, nor O")
        return _SEXES[cell.lower()]
    return cell


def _refuse(line: int, what: str) -> NoReturn:
    raise Refused(ReasonCode.TABLE_INVALID, f"The covariates table, line {line}: {what}.")
