"""The other tools that write some of the field cases, each in a separate environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

FOLDER = ROOT / ".peers"

ENVIRONMENTS = {
    "V1": ("field-dcmqi", ("dcmqi==1.5.7", "rt-utils==1.2.7", "pydicom>=3,<4")),
    # pydicom-seg needs pydicom<3, but its requirements do not state it.
    "V2": ("field-pydicom-seg", ("pydicom-seg==0.4.1", "pydicom<3", "numpy<2", "SimpleITK<3")),
}
"""For each environment: the variable that passes it to the cases, its folder, and the packages in it."""


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """Return an environment with exactly these requirements; create it if it is missing."""
    folder = FOLDER / name
    mark = folder / "ready"
    wanted = "\n".join(requirements)
    if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*install, *requirements], check=True)
        mark.write_text(wanted, encoding="utf-8")
    return folder


def prove_plastimatch() -> None:
    """Install Debian's plastimatch if it is missing; exit with a message if that is not possible."""
    if shutil.which("plastimatch"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "plastimatch"]
        subprocess.run(install, check=True, env=quiet, stdout=subprocess.DEVNULL)
    if not shutil.which("plastimatch"):
        sys.exit("plastimatch is missing. Install it (Debian: apt-get install plastimatch), then run make field again.")


def variables() -> dict[str, str]:
    """Return the environment variables that pass the tools to the cases; install missing tools."""
    prove_plastimatch()
    return {variable: str(environment(*place)) for variable, place in ENVIRONMENTS.items()}
