"""Write the systemd units from the templates in this folder, with the paths and the user of an installation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lungstage.appliance.contract.errors import LungstageError

NAME: Final = "lungstage.service"
"""Name of the daemon's unit."""

PAGE: Final = "lungstage-page.service"
"""Name of the page's unit."""

GATEWAY: Final = "lungstage-gateway.service"
"""Name of the gateway's unit."""

GATEWAY_CONFIG: Final = "gateway.toml"
"""Name of the gateway's settings file, beside the daemon's."""

STATE: Final = Path("/var/lib/lungstage")
"""StateDirectory of the daemon's unit."""

GATEWAY_STATE: Final = Path("/var/lib/lungstage-gateway")
"""StateDirectory of the gateway's unit."""

_HIDDEN: Final = {
    "ProtectHome": ("/home", "/root", "/run/user"),
    "PrivateTmp": ("/tmp", "/var/tmp"),  # noqa: S108
}
"""Folders that a service cannot see, by the key of the unit that hides them."""


class ServiceError(LungstageError):
    """The service cannot be installed like this. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """The paths and the user in a unit.

    Attributes
    ----------
    program
        The command ``lungstage`` of this installation.
    python
        The Python interpreter, with links resolved.
    config
        The settings file.
    inbox, outbox, state
        The folders in the settings.
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
    """Return the text of a unit.

    Parameters
    ----------
    places
        Its paths and its user.
    name
        :data:`NAME`, :data:`PAGE` or :data:`GATEWAY`.

    Raises
    ------
    ServiceError
        When the service could not see a path, or a path cannot be written in a unit.
    """
    _check(places)
    config, inbox, outbox, state = map(_word, (places.config, places.inbox, places.outbox, places.state))
    program = _word(places.program)
    values = {"User": places.user, "Group": places.user}
    if name == PAGE:  # it also starts without inbox and outbox; confirmed contours go into the inbox
        values |= {"ExecStart": f"{program} page --config {config}", "ReadWritePaths": f"-{inbox} {state}"}
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
    """Return a first settings file of the gateway, with the same folders as the daemon's."""
    return f"""# Settings of the gateway; docs/gateway.md explains them. Research use only; not a medical device.
inbox = "{places.inbox}"
outbox = "{places.outbox}"
state = "{GATEWAY_STATE}"
daemons = ["{places.state}"]
log_format = "json"

[receive]
ae_title = "LUNGSTAGE"
bind = "127.0.0.1:11112"     # address of this machine to which scanners send
# calling = ["CT1"]          # AE titles that may send
# addresses = ["10.1.0.0/16"]

# [[route]]
# what = ["sr", "seg", "pdf"]
# to = "dicom://PACS@pacs.hospital.example:104"
"""


def is_ours(text: str) -> bool:
    """Whether :func:`render` of this or another release wrote a unit."""
    return text.startswith("# lungstage as a systemd service")


def _check(places: Places) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", places.user):
        raise ServiceError(
            f"{places.user!r} is not a valid name of a system user. Use only small letters, digits, - and _."
        )
    # The python of a virtual environment is a link. The service must also see the target of the link.
    for path in (places.program, places.python, places.config, places.inbox, places.outbox, places.state):
        for key, folders in _HIDDEN.items():
            if any(path.is_relative_to(folder) for folder in folders):
                raise ServiceError(
                    f"The service cannot see {path} ({key} in its unit). "
                    "Move it to another place, for example /opt or /srv."
                )


def _word(path: Path) -> str:
    """Write a path for a unit, with quotation marks if necessary."""
    text = str(path)
    if not text.isprintable() or set(text) & set("\"'\\$%"):
        raise ServiceError(
            f"The path {text!r} cannot be written in a systemd unit. Rename it: use letters, digits, spaces, - and _."
        )
    return f'"{text}"' if " " in text else text
