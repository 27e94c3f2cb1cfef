"""The catalogues: every language has all messages of the English one, with the same placeholders."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import polib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.documents import LANGUAGES, Language
from lungstage.appliance.descriptors.definitions import DEFINITIONS
from lungstage.appliance.report import translation
from lungstage.appliance.report.caveats import GRADES
from lungstage.appliance.report.descriptor_words import SENTENCES, word_code
from lungstage.appliance.report.fonts import own_face
from lungstage.appliance.report.plain_words import QUALITIES
from lungstage.appliance.report.translation import FOLDER, Translator

CATALOGUES = {
    language: {entry.msgid: entry for entry in polib.pofile(str(FOLDER / f"{language}.po"))} for language in LANGUAGES
}
ROOM = Path(translation.__file__).parent


def texts(entry: polib.POEntry) -> list[str]:
    return list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_says_all_of_it(language: Language) -> None:
    theirs = CATALOGUES[language]
    assert theirs.keys() == CATALOGUES["en"].keys()
    for code, entry in CATALOGUES["en"].items():
        wanted = set().union(*map(placeholders, texts(entry)))
        for text in texts(theirs[code]):
            assert text.strip(), code
            assert placeholders(text) == wanted, code
        assert bool(entry.msgid_plural) == bool(theirs[code].msgid_plural), code


def test_codes_that_the_code_uses_are_there_and_no_others() -> None:
    """Composed codes are those of qualities, degrees, warnings, views, windows, answers and so on."""
    literal: set[str] = set()
    for path in ROOM.glob("*.py"):
        literal |= {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[a-z_]+\.\w*[^_\W]", node.value)
        }
    composed = {f"quality.{word}" for one in QUALITIES.values() for word in (one.high, one.low)}
    composed |= {f"caveat.{code}" for code in GRADES}
    composed |= {f"minded.{code}" for code in SENTENCES} | {f"descriptor.{one.name}" for one in DEFINITIONS}
    composed |= {f"descriptor_word.{word_code(word)}" for one in DEFINITIONS for word in one.words}
    composed |= {f"survival.{what}_{unit}" for what in ("at", "beyond", "death") for unit in ("days", "years")}
    prefixes = ("degree.", "view.", "window.", "answer.", "covariate.")
    known = CATALOGUES["en"].keys()
    assert composed <= known
    assert {code for code in literal if code.split(".")[0] in {name.split(".")[0] for name in known}} <= known
    assert {code for code in known if not code.startswith(prefixes)} <= literal | composed


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_s_own_font_writes_every_message(language: Language) -> None:
    face = own_face()
    written = "".join(text for entry in CATALOGUES[language].values() for text in texts(entry))
    assert not [character for character in set(written) if not face.has(character)]


def test_a_code_that_is_none_is_a_defect() -> None:
    with pytest.raises(KeyError):
        Translator("de")("answer.no_such_thing")


@pytest.mark.parametrize(
    ("value", "english", "german"),
    [
        (0.764999, "0.765", "0,765"), (1276.4, "1280", "1280"), (24597.4, "24\u00a0600", "24\u00a0600"),
        (0.000595349, "0.000595", "0,000595"), (9.999, "10.0", "10,0"), (-3.456, "−3.46", "−3,46"),
        (0, "0", "0"), (float("nan"), "–", "–"), (6.02e23, "6.02e+23", "6,02e+23"), (1.5e-9, "1.50e−09", "1,50e−09"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits_in_the_reader_s_way(value: float, english: str, german: str) -> None:
    assert Translator("en").number(value) == english
    assert Translator("de").number(value) == german


@given(st.floats(-1e300, 1e300))
def test_a_number_is_never_told_further_off_than_its_digits(value: float) -> None:
    told = Translator("en").number(value).replace("\u00a0", "").replace("−", "-")
    assert float(told) == pytest.approx(value, rel=5.1e-3, abs=0)


@given(st.floats(0, 1))
def test_a_share_is_told_as_certain_only_where_it_is(share: float) -> None:
    told = Translator("en").percent(share).replace("\u00a0", " ")
    assert (told == "0 %") == (share == 0)
    assert (told == "100 %") == (share == 1)
