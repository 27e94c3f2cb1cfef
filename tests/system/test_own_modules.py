"""Users can have modules named ``training``, ``export`` or ``appliance``; they do not disturb lungstage."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lungstage.appliance.staging import phantom
from tests.conftest import ROOT

ROOMS = [path.name for top in ("appliance", "training") for path in (ROOT / top).iterdir() if path.is_dir()]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phantom.write_study(folder := tmp_path_factory.mktemp("phantom"))
    return folder


@pytest.fixture
def folder(study: Path, tmp_path: Path) -> Path:
    """A working folder with modules of all names inside lungstage; the import of any of them fails."""
    names = {"appliance", "training", "export", *ROOMS} - {"__pycache__"}
    for name in names - {"export"}:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('their own {name} was imported')\n")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").write_text("raise SystemExit('their own export was imported')\n")
    shutil.copytree(study, tmp_path / "study")
    return tmp_path


def run(folder: Path, *command: object) -> str:
    few = {"OMP_NUM_THREADS": "1", "LUNGSTAGE_PERTURBATIONS": "3", "LUNGSTAGE_FORMATS": "sr"}
    environment = {**os.environ, **few}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "their own" not in done.stderr
    return done.stdout


def test_they_are_in_the_way_indeed(folder: Path) -> None:
    for name in ("training", "export", "appliance"):
        done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=folder, stderr=subprocess.PIPE, check=False)
        assert done.stderr == f"their own {name} was imported\n".encode()


def test_the_appliance_stages(folder: Path) -> None:
    staging = ("stage", "study", "--bundle", "lung1-stage", "--out", "out", "--perturbations", "3", "--json")
    assert json.loads(run(folder, BIN / "lungstage", *staging))["status"] == "staged"
    (folder / "radiomics.py").unlink()  # the next command searches the folder first: this would hide PyRadiomics
    assert json.loads(run(folder, sys.executable, "-m", "lungstage.appliance.cli.main", *staging))["status"] == "staged"


def test_the_daemon_and_its_processes_work(folder: Path) -> None:
    """None of the processes imports from the folder, which could contain a ``numpy.py``."""
    (folder / "numpy.py").write_text("raise SystemExit('their own numpy was imported')\n")
    said = run(folder, BIN / "lungstage", "demo", "--out", "demo")
    assert "and read back" in said
    assert re.search(r"To see it in a browser .*lungstage page --inbox demo/inbox ", said)


@pytest.mark.parametrize("command", ["lungstage-train", "lungstage-export"])
def test_training_and_export_start(command: str, folder: Path) -> None:
    assert "Usage" in run(folder, BIN / command, "--help")


def test_processes_measure(folder: Path) -> None:
    (folder / "cohort.csv").write_text("patient_id,path,roi,stage\nA,study,,early\n")
    run(folder, BIN / "lungstage-train", "measure", "cohort.csv", "-o", "features.csv", "--workers", "1")
    (row,) = csv.DictReader((folder / "features.csv").read_text().splitlines())
    assert float(row["original_shape_MeshVolume"]) > 0


@pytest.mark.slow
def test_a_notebook_beside_its_own_training_searches_a_grid_with_gl_rfe(tmp_path: Path) -> None:
    """The example of docs/training.md with fewer patients; its processes import the estimator by its module's name."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    load = "X, y = load_breast_cancer(return_X_y=True, as_frame=True)\n"
    assert load in example
    example = example.replace(load, f"{load}X, y = X[:200], y[:200]\n")
    (tmp_path / "training.py").write_text("ANSWER = 42\n")
    (tmp_path / "notebook.py").write_text(f"import training\nassert training.ANSWER == 42\n{example}")
    chosen, *names = run(tmp_path, sys.executable, "notebook.py").splitlines()
    assert re.match(r"\{'select__n_features_to_select': (5|0\.5)\} 0\.9", chosen)
    assert len(names) in (5, 15)
    assert all(re.match(r"(mean|worst) |.* error", name) for name in names)


def test_the_example_of_the_readme_runs(folder: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (folder / "study").rename(folder / "STUDY")
    (folder / "radiomics.py").unlink()  # this file would hide PyRadiomics
    run(folder, sys.executable, "-c", f"{example}\nassert staged.sr.is_file() and len(measured.features) == 106")
