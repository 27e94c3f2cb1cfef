"""The texts of the software and its pages are plain English: short sentences, and one word for one thing.

``python -m tests.support.plain_english`` lists every violation. The counted texts, the banned words and the few
exceptions are in :mod:`tests.support.plain_english`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import plain_english
from tests.support.plain_english import (
    CATALOGUES,
    MOST_ARI,
    MOST_ARI_OF_A_PAGE,
    MOST_WORDS,
    MOST_WORDS_OF_A_PAGE,
    NOT_HELD,
    OF_THE_GLOSSARY,
    PAGES,
    Text,
    banned,
    glossary,
    readability,
    sentences,
    violations,
    words,
)

HELD = [path for path in PAGES if str(path.relative_to(ROOT)) not in NOT_HELD]


def report(texts: tuple[Text, ...], most_words: int, most_index: float) -> None:
    found, index = violations(texts, most_words), readability(texts)
    assert not found, "\n".join([f"{len(found)} sentences to rewrite:", *map(str, found)])
    assert index <= most_index, f"readability index {index:.1f}: shorter sentences, shorter words"


@pytest.mark.parametrize("name", CATALOGUES)
def test_sentences_of_the_software(name: str) -> None:
    texts = CATALOGUES[name]()
    assert len(texts) > 100, "the texts are no longer found"
    report(texts, MOST_WORDS, MOST_ARI[name])


@pytest.mark.parametrize("path", HELD, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(path: Path) -> None:
    report(plain_english.page(path), MOST_WORDS_OF_A_PAGE, MOST_ARI_OF_A_PAGE)


class TestCollection:
    """The checked texts are those that people read."""

    def test_messages_of_errors_warnings_and_log(self) -> None:
        places = {text.where.split(":")[0] for text in CATALOGUES["messages"]()}
        for path in (
            "appliance/dicom/completeness.py", "appliance/config/settings.py", "appliance/state/database.py",
            "appliance/report/sentences.py", "appliance/doctor/folders.py", "training/cohorts/cohort.py",
            "export/signing.py", "appliance/workers/confinement.py",
        ):  # fmt: skip
            assert path in places

    def test_help_of_the_three_programs(self) -> None:
        programs = {text.where.split("(")[1].split()[0].rstrip(")") for text in CATALOGUES["help"]()}
        assert programs == {"lungstage", "lungstage-train", "lungstage-export"}

    def test_a_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plain_english, "ROOT", tmp_path)
        page = tmp_path / "page.md"
        page.write_text(
            "# Head\n\nOne `a b` [link](b.md)\nand **more**.\n\n- an item\n  goes on\n- next\n\n"
            "```\ntold\n```\n\n| cell | 1 |\n|---|---|\n"
        )
        found = plain_english.page(page)
        assert [(one.where, one.text) for one in found] == [
            ("page.md:1", "Head"), ("page.md:3", "One X link and more."), ("page.md:6", "an item goes on"),
            ("page.md:8", "next"), ("page.md:14", "cell"),
        ]  # fmt: skip


def test_what_a_sentence_is() -> None:
    assert sentences("One, e.g. this. Two (of 3)? 'Three'.") == ["One, e.g. this.", "Two (of 3)?", "'Three'."]
    assert len(words("It takes X mm - and/or 2.5 % of it.")) == 9


def test_what_is_not_used() -> None:
    found = [word for word, _ in banned("It is told of which one; proven, approved. A chance, by chance. His own.")]
    assert sorted(found) == ["chance", "of which", "proven", "told"]


def test_the_glossary_says_what_is_not_used() -> None:
    assert {*OF_THE_GLOSSARY} <= {*glossary()}
    texts = (Text("here", "Copy the exams into the drop folder."),)
    assert [one.what.split(" (")[0] for one in violations(texts, 25)] == ["'drop folder'", "'exam'"]
