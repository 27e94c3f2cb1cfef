"""Source of a feature table and how it was measured: a TOML file beside it, or a shipped one with the table's hash."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lungstage.appliance.contract.spec import DEFAULT_SETTINGS, STAGE_GROUP, Endpoint
from lungstage.appliance.model.manifest import ContourSource
from lungstage.training.cohorts.table import refuse


class Skew(BaseModel):
    """Difference between the appliance's extraction and a table, for one case that both contain.

    ``relative`` is (appliance - table) / |table| by feature. ``in_iqr`` is the difference in interquartile ranges of
    the used rows. Only differences are shipped, never a patient's values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    cause: str
    relative: dict[str, float]
    in_iqr: dict[str, float]


class Counts(BaseModel):
    """Numbers of studies that ``lungstage-train measure`` measured and refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listed: int
    measured: int
    refused: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentence about the studies that are missing from the table; empty if none is."""
        if not (absent := self.listed - self.measured):
            return ()
        why = "refused" if absent == self.refused else "refused or unavailable"
        were = "was" if absent == 1 else "were"
        return (f"{absent} of {self.listed} listed studies {were} {why} during measurement.",)


class CohortDescription(BaseModel):
    """Source of a table and how it was measured: a TOML file with these keys.

    ``extraction`` is PyRadiomics' ``setting`` dictionary. ``table_sha256``, if given, binds the description to one
    table. ``lungstage-train measure`` writes ``measured``, which becomes a note. ``stage_notes`` are notes for models
    of the stage only. ``contours`` tells who drew the regions: experts, or persons who confirmed a semi-automatic one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    licence: str
    citation: str
    stages_absent: tuple[str, ...] = ()
    contours: tuple[ContourSource, ...] = Field(default=("expert",), min_length=1)
    notes: tuple[str, ...] = ()
    stage_notes: tuple[str, ...] = ()
    extraction: dict[str, Any] = Field(min_length=1)
    skew: Skew | None = None
    measured: Counts | None = None
    table_sha256: str | None = None

    def record(self, endpoint: Endpoint) -> dict[str, Any]:
        """Return the cohort's entry in the record of a run with this endpoint."""
        dumped = self.model_dump(mode="json", exclude={"extraction", "table_sha256", "stage_notes"})
        first = self.stage_notes if endpoint == STAGE_GROUP else ()
        return {**dumped, "notes": [*first, *self.notes]}


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
        lungstage that contains the table's hash, else :data:`UNDECLARED`.

    Raises
    ------
    Refused
        ``table_invalid``: the file is not a description, or describes another table.
    """
    beside = table.with_suffix(".toml")
    file = explicit or (beside if beside.is_file() else None)
    if file is not None:
        found = read_description(file)
        if found.table_sha256 not in (None, sha256):
            refuse(
                f"{file.name} describes another table: its table_sha256 is not the hash of {table.name}. Give the "
                "description of this table, or correct the hash."
            )
        absent = found.measured.notes if found.measured is not None else ()
        return found.model_copy(update={"notes": (*found.notes, *absent)})
    for shipped in sorted(resources.files("lungstage.training.cohorts").iterdir(), key=lambda entry: entry.name):
        if shipped.name.endswith(".toml"):
            found = _parse(shipped.read_bytes(), shipped.name)
            if found.table_sha256 == sha256:
                return found
    return UNDECLARED


def read_description(file: Path) -> CohortDescription:
    """Read a description from its TOML file; any other file is refused as ``table_invalid``."""
    return _parse(file.read_bytes(), file.name)


def _parse(content: bytes, name: str) -> CohortDescription:
    try:
        return CohortDescription.model_validate(tomllib.loads(content.decode("utf-8")))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        refuse(f"{name} is not a cohort description: {problems}.")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        refuse(f"{name} is not TOML: {error}.")
