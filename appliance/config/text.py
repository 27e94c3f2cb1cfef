"""Write values for a person or a log: durations, and text that could control a terminal or name a patient."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

_FORMULA = ("=", "+", "-", "@")  # first characters that a spreadsheet takes for a formula


def in_words(duration: timedelta) -> str:
    """Write a duration in its two largest units."""
    left = max(int(duration.total_seconds()), 0)
    parts: list[str] = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def printable(text: str) -> str:
    """Replace characters that could control a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def cell(value: object) -> str:
    """Write a value for a cell of a CSV table, safe for a terminal and never a formula in a spreadsheet."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def path_hash(path: str) -> str:
    """Return a short hash that stands for a file in a log, because its path may contain a patient's name."""
    return hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
