"""``make field``: tests lungstage on every field case and on pairs of transformations; writes docs/field-cases.md.

The cases and the script that checks them are in the data folder (``$LUNGSTAGE_DATA/field-cases``). The exit status is 0
only if every case was checked, and no case and no pair is wrong.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.long.field import writers
from tests.long.field.pairs import Pairs, sample, tried

PAGE = ROOT / "docs" / "field-cases.md"
_RIGHT = {
    "mask": "measured: the true mask and HU",
    "refuse": "refused",
    "mask-or-refuse": "measured as the truth, or refused",
    "any": "either",
}
_INTRODUCTION = """\
# Field cases

Faulty or unusual files from practice. Each case rebuilds the file of a public report, on a phantom with known true mask
and HU. `make field` creates every study and runs `lungstage measure` on it. It compares the answer with the truth, and
writes this page. The cases are in the data folder (`LUNGSTAGE_DATA`), and are not part of this repository. Some files
are written by the tools themselves: dcmqi, rt-utils, pydicom-seg and plastimatch. `make field` installs these tools.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one case."""

    name: str
    is_right: bool
    said: str


def folder() -> Path:
    """Return the folder of the cases; exit with a message if they are missing."""
    found = Path(os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data")) / "field-cases"
    if not (found / "check.py").is_file():
        sys.exit(f"There are no field cases in {found}. Set LUNGSTAGE_DATA to the data folder.")
    return found


def judge(cases: Path, name: str, environment: dict[str, str]) -> Verdict:
    """Check one case; a case that could not be checked counts as wrong."""
    command = [sys.executable, str(cases / "check.py"), name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    line = next((line for line in done.stdout.splitlines() if f"{name} |" in line), "")
    said = line.partition("|")[2].strip() or f"not judged: {done.stderr.strip()[-300:]}"
    return Verdict(name, line.startswith("right") and done.returncode == 0, said)


def kind(script: Path) -> str:
    """Return the description of a case, from its docstring."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("Kind:")[2].partition("\nRight:")[0].split())


def page(cases: Path, index: dict[str, dict[str, str]], verdicts: list[Verdict], pairs: Pairs) -> str:
    """Write the table: each case, where it was reported, the expected result, and lungstage's result; and the pairs."""
    wrong = sum(not verdict.is_right for verdict in verdicts)
    lines = [_INTRODUCTION, f"{len(verdicts)} cases, {wrong} wrong.", ""]
    lines += ["| case | what it is | reported in | expected | lungstage | |", "|---|---|---|---|---|---|"]
    for verdict in verdicts:
        about = index[verdict.name]
        cells = (verdict.name, kind(cases / "cases" / f"{verdict.name}.py"), about["source"], _RIGHT[about["right"]])
        mark = "right" if verdict.is_right else "**wrong**"
        lines.append("| " + " | ".join(_cell(cell) for cell in (*cells, verdict.said, mark)) + " |")
    lines += ["", *pairs.lines]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    printed = "".join(c if c.isprintable() else f"\\{ord(c):o}" for c in text)  # a value's backslashes, in a docstring
    return printed.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Check all cases, or those that are named."""
    cases = folder()
    index = json.loads((cases / "cases.json").read_text(encoding="utf-8"))
    names = sys.argv[1:] or sorted(index)
    environment = {
        **os.environ,
        **writers.variables(),
        "LUNGSTAGE": str(Path(sys.executable).with_name("lungstage")),
        "BUNDLE": str(ROOT / "models" / "lung1-stage"),
    }
    verdicts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for verdict in pool.map(lambda name: judge(cases, name, environment), names):
            print("right  " if verdict.is_right else "WRONG  ", verdict.name, "|", verdict.said, flush=True)
            verdicts.append(verdict)
    wrong = sum(not verdict.is_right for verdict in verdicts)
    print(f"{wrong} not right, 0 skipped")
    if names == sorted(index):
        pairs = tried(sample())
        print(f"pairs: {pairs.tried} tried, {len(pairs.wrong)} wrong, in {pairs.minutes:.1f} minutes")
        PAGE.write_text(page(cases, index, verdicts, pairs), encoding="utf-8")
        wrong += len(pairs.wrong)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
