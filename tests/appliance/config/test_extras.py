"""A missing library is named with the extra that installs it; a missing module of lungstage is an internal error."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lungstage.appliance.config.extras import NotInstalledError, needing

# The libraries that an installation without extras does not have.
WITHOUT = ("torch", "sklearn", "pandas", "scipy", "onnx", "distributed", "dask", "matplotlib", "jinja2", "joblib")


def test_the_library_and_its_extra_are_named() -> None:
    told = r"^no_such is not installed\. .* pip install 'lungstage\[training\]'$"
    with pytest.raises(NotInstalledError, match=told), needing("training"):
        importlib.import_module("no_such")


def test_a_module_of_ours_that_is_missing_is_our_defect() -> None:
    with pytest.raises(ModuleNotFoundError), needing("training"):
        importlib.import_module("lungstage.appliance.no_such")


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    told: str


PROGRAM = f"""
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys({WITHOUT!r}))  # an import of None is ModuleNotFoundError
became = []
for package, *arguments in json.loads(sys.argv[1]):
    out, told, status = io.StringIO(), io.StringIO(), 0
    sys.argv = ["lungstage", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        try:
            __import__(f"lungstage.{{package}}.cli", fromlist=["main"]).main()
        except SystemExit as end:
            status = end.code or 0
    became.append([status, out.getvalue(), told.getvalue()])
json.dump(became, sys.stdout)
"""


def without_extras(folder: Path, *commands: tuple[str, ...]) -> list[Done]:
    """Run commands one after the other, in one process, in `folder`."""
    called = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(called, capture_output=True, text=True, timeout=60, check=True, cwd=folder)
    assert done.stderr == ""
    return [Done(*became) for became in json.loads(done.stdout)]


def test_a_command_without_its_extra_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("patient_id,path,roi\n")
    (tmp_path / "run").mkdir()
    commands = [
        ("training", "fit", "table.csv", "-o", "run"),
        ("training", "evaluate", "table.csv", "-o", "run"),
        ("training", "measure", "table.csv", "-o", "features.csv"),
        ("training", "report", "run"),
        ("training", "benchmark-selectors"),
        ("export", "build", "run", "-o", "bundle"),
    ]
    for command, done in zip(commands, without_extras(tmp_path, *commands), strict=True):
        (line,) = done.told.splitlines()
        assert line.endswith("pip install 'lungstage[training]'"), command
        assert (done.status, done.out) == (2, ""), command


def test_what_needs_no_extra_goes_without(shipped_bundle: Path, tmp_path: Path) -> None:
    asked, verified = without_extras(tmp_path, ("training", "fit", "--help"), ("export", "verify", str(shipped_bundle)))
    assert asked.status == 0
    assert (verified.status, verified.told) == (0, "")
