"""The plan of a commissioning: one TOML file, and the lists that it refers to."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.contract.errors import LungstageError, ReasonCode, Refused

PLAN_NAME = "plan.toml"

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PlanError(LungstageError):
    """The plan cannot be used. The message says what is wrong."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Frozen):
    """The limits for warnings and failures. docs/commissioning.md gives the source of each."""

    feature_tolerance: float = Field(
        1e-9, ge=0, description="largest allowed relative difference of a feature from the expected value"
    )
    probability_tolerance: float = Field(
        1e-6, ge=0, description="largest allowed difference of the probability from the expected value"
    )
    pairs: int = Field(30, ge=3, description="smallest number of test–retest pairs that is enough")
    icc_good: Share = Field(0.75, description="warning if the lower limit of a feature's ICC(A,1) is below this")
    icc_poor: Share = Field(0.5, description="failure if the ICC(A,1) of a feature is below this")
    probability_sd_warn: Positive = Field(
        0.05, description="warning if the within-subject SD of the probability is above this"
    )
    probability_sd_fail: Positive = Field(
        0.10, description="failure if the within-subject SD of the probability is above this"
    )
    changed_warn: Share = Field(
        0.10, description="warning if the share of pairs with two different answers is above this"
    )
    changed_fail: Share = Field(
        0.20, description="failure if the share of pairs with two different answers is above this"
    )
    patients: int = Field(30, ge=1, description="smallest number of patients that is enough to show a skew")
    outside_warn: Share = Field(
        0.10, description="warning if the share of patients outside a feature's range is above this"
    )
    outside_fail: Share = Field(
        0.25, description="failure if the share of patients outside a feature's range is above this"
    )
    chance: Share = Field(0.05, description="family-wise error rate of the warnings about skew")

    @model_validator(mode="after")
    def _fail_follows_warn(self) -> Self:
        for low, high in (
            ("icc_poor", "icc_good"), ("probability_sd_warn", "probability_sd_fail"),
            ("changed_warn", "changed_fail"), ("outside_warn", "outside_fail"),
        ):  # fmt: skip
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not be above {high}")
        return self


class IbsiFiles(_Frozen):
    """IBSI's digital phantom as NIfTI, and its consensus values."""

    image: Path
    mask: Path
    values: Path


class Plan(_Frozen):
    """The checks to make. Paths are relative to the plan's folder."""

    bundle: Path
    title: str = ""
    cases: Path | None = None
    expected: Path = Path("expected.json")
    pairs: Path | None = None
    patients: Path | None = None
    ibsi: IbsiFiles | None = None
    match_by_geometry: bool = False
    prevalence: float | None = Field(None, gt=0, lt=1)
    covariates: Path | None = None
    thresholds: Thresholds = Field(default_factory=lambda: Thresholds.model_validate({}))

    def located(self, folder: Path) -> Plan:
        """Return the plan with its paths relative to the current folder."""
        seen = {name: folder / value for name, value in self if isinstance(value, Path)}
        ibsi = self.ibsi and IbsiFiles(**{name: folder / value for name, value in self.ibsi})
        return self.model_copy(update={**seen, "ibsi": ibsi})


@dataclass(frozen=True, slots=True)
class Study:
    """One study of a list: its name on the sheet, its file or folder, and its region if the rule cannot choose."""

    name: str
    path: Path
    roi: str | None


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """A study whose answer must not change. `expect`, if given, is ``staged`` or a reason code."""

    study: Study
    expect: str | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two studies of one patient between which the tumour did not change."""

    test: Study
    retest: Study


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Parameters
    ----------
    path
        A TOML file, or a folder that contains a file ``plan.toml``.

    Raises
    ------
    PlanError
        The message lists every fault.
    """
    file = path / PLAN_NAME if path.is_dir() else path
    try:
        plan = Plan.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise PlanError(f"The plan {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"The plan {file} is not TOML: {error}.") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'plan'}: {fault['msg']}" for fault in error.errors())
        raise PlanError(f"The plan {file} cannot be used: {'; '.join(faults)}.") from error
    return plan.located(file.parent)


def read_studies(path: Path) -> tuple[Study, ...]:
    """Read a list of patients: columns ``case``, ``path`` and, optionally, ``roi``."""
    rows = _rows(path, ("case", "path"), ("roi",))
    return tuple(_study(row["case"], row["path"], row["roi"], path.parent) for row in rows)


def read_reference_cases(path: Path) -> tuple[ReferenceCase, ...]:
    """Read the list of reference cases: columns ``case``, ``path`` and, optionally, ``roi`` and ``expect``."""
    cases = []
    for row in _rows(path, ("case", "path"), ("roi", "expect")):
        if row["expect"] and row["expect"] not in ("staged", *ReasonCode):
            raise _invalid(path, f"{row['expect']!r} is neither 'staged' nor a reason code")
        cases.append(ReferenceCase(_study(row["case"], row["path"], row["roi"], path.parent), row["expect"] or None))
    return tuple(cases)


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read the list of pairs: columns ``patient``, ``path1``, ``path2`` and, optionally, ``roi`` and ``roi2``."""
    pairs = []
    for row in _rows(path, ("patient", "path1", "path2"), ("roi", "roi2")):
        test = _study(row["patient"], row["path1"], row["roi"], path.parent)
        pairs.append(Pair(test, _study(row["patient"], row["path2"], row["roi2"] or row["roi"], path.parent)))
    return tuple(pairs)


def _study(name: str, path: str, roi: str, folder: Path) -> Study:
    return Study(name, folder / path, roi or None)


def _rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file strictly: only known columns, the right number of cells, and no name twice."""
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        head, *lines = [[cell.strip() for cell in row] for row in reader if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _invalid(path, "it is not CSV in UTF-8") from error
    if not set(required) <= set(head) <= {*required, *optional} or len(set(head)) < len(head):
        raise _invalid(path, f"it must have the columns {', '.join(required)}, and may have {', '.join(optional)}")
    rows = []
    for number, cells in enumerate(lines, start=1):
        row = dict.fromkeys(optional, "") | dict(zip(head, cells, strict=False))
        if len(cells) != len(head) or not all(row[name] for name in required):
            raise _invalid(path, f"in data row {number}, a cell is missing or there is one too many")
        rows.append(row)
    if len({row[required[0]] for row in rows}) < len(rows):
        raise _invalid(path, f"a {required[0]} is in it twice")
    if not rows:
        raise _invalid(path, "it is empty")
    return rows


def _invalid(path: Path, why: str) -> Refused:
    return Refused(ReasonCode.TABLE_INVALID, f"The list {path.name} is not well-formed: {why}.")
