"""Warnings on the page are recognised by their sentences, sorted with the most serious first, and grouped."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pydicom import Dataset

import lungstage.appliance as appliance
from lungstage.appliance.dicom.completeness import NEVER_CAME, ONE_NEVER_CAME
from lungstage.appliance.dicom.linking import BY_POSITION, POSITION_ALONE
from lungstage.appliance.model.manifest import CovariateColumn, CovariateEntry
from lungstage.appliance.report import former
from lungstage.appliance.report.caveats import GRADES, Grade, caveats, recognise
from lungstage.appliance.report.translation import Translator
from lungstage.appliance.staging.covariates import known_covariates

EN, DE = Translator("en"), Translator("de")
ROOT = Path(str(appliance.__file__)).parent


def test_each_warning_is_known_by_its_own_code_with_what_it_quotes() -> None:
    assert recognise(NEVER_CAME.format(3)) == ("never_came", {"number": "3"})
    assert recognise(ONE_NEVER_CAME) == ("never_came_one", {})
    assert recognise(NEVER_CAME.format(3).replace("were not received", "never came").replace(
        "the received slices", "those that did")) == ("never_came", {"number": "3"})  # fmt: skip
    assert recognise(POSITION_ALONE) == ("position_alone", {})
    assert recognise(BY_POSITION) == ("by_position", {})
    for code in GRADES:
        sentence = EN.template(f"caveat.{code}")
        values = {
            name: f"<{name}>"
            for name in ("number", "names", "name", "levels", "kind", "elements", "agreeing", "count", "all", "asked")
            if f"{{{name}}}" in sentence
        }
        assert recognise(sentence.format(**values)) == (code, values)


def test_a_former_wording_keeps_its_code() -> None:
    for code, template in former.WARNINGS:
        assert code in GRADES
        values = {name: f"<{name}>" for name in re.findall(r"\{(\w+)\}", template)}
        assert recognise(template.format(**values)) == (code, values)
        assert set(values) == set(re.findall(r"\{(\w+)\}", EN.template(f"caveat.{code}")))


def sentences_of(path: Path) -> str:
    """All text constants of a module; of an f-string, the constant parts."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@pytest.mark.parametrize("code", [code for code in GRADES if not code.startswith("covariate")])
def test_a_warning_that_the_catalogue_knows_is_one_that_arises(code: str) -> None:
    """A sentence that is only changed in the code is not recognised, and is shown in English."""
    rooms = [*ROOT.glob("dicom/*.py"), *ROOT.glob("staging/*.py"), *ROOT.glob("report/headers.py")]
    said = "\n".join(map(sentences_of, rooms))
    pieces = [piece for piece in re.split(r"\{\w+\}", EN.template(f"caveat.{code}")) if len(piece) > 3]
    assert pieces
    assert all(piece in said for piece in pieces)


def test_the_warnings_of_covariates_are_known() -> None:
    age = CovariateEntry(
        name="age", levels=(), columns=(CovariateColumn(name="age", training_median=65.0, limits=(40.0, 80.0)),)
    )
    histology = CovariateEntry(
        name="histology",
        levels=("adenocarcinoma", "other"),
        columns=(CovariateColumn(name="histology=other", training_median=0.0, limits=(0.0, 1.0)),),
    )
    told = [
        *known_covariates([age, histology], Dataset(), {}).warnings,
        *known_covariates([age, histology], Dataset(), {"age": 95.0, "histology": "unheard of"}).warnings,
    ]
    assert [recognise(one)[0] for one in told] == [
        "covariate_unknown", "covariate_unknown", "covariate_beyond", "covariate_other",
    ]  # fmt: skip


def test_ten_measurements_outside_are_one_line_and_it_comes_first() -> None:
    told = caveats([BY_POSITION], [f"F{n}" for n in range(10)], ["GTV-2"], EN)
    assert [one.grade for one in told] == sorted(one.grade for one in told)
    assert "10 measurements" in told[0].text
    assert "and 7 more" in told[0].text
    assert told[0].grade is Grade.MODEL
    assert sum("outside the range" in one.text for one in told) == 1


def test_an_unknown_warning_is_shown_as_it_is_and_taken_seriously() -> None:
    (told,) = caveats(["The moon is full."], [], [], DE)
    assert (told.text, told.grade) == ("The moon is full.", Grade.MEASUREMENT)


def test_they_are_said_in_the_reader_s_language() -> None:
    (told,) = caveats([NEVER_CAME.format(7)], [], [], DE)
    assert told.text.startswith("7 aufgeführte Schichten wurden nicht empfangen")


def test_braces_in_what_a_warning_quotes_are_text() -> None:
    (told,) = caveats(["These features could not be computed: {x.__class__}."], [], [], EN)
    assert "{x.__class__}" in told.text
