"""docs/command-line.md contains the text of ``--help``; the width of the terminal does not matter."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from tests.long.conformance.command_line import PAGE, PROGRAMS, every_command, reference

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_page_is_what_the_command_writes(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, columns)
    assert reference() == TEXT, "run `make command-line`"


def test_every_command_has_its_section_and_says_what_it_does() -> None:
    heads = re.findall(r"^##+ (lungstage.*)$", TEXT, re.MULTILINE)
    assert heads == [name for name, _ in every_command()]
    assert len(heads) > 30
    assert not [name for name, command in every_command() if not command.help]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_itself_names_the_same_commands(program: str) -> None:
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(PROGRAMS[program], ["--help"]).stdout
    (listed,) = re.findall(rf"^## {program}\n.*?^Commands: (.*?)\.$", TEXT, re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`([\w-]+)`", listed):
        assert re.search(rf"^\W*{command} ", shown, re.MULTILINE), command


@pytest.mark.parametrize(("program", "command"), [("lungstage", "run"), ("lungstage-export", "build")])
def test_help_itself_names_the_same_options(program: str, command: str) -> None:
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(PROGRAMS[program], [command, "--help"]).stdout
    section = TEXT.split(f"### {program} {command}\n")[1].split("\n##")[0]
    listed = re.findall(r"^\| `(?:-\w, )?(--[\w-]+)", section, re.MULTILINE)
    assert listed == [option for option in re.findall(r"^\W*(?:-\w)?\W*?(--[\w-]+)", shown, re.M) if option != "--help"]
