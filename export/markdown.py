"""Numbers, lists and tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: Any) -> str:
    """Write a measured value to four significant digits, and a count in full."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(value: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * value:.1f} %"


def figure(entry: Any) -> str:
    """Write a value, with its interval if it has one; empty for None."""
    if entry is None:
        return ""
    if isinstance(entry, Mapping):
        return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
    return f"{entry:.3f}" if isinstance(entry, float) else str(entry)


def as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; every row must have as many cells as the head."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(items: Iterable[str]) -> str:
    """Write a list, one item per line."""
    return "\n".join(f"- {item}" for item in items)


def as_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Write sections of strings, numbers, booleans and lists as TOML. For these types JSON literals are valid TOML."""
    return "\n\n".join(
        "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in said.items())])
        for name, said in sections.items()
    )


def span(low: float, high: float) -> str:
    """Write a range."""
    return f"{number(low)} to {number(high)}"
