"""Fonts of the result page: PT Sans from the package, and system fonts for other characters.

PT Sans has Latin and Cyrillic letters. Other characters of a name (mainly Chinese, Japanese and Korean) are drawn from
a system font, glyph by glyph as outlines: embedding a font of 65,000 glyphs for three of them would be larger than the
whole page. Scripts whose letters change with their neighbours, or that run from right to left, are not drawn: a wrongly
drawn name is worse than a missing one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

_PACKAGE: Final = "fontpkg-pt-sans"
_FACES: Final = {"": "PT_Sans-Web-Regular.ttf", "B": "PT_Sans-Web-Bold.ttf"}

SYSTEM_FOLDERS: Final = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
"""Folders of the system fonts. The drawing processes may read them, and may write nowhere."""

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# Parts of the names of fonts with Chinese, Japanese or Korean glyphs, sans serif first. Other fonts are tried later.
_WITH_IDEOGRAPHS = ("notosanscjk", "sourcehansans", "notosans", "wqy", "droidsansfallback", "ipa", "takao", "nanum")
_MOST_FILES = 200
_MOST_BYTES = 64 * 2**20

# Scripts that can be drawn without shaping: separate letters, from left to right. Named by the first word of the
# letters' Unicode names.
_SIMPLE_SCRIPTS: Final = frozenset(
    {
        "LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "GEORGIAN", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA",
        "HALFWIDTH", "FULLWIDTH", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "MODIFIER",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """A font: the first in its file.

    Attributes
    ----------
    path
        Path of the file.
    """

    path: Path

    @cached_property
    def font(self) -> Any:
        """The font; its tables are read only when they are used."""
        from fontTools.ttLib import TTFont  # imported here, because not every command draws

        return TTFont(self.path, fontNumber=0, lazy=True, recalcTimestamp=False)

    @cached_property
    def glyphs(self) -> dict[int, str]:
        """Glyph names by character, for all characters of the font."""
        return dict(self.font.getBestCmap() or {})

    @cached_property
    def outlines(self) -> Any:
        """Glyphs by name; each can be drawn with a pen."""
        return self.font.getGlyphSet()

    @cached_property
    def units(self) -> float:
        """Outline units per em."""
        return float(self.font["head"].unitsPerEm)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def has(self, character: str) -> bool:
        """Whether the font has a glyph for a character."""
        return ord(character) in self.glyphs


def own_face(style: str = "") -> Face:
    """Return the font of the package; `style` is ``""`` or ``"B"`` for bold.

    Raises
    ------
    PackageNotFoundError
        The package of the font is not installed.
    """
    return _own_faces()[style]


@cache
def _own_faces() -> dict[str, Face]:
    package = distribution(_PACKAGE)
    return {
        style: Face(Path(str(package.locate_file(f"fontpkg_pt_sans/files/{name}")))) for style, name in _FACES.items()
    }


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive characters of one font.

    Attributes
    ----------
    text
        The characters.
    face
        A system font; None for the font of the package.
    """

    text: str
    face: Face | None = None


def runs(text: str) -> tuple[Run, ...] | None:
    """Split a text into runs of one font each; None if it cannot be displayed, or not correctly.

    Parameters
    ----------
    text
        Any text; it is composed (NFC) first.
    """
    text = unicodedata.normalize("NFC", text)
    own = own_face()
    strange = [character for character in dict.fromkeys(text) if not own.has(character)]
    if not strange:
        return (Run(text),) if text else ()
    if not all(_stands_alone(character) for character in strange):
        return None
    face = _of_system("".join(strange))
    if face is None:
        return None
    parted: list[Run] = []
    for character in text:
        of = None if own.has(character) else face
        if parted and parted[-1].face is of:
            parted[-1] = Run(parted[-1].text + character, of)
        else:
            parted.append(Run(character, of))
    return tuple(parted)


def _stands_alone(character: str) -> bool:
    if unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo", "Lm", "Nl", "Po", "Ps", "Pe", "So"):
        return False
    return unicodedata.name(character, "?").split()[0] in _SIMPLE_SCRIPTS


@lru_cache(maxsize=32)
def _of_system(characters: str) -> Face | None:
    """Find a system font that has all of these characters."""
    for face in _system_faces():
        try:
            if all(face.has(character) for character in characters):
                return face
        except Exception:  # noqa: S112  a damaged font file: try the next one
            continue
    return None


@cache
def _system_faces() -> tuple[Face, ...]:
    return tuple(_faces_in(SYSTEM_FOLDERS))


def _faces_in(folders: tuple[Path, ...]) -> Iterator[Face]:
    files = [
        Path(place) / name
        for folder in folders
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    ]

    def rank(path: Path) -> tuple[int, bool, str]:
        name = path.name.lower().replace("-", "")
        known = next((k for k, part in enumerate(_WITH_IDEOGRAPHS) if part in name), len(_WITH_IDEOGRAPHS))
        return known, "regular" not in name, str(path)

    for path in sorted(files, key=rank)[:_MOST_FILES]:
        with contextlib.suppress(OSError):
            if path.stat().st_size <= _MOST_BYTES:
                yield Face(path)


SAMPLES: Final = {"Chinese": "王小东", "Japanese": "山田たろう", "Korean": "김희중"}
"""Sample names in scripts that need a system font; ``lungstage doctor`` checks them."""
