"""Options that several commands share."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lungstage.appliance.config.shipped import bundle_folder
from lungstage.appliance.contract.errors import Unavailable

# Not readable=True, which is the default: what cannot be read is said by whoever reads it, with what helps.
_path = partial(typer.Option, readable=False, show_default=False)

InboxOption = Annotated[Path | None, _path("--inbox", help="Folder that studies are copied into.")]
OutboxOption = Annotated[Path | None, _path("--outbox", help="Folder that reports appear in.")]
_BUNDLE = _path(
    "--bundle",
    parser=bundle_folder,
    metavar="NAME|DIR",
    help="The model bundle: its folder, or the name of one that lungstage ships.",
)
BundleOption = Annotated[Path | None, _BUNDLE]
RequiredBundleOption = Annotated[Path, _BUNDLE]
StateOption = Annotated[
    Path | None, _path("--state", help="State folder; by default .lungstage-NAME beside the outbox NAME.")
]
ConfigOption = Annotated[Path | None, _path("--config", help="TOML file of settings.")]
TrustedOption = Annotated[
    list[Path] | None,
    _path("--trusted-key", help="Public key that the bundle must be signed with; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def state_folder(state: Path | None, config: Path | None) -> Path:
    """Return the state folder that is meant, by its option or by the daemon's settings.

    Raises
    ------
    SettingsError
        When nothing says which daemon is meant.
    Unavailable
        When this user may not look into it.
    """
    from lungstage.appliance.config.settings import state_of

    folder = state_of(state, config)
    try:
        (folder / "ledger.sqlite").exists()
        os.scandir(folder).close()
    except FileNotFoundError:
        pass  # whoever looks for something in it says what is missing
    except PermissionError as error:
        remedy = "Run this as the daemon's user, for instance with sudo -u lungstage."
        raise Unavailable(f"This user may not look into the state folder {folder}. {remedy}") from error
    except OSError as error:
        raise Unavailable(f"The state folder {folder} cannot be looked into: {error.strerror}.") from error
    return folder
