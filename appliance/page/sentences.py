"""The daemon's sentences in the reader's language.

Ledger and audit log contain them in English, with numbers and places filled in. A catalogue contains their English
templates. The name of a place-holder gives the kind of its text. A sentence that is in no catalogue stays English.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

import polib

from lungstage.appliance.contract.documents import Language

FOLDER: Final = Path(__file__).parent / "languages" / "sentences"

_PRIMITIVES: Final = {
    "count": r"\d+",
    "number": r"[+-]?\d[\d.e+-]*",
    "uid": r"[\d.]+",
    "kind": r"RTSTRUCT|SEG",
    "name": r"[^']{1,80}",
    "are": r"is|are",
    "text": r"(?:(?!\. ).)+?",
}
"""Patterns of place-holders that are the same in every language; ``count_2`` is of the kind ``count``."""

_LISTS: Final = {"names": "listed", "series": "described"}
"""Kinds that are lists of another kind, separated by commas."""

_PLACE_HOLDER = re.compile(r"\{([a-z]+(?:_\d)?)\}")


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A pattern of an English text, and its translation."""

    pattern: re.Pattern[str]
    text: str


class _Catalogue:
    """The phrases of one language by kind; the empty kind contains whole sentences."""

    def __init__(self, language: Language) -> None:
        self._templates: dict[str, list[tuple[str, str]]] = {}
        for entry in polib.pofile(str(FOLDER / f"{language}.po"), encoding="utf-8"):
            self._templates.setdefault(entry.msgctxt or "", []).append((entry.msgid, entry.msgstr))
        self._phrases = {
            # The template with most literal text is tried first.
            kind: [_Phrase(self._pattern(english), own) for english, own in sorted(templates, key=_literal_length)]
            for kind, templates in self._templates.items()
        }

    def whole(self, message: str) -> str | None:
        """Translate one sentence after the other; None if one of them is not known."""
        said: list[str] = []
        while message:
            for phrase in self._phrases[""]:
                found = phrase.pattern.match(message)
                if found is not None:
                    said.append(self._filled(phrase, found))
                    message = message[found.end() :].lstrip()
                    break
            else:
                return None
        return " ".join(said)

    def _filled(self, phrase: _Phrase, found: re.Match[str]) -> str:
        return phrase.text.format(**{name: self._part(name, value) for name, value in found.groupdict().items()})

    def _part(self, name: str, value: str) -> str:
        kind = name.partition("_")[0]
        if kind in _LISTS:
            return ", ".join(self._part(_LISTS[kind], one) for one in value.split(", "))
        for phrase in self._phrases.get(kind, ()):
            if found := phrase.pattern.fullmatch(value):
                return self._filled(phrase, found)
        return value

    def _pattern(self, template: str) -> re.Pattern[str]:
        return re.compile(self._regex(template, named=True) + r"(?=\s|\Z)", re.DOTALL)

    def _regex(self, template: str, *, named: bool) -> str:
        literals = _PLACE_HOLDER.split(template)
        parts = [re.escape(literals[0])]
        for name, literal in zip(literals[1::2], literals[2::2], strict=True):
            group = f"(?P<{name}>" if named else "(?:"
            parts += [group, self._of_kind(name.partition("_")[0]), ")", re.escape(literal)]
        return "".join(parts)

    def _of_kind(self, kind: str) -> str:
        if kind in _LISTS:
            return ".+?"
        if kind in self._templates:
            return "|".join(self._regex(english, named=False) for english, _ in self._templates[kind])
        return _PRIMITIVES[kind]


def _literal_length(template: tuple[str, str]) -> int:
    return -len(_PLACE_HOLDER.sub("", template[0]))


@cache
def _catalogue(language: Language) -> _Catalogue:
    return _Catalogue(language)


@lru_cache(maxsize=2048)
def in_language(message: str, language: Language) -> str | None:
    """Translate a message of the daemon; None if it is not known.

    Parameters
    ----------
    message
        One or more sentences from ledger, audit log or doctor.
    language
        The reader's language.
    """
    return message if language == "en" else _catalogue(language).whole(message)
