"""Writes the measurements of a target into its section of the page on reliability."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from tests.conftest import ROOT
from tests.long.benchmarks.extraction import processor, table

PAGE = ROOT / "docs" / "reliability.md"


def write(section: str, parts: Iterable[str]) -> None:
    """Replace a section, between its markers."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    assert pattern.search(text), f"{PAGE.name} has no section {section}"
    body = "\n\n".join([begin, *parts, end])
    PAGE.write_text(pattern.sub(lambda _: body, text), encoding="utf-8")


def machine() -> str:
    """Return the machine and its load."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores of {processor()}, shared with others (load averages at the end: {load}); "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}."
    )


def counts(headings: Sequence[str], counted: Mapping[str, int]) -> str:
    """A table of counts, the most frequent first."""
    rows = [[str(key), str(count)] for key, count in sorted(counted.items(), key=lambda item: -item[1])]
    return table(list(headings), rows)
