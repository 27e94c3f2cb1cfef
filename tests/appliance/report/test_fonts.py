"""A name is written with the page's font or a system font, or is left out; empty boxes never replace letters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lungstage.appliance.report import fonts
from lungstage.appliance.report.fonts import SAMPLES, Run, own_face, runs
from tests.support.pages import font_with


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system that only has the fonts that the test adds."""
    monkeypatch.setattr(fonts, "SYSTEM_FOLDERS", (tmp_path,))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    fonts._system_faces.cache_clear()
    fonts._of_system.cache_clear()


@pytest.mark.parametrize(
    "name", ["Müller, Jürgen", "Řehoř, Žaneta", "Иванов, Пётр", "Łącka, Święto", "Ōyama", "O'Neil-Ñ"]
)
def test_latin_and_cyrillic_need_no_font_of_the_system(name: str, system: Path) -> None:
    assert runs(name) == (Run(name),)


def test_letters_and_their_accents_apart_are_put_together(system: Path) -> None:
    assert runs("Mu\u0308ller") == (Run("Müller"),)


@pytest.mark.parametrize("name", SAMPLES.values())
def test_what_no_font_has_cannot_be_written(name: str, system: Path) -> None:
    assert runs(name) is None
    assert runs(f"Yamada {name}") is None


def test_a_font_of_the_system_helps_out_for_what_is_missing_and_no_more(system: Path) -> None:
    font_with("山田太郎", system / "kanji.ttf")
    parted = runs("Yamada 山田, T. 太郎")
    assert parted is not None
    assert [run.text for run in parted] == ["Yamada ", "山田", ", T. ", "太郎"]
    assert [run.face is None for run in parted] == [True, False, True, False]
    assert runs("山田花子") is None, "a part of a name must not be written alone"


def test_one_font_must_have_all_of_it(system: Path) -> None:
    font_with("山", system / "a.ttf")
    font_with("田", system / "b.ttf")
    assert runs("山田") is None


@pytest.mark.parametrize("name", ["قباني, نزار", "שרון, דבורה", "เจริญ", "शर्मा", "\u202eevil", "a\u0000b", "😀"])
def test_scripts_that_need_shaping_are_left_out_even_where_a_font_has_the_letters(name: str, system: Path) -> None:
    font_with("".join(sorted({c for c in name if ord(c) > 127})) or "x", system / "all.ttf")
    assert runs(name) is None


def test_files_in_disorder_and_such_as_are_no_fonts_are_passed_over(system: Path) -> None:
    (system / "broken.ttf").write_bytes(b"\0\1\0\0" + b"\xff" * 200)
    (system / "empty.otf").write_bytes(b"")
    (system / "folder.ttf").mkdir()
    (system / "dangling.ttf").symlink_to(system / "nowhere")
    font_with("山田", system / "z.ttf")
    assert runs("山田") is not None


def test_the_own_font_is_what_the_page_says_it_is() -> None:
    for style in ("", "B"):
        assert own_face(style).path.is_file()
        assert len(own_face(style).sha256) == 64
    assert own_face("").sha256 != own_face("B").sha256
