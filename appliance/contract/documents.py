"""The documents that an answer is written in, and the language of those that people read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Format = Literal["sr", "pdf", "sc", "html"]
"""A structured report; and one page as Encapsulated PDF, as Secondary Capture, or as HTML."""

FORMATS: Final[tuple[Format, ...]] = get_args(Format)

Language = Literal["en", "de", "fr"]
"""A language of the page. The structured report consists of codes, and its texts are in English."""

LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)


@dataclass(frozen=True, slots=True)
class DocumentOptions:
    """The documents that a site wants.

    Attributes
    ----------
    formats
        Some of :data:`FORMATS`, in that order; the structured report is always one of them.
    language
        Language of the page.
    """

    formats: tuple[Format, ...] = ("sr", "pdf")
    language: Language = "en"

    @property
    def has_page(self) -> bool:
        """Whether a page must be drawn."""
        return any(name != "sr" for name in self.formats)


def language_of(name: str) -> Language:
    """Return the language of that name.

    Raises
    ------
    ValueError
        It is not one of :data:`LANGUAGES`.
    """
    for language in LANGUAGES:
        if name == language:
            return language
    raise ValueError(f"unknown language {name}; use one of {', '.join(LANGUAGES)}")


def formats_of(names: Iterable[object]) -> tuple[Format, ...]:
    """Return formats by their names, in the order of :data:`FORMATS`; the structured report is added if not named.

    Raises
    ------
    ValueError
        A format is unknown.
    """
    wanted = {"sr", *(str(name).strip().lower() for name in names)}
    if unknown := wanted - {*FORMATS}:
        raise ValueError(f"unknown format {', '.join(sorted(unknown))}; use one or more of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in wanted)
