"""Install daemon, page and gateway as systemd services, and remove them again.

Data of patients and the site's settings are never removed. An installation is a list of steps, so it can be shown
before it is done.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lungstage.appliance.config import explain
from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.service import unit
from lungstage.appliance.service.unit import Places, ServiceError

CONFIG: Final = Path("/etc/lungstage/lungstage.toml")
UNITS: Final = Path("/etc/systemd/system")
HOST: Final = Path("/")


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a complete file that everybody can read."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove a file."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder for a user and the group of the same name. A folder that exists is not changed."""

    path: Path
    owner: str
    mode: int

    def __str__(self) -> str:
        return f"make {self.path} for {self.owner}, mode {self.mode:o}"


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command of the system. It is needed on the host itself, not in an image."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


Step = WriteFile | RemoveFile | MakeFolder | Run


def this_installation() -> tuple[Path, Path]:
    """Return the path of the command ``lungstage`` of this installation, and of its Python interpreter.

    Raises
    ------
    Unavailable
        When there is no such command, for example in a checkout that is not installed.
    """
    program = Path(sysconfig.get_path("scripts"), "lungstage")
    if not program.is_file():
        raise Unavailable(
            f"There is no command {program}: lungstage is not installed in {sys.prefix}. Install it there with pip."
        )
    return program, Path(sys.executable).resolve()


def places(program: Path, python: Path, config: Path, user: str, root: Path = HOST) -> Places:
    """Return the paths for the units of an installation, from the settings in `config` or in the template.

    Raises
    ------
    SettingsError
        When the settings in `config` cannot be used.
    """
    given = _under(root, config)
    with tempfile.TemporaryDirectory() as folder:
        if not given.exists():
            given = Path(folder, CONFIG.name)
            given.write_text(explain.template(), encoding="utf-8")
        settings = load_settings(given, environment={})
    return Places(program, python, config, settings.inbox, settings.outbox, settings.state, user)


def to_install(named: Places, root: Path = HOST, *, page: bool = False, gateway: bool = False) -> list[Step]:
    """Return the steps that install the service. Steps that are done already are left out.

    Parameters
    ----------
    named
        The paths in the units.
    root
        Folder to use instead of /.
    page, gateway
        Whether to install it as a service too. If it is one already, it stays one.

    Raises
    ------
    ServiceError
        When a unit of this name exists that lungstage did not write, or the unit would not work (:func:`unit.render`).
    """
    beside = ((unit.PAGE, page), (unit.GATEWAY, gateway))
    names = [unit.NAME, *(name for name, wanted in beside if wanted or _is_there(root, name))]
    for name in names:
        if _is_there(root, name) and not unit.is_ours(_read(_under(root, UNITS / name))):
            raise ServiceError(
                f"{UNITS / name} exists, but lungstage did not write it. Move it to another place first."
            )
    units = [WriteFile(UNITS / name, unit.render(named, name)) for name in names]
    steps: list[Step] = []
    if root == HOST and not _known(named.user):
        shell = ("--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
        steps.append(Run(("useradd", "--system", "--user-group", *shell, named.user)))
    if not _under(root, named.config).exists():
        steps.append(WriteFile(named.config, explain.template() + "\n"))
    network = named.config.with_name(unit.GATEWAY_CONFIG)
    if unit.GATEWAY in names and not _under(root, network).exists():
        steps.append(WriteFile(network, unit.gateway_template(named)))
    wanted = [(named.inbox, 0o2770), (named.outbox, 0o2770), (named.state, 0o700)]
    steps += [MakeFolder(path, named.user, mode) for path, mode in wanted if not _under(root, path).exists()]
    return [*steps, *units, *_on_host(root, "daemon-reload")]


def to_uninstall(root: Path = HOST) -> list[Step]:
    """Return the steps that stop the services and remove their units; empty if there is no unit.

    Raises
    ------
    ServiceError
        When lungstage did not write a unit.
    """
    steps: list[Step] = []
    for name in (unit.GATEWAY, unit.PAGE, unit.NAME):
        if not _is_there(root, name):
            continue
        if not unit.is_ours(_read(_under(root, UNITS / name))):
            raise ServiceError(
                f"lungstage did not write {UNITS / name}, so it is not removed. "
                "Remove it yourself if you do not need it."
            )
        steps += [*_on_host(root, "disable", "--now", name), RemoveFile(UNITS / name)]
    return [*steps, *_on_host(root, "daemon-reload")] if steps else []


def check_host() -> None:
    """Check that this process may change the host's services.

    Raises
    ------
    Unavailable
        When it does not run as root, or there is no systemd.
    """
    if not Path("/run/systemd/system").is_dir():
        raise Unavailable(
            "systemd is not running on this machine, so no service can be installed. A container needs no service."
        )
    if os.geteuid() != 0:
        raise Unavailable("Only root may change the services of this machine. Use sudo, or --dry-run to see the steps.")


def perform(steps: Iterable[Step], root: Path = HOST) -> None:
    """Do the steps in their order, in the folder `root`.

    Raises
    ------
    Unavailable
        When a command fails. The steps before stay done, and the same call continues from there.
    OSError
        When a file or a folder cannot be made.
    """
    for step in steps:
        match step:
            case Run(words):
                try:
                    subprocess.run(words, check=True)  # noqa: S603
                except (OSError, subprocess.CalledProcessError) as error:
                    raise Unavailable(
                        f"The command `{step}` failed ({error}). "
                        "Solve the problem, and run the same command of lungstage again; it continues from there."
                    ) from error
            case WriteFile(path, text):
                _write(_under(root, path), text)
            case RemoveFile(path):
                _under(root, path).unlink()
            case MakeFolder(path, owner, mode):
                folder = _under(root, path)
                folder.mkdir(parents=True)
                if root == HOST:
                    shutil.chown(folder, owner, owner)
                folder.chmod(mode)  # last, because a change of owner may clear the setgid bit


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as draft:
        draft.write(text)
    os.chmod(draft.name, 0o644)
    os.replace(draft.name, path)


def _on_host(root: Path, *words: str) -> list[Step]:
    return [Run(("systemctl", *words))] if root == HOST else []


def _is_there(root: Path, name: str) -> bool:
    return os.path.lexists(_under(root, UNITS / name))


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
