"""Options that commands share, and the configuration that they make together with the file of ``--config``."""

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
        "--config", metavar="FILE",
        help="TOML file of the study (docs/training.md). Options take precedence over it.",
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
        help="TOML description of the table.", show_default="the one beside the table, or a shipped one with its hash",
    ),
]  # fmt: skip
CutOption = Annotated[
    bool | None,
    typer.Option(
        "--keep-cut-rows/--no-keep-cut-rows",
        help="Also use rows whose roi_touches_crop_edge is True.",
        show_default=False,
    ),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id-column", metavar="COLUMN", help="Column of the patient identifiers.", show_default="patient_id"),
]
ENDPOINT: Final = "Endpoint"
"""Panel of the help for the options that say what is predicted."""
ADVANCED: Final = "Advanced"
"""Panel of the help for the options that most users leave alone; it comes last."""

TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Column to predict.", show_default="stage: early or advanced", rich_help_panel=ENDPOINT
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE", help="Value of the positive class. The model states its probability.",
        rich_help_panel=ENDPOINT,
    ),
]  # fmt: skip
NegativeOption = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE", help="Value of the negative class.", show_default="the other value of the column",
        rich_help_panel=ENDPOINT,
    ),
]  # fmt: skip
HorizonOption = Annotated[
    float | None,
    typer.Option(
        metavar="DAYS",
        help="Predict an event within this many days. The target is then the days until event or last follow-up.",
        rich_help_panel=ENDPOINT,
    ),
]
EventOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Column of the event, with --horizon-days: 1 for an event, 0 for a censored row.",
        rich_help_panel=ENDPOINT,
    ),
]  # fmt: skip
CovariatesOption = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Clinical covariates: age,sex,histology or some of them.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(help="Named settings: hardened, paper, quick.", show_default="hardened", rich_help_panel=ADVANCED),
]
QuickOption = Annotated[
    bool,
    typer.Option(
        "--quick", help="Same as --preset quick: runs in seconds, to test the command. The figures have no value.",
        rich_help_panel=ADVANCED,
    ),
]  # fmt: skip
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Seed of everything random.", show_default="0", rich_help_panel=ADVANCED)
]
FoldsOption = Annotated[
    int | None,
    typer.Option(
        min=3, help="Folds of the outer cross-validation.", show_default="as the preset", rich_help_panel=ADVANCED
    ),
]
RepeatsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Repeats of the outer cross-validation.", show_default="as the preset", rich_help_panel=ADVANCED
    ),
]
MembersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Networks in the final ensemble.", show_default="as the preset", rich_help_panel=ADVANCED),
]

PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "table": "study.table", "out": "study.run", "cohort": "study.description",
        "id_column": "study.id_column", "keep_cut_rows": "study.keep_cut_rows", "covariates": "covariates.names",
        **{key: f"endpoint.{key}" for key in ("target", "positive", "negative", "horizon_days", "event")},
        **{key: f"procedure.{key}" for key in ("preset", "seed", "folds", "repeats", "members")},
    }
)  # fmt: skip
"""Section and key of each option in the file."""


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
        `quick` and another preset are given; also see :func:`training.configuration.load_configuration`.
    """
    from lungstage.training.configuration import ConfigurationError, load_configuration

    if quick and given.get("preset") not in (None, "quick"):
        raise ConfigurationError(
            f"--quick means --preset quick and contradicts --preset {given['preset']}. Give one of them."
        )
    if quick:
        given["preset"] = "quick"
    if given.get("covariates") is not None:
        given["covariates"] = tuple(name.strip() for name in given["covariates"].split(",") if name.strip())
    return load_configuration(config, {PLACES[name]: value for name, value in given.items()})


def bundle_target(endpoint: Endpoint, **given: Any) -> Target:
    """Return the column of a table that corresponds to a bundle's endpoint, and how its values are read.

    Parameters
    ----------
    endpoint
        Endpoint of the bundle. Without options, the column has its name, and the column's values are its classes.
    given
        Options by the names of :class:`training.cohorts.endpoint.Target`; None means not given.

    Raises
    ------
    ConfigurationError
        The options do not fit together.
    """
    from lungstage.training.configuration import load_configuration

    said = {key: value for key, value in given.items() if value is not None}
    values = {"target": endpoint.name, "positive": endpoint.positive, "negative": endpoint.negative, **said}
    if "positive" in said and "negative" not in said:
        del values["negative"]  # the table has its own names for the classes
    named = {**values, "name": endpoint.name}
    return load_configuration(None, {f"endpoint.{key}": value for key, value in named.items()}).endpoint
