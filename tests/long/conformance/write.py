"""Write the generated parts of ``docs/conformance.md`` again: ``make conformance``."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from tests.long.conformance.tables import TABLES

PAGE = ROOT / "docs" / "conformance.md"
_PART = re.compile(r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end>\n<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """Return the page with all generated parts as the current code makes them."""
    return _PART.sub(lambda part: part["begin"] + TABLES[part["name"]]() + part["end"], page)


def parts(page: str) -> list[str]:
    """Names of the generated parts, in order."""
    return [part["name"] for part in _PART.finditer(page)]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
