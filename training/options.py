"""Options that commands share, and the configuration that they add up to with the file of ``--config``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from lungstage.appliance.contract.spec import Endpoint
    from lungstage.training.cohorts.endpoint import Target
    from lungstage.training.configuration import Configuration

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="TOML file of the study (docs/training.md); options outrank it.",
        exists=True, dir_okay=False,
    ),
]  # fmt: skip
TableArgument = Annotated[
    Path | None, typer.Argument(metavar="TABLE", help="Feature table (CSV).", exists=True, dir_okay=False)
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run.", file_okay=False)
]
CohortOption = Annotated[
    Path | None,
    typer.Option(
        "--cohort", metavar="FILE", exists=True, dir_okay=False,
        help="TOML description of the table; default is the one beside it, else one known by the table's hash.",
    ),
]  # fmt: skip
CutOption = Annotated[
    bool | None,
    typer.Option(
        "--keep-cut-rows/--no-keep-cut-rows", help="Use rows with roi_touches_crop_edge as well.", show_default=False
    ),
]
IdOption = Annotated[
    str | None, typer.Option("--id-column", metavar="COLUMN", help="Names the patients. [default: patient_id]")
]
TargetOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column to predict. [default: stage, early or advanced]")
]
PositiveOption = Annotated[str | None, typer.Option(metavar="VALUE", help="Its value to state the probability of.")]
NegativeOption = Annotated[str | None, typer.Option(metavar="VALUE", help="Its other value, where there are more.")]
HorizonOption = Annotated[
    float | None,
    typer.Option(metavar="DAYS", help="Predict an event within so many days; the target is then the days observed."),
]
EventOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="With --horizon-days: 1 for an event, 0 for a censored row.")
]
CovariatesOption = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Clinical inputs: age,sex,histology or some of them.")
]
PresetOption = Annotated[str | None, typer.Option(help="Named settings: hardened, paper, quick. [default: hardened]")]
QuickOption = Annotated[bool, typer.Option("--quick", help="Short for --preset quick: worthless figures in seconds.")]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="The one seed that everything random derives from. [default: 0]")
]
FoldsOption = Annotated[int | None, typer.Option(min=3, help="Folds of the cross-validation.")]
RepeatsOption = Annotated[int | None, typer.Option(min=1, help="Repeats of the cross-validation.")]
MembersOption = Annotated[int | None, typer.Option(min=1, help="Networks in the ensemble.")]

PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "table": "study.table", "out": "study.run", "cohort": "study.description",
        "id_column": "study.id_column", "keep_cut_rows": "study.keep_cut_rows", "covariates": "covariates.names",
        **{key: f"endpoint.{key}" for key in ("target", "positive", "negative", "horizon_days", "event")},
        **{key: f"procedure.{key}" for key in ("preset", "seed", "folds", "repeats", "members")},
    }
)  # fmt: skip
"""Where each option of a command stands in the file."""


def configured(config: Path | None, *, quick: bool = False, **given: Any) -> Configuration:
    """Return the configuration of a command.

    Parameters
    ----------
    config
        The TOML file.
    quick
        Whether the preset is ``quick``.
    given
        Options by the names of :data:`PLACES`; None means not given.

    Raises
    ------
    ConfigurationError
        Where `quick` and another preset are given; and see :func:`training.configuration.load_configuration`.
    """
    from lungstage.training.configuration import ConfigurationError, load_configuration

    if quick and given.get("preset") not in (None, "quick"):
        raise ConfigurationError(f"--quick is short for --preset quick and contradicts --preset {given['preset']}.")
    if quick:
        given["preset"] = "quick"
    if given.get("covariates") is not None:
        given["covariates"] = tuple(name.strip() for name in given["covariates"].split(",") if name.strip())
    return load_configuration(config, {PLACES[name]: value for name, value in given.items()})


def bundle_target(endpoint: Endpoint, **given: Any) -> Target:
    """Return which column of a table answers to a bundle's endpoint, and how.

    Parameters
    ----------
    endpoint
        The bundle's. Without an option, its name is that of the column and its classes are the column's values.
    given
        Options by the names of :class:`training.cohorts.endpoint.Target`; None means not given.

    Raises
    ------
    ConfigurationError
        Where the options do not fit together.
    """
    from lungstage.training.configuration import load_configuration

    said = {key: value for key, value in given.items() if value is not None}
    values = {"target": endpoint.name, "positive": endpoint.positive, "negative": endpoint.negative, **said}
    if "positive" in said and "negative" not in said:
        del values["negative"]  # the table has its own words
    named = {**values, "name": endpoint.name}
    return load_configuration(None, {f"endpoint.{key}": value for key, value in named.items()}).endpoint
