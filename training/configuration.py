"""One TOML file for measure, fit, evaluate, report and build. The command line takes precedence over it.

``docs/training.md`` documents sections and keys. A test checks it against the models below.
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
    """The configuration, or an option of the command line, cannot be used as given."""


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path of the file from the file's own folder."""
    return Path(os.path.abspath((info.context or {}).get("folder", Path()) / path))


FilePath = Annotated[Path, AfterValidator(_from_folder)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Study(_Section):
    """Paths of the study. Relative paths start at the TOML file's folder."""

    cohort_list: FilePath | None = Field(
        default=None,
        description="Cohort list that `measure` reads: patient_id, path, roi and the outcome; or ID, Image, Mask.",
    )
    table: FilePath | None = Field(
        default=None, description="Feature table: `measure` writes it, `fit` and `evaluate` read it."
    )
    description: FilePath | None = Field(
        default=None,
        description="TOML description of the table. Default: the one beside the table, or a shipped one with its hash.",
    )
    run: FilePath | None = Field(default=None, description="Folder of the run, written by `fit` and `evaluate`.")
    bundle: FilePath | None = Field(default=None, description="Folder of the bundle that `build` writes.")
    id_column: str = Field(default=PATIENT, min_length=1, description="Column of the patient identifiers in the table.")
    keep_cut_rows: bool = Field(default=False, description="Also use rows whose roi_touches_crop_edge is True.")


class Covariates(_Section):
    """Clinical covariates, which the model uses together with the features."""

    names: tuple[str, ...] = Field(default=(), description="Any of age, sex and histology; never T, N, M or stage.")


class ProcedureSection(_Section):
    """How a model is fitted and evaluated. The preset gives every key that is not set."""

    preset: Literal["hardened", "paper", "quick"] = Field(
        default="hardened",
        description="Named settings. `quick` is for testing the commands; its figures have no value.",
    )
    seed: int | None = Field(default=None, ge=0, description="Seed of everything random.")
    folds: int | None = Field(default=None, ge=3, le=20, description="Folds of the outer cross-validation.")
    repeats: int | None = Field(default=None, ge=1, le=100, description="Repeats of the outer cross-validation.")
    members: int | None = Field(default=None, ge=1, le=1000, description="Networks in the final ensemble.")
    features: int | None = Field(default=None, ge=1, le=106, description="Number of features to select.")
    alpha: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Error rate of the conformal thresholds: share of each class that they may rule out wrongly.",
    )


class RepeatabilitySection(_Section):
    """Leave out features with low repeatability."""

    table: FilePath = Field(description="ICC table: CSV with the columns feature and icc, and a row for every feature.")
    minimum: float = Field(default=0.75, ge=-1, le=1, description="Features with a lower ICC are left out.")


class Measure(_Section):
    """How a cohort list is measured."""

    spec: Literal["all"] | FilePath = Field(
        default="all", description="PyRadiomics parameter file, or `all`: the 106 features at default settings."
    )
    workers: int | None = Field(default=None, ge=1, description="Number of local processes. Default: one per core.")
    scheduler: str | None = Field(
        default=None,
        pattern="^(tcp|tls)://",
        description="Address of a Dask scheduler, e.g. tcp://host:8786. Its cluster replaces the local processes.",
    )
    match_by_geometry: bool = Field(
        default=False,
        description="Match a ROI to the images by position, and ignore the image references in the ROI.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("give one of workers (local processes) and scheduler (a cluster), not both")
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
        """Return a path of the section ``study`` that a command needs.

        Parameters
        ----------
        key
            Key in the section.
        option
            Its option on the command line, for the message.
        is_file
            Whether the file must exist.

        Raises
        ------
        ConfigurationError
            Neither file nor command line gives the path, or the file does not exist.
        """
        found: Path | None = getattr(self.study, key)
        if found is None:
            raise ConfigurationError(f"{option} is missing: give it, or study.{key} in the file of --config.")
        if is_file and not found.is_file():
            raise ConfigurationError(f"study.{key}: there is no file {found}. Correct the path.")
        return found

    def settings(self) -> Procedure:
        """Every setting of a fit and its evaluation: the preset with the changes of the section."""
        given = self.procedure.model_dump(exclude={"preset", "features"}, exclude_none=True)
        base = replace(PRESETS[self.procedure.preset], **given)
        if self.procedure.features is None:
            return base
        return replace(base, selection=replace(base.selection, features=self.procedure.features))

    def departures(self) -> dict[str, Any]:
        """Return the settings of a fit that differ from the defaults, by section, as plain JSON.

        They serve to repeat the fit elsewhere. Files are given by name only. The table, the run and the section
        ``measure`` are left out.
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

    @classmethod
    def of_run(cls, record: Mapping[str, Any], run: Path, table: Path) -> Self:
        """Return the configuration that a run was fitted with.

        Parameters
        ----------
        record
            The run's record, which contains its :meth:`departures`. Files are expected in the run's folder.
        run, table
            Folder of the run, and its feature table.
        """
        found = cls.model_validate(record.get("configuration") or {}, context={"folder": run})
        return found.model_copy(update={"study": found.study.model_copy(update={"run": run, "table": table})})

    def cohort(self, *, keep_cut_rows: bool | None = None) -> Cohort:
        """Read the feature table. `keep_cut_rows`, if given, replaces the value of the file.

        Raises
        ------
        ConfigurationError
            No table is given.
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
    """Read the configuration from the file and the command line.

    Parameters
    ----------
    file
        The TOML file.
    given
        Values of the command line, by path (``procedure.seed``); None means not given. Relative paths start at the
        current folder. A value replaces the one in the file. A target replaces the whole section ``endpoint``, because
        the classes in the file belong to another column. Workers replace a scheduler, and the other way round.

    Raises
    ------
    ConfigurationError
        Names every problem by its path: an unknown key with the nearest known one, or a value that does not fit.
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
        raise ConfigurationError(
            f"The configuration {file} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The configuration {file} is not TOML: {error}. Compare it with docs/study.toml."
        ) from error


_SECTIONS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {
        "study": Study, "endpoint": Target, "covariates": Covariates, "procedure": ProcedureSection,
        "repeatability": RepeatabilitySection, "measure": Measure,
    }
)  # fmt: skip


def _fault(place: tuple[str | int, ...], kind: str, message: str) -> str:
    # Beyond section and key, words name branches of a union, which the file does not contain.
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
