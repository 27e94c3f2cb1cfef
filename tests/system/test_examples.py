"""The scripts in examples/ run without changes, are short, and use only public names."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PUBLIC = {"lungstage", "lungstage.appliance.staging"}  # of the latter only the phantom, which the Python API uses too


def run(name: str, folder: Path, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_it_is_short_and_says_what_it_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 40
    assert f"python examples/{path.name}" in (ast.get_docstring(tree) or ""), "how to run it"
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        assert {name for name in names if name.split(".")[0] == "lungstage"} <= PUBLIC


@pytest.mark.slow
def test_stage_a_study_and_read_its_report(tmp_path: Path) -> None:
    staged = run("stage_a_study.py", tmp_path)
    assert staged.startswith("Research use only. Predicted: ")
    (report,) = (tmp_path / "reports").glob("SR-*.dcm")
    assert f"Report: reports/{report.name}" in staged
    read = run("read_a_report.py", tmp_path, report)
    assert "Model probability of advanced stage (research): " in read
    assert "  Long axis: " in read


@pytest.mark.slow
def test_a_study_that_is_refused_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssertionError, match="no_dicom: "):
        run("stage_a_study.py", tmp_path, "empty")


@pytest.mark.slow
def test_select_features(tmp_path: Path) -> None:
    printed = run("select_features.py", tmp_path)
    assert printed.startswith("AUC with 5 of 30 features: 0.9")
    assert len(printed.splitlines()) == 6


def test_every_example_is_run() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [path.name for path in EXAMPLES if f'run("{path.name}"' not in text]
