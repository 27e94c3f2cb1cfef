"""Make an environment for each library in the comparison of extraction: ``make peers``.

A library that needs a newer Python than lungstage's gets the one in ``PEERS_PYTHON``, or one on the path. If there is
none, no environment is made, and the page says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement

from tests.conftest import ROOT

FOLDER = ROOT / ".peers"
PYTHONS = ("python3.12", "python3.13")
# Packages that a library imports but does not declare.
UNDECLARED: Mapping[str, tuple[str, ...]] = {
    "flash-radiomics": (
        "h5py", "numpy", "pykwalify", "PyWavelets", "scikit-image", "scikit-learn", "scipy", "SimpleITK", "trimesh",
    )
}  # fmt: skip


def requirements() -> tuple[Requirement, ...]:
    """Return the pinned libraries."""
    lines = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
    return tuple(Requirement(line) for line in lines if not line.startswith("#"))


def interpreters() -> dict[str, str]:
    """Return the version of each Python that may be used, starting with the current one."""
    named = os.environ.get("PEERS_PYTHON")
    found: dict[str, str] = {}
    for python in (sys.executable, *([named] if named else []), *PYTHONS):
        program = "import platform; print(platform.python_version())"
        try:
            # A name on the path may be a version manager's stub without a Python, so each is tried.
            done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        found[python] = done.stdout.strip()
    return found


def suitable(requirement: Requirement, pythons: Mapping[str, str]) -> str | None:
    """Return the first Python with a version that a library accepts."""
    for python, version in pythons.items():
        short = ".".join(version.split(".")[:2])
        if requirement.marker is None or requirement.marker.evaluate({"python_version": short}):
            return python
    return None


def python_of(requirement: Requirement) -> Path:
    """Return a library's own interpreter."""
    return FOLDER / requirement.name / "bin" / "python"


def is_ready(requirement: Requirement) -> bool:
    """Whether the environment contains exactly this version."""
    mark = FOLDER / requirement.name / "ready"
    return mark.is_file() and mark.read_text(encoding="utf-8") == str(requirement)


def why_not(requirement: Requirement, pythons: Mapping[str, str]) -> str:
    """Return why a library has no environment."""
    if suitable(requirement, pythons) is None:
        return f"it needs {requirement.marker}, and no such Python was found; set `PEERS_PYTHON` to one"
    return "its environment could not be made; run `make peers` to see why"


def make(requirement: Requirement, python: str) -> None:
    """Make one environment, after deleting an old one."""
    folder = FOLDER / requirement.name
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    install = [python_of(requirement), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    others = UNDECLARED.get(requirement.name, ())
    subprocess.run([*install, f"{requirement.name}{requirement.specifier}", *others], check=True)
    (folder / "ready").write_text(str(requirement), encoding="utf-8")


def main() -> None:
    """Make the missing environments; exit with status 1 if one could not be made."""
    pythons = interpreters()
    failed = []
    for requirement in requirements():
        if is_ready(requirement):
            continue
        python = suitable(requirement, pythons)
        if python is None:
            print(f"{requirement.name} is left out: {why_not(requirement, pythons)}.")
            continue
        try:
            make(requirement, python)
        except subprocess.CalledProcessError as error:
            failed.append(f"{requirement.name}: {error}")
    sys.exit("\n".join(failed) or None)


if __name__ == "__main__":
    main()
