"""Options that several commands share."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from lungstage.appliance.config.shipped import bundle_folder
from lungstage.appliance.contract.errors import Unavailable

SETTINGS: Final = "Folders and settings"
"""Title in the help above the options that say which daemon is meant, or how it runs."""

ADVANCED: Final = "Advanced"
"""Title in the help above the options that most sites do not need."""


def out_folder(text: str) -> Path:
    """Return the folder that ``--out`` names; it need not exist yet.

    Raises
    ------
    BadParameter
        There is something else at this path, or the name is empty; that would be the current folder.
    """
    if not text.strip():
        raise typer.BadParameter("the name is empty. Give the path of a folder; a dot (.) is the current folder.")
    folder = Path(text)
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
    if there is not None and not os.path.isdir(there):
        what = "a link that leads nowhere" if os.path.islink(there) and not os.path.exists(there) else "not a folder"
        raise typer.BadParameter(f"'{there}' is {what}. Give the path of a folder; it is created if needed.")
    return folder


# readable=True would be the default. With False, the code that reads the file gives the error, and says what to do.
_path = partial(typer.Option, readable=False, show_default=False, rich_help_panel=SETTINGS)

InboxOption = Annotated[Path | None, _path("--inbox", metavar="DIR", help="Folder that studies are copied into.")]
OutboxOption = Annotated[Path | None, _path("--outbox", metavar="DIR", help="Folder that reports are written to.")]
_bundle = partial(
    typer.Option,
    "--bundle",
    readable=False,
    show_default=False,
    parser=bundle_folder,
    metavar="NAME|DIR",
    help="Model bundle: its folder, or the name of one that lungstage ships, for example lung1-stage.",
)
BundleOption = Annotated[Path | None, _bundle(rich_help_panel=SETTINGS)]
RequiredBundleOption = Annotated[Path, _bundle()]
StateOption = Annotated[
    Path | None,
    _path("--state", metavar="DIR", help="The daemon's state folder; by default .lungstage-NAME beside outbox NAME."),
]
ConfigOption = Annotated[Path | None, _path("--config", metavar="FILE", help="Settings file of the daemon (TOML).")]
TrustedOption = Annotated[
    list[Path] | None,
    _path(
        "--trusted-key",
        metavar="FILE",
        help="Public key (PEM). The bundle must be signed with this key, or with one of them if repeated.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def state_folder(state: Path | None, config: Path | None) -> Path:
    """Return the state folder from its option or from the daemon's settings.

    Raises
    ------
    SettingsError
        When neither the option nor the settings give it.
    Unavailable
        When this user may not read it.
    """
    from lungstage.appliance.config.settings import state_of

    folder = state_of(state, config)
    try:
        (folder / "ledger.sqlite").exists()
        os.scandir(folder).close()
    except FileNotFoundError:
        pass  # the code that needs a file of it says what is missing
    except PermissionError as error:
        remedy = "Run the command as the daemon's user, for example with sudo -u lungstage."
        raise Unavailable(f"This user may not read the state folder {folder}. {remedy}") from error
    except OSError as error:
        raise Unavailable(
            f"The state folder {folder} cannot be read: {error.strerror}. Check its path and its disk."
        ) from error
    return folder
