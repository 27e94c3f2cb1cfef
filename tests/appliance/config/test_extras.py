"""A library that is missing is named with the extra that brings it; a module of our own that is missing is a defect."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from lungstage.appliance.config.extras import NotInstalledError, needing

# What a plain installation is without.
WITHOUT = ("torch", "sklearn", "pandas", "scipy", "onnx", "distributed", "dask", "matplotlib", "jinja2", "joblib")


def test_the_library_and_its_extra_are_named() -> None:
    told = r"^no_such is not installed\. .* pip install 'lungstage\[training\]'$"
    with pytest.raises(NotInstalledError, match=told), needing("training"):
        importlib.import_module("no_such")


def test_a_module_of_ours_that_is_missing_is_our_defect() -> None:
    with pytest.raises(ModuleNotFoundError), needing("training"):
        importlib.import_module("lungstage.appliance.no_such")


def without_extras(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = f"""
import sys
sys.modules.update(dict.fromkeys({WITHOUT!r}))  # an import of None is ModuleNotFoundError
from lungstage.{command}.cli import main
sys.argv[0] = "lungstage"
main()
"""
    called = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(called, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("training", ("fit", "table.csv", "-o", "run")),
        ("training", ("evaluate", "table.csv", "-o", "run")),
        ("training", ("measure", "table.csv", "-o", "features.csv")),
        ("training", ("report", "run")),
        ("training", ("benchmark-selectors",)),
        ("export", ("build", "run", "-o", "bundle")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_without_its_extra_says_so_in_one_line(
    command: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("patient_id,path,roi\n")
    Path("run").mkdir()
    done = without_extras(command, *arguments)
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install 'lungstage[training]'")
    assert (done.returncode, done.stdout) == (2, "")


def test_what_needs_no_extra_goes_without(shipped_bundle: Path) -> None:
    assert without_extras("training", "fit", "--help").returncode == 0
    done = without_extras("export", "verify", shipped_bundle)
    assert (done.returncode, done.stderr) == (0, "")
