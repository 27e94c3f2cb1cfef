"""Every sentence, word and code of the descriptors is known to the page and the report."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import lungstage.appliance.descriptors as room
from lungstage.appliance.descriptors.calibration import calibration
from lungstage.appliance.descriptors.definitions import DEFINITIONS, Worth
from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.descriptors.values import Descriptors
from lungstage.appliance.report import descriptor_items
from lungstage.appliance.report.descriptor_words import SENTENCES, described, in_words
from lungstage.appliance.report.translation import Translator
from tests.appliance.descriptors.shapes import ball

EN, DE = Translator("en"), Translator("de")
FILLED = {
    "mm": "1.5", "least": "10", "most": "3", "count": "2", "share": "12 %", "size": "T1a",
}  # fmt: skip


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_known_by_its_own_code(code: str) -> None:
    template = EN.template(f"minded.{code}")
    values = {name: value for name, value in FILLED.items() if f"{{{name}}}" in template}
    expected = DE.template(f"minded.{code}").format(**{k: v.replace(".", ",") for k, v in values.items()})
    assert in_words(template.format(**values), DE) == expected


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_that_the_catalogue_knows_is_one_that_is_said(code: str) -> None:
    """A sentence that is only changed in the code is not recognised, and is shown in English."""
    tree = ast.parse((Path(str(room.__file__)).parent / "describe.py").read_text(encoding="utf-8"))
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    said = "".join(value for value in constants if isinstance(value, str))
    pieces = [piece for piece in re.split(r"\{\w+\}", EN.template(f"minded.{code}")) if len(piece) > 8]
    assert pieces
    assert all(piece in said for piece in pieces)


def test_every_descriptor_and_every_word_has_a_code() -> None:
    assert descriptor_items.NUMBERS.keys() | {"t_size_class"} == {one.name for one in DEFINITIONS}
    words = {one.name: set(one.words) for one in DEFINITIONS if one.words}
    assert {name: set(codes) for name, (_, codes) in descriptor_items.WORDS.items()} == words
    names = list(descriptor_items.NAMES_BY_CODES.values())
    assert len(names) == len(set(names)) == len(DEFINITIONS) + len(words)
    for concept in descriptor_items.NUMBERS.values():
        assert len(concept.name.value) <= 16
        assert len(concept.name.meaning) <= 64


def test_json_comes_back_as_it_was() -> None:
    found = describe(*ball(12))
    assert Descriptors.of_json(found.as_json()) == found
    less = {key: value for key, value in found.as_json().items() if key != "air_share"}
    assert "air_share" not in {one.definition.name for one in Descriptors.of_json(less).found}


def test_what_is_worth_the_same_stands_together_each_told_once() -> None:
    assert described(None, EN) == ()
    groups = described(describe(*ball(12)), EN)
    assert [one.badge for one in groups] == [
        "exact for this outline", "agrees with readers of CT, not pathology", "computed, not validated",
    ]  # fmt: skip
    assert len(groups[1].items) == sum(one.worth is Worth.READERS for one in DEFINITIONS)
    for name, agreement in calibration().agreement.items():
        assert any(f"AUROC {agreement.auroc:.2f}, {agreement.lesions} lesions" in item for item in groups[1].items), (
            name
        )
    remarks = [remark for one in groups for remark in one.remarks]
    assert len(remarks) == len(set(remarks))
