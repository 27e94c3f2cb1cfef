"""The sheet of a commissioning: JSON for programs, Markdown, and one HTML page to print and sign."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungstage.appliance.commissioning.plan import Thresholds
from lungstage.appliance.commissioning.protocol import Report
from lungstage.appliance.commissioning.verdict import Cell, Check

_NOTICE = "Research use only. Not a medical device. The names of cases come from the site's lists."
_SIGNATURES = ("done by", "checked by", "accepted for research use by")
_STYLE = (
    "@page{size:A4 landscape;margin:12mm}body{font:10pt sans-serif;margin:1em}table{border-collapse:collapse;"
    "margin:.4em 0}td,th{border:1px solid #999;padding:1px 5px;text-align:left}h1{font-size:15pt}h2{font-size:11pt}"
    ".fail{background:#f6c7c3}.warn{background:#fbe6b5}.pass{background:#d3ecd3}"
)


@dataclass(frozen=True, slots=True)
class _Heading:
    text: str
    level: int


@dataclass(frozen=True, slots=True)
class _Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_Block = _Heading | _Table | str


def write_sheets(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write the sheet as JSON, Markdown and HTML, with the time in the file names; return the paths in this order.

    Raises
    ------
    OSError
        When the folder cannot be written to, or contains a sheet of this time already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"commissioning-{report.at:%Y%m%dT%H%M%S}"
    forms = {"json": as_json(report), "md": as_markdown(report), "html": as_html(report)}
    paths = []
    for suffix, text in forms.items():
        paths.append(folder / f"{stem}.{suffix}")
        with paths[-1].open("x", encoding="utf-8") as file:
            file.write(text)
    return tuple(paths)


def as_json(report: Report) -> str:
    """Write everything in full precision; what is not defined is null."""
    content = {
        "title": report.title,
        "at": report.at.isoformat(timespec="seconds"),
        "verdict": report.verdict,
        "checks": [
            {"name": c.name, "verdict": c.verdict, "finding": c.finding, "rows": [_plain(row) for row in c.rows]}
            for c in report.checks
        ],
        "environment": dict(report.environment),
        "thresholds": report.thresholds.model_dump(),
        "files": dict(report.files),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(row: Mapping[str, Cell]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def as_markdown(report: Report) -> str:
    """Write the sheet in Markdown."""
    return "\n\n".join(_block_in_markdown(block) for block in _blocks(report)) + "\n"


def _block_in_markdown(block: _Block) -> str:
    if isinstance(block, _Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, str):
        return block
    lines = [block.head, ("---",) * len(block.head), *block.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def as_html(report: Report) -> str:
    """Write the sheet as one HTML page without scripts. It loads nothing."""
    body = "\n".join(_block_in_html(block) for block in _blocks(report))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(_title(report))}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _block_in_html(block: _Block) -> str:
    if isinstance(block, _Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, str):
        return f"<p>{html.escape(block)}</p>"
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.head)
    rows = "\n".join(f"<tr>{''.join(map(_cell_in_html, row))}</tr>" for row in block.rows)
    return f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"


def _cell_in_html(cell: str) -> str:
    colour = f' class="{cell}"' if cell in ("pass", "warn", "fail") else ""
    return f"<td{colour}>{html.escape(cell)}</td>"


def _title(report: Report) -> str:
    return f"Commissioning of lungstage{': ' if report.title else ''}{report.title}"


def _blocks(report: Report) -> Iterator[_Block]:
    yield _Heading(_title(report), 1)
    yield f"{report.at:%Y-%m-%d %H:%M %Z}. Verdict: {report.verdict}. {_NOTICE}"
    yield _Table(("check", "verdict", "finding"), tuple((c.name, c.verdict, c.finding) for c in report.checks))
    yield _Table(("signatures", "name", "date", "signature"), tuple((who, "", "", "") for who in _SIGNATURES))
    for check in report.checks:
        if check.rows:
            yield _Heading(f"{check.name[0].upper()}{check.name[1:]}", 2)
            yield _rows(check)
    yield _Heading("Versions", 2)
    yield _Table(("", "version"), tuple(report.environment.items()))
    yield _Heading("Thresholds", 2)
    yield _Table(("threshold", "value", "meaning"), tuple(_thresholds(report.thresholds)))
    yield _Heading("Files", 2)
    yield _Table(("file", "SHA-256"), tuple(report.files.items()))


def _rows(check: Check) -> _Table:
    return _Table(tuple(check.rows[0]), tuple(tuple(map(number, row.values())) for row in check.rows))


def _thresholds(thresholds: Thresholds) -> Iterator[tuple[str, str, str]]:
    for name, field in Thresholds.model_fields.items():
        yield name, number(getattr(thresholds, name)), field.description or ""


def number(value: Cell) -> str:
    """Write a value with four digits, a count in full, and a dash for a value that is not defined."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary(report: Report) -> Sequence[str]:
    """Write a line for each check, for a terminal."""
    return [f"{check.verdict:4}  {check.name}: {check.finding}" for check in report.checks]
