"""Write parts of the pages: tables, numbers, the machine's name."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows))


def times(ratio: float) -> str:
    """Write a ratio: two decimals below 2, one below 10, none from 10."""
    digits = 2 if ratio < 2 else 1 if ratio < 10 else 0
    return f"{ratio:.{digits}f}×"


def duration(milliseconds: float) -> str:
    """Write milliseconds with three significant digits; whole from 1000."""
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
