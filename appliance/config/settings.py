"""Settings of the daemon: defaults, one TOML file, environment, command line; the later outranks the earlier."""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.config.shipped import bundle_folder, shipped_bundles
from lungstage.appliance.contract.documents import DocumentOptions, Format, Language, formats_of
from lungstage.appliance.contract.errors import LungstageError
from lungstage.appliance.contract.robustness import (
    CONTOUR_MM,
    MOST_CONTOUR_MM,
    MOST_PERTURBATIONS,
    PERTURBATIONS,
    NotRobust,
    RobustnessOptions,
)

ENVIRONMENT_PREFIX = "LUNGSTAGE_"

OTHER_TABLES = ("page", "notify")
"""Tables of the daemon's file that are other processes' settings."""

WALL_FACTOR = 4.0
"""How many times as long as it may compute a request may take by the clock: a busy machine is no study's fault."""

_LEAST_LEASE = 600.0  # seconds
_BESIDE_WORK = 120.0  # seconds that a job may be in hand beyond its request: to start a process, to deliver


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number of a setting counts."""

    name: str


_absolute = AfterValidator(lambda path: Path(os.path.abspath(path)))
Location = Annotated[Path, _absolute]
BundleLocation = Annotated[Path, AfterValidator(bundle_folder), _absolute]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False), Unit("seconds")]
Megabytes = Annotated[int, Unit("MB")]


class SettingsError(LungstageError):
    """The settings cannot be used as they are given."""


def _listed(value: Any) -> Any:
    """Part what the environment has in one text; a name that is empty would be one slip away from trusting nobody."""
    names = value.split(os.pathsep) if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and "" in names:
        raise ValueError("the name of a file is empty")
    return names


def _formats(value: Any) -> Any:
    """Part what environment and command line have in one text, and put the formats in order."""
    names = value.split(",") if isinstance(value, str) else value
    return formats_of(names) if isinstance(names, (list, tuple)) else names


class Settings(BaseModel):
    """How one daemon runs. Every field is a TOML key, and in capitals after ``LUNGSTAGE_`` an environment variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inbox: Location = Field(
        description="Folder that studies are copied into; read, never written.", examples=["/srv/lungstage/inbox"]
    )
    outbox: Location = Field(description="Folder that reports appear in.", examples=["/srv/lungstage/outbox"])
    bundle: BundleLocation = Field(
        description="Folder of the model bundle, or the name of one that lungstage ships.",
        examples=[*shipped_bundles(), "/srv/lungstage/bundle"],
    )
    trusted_keys: Annotated[tuple[Location, ...], BeforeValidator(_listed)] = Field(
        (), description="Public keys, one of which must have signed the bundle; none: it need not be signed."
    )
    watch_bundle: bool = Field(
        True, description="Whether a bundle placed while the daemon runs is taken, once it has proven itself."
    )
    state: Location = Field(
        description="Folder of the ledger, on a local disk; default: .lungstage-NAME beside outbox NAME.",
        examples=["/var/lib/lungstage"],
    )
    roi_name: str | None = Field(None, description="ROI to use, instead of the bundle's rule.")
    match_by_geometry: bool = Field(False, description="Go by a ROI's position, and not by the images that it names.")
    strict_frame_of_reference: bool = Field(
        False,
        description="Refuse a SEG of another Frame of Reference even where all its frames name slices and lie on them.",
    )
    prevalence: float | None = Field(
        None, gt=0, lt=1, description="Share of the model's positive class among the site's patients; corrects to it."
    )
    covariates: Location | None = Field(
        None, description="CSV of study_instance_uid and age, sex or histology, which outranks the header."
    )
    engine: Literal["compiled", "reference"] = Field(
        "compiled", description="What computes the features: compiled, or reference (PyRadiomics itself, slower)."
    )
    formats: Annotated[tuple[Format, ...], BeforeValidator(_formats)] = Field(
        ("sr", "pdf"),
        description="Documents of an answer: sr (always), pdf, sc (pictures of the page), html.",
    )
    language: Language = Field("en", description="Language of the page: en, de or fr; codes and SR stay as they are.")
    refusal_page: bool = Field(
        False, description="Whether a page that says why a study was refused is put into the outbox, as PDF or picture."
    )
    perturbations: int = Field(
        PERTURBATIONS,
        ge=0, le=MOST_PERTURBATIONS,
        description="Perturbed versions of contour and image that an answer is tried out on; 0: none.",
    )  # fmt: skip
    contour_mm: Annotated[float, Unit("mm")] = Field(
        CONTOUR_MM,
        gt=0, le=MOST_CONTOUR_MM, allow_inf_nan=False,
        description="How far contours of different hands lie apart, as a standard deviation in mm.",
    )  # fmt: skip
    answer_not_robust: NotRobust = Field(
        "warn",
        description="What becomes of an answer that fewer than 90 % of the versions share: warn, or indeterminate.",
    )
    descriptors: bool = Field(
        True, description="Whether it is said what a radiologist would say of the tumour; the model does not see it."
    )
    settle_seconds: Seconds = Field(0.2, description="How long a file must rest before it is read.")
    case_settle_seconds: Seconds = Field(2.0, description="How long a case must rest before an end counts as an end.")
    missing_neighbour_wait: Seconds = Field(
        600.0,
        description="How long a case must rest before slices next to the region that may still come count as missing.",
    )
    report_after_seconds: Seconds = Field(5.0, description="How long a case waits before it is reported as held.")
    alert_after_seconds: Annotated[float, Unit("seconds")] = Field(
        3600.0, gt=0, le=31 * 86400, allow_inf_nan=False,
        description="How long a case waits or is held before the log raises an alert, once.",
    )  # fmt: skip
    poll_seconds: Seconds = Field(0.05, description="Shortest time between two looks at the inbox.")
    watch: Literal["auto", "events", "poll"] = Field(
        "auto", description="How new files are noticed: events, poll, or auto (poll on file systems of the network)."
    )
    scan_seconds: Seconds = Field(
        1.0, description="Longest time between two looks at an inbox in which nothing happens."
    )
    workers: int = Field(
        default_factory=lambda: min(os.cpu_count() or 1, 4),
        ge=1, le=64, description="Cases staged at the same time; default: one per processor, at most 4.",
    )  # fmt: skip
    work_seconds: Seconds = Field(
        120.0,
        description="Most processor time of reading a file or staging a case; by the clock, four times as much.",
    )
    work_memory_mb: Megabytes = Field(4096, ge=512, description="Memory that one process at work may take, in MB.")
    min_free_mb: Megabytes = Field(
        500,
        ge=0,
        description="Free space of the outbox's and the state folder's disk below which the log warns, in MB.",
    )
    lease_seconds: Annotated[float, Unit("seconds")] = Field(
        default_factory=lambda data: max(_LEAST_LEASE, WALL_FACTOR * data.get("work_seconds", 0.0) + _BESIDE_WORK),
        gt=0, le=7 * 86400, allow_inf_nan=False,
        description="How long a job may be in hand before health fails; "
        "default: 600.0, and where work_seconds is longer than its default, four times that and 120.",
    )  # fmt: skip
    max_attempts: int = Field(3, ge=1, le=100, description="Attempts before a job that fails by our defect is refused.")
    retry_seconds: Seconds = Field(0.5, description="First pause after a disk or folder was unavailable; then doubled.")
    retry_max_seconds: Seconds = Field(60.0, description="Longest such pause.")
    heartbeat_seconds: Seconds = Field(2.0, description="How often the daemon gives a sign of life.")
    canary_seconds: Annotated[Seconds | None, Unit("seconds")] = Field(
        None, description="How often a synthetic study is sent through every step, never to the outbox; none: never."
    )
    canary_patience_seconds: Seconds = Field(120.0, description="How long a canary may take before an alarm is raised.")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port of 127.0.0.1 on which Prometheus may read metrics; none opens no port."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of the log lines on stderr.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")

    @model_validator(mode="before")
    @classmethod
    def _place_state(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("state") is None and values.get("outbox") is not None:
            return {**values, "state": default_state(Path(values["outbox"]))}
        return values

    @model_validator(mode="after")
    def _apart(self) -> Self:
        folders = {name: Path(os.path.realpath(getattr(self, name))) for name in ("inbox", "outbox", "state")}
        for outer, inner in (("inbox", "outbox"), ("outbox", "inbox"), ("inbox", "state"), ("outbox", "state")):
            if folders[inner].is_relative_to(folders[outer]):
                raise ValueError(f"{inner} must not lie in {outer}")
        return self

    @model_validator(mode="after")
    def _outlasts_work(self) -> Self:
        if self.lease_seconds <= self.wall_seconds:
            raise ValueError(
                f"lease_seconds must be more than the {self.wall_seconds:g} s that a case may take by the clock, "
                f"which are {WALL_FACTOR:g} times work_seconds"
            )
        return self

    @property
    def wall_seconds(self) -> float:
        """Most time by the clock that reading a file or staging a case may take."""
        return WALL_FACTOR * self.work_seconds

    @property
    def documents(self) -> DocumentOptions:
        """Which documents an answer is given in."""
        return DocumentOptions(self.formats, self.language)

    @property
    def robustness(self) -> RobustnessOptions:
        """Whether and how it is tried out how far an answer depends on contour and scan."""
        return RobustnessOptions(self.perturbations, self.contour_mm, self.answer_not_robust)

    def for_audit(self) -> dict[str, Any]:
        """Return the digest of all settings, and those that an answer depends on in plain."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        answering = {
            "roi_name",
            "match_by_geometry",
            "strict_frame_of_reference",
            "prevalence",
            "engine",
            "formats",
            "language",
            "perturbations",
            "contour_mm",
            "answer_not_robust",
            "descriptors",
        }
        return {"settings_sha256": digest, "settings": self.model_dump(mode="json", include=answering)}


def default_state(outbox: Path) -> Path:
    """Return the state folder of an outbox for which none is named: beside it, so that each has its own."""
    absolute = Path(os.path.abspath(outbox))
    return absolute.parent / f".lungstage-{absolute.name}"


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Put the settings together.

    Parameters
    ----------
    config
        TOML file of settings, at its top level.
    overrides
        Settings of the command line; None means not given.
    environment
        Environment variables; the process's own by default.

    Raises
    ------
    SettingsError
        Naming every fault: an unknown key with the nearest known one, a value that does not fit, a missing setting.
    """
    values = {key: value for key, (value, _) in given_settings(config, environment).items()}
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(faults_of(error, Settings)) from error


def faults_of(error: ValidationError, model: type[BaseModel]) -> str:
    """Tell every fault of some settings in one sentence."""
    items = error.errors()
    lacking = {item["loc"] for item in items if item["type"] == "missing"}
    faults = [
        _fault(".".join(str(part) for part in item["loc"]), item["type"], item["msg"], model)
        for item in items
        if item["type"] != "default_factory_not_called"  # for another fault, which is told
        and not (model is Settings and item["loc"] == ("state",) and ("outbox",) in lacking)  # it follows from that
    ]
    return "; ".join(faults) + "."


def table_of(name: str, config: Path | None) -> dict[str, Any]:
    """Return another process's table of a settings file, unchecked; empty where it has none.

    Raises
    ------
    SettingsError
        The file cannot be read, or has something else under that name.
    """
    table = tables_of(config).get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"[{name}] in the settings file {config} is no table.")
    return dict(table)


def given_settings(
    config: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, tuple[Any, str]]:
    """Return what file and environment say, each with the file or the variable that says it; nothing is checked yet."""
    from_file = {key: (value, f"file {config}") for key, value in _from_file(config).items()}
    variables = _from_environment(os.environ if environment is None else environment)
    return from_file | {
        key: (value, f"environment {ENVIRONMENT_PREFIX}{key.upper()}") for key, value in variables.items()
    }


def state_of(state: Path | None, config: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """Return the state folder that the same settings would give a daemon.

    Raises
    ------
    SettingsError
        When nothing says which daemon is meant.
    """
    values = {key: value for key, (value, _) in given_settings(config, environment).items()}
    named = state or values.get("state")
    if named is None and values.get("outbox") is None:
        raise SettingsError(
            "Which daemon is meant? Name its state folder with --state, or its settings with --config. A daemon "
            "that was given none has it beside its outbox: that of /srv/outbox is /srv/.lungstage-outbox."
        )
    return default_state(Path(values["outbox"])) if named is None else Path(named)


def alert_age(config: Path | None, environment: Mapping[str, str] | None = None) -> timedelta:
    """Return the age from which on the same settings would have a daemon raise an alert."""
    folders = {name: Path("/nowhere", name) for name in ("inbox", "outbox", "bundle", "state")}
    return timedelta(seconds=load_settings(config, folders, environment).alert_after_seconds)


def setting_of(name: str, config: Path | None, environment: Mapping[str, str] | None = None) -> Any:
    """Return one setting as file and environment give it, unchecked; None where they do not."""
    return {**_from_file(config), **_from_environment(os.environ if environment is None else environment)}.get(name)


def _from_file(config: Path | None) -> dict[str, Any]:
    return {key: value for key, value in tables_of(config).items() if key not in OTHER_TABLES}


def tables_of(config: Path | None) -> dict[str, Any]:
    """Return everything that a settings file says, unchecked.

    Raises
    ------
    SettingsError
        The file cannot be read.
    """
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {config} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {config} is not TOML: {error}.") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    given = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    # Other tools may use the prefix too, so only what looks like a slip of the pen is refused.
    for key in given:
        if key not in Settings.model_fields and difflib.get_close_matches(key, Settings.model_fields, 1, cutoff=0.8):
            raise SettingsError(_fault(key, "extra_forbidden", "") + f" (from {ENVIRONMENT_PREFIX}{key.upper()}).")
    return {key: value for key, value in given.items() if key in Settings.model_fields}


def _how_to_give(key: str, model: type[BaseModel]) -> str:
    """Say what a missing setting is for, with an example: as an option, where it has one, and as a line of the file."""
    *tables, name = (part for part in key.split(".") if not part.isdigit())
    holder: type[BaseModel] | None = model
    for table in tables:
        field = holder.model_fields.get(table) if holder else None
        kinds = get_args(field.annotation) if field else ()
        holder = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    field = holder.model_fields.get(name) if holder else None
    if field is None or not field.description:
        return ""
    meaning = f" ({field.description.rstrip('.')})"
    if not field.examples:
        return meaning
    line = f'{name} = "{field.examples[0]}" in the settings file'
    return f"{meaning}: give " + (f"--{name} {field.examples[0]}, or {line} (--config)" if model is Settings else line)


def _fault(key: str, kind: str, message: str, model: type[BaseModel] = Settings) -> str:
    if kind == "extra_forbidden":
        nearest = difflib.get_close_matches(key, model.model_fields, 1, cutoff=0.5)
        return f"there is no setting {key!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    if kind == "missing":
        return f"the setting {key!r} is missing{_how_to_give(key, model)}"
    return f"{key}: {message}" if key else message.removeprefix("Value error, ")
