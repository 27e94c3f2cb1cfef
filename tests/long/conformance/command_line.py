"""Write ``docs/command-line.md`` from the commands themselves: ``make command-line``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, Final

import typer
import typer.main

from lungstage.appliance.cli.main import app as lungstage
from lungstage.export.cli import app as lungstage_export
from lungstage.training.cli import app as lungstage_train
from tests.conftest import ROOT

PAGE: Final = ROOT / "docs" / "command-line.md"
PROGRAMS: Final = {"lungstage": lungstage, "lungstage-train": lungstage_train, "lungstage-export": lungstage_export}
HEAD: Final = """\
# Command line

Research use only; not a medical device. This page lists every command and every option of the three programs, with the
texts of `--help`. `make command-line` writes it from the code, so do not edit it. `<int>` or `FILE` after an option is
the kind of value that it takes.

- `lungstage` is for hospitals: it measures, answers, runs the daemon and maintains it.
- `lungstage-train` is for researchers: it measures cohorts, trains and evaluates. It needs the extra `training`.
- `lungstage-export` packs a trained model into a bundle. It needs the extra `training`.

`lungstage page` needs the extra `page`, and `lungstage gateway` the extra `gateway`: `pip install 'lungstage[page]'`.

Every command ends with one of these exit statuses:

| status | meaning |
|---|---|
| 0 | done |
| 1 | internal error; please report it |
| 2 | wrong usage: an option, an argument or a setting |
| 3 | the data or the bundle was refused or held, or a check failed |
| 4 | a file, folder, disk, port or server is not available |
"""


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command under its full name, then its commands."""
    yield name, command
    for below, one in getattr(command, "commands", {}).items():
        if not one.hidden:
            yield from commands(f"{name} {below}", one)


def every_command() -> Iterator[tuple[str, Any]]:
    """Yield every command of the three programs."""
    for name, app in PROGRAMS.items():
        yield from commands(name, typer.main.get_command(app))


def reference() -> str:
    """Return the page. It does not depend on the width of a terminal."""
    return "\n".join([HEAD, *(_section(name, command) for name, command in every_command())])


def _section(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    level = 2 if name in PROGRAMS else 3
    lines = [f"{'#' * level} {name}", "", _prose(command.help or ""), ""]
    lines += ["```", " ".join([name, *command.collect_usage_pieces(context)]), "```", ""]
    for kind, title in (("argument", "argument"), ("option", "option")):
        records = (one.get_help_record(context) for one in command.params if one.param_type_name == kind)
        rows = [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in filter(None, records)]
        if rows:
            lines += [f"| {title} | meaning |", "|---|---|", *rows, ""]
    if below := [f"`{one.name}`" for one in getattr(command, "commands", {}).values() if not one.hidden]:
        lines += [f"Commands: {', '.join(below)}.", ""]
    return "\n".join(lines)


def _prose(text: str) -> str:
    """Return a help text with each paragraph in one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n|\f", cleandoc(text)))


def _cell(text: str) -> str:
    """Return a text for a cell of a table: types without ``list`` and ``range``, choices without a bar.

    A bar within code is shown with its escape in one of GitHub and the site.
    """
    text = re.sub(r"<(?:list\[)?([^\[\]>]*?)(?: range)?\]?>", lambda kind: f"<{kind[1].lower()}>", text)
    text = re.sub(r"[^\s|<>]+(?:\|[^\s|<>]+)+", lambda choices: _either(choices[0].split("|")), text)
    return " ".join(text.split()).replace("|", "\\|")


def _either(choices: list[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
