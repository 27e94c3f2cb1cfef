"""Run the blocks of code of a documentation page in order, like a reader who follows the page.

Shell blocks run in bash. Python blocks are one session, as in a notebook. A block of ``text`` is the output of the
block before it; ``...`` in it means any text.
"""

from __future__ import annotations

import doctest
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {"python", "sh", "text"}
_SESSION = """
import contextlib, io, json, sys, traceback
names, answers = {"__name__": "__main__"}, sys.stdout
for line in sys.stdin:
    printed, failure = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(json.loads(line), "block", "exec"), names)
        except Exception:
            failure = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failure]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One block: its language, its code, and what the page says that it prints (None: nothing)."""

    language: str
    code: str
    line: int
    shown: str | None = None


def blocks_of(page: Path) -> list[Block]:
    """Read a page; every block must be code that is run, or its output."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        language, code = match[1], match[2]
        assert language in _LANGUAGES, f"{page.name}: a block of {language or 'nothing'} is not run"
        if language == "text":
            assert found
            assert found[-1].shown is None
            found[-1] = replace(found[-1], shown=code)
        else:
            found.append(Block(language, code, text.count("\n", 0, match.start()) + 1))
    assert text.count("```") == 2 * (len(found) + sum(block.shown is not None for block in found)), (
        "a block is left out"
    )
    return found


def run_page(page: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Run every block of a page in a folder.

    Raises
    ------
    AssertionError
        A block failed, or did not print what the page says.
    """
    (folder.parent / "session.py").write_text(_SESSION)
    with subprocess.Popen(
        ["python", folder.parent / "session.py"], cwd=folder, env=dict(environment),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as python:  # fmt: skip
        for block in blocks_of(page):
            printed = (
                _in_session(python, block.code)
                if block.language == "python"
                else _in_bash(block.code, folder, environment)
            )
            if block.shown is not None:
                assert doctest.OutputChecker().check_output(
                    block.shown, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                ), f"{page.name}, line {block.line}: it shows\n{block.shown}but printed is\n{printed}"


def _in_session(python: subprocess.Popen[str], code: str) -> str:
    assert python.stdin is not None
    assert python.stdout is not None
    python.stdin.write(json.dumps(code) + "\n")
    python.stdin.flush()
    printed, failure = json.loads(python.stdout.readline())
    assert failure is None, f"{code}\n{failure}"
    return str(printed)


def _in_bash(code: str, folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=folder, env=dict(environment),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
    return done.stdout
