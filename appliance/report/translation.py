"""Words of the documents in the reader's language, from gettext catalogues that are keyed by codes.

The key of a message is a code (``answer.predicted``), not a sentence. English can therefore change without the other
languages, and the codes in DICOM documents depend on no language. The catalogues are the ``.po`` files in
``languages/``. They are compiled when they are first used.
"""

from __future__ import annotations

import gettext
import io
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import polib

from lungstage.appliance.contract.documents import Language

FOLDER: Final = Path(__file__).parent / "languages"

_NARROW_SPACE = "\u00a0"


@cache
def _catalogue(language: Language, folder: Path) -> gettext.GNUTranslations:
    source = polib.pofile(str(folder / f"{language}.po"), encoding="utf-8")
    return gettext.GNUTranslations(io.BytesIO(source.to_binary()))


@dataclass(frozen=True, slots=True)
class Translator:
    """Returns messages in one language.

    Attributes
    ----------
    language
        Language of the messages.
    folder
        Folder of the catalogues.
    """

    language: Language = "en"
    folder: Path = FOLDER

    def __call__(self, code: str, **values: object) -> str:
        """Return the message of a code, with its place-holders filled in.

        Parameters
        ----------
        code
            Identifier of the message.
        **values
            Values of the place-holders. ``count`` also decides between singular and plural.

        Raises
        ------
        KeyError
            The catalogue does not contain the code: an internal error.
        """
        return self.template(code, values.get("count")).format(**values)

    def template(self, code: str, count: object = None) -> str:
        """Return the message of a code, with its place-holders in braces.

        Raises
        ------
        KeyError
            As above.
        """
        catalogue = _catalogue(self.language, self.folder)
        text = catalogue.ngettext(code, code, count) if isinstance(count, int) else catalogue.gettext(code)
        if text == code:
            raise KeyError(f"the catalogue of {self.language} does not have the message {code}")
        return text

    def number(self, value: float, digits: int = 3) -> str:
        """Write a number with so many significant digits, in the way of the language.

        A number with more digits before the decimal mark is written in full: 24600, not 2.46e+04.
        """
        if not math.isfinite(value):
            return "–"
        if value == 0:
            return "0"
        exponent = math.floor(math.log10(abs(value)))
        if not -6 <= exponent < 9:
            return f"{value:.{digits - 1}e}".replace(".", self("number.decimal_mark")).replace("-", "−")
        rounded = round(value, digits - 1 - exponent)
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
        whole, _, fraction = f"{abs(rounded):.{decimals}f}".partition(".")
        if len(whole) > 4:
            whole = f"{int(whole):,}".replace(",", _NARROW_SPACE)
        written = f"{whole}{self('number.decimal_mark')}{fraction}" if fraction else whole
        return f"−{written}" if rounded < 0 else written

    def percent(self, share: float) -> str:
        """Write a share in [0, 1] in whole percent: 0 and 100 only for an exact 0 and 1, else ``< 1`` or ``> 99``."""
        whole = round(100 * share)
        if whole == 0 and share > 0:
            return f"< 1{_NARROW_SPACE}%"
        if whole == 100 and share < 1:
            return f"> 99{_NARROW_SPACE}%"
        return f"{whole}{_NARROW_SPACE}%"
