"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

InboxOption = Annotated[Path | None, typer.Option(help="Folder that studies are copied into.", show_default=False)]
OutboxOption = Annotated[Path | None, typer.Option(help="Folder that reports appear in.", show_default=False)]
BundleOption = Annotated[Path | None, typer.Option(help="Folder of the model bundle.", show_default=False)]
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
