"""One TOML file for the whole way: measure, fit, evaluate, report, build. The command line outranks it.

Sections and keys are documented in ``docs/training.md``, which a test holds to the models below.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from lungstage.appliance.contract.errors import LungstageError
from lungstage.training.cohorts.cohort import Cohort, read_cohort
from lungstage.training.cohorts.endpoint import Target
from lungstage.training.cohorts.table import PATIENT
from lungstage.training.procedure import PRESETS, Procedure


class ConfigurationError(LungstageError):
    """The configuration, or what the command line adds to it, cannot be used as it is given."""


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    """Take a path of the file from the file's own folder."""
    return Path(os.path.abspath((info.context or {}).get("folder", Path()) / path))


FilePath = Annotated[Path, AfterValidator(_from_folder)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Study(_Section):
    """Where everything lies. Relative paths are meant from the TOML file's folder."""

    cohort_list: FilePath | None = Field(
        default=None,
        description="Cohort list that `measure` reads: patient_id, path, roi and the outcome; or ID, Image, Mask.",
    )
    table: FilePath | None = Field(
        default=None, description="Feature table: `measure` writes it, `fit` and `evaluate` read it."
    )
    description: FilePath | None = Field(
        default=None, description="TOML description of the table; by default the one beside it or known by its hash."
    )
    run: FilePath | None = Field(default=None, description="Folder of the run, written by `fit` and `evaluate`.")
    bundle: FilePath | None = Field(default=None, description="Folder of the bundle that `build` writes.")
    id_column: str = Field(default=PATIENT, min_length=1, description="Column of the table that names the patients.")
    keep_cut_rows: bool = Field(default=False, description="Use rows whose roi_touches_crop_edge is True as well.")


class Covariates(_Section):
    """Clinical inputs beside the features."""

    names: tuple[str, ...] = Field(default=(), description="Out of age, sex and histology; never T, N, M or stage.")


class ProcedureSection(_Section):
    """How a model is fitted and evaluated; what is left out is as the preset has it."""

    preset: Literal["hardened", "paper", "quick"] = Field(
        default="hardened", description="Named settings; `quick` only tries the commands, its figures are worthless."
    )
    seed: int | None = Field(default=None, ge=0, description="The one seed that everything random derives from.")
    folds: int | None = Field(default=None, ge=3, le=20, description="Folds of the outer cross-validation.")
    repeats: int | None = Field(default=None, ge=1, le=100, description="Repeats of the outer cross-validation.")
    members: int | None = Field(default=None, ge=1, le=1000, description="Networks in the final ensemble.")
    features: int | None = Field(default=None, ge=1, le=106, description="How many features are selected.")
    alpha: float | None = Field(
        default=None, gt=0, lt=1, description="Share of each class that the conformal thresholds may rule out wrongly."
    )


class RepeatabilitySection(_Section):
    """Leave out features that do not repeat."""

    table: FilePath = Field(description="ICC table: CSV with the columns feature and icc; must rate every feature.")
    minimum: float = Field(default=0.75, ge=-1, le=1, description="Features with a lower ICC are left out.")


class Measure(_Section):
    """How a cohort list is measured."""

    spec: Literal["all"] | FilePath = Field(
        default="all", description="PyRadiomics parameter file, or `all`: the 106 at default settings."
    )
    workers: int | None = Field(default=None, ge=1, description="Local processes; by default one per core.")
    scheduler: str | None = Field(
        default=None,
        pattern="^(tcp|tls)://",
        description="Address of a Dask scheduler, e.g. tcp://host:8786, whose cluster measures instead.",
    )
    match_by_geometry: bool = Field(
        default=False, description="Go by a ROI's position, and not by the images that it names."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("workers are processes of this machine, the cluster of scheduler has its own: give one")
        return self


class Configuration(_Section):
    """One study."""

    study: Study = Study()
    endpoint: Target = Target()
    covariates: Covariates = Covariates()
    procedure: ProcedureSection = ProcedureSection()
    repeatability: RepeatabilitySection | None = None
    measure: Measure = Measure()

    def path(self, key: str, option: str, *, is_file: bool = False) -> Path:
        """Return a path of the section ``study`` that a command cannot do without.

        Parameters
        ----------
        key
            Of the section.
        option
            What gives it on the command line, for the message.
        is_file
            Whether a file must be there already.

        Raises
        ------
        ConfigurationError
            Where neither file nor command line gives it, or it is not there.
        """
        found: Path | None = getattr(self.study, key)
        if found is None:
            raise ConfigurationError(f"{option} is missing: give it, or study.{key} in the file of --config.")
        if is_file and not found.is_file():
            raise ConfigurationError(f"study.{key}: there is no file {found}.")
        return found

    def settings(self) -> Procedure:
        """Every setting of a fit and its evaluation: the preset, and what the section changes of it."""
        given = self.procedure.model_dump(exclude={"preset", "features"}, exclude_none=True)
        base = replace(PRESETS[self.procedure.preset], **given)
        if self.procedure.features is None:
            return base
        return replace(base, selection=replace(base.selection, features=self.procedure.features))

    def departures(self) -> dict[str, Any]:
        """Return what a fit depends on and is not as without a file, by section, as plain JSON.

        For whoever repeats the fit elsewhere: files go by their names alone, and the table, the run and how was
        measured are left out.
        """
        values = self.model_dump(exclude_defaults=True, exclude={"measure"})
        for key in ("cohort_list", "table", "run", "bundle"):
            values.get("study", {}).pop(key, None)
        base = PRESETS[self.procedure.preset]
        given = values.get("procedure", {})
        for key in list(given.keys() - {"preset"}):
            if given[key] == (base.selection.features if key == "features" else getattr(base, key)):
                del given[key]
        return {
            section: {key: _plain(value) for key, value in said.items()} for section, said in values.items() if said
        }

    def cohort(self, *, keep_cut_rows: bool | None = None) -> Cohort:
        """Read the feature table, with `keep_cut_rows` other than the file says where it is given.

        Raises
        ------
        ConfigurationError
            Where no table is given.
        Refused, OSError
            See :func:`training.cohorts.cohort.read_cohort`.
        """
        rated = self.repeatability
        return read_cohort(
            self.path("table", "TABLE", is_file=True),
            self.study.description,
            keep_cut_rows=self.study.keep_cut_rows if keep_cut_rows is None else keep_cut_rows,
            target=self.endpoint,
            covariates=self.covariates.names,
            repeatability=None if rated is None else (rated.table, rated.minimum),
            id_column=self.study.id_column,
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def load_configuration(file: Path | None, given: Mapping[str, Any] | None = None) -> Configuration:
    """Put the configuration together.

    Parameters
    ----------
    file
        The TOML file.
    given
        What the command line says, by path (``procedure.seed``); None means not said. Its paths are meant from the
        current folder. What it says puts aside what the file says otherwise of the same: a target the whole endpoint,
        whose classes are another column's, and workers a scheduler or the other way round.

    Raises
    ------
    ConfigurationError
        Naming every problem by its path: an unknown key with the nearest known one, a value that does not fit.
    """
    values = _read(file)
    said = {path: value for path, value in (given or {}).items() if value is not None}
    if "endpoint.target" in said:
        values.pop("endpoint", None)
    for one, other in (("workers", "scheduler"), ("scheduler", "workers")):
        if f"measure.{one}" in said and isinstance(values.get("measure"), dict):
            values["measure"].pop(other, None)
    for path, value in said.items():
        section, key = path.split(".")
        if isinstance(into := values.setdefault(section, {}), dict):
            into[key] = Path(os.path.abspath(value)) if isinstance(value, Path) else value
    try:
        return Configuration.model_validate(values, context={"folder": file.parent if file else Path()})
    except ValidationError as error:
        faults = [_fault(item["loc"], item["type"], item["msg"]) for item in error.errors()]
        where = f"{file.name}: " if file else ""
        raise ConfigurationError(where + "; ".join(faults) + ".") from error


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The configuration {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The configuration {file} is not TOML: {error}.") from error


_SECTIONS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {
        "study": Study, "endpoint": Target, "covariates": Covariates, "procedure": ProcedureSection,
        "repeatability": RepeatabilitySection, "measure": Measure,
    }
)  # fmt: skip


def _fault(place: tuple[str | int, ...], kind: str, message: str) -> str:
    # Beyond section and key, words name the branches of a union and not what stands in the file.
    path = ".".join(str(part) for i, part in enumerate(place) if i < 2 or isinstance(part, int))
    if kind == "extra_forbidden":
        if len(place) == 1:
            known = list(_SECTIONS)
            what = f"there is no section or key {path!r}"
        else:
            known = list(_SECTIONS[str(place[0])].model_fields)
            what = f"{path}: there is no such key"
        close = difflib.get_close_matches(str(place[-1]), known, 1, cutoff=0.5)
        return what + (f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}")
    if kind == "missing":
        return f"{path} is missing"
    return f"{path}: {message.removeprefix('Value error, ')}"
