"""Settings of the daemon from defaults, one TOML file, environment and command line. The later takes precedence."""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

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
"""Tables of the daemon's settings file that belong to other processes."""

WALL_FACTOR = 4.0
"""A request may take this many times its processor time by the clock, because the machine may be busy."""

_LEAST_LEASE = 600.0  # seconds
_BESIDE_WORK = 120.0  # seconds that a job may take beyond its request: to start a process, to deliver


_absolute = AfterValidator(lambda path: Path(os.path.abspath(path)))
Location = Annotated[Path, _absolute]
BundleLocation = Annotated[Path, AfterValidator(bundle_folder), _absolute]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Main settings": (
        "inbox", "outbox", "bundle", "state", "trusted_keys", "roi_name", "prevalence", "covariates", "formats",
        "language", "workers", "metrics_port",
    ),
    "Advanced: bundle, region and features": (
        "watch_bundle", "match_by_geometry", "strict_frame_of_reference", "engine",
    ),
    "Advanced: content of the report": (
        "refusal_page", "perturbations", "contour_mm", "answer_not_robust", "descriptors",
    ),
    "Advanced: waiting for files": (
        "settle_seconds", "case_settle_seconds", "missing_neighbour_wait", "report_after_seconds",
        "alert_after_seconds", "poll_seconds", "watch", "scan_seconds",
    ),
    "Advanced: limits and retries": (
        "work_seconds", "work_memory_mb", "min_free_mb", "lease_seconds", "max_attempts", "retry_seconds",
        "retry_max_seconds",
    ),
    "Advanced: monitoring and log": (
        "heartbeat_seconds", "canary_seconds", "canary_patience_seconds", "log_format", "log_level",
    ),
}  # fmt: skip
"""The settings in the order in which people read them. Most sites need the first group only."""


class SettingsError(LungstageError):
    """The settings cannot be used. The message says which setting is wrong and what to do."""


def _listed(value: Any) -> Any:
    """Split the environment's text into names. An empty name is refused: it could switch off the signature check."""
    names = value.split(os.pathsep) if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and "" in names:
        raise ValueError("the name of a file is empty; give at least one file, or leave the setting out")
    return names


def _formats(value: Any) -> Any:
    """Split the text of environment or command line into formats, and sort them."""
    names = value.split(",") if isinstance(value, str) else value
    return formats_of(names) if isinstance(names, (list, tuple)) else names


class Settings(BaseModel):
    """The settings of one daemon.

    Every field is a key of the TOML file. ``LUNGSTAGE_`` and the name in capitals is its environment variable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inbox: Location = Field(
        description="Folder that studies are copied into. lungstage only reads it.", examples=["/srv/lungstage/inbox"]
    )
    outbox: Location = Field(description="Folder that lungstage writes reports to.", examples=["/srv/lungstage/outbox"])
    bundle: BundleLocation = Field(
        description="Folder of the model bundle, or the name of a bundle that lungstage ships.",
        examples=[*shipped_bundles(), "/srv/lungstage/bundle"],
    )
    trusted_keys: Annotated[tuple[Location, ...], BeforeValidator(_listed)] = Field(
        (),
        description="Files of public keys in PEM. One of these keys must have signed the bundle. "
        "With an empty list, the bundle need not be signed.",
    )
    watch_bundle: bool = Field(
        True, description="Use a new bundle that is copied into place while the daemon runs, after its self-test."
    )
    state: Location = Field(
        description="Folder of ledger and audit log, on a local disk; default: .lungstage-NAME beside outbox NAME.",
        examples=["/var/lib/lungstage"],
    )
    roi_name: str | None = Field(
        None, description="Name of the region of interest (ROI) to measure, instead of the bundle's own rule."
    )
    match_by_geometry: bool = Field(
        False, description="Match a region to CT slices by its position, and ignore the images that its file names."
    )
    strict_frame_of_reference: bool = Field(
        False,
        description="Refuse a SEG with another Frame of Reference than the CT, "
        "even if all its frames name slices and lie on them.",
    )
    prevalence: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the model's positive class among the site's patients, between 0 and 1. "
        "lungstage corrects the probability to this share.",
    )
    covariates: Location | None = Field(
        None,
        description="CSV file with study_instance_uid and age, sex or histology. "
        "It takes precedence over the DICOM header.",
    )
    engine: Literal["compiled", "reference"] = Field(
        "compiled", description="Code that computes the features: compiled, or reference (PyRadiomics itself, slower)."
    )
    formats: Annotated[tuple[Format, ...], BeforeValidator(_formats)] = Field(
        ("sr", "pdf"),
        description="Documents that are written for an answer: sr (always), pdf, sc (pictures of the page), html.",
    )
    language: Language = Field(
        "en", description="Language of the page: en, de or fr. The SR and all codes stay the same."
    )
    refusal_page: bool = Field(
        False, description="Write a page to the outbox, as PDF or picture, that says why a study was refused."
    )
    perturbations: int = Field(
        PERTURBATIONS,
        ge=0, le=MOST_PERTURBATIONS,
        description="Number of perturbed versions of contour and image that test how robust an answer is; 0: no test.",
    )  # fmt: skip
    contour_mm: float = Field(
        CONTOUR_MM,
        gt=0, le=MOST_CONTOUR_MM, allow_inf_nan=False,
        description="Typical distance between contours that different people draw, as a standard deviation in mm.",
    )  # fmt: skip
    answer_not_robust: NotRobust = Field(
        "warn",
        description="What to do if fewer than 90 % of the perturbed versions give the same answer: "
        "warn, or indeterminate.",
    )
    descriptors: bool = Field(
        True,
        description="Describe the tumour in the report in a radiologist's words. "
        "The model does not use this description.",
    )
    settle_seconds: Seconds = Field(
        0.2, description="The daemon reads a file when it is unchanged for this long, in seconds."
    )
    case_settle_seconds: Seconds = Field(
        2.0,
        description="The outermost slices received count as the ends of the series when the case is unchanged "
        "for this long, in seconds.",
    )
    missing_neighbour_wait: Seconds = Field(
        600.0,
        description="Slices next to the region that may still come count as missing when the case is unchanged "
        "for this long, in seconds.",
    )
    report_after_seconds: Seconds = Field(
        5.0, description="An incomplete case is reported as held after this long, in seconds."
    )
    alert_after_seconds: float = Field(
        3600.0, gt=0, le=31 * 86400, allow_inf_nan=False,
        description="The log gives one alert when a case waits or is held for this long, in seconds.",
    )  # fmt: skip
    poll_seconds: Seconds = Field(0.05, description="Shortest time between two checks of the inbox, in seconds.")
    watch: Literal["auto", "events", "poll"] = Field(
        "auto", description="How new files are noticed: events, poll, or auto (poll on network file systems)."
    )
    scan_seconds: Seconds = Field(
        1.0, description="Longest time between two checks of the inbox, even if no file event comes, in seconds."
    )
    workers: int = Field(
        default_factory=lambda: min(os.cpu_count() or 1, 4),
        ge=1, le=64,
        description="Number of cases that are answered at the same time; default: one per processor, at most 4.",
    )  # fmt: skip
    work_seconds: Seconds = Field(
        120.0,
        description="Limit of processor time for reading a file or answering a case, in seconds. "
        "The limit by the clock is four times as long.",
    )
    work_memory_mb: int = Field(4096, ge=512, description="Limit of memory for one worker process, in MB.")
    min_free_mb: int = Field(
        500,
        ge=0,
        description="The log warns when the disk of outbox or state folder has less free space than this, in MB.",
    )
    lease_seconds: float = Field(
        default_factory=lambda data: max(_LEAST_LEASE, WALL_FACTOR * data.get("work_seconds", 0.0) + _BESIDE_WORK),
        gt=0, le=7 * 86400, allow_inf_nan=False,
        description="Longest processing of a job before lungstage health fails, in seconds; "
        "default: 600.0, or four times work_seconds plus 120 if that is more.",
    )  # fmt: skip
    max_attempts: int = Field(
        3, ge=1, le=100, description="Attempts before a job that fails with an internal error is refused."
    )
    retry_seconds: Seconds = Field(
        0.5,
        description="First pause before a retry when a disk or folder is unavailable, in seconds. "
        "Each further pause is twice as long.",
    )
    retry_max_seconds: Seconds = Field(60.0, description="Longest pause before a retry, in seconds.")
    heartbeat_seconds: Seconds = Field(2.0, description="Time between two heartbeats of the daemon, in seconds.")
    canary_seconds: Seconds | None = Field(
        None,
        description="Time between two canaries, in seconds. A canary is a synthetic study that tests every step. "
        "It never reaches the outbox. Without this setting there are no canaries.",
    )
    canary_patience_seconds: Seconds = Field(
        120.0, description="The daemon raises an alarm when a canary takes longer than this, in seconds."
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port on 127.0.0.1 where Prometheus can read metrics. Without this setting no port is opened.",
    )
    log_format: Literal["text", "json"] = Field("text", description="Format of the log lines on stderr: text or json.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged: DEBUG, INFO, WARNING or ERROR."
    )

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
                raise ValueError(
                    f"the folder of {inner} must not lie in the folder of {outer}; choose separate folders"
                )
        return self

    @model_validator(mode="after")
    def _outlasts_work(self) -> Self:
        if self.lease_seconds <= self.wall_seconds:
            raise ValueError(
                f"lease_seconds must be more than the {self.wall_seconds:g} s that a case may take by the clock "
                f"({WALL_FACTOR:g} times work_seconds)"
            )
        return self

    @property
    def wall_seconds(self) -> float:
        """Limit of clock time for reading a file or answering a case, in seconds."""
        return WALL_FACTOR * self.work_seconds

    @property
    def documents(self) -> DocumentOptions:
        """The documents that are written for an answer."""
        return DocumentOptions(self.formats, self.language)

    @property
    def robustness(self) -> RobustnessOptions:
        """Whether and how to test the dependence of an answer on contour and scan."""
        return RobustnessOptions(self.perturbations, self.contour_mm, self.answer_not_robust)

    def for_audit(self) -> dict[str, Any]:
        """Return the digest of all settings, and the values of those that an answer depends on."""
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
    """Return the default state folder of an outbox: a folder beside it, so that each outbox has its own."""
    absolute = Path(os.path.abspath(outbox))
    return absolute.parent / f".lungstage-{absolute.name}"


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Combine the settings of all sources.

    Parameters
    ----------
    config
        TOML file with the settings at its top level.
    overrides
        Settings of the command line; None means not given.
    environment
        Environment variables; by default those of this process.

    Raises
    ------
    SettingsError
        The message lists every fault: an unknown key with the nearest known one, a wrong value, a missing setting.
    """
    values = {key: value for key, (value, _) in given_settings(config, environment).items()}
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(faults_of(error, Settings)) from error


def faults_of(error: ValidationError, model: type[BaseModel]) -> str:
    """List every fault of some settings in one sentence."""
    items = error.errors()
    lacking = {item["loc"] for item in items if item["type"] == "missing"}
    faults = [
        _fault(".".join(str(part) for part in item["loc"]), item["type"], item["msg"], model)
        for item in items
        if item["type"] != "default_factory_not_called"  # only follows from another fault, which is listed
        and not (
            model is Settings and item["loc"] == ("state",) and ("outbox",) in lacking
        )  # state has a default if outbox is given
    ]
    return "; ".join(faults) + "."


def table_of(name: str, config: Path | None) -> dict[str, Any]:
    """Return the table of another process from a settings file, unchecked; empty if there is none.

    Raises
    ------
    SettingsError
        The file cannot be read, or the name is not that of a table.
    """
    table = tables_of(config).get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(
            f"[{name}] in the settings file {config} is not a table. Write [{name}] on a line above its keys."
        )
    return dict(table)


def given_settings(
    config: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, tuple[Any, str]]:
    """Return the values of file and environment, each with its source; nothing is checked yet."""
    from_file = {key: (value, f"file {config}") for key, value in _from_file(config).items()}
    variables = _from_environment(os.environ if environment is None else environment)
    return from_file | {
        key: (value, f"environment {ENVIRONMENT_PREFIX}{key.upper()}") for key, value in variables.items()
    }


def state_of(state: Path | None, config: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """Return the state folder of the daemon with these settings.

    Raises
    ------
    SettingsError
        When neither a state folder nor an outbox is given.
    """
    values = {key: value for key, (value, _) in given_settings(config, environment).items()}
    named = state or values.get("state")
    if named is None and values.get("outbox") is None:
        raise SettingsError(
            "Give the daemon's state folder with --state, or its settings file with --config. By default the state "
            "folder is beside the outbox: for /srv/outbox it is /srv/.lungstage-outbox."
        )
    return default_state(Path(values["outbox"])) if named is None else Path(named)


def alert_age(config: Path | None, environment: Mapping[str, str] | None = None) -> timedelta:
    """Return the age of a waiting job at which a daemon with these settings gives an alert."""
    folders = {name: Path("/nowhere", name) for name in ("inbox", "outbox", "bundle", "state")}
    return timedelta(seconds=load_settings(config, folders, environment).alert_after_seconds)


def setting_of(name: str, config: Path | None, environment: Mapping[str, str] | None = None) -> Any:
    """Return one setting of file or environment, unchecked; None if neither has it."""
    return {**_from_file(config), **_from_environment(os.environ if environment is None else environment)}.get(name)


def _from_file(config: Path | None) -> dict[str, Any]:
    return {key: value for key, value in tables_of(config).items() if key not in OTHER_TABLES}


def tables_of(config: Path | None) -> dict[str, Any]:
    """Return the whole content of a settings file, unchecked.

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
    # Other tools may use the prefix too, so only a name that looks like a typing error is refused.
    for key in given:
        if key not in Settings.model_fields and difflib.get_close_matches(key, Settings.model_fields, 1, cutoff=0.8):
            raise SettingsError(_fault(key, "extra_forbidden", "") + f" (from {ENVIRONMENT_PREFIX}{key.upper()}).")
    return {key: value for key, value in given.items() if key in Settings.model_fields}


def _beside(key: str, model: type[BaseModel]) -> tuple[str, Mapping[str, FieldInfo]]:
    """Return the name of a setting within its table, and the fields of this table; none if there is no such table."""
    *tables, name = (part for part in key.split(".") if not part.isdigit())
    holder: type[BaseModel] | None = model
    for table in tables:
        field = holder.model_fields.get(table) if holder else None
        kinds = get_args(field.annotation) if field else ()
        holder = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return name, holder.model_fields if holder else {}


def _how_to_give(key: str, model: type[BaseModel]) -> str:
    """Say what a missing setting is for and how to give it: as an option, if there is one, or as a line of the file."""
    name, siblings = _beside(key, model)
    field = siblings.get(name)
    if field is None or not field.description:
        return ""
    meaning = f" ({field.description.partition('. ')[0].rstrip('.')})"
    if not field.examples:
        return meaning
    line = f'{name} = "{field.examples[0]}" in the settings file'
    return f"{meaning}: give " + (f"--{name} {field.examples[0]}, or {line} (--config)" if model is Settings else line)


def _fault(key: str, kind: str, message: str, model: type[BaseModel] = Settings) -> str:
    if kind == "extra_forbidden":
        nearest = difflib.get_close_matches(*_beside(key, model), 1, cutoff=0.5)
        return f"there is no setting {key!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    if kind == "missing":
        return f"the setting {key!r} is missing{_how_to_give(key, model)}"
    return f"{key}: {message}" if key else message.removeprefix("Value error, ")
