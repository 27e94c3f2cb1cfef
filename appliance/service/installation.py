"""Install daemon, page and gateway as systemd services, and take them away again.

What is patients' or the site's is left alone. An installation is a list of steps, so that it can be shown before it is
done.
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
    """Write a file whole, readable by everybody."""

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
    """Make a folder that is not there, for user and group of one name; a folder that is there is left as it is."""

    path: Path
    owner: str
    mode: int

    def __str__(self) -> str:
        return f"make {self.path} for {self.owner}, mode {self.mode:o}"


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command of the system, which the host itself needs and a folder does not."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


Step = WriteFile | RemoveFile | MakeFolder | Run


def this_installation() -> tuple[Path, Path]:
    """Return the command ``lungstage`` that is installed beside this package, and the interpreter that runs it.

    Raises
    ------
    Unavailable
        When there is no such command, as in a checkout that was not installed.
    """
    program = Path(sysconfig.get_path("scripts"), "lungstage")
    if not program.is_file():
        raise Unavailable(f"There is no command {program}: lungstage is not installed in {sys.prefix}.")
    return program, Path(sys.executable).resolve()


def places(program: Path, python: Path, config: Path, user: str, root: Path = HOST) -> Places:
    """Return what the unit of an installation names, by its settings: those of `config`, or of the template.

    Raises
    ------
    SettingsError
        When the settings that are there cannot be used.
    """
    given = _under(root, config)
    with tempfile.TemporaryDirectory() as folder:
        if not given.exists():
            given = Path(folder, CONFIG.name)
            given.write_text(explain.template(), encoding="utf-8")
        settings = load_settings(given, environment={})
    return Places(program, python, config, settings.inbox, settings.outbox, settings.state, user)


def to_install(named: Places, root: Path = HOST, *, page: bool = False, gateway: bool = False) -> list[Step]:
    """Return the steps that install the service; those that are done already are left out.

    Parameters
    ----------
    named
        What the units name.
    root
        Stands in for /.
    page, gateway
        Whether that becomes a service, too; where it is one, it stays one.

    Raises
    ------
    ServiceError
        When a unit of the name is there that is not ours, or the unit could not work (:func:`unit.render`).
    """
    beside = ((unit.PAGE, page), (unit.GATEWAY, gateway))
    names = [unit.NAME, *(name for name, wanted in beside if wanted or _is_there(root, name))]
    for name in names:
        if _is_there(root, name) and not unit.is_ours(_read(_under(root, UNITS / name))):
            raise ServiceError(f"{UNITS / name} is there and is not of lungstage's making. Move it away first.")
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
    """Return the steps that stop the services and take their units away; none where there is no unit.

    Raises
    ------
    ServiceError
        When a unit is not ours.
    """
    steps: list[Step] = []
    for name in (unit.GATEWAY, unit.PAGE, unit.NAME):
        if not _is_there(root, name):
            continue
        if not unit.is_ours(_read(_under(root, UNITS / name))):
            raise ServiceError(f"{UNITS / name} is not of lungstage's making, and is left as it is.")
        steps += [*_on_host(root, "disable", "--now", name), RemoveFile(UNITS / name)]
    return [*steps, *_on_host(root, "daemon-reload")] if steps else []


def check_host() -> None:
    """Make sure that this process may change the host's services.

    Raises
    ------
    Unavailable
        When it is not root's, or there is no systemd.
    """
    if not Path("/run/systemd/system").is_dir():
        raise Unavailable(
            "systemd does not run this machine, so there is nothing to install a service in. The container needs none."
        )
    if os.geteuid() != 0:
        raise Unavailable("Only root may change the services of this machine: try it with sudo, or with --dry-run.")


def perform(steps: Iterable[Step], root: Path = HOST) -> None:
    """Do the steps, in their order, below `root`.

    Raises
    ------
    Unavailable
        When a command fails; what was done before stays done, and the same call goes on from there.
    OSError
        When a file or a folder cannot be made.
    """
    for step in steps:
        match step:
            case Run(words):
                try:
                    subprocess.run(words, check=True)  # noqa: S603
                except (OSError, subprocess.CalledProcessError) as error:
                    raise Unavailable(f"`{step}` did not succeed ({error}).") from error
            case WriteFile(path, text):
                _write(_under(root, path), text)
            case RemoveFile(path):
                _under(root, path).unlink()
            case MakeFolder(path, owner, mode):
                folder = _under(root, path)
                folder.mkdir(parents=True)
                if root == HOST:
                    shutil.chown(folder, owner, owner)
                folder.chmod(mode)  # last, because a change of owner may clear the group's bit


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
