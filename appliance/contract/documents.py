"""Which documents an answer is given in, and in which language those that people read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Format = Literal["sr", "pdf", "sc", "html"]
"""A structured report; one page as Encapsulated PDF, as Secondary Capture, as HTML."""

FORMATS: Final[tuple[Format, ...]] = get_args(Format)

Language = Literal["en", "de", "fr"]
"""A language of the page. The structured report is in codes, its texts in English."""

LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)


@dataclass(frozen=True, slots=True)
class DocumentOptions:
    """What a site wants.

    Attributes
    ----------
    formats
        Out of :data:`FORMATS`, in that order; the structured report is always among them.
    language
        Of the page.
    """

    formats: tuple[Format, ...] = ("sr", "pdf")
    language: Language = "en"

    @property
    def has_page(self) -> bool:
        """Whether there is a page to be drawn."""
        return any(name != "sr" for name in self.formats)


def language_of(name: str) -> Language:
    """Prove that a language is one of :data:`LANGUAGES`.

    Raises
    ------
    ValueError
        It is not.
    """
    for language in LANGUAGES:
        if name == language:
            return language
    raise ValueError(f"there is no language {name}; there are {', '.join(LANGUAGES)}")


def formats_of(names: Iterable[object]) -> tuple[Format, ...]:
    """Order formats by their names; the structured report joins them where it is not named.

    Raises
    ------
    ValueError
        One is not known.
    """
    wanted = {"sr", *(str(name).strip().lower() for name in names)}
    if unknown := wanted - {*FORMATS}:
        raise ValueError(f"there is no format {', '.join(sorted(unknown))}; there are {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in wanted)
