"""The systemd units: the templates beside this file, with one installation's program, settings, folders and user."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lungstage.appliance.contract.errors import LungstageError

NAME: Final = "lungstage.service"
"""Of the daemon's unit."""

PAGE: Final = "lungstage-page.service"
"""Of the unit that serves the worklist to browsers."""

GATEWAY: Final = "lungstage-gateway.service"
"""Of the unit that serves the DICOM network."""

GATEWAY_CONFIG: Final = "gateway.toml"
"""Its settings, beside the daemon's."""

STATE: Final = Path("/var/lib/lungstage")
"""What the unit's StateDirectory is."""

GATEWAY_STATE: Final = Path("/var/lib/lungstage-gateway")
"""What the StateDirectory of the gateway's unit is."""

_HIDDEN: Final = {
    "ProtectHome": ("/home", "/root", "/run/user"),
    "PrivateTmp": ("/tmp", "/var/tmp"),  # noqa: S108
}
"""What a daemon under the unit does not see, by the key that hides it."""


class ServiceError(LungstageError):
    """A service cannot be made of what is here; the sentence says what helps."""


@dataclass(frozen=True, slots=True)
class Places:
    """What the unit names.

    Attributes
    ----------
    program
        The command ``lungstage`` of this installation.
    python
        The interpreter that runs it, links resolved.
    config
        The file of settings.
    inbox, outbox, state
        The folders that the settings name.
    user
        User and group that the daemon, the page and the gateway run as.
    """

    program: Path
    python: Path
    config: Path
    inbox: Path
    outbox: Path
    state: Path
    user: str


def render(places: Places, name: str = NAME) -> str:
    """Return a unit's text.

    Parameters
    ----------
    places
        What it names.
    name
        :data:`NAME`, :data:`PAGE` or :data:`GATEWAY`.

    Raises
    ------
    ServiceError
        When a place lies where the unit could not see it, or its name cannot stand in a unit.
    """
    _check(places)
    config, inbox, outbox, state = map(_word, (places.config, places.inbox, places.outbox, places.state))
    program = _word(places.program)
    values = {"User": places.user, "Group": places.user}
    if name == PAGE:  # it reads inbox and outbox, and waits for neither
        values |= {"ExecStart": f"{program} page --config {config}", "ReadWritePaths": state}
    elif name == GATEWAY:
        values |= {
            "RequiresMountsFor": f"{inbox} {outbox}",
            "ExecStart": f"{program} gateway --config {_word(places.config.with_name(GATEWAY_CONFIG))}",
            "ReadWritePaths": f"{inbox} {state}",
        }
    else:
        values |= {
            "RequiresMountsFor": f"{inbox} {outbox}",
            "ExecStart": f"{program} run --config {config}",
            "ReadWritePaths": outbox if places.state == STATE else f"{outbox} {state}",
        }
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert count == 1, key
    return text


def gateway_template(places: Places) -> str:
    """Return settings of a gateway to begin with, in the same folders as the daemon's."""
    return f"""# Settings of the gateway: docs/gateway.md. Research use only; not a medical device.
inbox = "{places.inbox}"
outbox = "{places.outbox}"
state = "{GATEWAY_STATE}"
daemons = ["{places.state}"]
log_format = "json"

[receive]
ae_title = "LUNGSTAGE"
bind = "127.0.0.1:11112"     # the address of this machine that scanners send to
# calling = ["CT1"]          # who may send
# addresses = ["10.1.0.0/16"]

# [[route]]
# what = ["sr", "seg", "pdf"]
# to = "dicom://PACS@pacs.hospital.example:104"
"""


def is_ours(text: str) -> bool:
    """Whether a unit was written by :func:`render`, of this release or another."""
    return text.startswith("# lungstage as a systemd service")


def _check(places: Places) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", places.user):
        raise ServiceError(f"{places.user!r} is no name of a system user: small letters, digits, - and _ only.")
    # A virtual environment's python is a link, and what it points to must be seen as well.
    for path in (places.program, places.python, places.config, places.inbox, places.outbox, places.state):
        for key, folders in _HIDDEN.items():
            if any(path.is_relative_to(folder) for folder in folders):
                raise ServiceError(
                    f"{path} lies where the service cannot see it ({key} in its unit). "
                    "Put it elsewhere, for instance into /opt or /srv."
                )


def _word(path: Path) -> str:
    """Write a path as one word of a unit."""
    text = str(path)
    if not text.isprintable() or set(text) & set("\"'\\$%"):
        raise ServiceError(f"{text!r} cannot stand in a systemd unit: rename it to letters, digits, spaces, - and _.")
    return f'"{text}"' if " " in text else text
