"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungstage.appliance.config.shipped import bundle_folder

InboxOption = Annotated[Path | None, typer.Option(help="Folder that studies are copied into.", show_default=False)]
OutboxOption = Annotated[Path | None, typer.Option(help="Folder that reports appear in.", show_default=False)]
_BUNDLE = typer.Option(
    "--bundle",
    parser=bundle_folder,
    metavar="NAME|DIR",
    help="The model bundle: its folder, or the name of one that lungstage ships.",
)
BundleOption = Annotated[Path | None, _BUNDLE]
RequiredBundleOption = Annotated[Path, _BUNDLE]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state", help="State folder; by default .lungstage-NAME beside the outbox NAME.", show_default=False
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.", show_default=False)]
TrustedOption = Annotated[
    list[Path] | None,
    typer.Option("--trusted-key", help="Public key that the bundle must be signed with; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
