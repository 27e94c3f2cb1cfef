"""Where a feature table comes from and how it was measured: a TOML file beside it, or one known by the table's hash."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lungstage.appliance.contract.spec import DEFAULT_SETTINGS, STAGE_GROUP, Endpoint
from lungstage.training.cohorts.table import refuse


class Skew(BaseModel):
    """How the appliance's own extraction differs from a table, for one case of which both are to be had.

    ``relative`` is (appliance - table) / |table| by feature, ``in_iqr`` the difference in interquartile ranges of
    the used rows. Differences only: a patient's values are never shipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    cause: str
    relative: dict[str, float]
    in_iqr: dict[str, float]


class Counts(BaseModel):
    """How many studies of a cohort list ``lungstage-train measure`` measured, and how many it refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listed: int
    measured: int
    refused: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of those that are not in the table."""
        if not (absent := self.listed - self.measured):
            return ()
        why = "refused" if absent == self.refused else "refused or unavailable"
        were, they = ("was", "it was") if absent == 1 else ("were", "they were")
        return (f"{absent} of {self.listed} listed studies {were} {why} when {they} measured.",)


class CohortDescription(BaseModel):
    """Where a table comes from and how it was measured: a TOML file of the same keys.

    ``extraction`` is PyRadiomics' ``setting`` dictionary; ``table_sha256``, where given, ties the description
    to one table. ``measured`` is written by ``lungstage-train measure`` and becomes a note. ``stage_notes`` are notes
    that concern a model of the stage alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    licence: str
    citation: str
    stages_absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stage_notes: tuple[str, ...] = ()
    extraction: dict[str, Any] = Field(min_length=1)
    skew: Skew | None = None
    measured: Counts | None = None
    table_sha256: str | None = None

    def record(self, endpoint: Endpoint) -> dict[str, Any]:
        """Return what the record of a run says of the cohort, as far as it concerns an endpoint."""
        dumped = self.model_dump(mode="json", exclude={"extraction", "table_sha256", "stage_notes"})
        told = self.stage_notes if endpoint == STAGE_GROUP else ()
        return {**dumped, "notes": [*told, *self.notes]}


UNDECLARED = CohortDescription(
    name="undeclared",
    source="undeclared",
    licence="undeclared",
    citation="undeclared",
    notes=("The table did not declare how it was measured; PyRadiomics' default settings are assumed.",),
    extraction=dict(DEFAULT_SETTINGS),
)


def describe(table: Path, sha256: str, explicit: Path | None) -> CohortDescription:
    """Find the description of a table.

    Parameters
    ----------
    table
        The CSV file.
    sha256
        Hash of its bytes.
    explicit
        The description's file. Without it: ``<table stem>.toml`` beside the table, else a description shipped with
        lungstage that bears the table's hash, else :data:`UNDECLARED`.

    Raises
    ------
    Refused
        ``table_invalid``, where the file is not a description or describes another table.
    """
    beside = table.with_suffix(".toml")
    file = explicit or (beside if beside.is_file() else None)
    if file is not None:
        found = read_description(file)
        if found.table_sha256 not in (None, sha256):
            refuse(f"{file.name} describes another table: its table_sha256 is not the hash of {table.name}.")
        told = found.measured.notes if found.measured is not None else ()
        return found.model_copy(update={"notes": (*found.notes, *told)})
    for shipped in sorted(resources.files("lungstage.training.cohorts").iterdir(), key=lambda entry: entry.name):
        if shipped.name.endswith(".toml"):
            found = _parse(shipped.read_bytes(), shipped.name)
            if found.table_sha256 == sha256:
                return found
    return UNDECLARED


def read_description(file: Path) -> CohortDescription:
    """Read a description from its TOML file; what is not one is refused as ``table_invalid``."""
    return _parse(file.read_bytes(), file.name)


def _parse(content: bytes, name: str) -> CohortDescription:
    try:
        return CohortDescription.model_validate(tomllib.loads(content.decode("utf-8")))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        refuse(f"{name} is not a cohort description: {problems}.")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        refuse(f"{name} is not TOML: {error}.")
