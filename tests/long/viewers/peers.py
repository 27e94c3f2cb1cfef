"""The software on a radiologist's side: Orthanc and Chromium of the system, OHIF and Playwright from registries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

FOLDER = ROOT / ".peers" / "viewers"
OHIF = "@ohif/app@3.13.2"
PLAYWRIGHT = "playwright==1.65.2"
PLUGINS = Path("/usr/share/orthanc/plugins")
# Debian installs Orthanc in a folder that is only on root's PATH.
os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
_SYSTEM = {"Orthanc": "orthanc", "chromium": "chromium"}


def missing(programs: Mapping[str, str] = _SYSTEM) -> list[str]:
    """Return the Debian packages that must be installed first."""
    packages = [package for program, package in programs.items() if shutil.which(program) is None]
    return packages + ([] if (PLUGINS / "libOrthancDicomWeb.so").is_file() else ["orthanc-dicomweb"])


def fetch() -> Path:
    """Download what is missing, and return the folder of OHIF."""
    viewer, python = FOLDER / OHIF.rpartition("@")[2], FOLDER / PLAYWRIGHT.partition("==")[2]
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not viewer.is_dir():
        npm = ["npm", "pack", "--silent", OHIF]
        packed = subprocess.run(npm, cwd=FOLDER, check=True, capture_output=True, text=True).stdout.split()[-1]
        with tarfile.open(FOLDER / packed) as archive:
            archive.extractall(FOLDER / "unpacked", filter="data")
        (FOLDER / packed).unlink()
        (FOLDER / "unpacked").rename(viewer)
    if not python.is_dir():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--target", FOLDER / "coming", PLAYWRIGHT], check=True)
        (FOLDER / "coming").rename(python)
    sys.path.insert(0, str(python))
    return viewer / "package" / "dist"
