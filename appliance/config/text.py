"""How values are put for a person or a log: durations, and text that may steer a terminal or name a patient."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

_FORMULA = ("=", "+", "-", "@")  # by which a spreadsheet knows one


def in_words(duration: timedelta) -> str:
    """Say a duration in its two largest units."""
    left = max(int(duration.total_seconds()), 0)
    parts: list[str] = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def printable(text: str) -> str:
    """Replace what could steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def cell(value: object) -> str:
    """Write a value for a cell of a table: no text steers a terminal or, opened in a spreadsheet, is a formula."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def path_hash(path: str) -> str:
    """Return a short hash that names a file in a log; its own name may be a patient's."""
    return hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
