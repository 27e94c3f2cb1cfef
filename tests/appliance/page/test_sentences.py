"""The translations of the daemon's sentences are complete, and contain no sentence that the code no longer has."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import polib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.page.sentences import FOLDER, in_language
from tests.conftest import ROOT

LANGUAGES: tuple[Any, ...] = ("de", "fr")
ROOMS = (
    "config", "contract", "daemon", "dicom", "doctor", "intake", "page", "radiomics", "staging", "state", "workers",
)  # fmt: skip

SAYING = {"Refused": 1, "Held": 1, "Reason": 1, "missing": 0, "more_may_come": 0, "_outside": 0, "_ambiguous": 1,
          "Unavailable": 0, "ok": 1, "warning": 1, "problem": 1, "RequeueError": 0, "ExhaustedError": 0,
          "_unreadable": 0}  # fmt: skip
"""The calls that make a reason or a finding, with the number of the argument that is the message."""

HELPERS = {
    "the_region": "Region 'GTV-1'", "named": "'GTV-1'", "listed": "'GTV-1', 2 regions (names hidden for privacy)",
    "_listed": "'GTV-1'.", "whereabouts": "at z = -12.5 to 24 mm", "the_seg": "SEG 1.2.3", "are_missing": "are missing",
    "_described": "series 1.2.3 (12 slices of 3 mm)", "counted": "3 slices", "_export_again": (
        "Export the RTSTRUCT again from the series on which it was drawn. It must refer to the images of that series "
        "only; sending fewer series is not enough."
    ), "_takes": "and the model takes 0.5 to 5 mm", "str": "It took longer than 80 s.",
}  # fmt: skip
"""Example results of functions that are called within a message."""

NAMES = {
    "advice": "Send the CT series that it was drawn on.",
    "error": "It took longer than 80 s.",
    "every": "it is checked every 3 s",
    "known": " (3)",
    "lacking": "3 slices within the region are missing, at z = 3 mm.",
    "left_out": "",
    "local": "It is 3 here",
    "message": "No region was received for this CT series.",
    "none_there": "No region was received for this CT series.",
    "told": "They differ in 3",
    "what": "refers to 3 images, which",
    "when": " after resampling",
    "where": "at z = 3 mm",
    "which": "RTSTRUCT 1.2.3 and SEG 1.2.4",
}
"""Example values of variables in a message; all other variables get a number."""

ELSEWHERE = re.compile(
    # Messages that no study and no check of doctor has: about bundles, specs, tables and single files,
    r"The bundle|This version cannot make|The extraction spec|The covariates table|The reference engine|This file|"
    r"This DICOM file|3?The pixel data of|The key |.* is no key of|"
    # about one-shot commands,
    r"None of the files is|The input holds|The mask '|There is no state folder|There is no (audit log|ledger) in|"
    r"There is no file or folder|3 There is no other|3 What can be read|"
    r"'3' is neither a SEG|The SEG has 3 segments|There is no part 3|"
    # about a daemon or page that does not start,
    r"Another (daemon|page) is|No structured report appeared|The daemon did not start|The certificate|"
    r"There is no inbox|The inbox 3 cannot|The 3 (cannot|is not)|A process could not be set|"
    r".*cannot be opened for metrics|.*cannot be written: |.*Run the page as the daemon's user|.*names it\.$|"
    r".*with --bind\.$|"
    # and messages that are composed elsewhere, or of listed words (see below).
    r"[Tt]hey differ in 3|Job 3 is 3|Region 'GTV-1' has 3 slices 3( instead|,)|The ledger 3 cannot be used|"
    r"There is no 3 plane|The series (holds|contains) (refers|names)|Two contours of the region overlap on at|.*\.\.$|"
    r"3 You need not do anything|3 Names of the regions|(\W|3)*$|.*\[3\]$|"
    r"3 slices? that .* missing, at z = 3 mm\.$"
)


def templates_of(language: str) -> list[tuple[str, str, str]]:
    entries = polib.pofile(str(FOLDER / f"{language}.po"), encoding="utf-8")
    return [(entry.msgctxt or "", entry.msgid, entry.msgstr) for entry in entries]


@cache
def sources() -> dict[str, ast.Module]:
    return {
        f"lungstage.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}": ast.parse(path.read_text())
        for room in (*ROOMS, "report")
        for path in sorted((ROOT / "appliance" / room).glob("*.py"))
        if path.stem != "sentences"
    }


def written(node: ast.expr, module: str) -> str:
    """The text of a string in the code, with 3 for parts that are only known when the code runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part, module) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return written(node.left, module) + written(node.right, module)
    if isinstance(node, ast.FormattedValue):
        if node.format_spec is not None and not isinstance(node.value, ast.Call):
            return "3.5"
        return written(node.value, module)
    if isinstance(node, ast.Name):
        value = getattr(importlib.import_module(module), node.id, None)
        return value if isinstance(value, str) else NAMES.get(node.id, "3")
    if isinstance(node, ast.Call):
        return HELPERS.get(ast.unparse(node.func).rpartition(".")[2], "3")
    if isinstance(node, ast.IfExp):
        return written(node.body, module)
    if isinstance(node, ast.Attribute) and node.attr == "kind":
        return "RTSTRUCT"
    return "3"


def said() -> Iterator[str]:
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                place = SAYING.get(ast.unparse(node.func).rpartition(".")[2])
                if place is not None and len(node.args) > place:
                    message = written(node.args[place], module)
                    outside = ast.unparse(node.func) == "_outside"
                    yield f"The model is not meant for this study: {message}." if outside else message


def test_everything_that_the_daemon_says_of_a_study_is_said_in_every_language() -> None:
    messages = {message for message in said() if not ELSEWHERE.match(message)}
    assert len(messages) > 150
    for language in LANGUAGES:
        unsaid = sorted(message for message in messages if in_language(message, language) is None)
        assert unsaid == [], f"write it into {FOLDER}/{language}.po"


def test_nothing_is_kept_that_is_said_no_more() -> None:
    strings = [
        written(node, module)
        for module, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.JoinedStr, ast.Constant)) and isinstance(getattr(node, "value", ""), str)
    ]
    text = "\n".join(" ".join(string.split()) for string in strings)
    for kind, template, _ in templates_of("de"):
        if kind:
            continue
        for literal in re.split(r"\{\w+\}", template):
            words = literal.split()
            threes = [" ".join(words[k : k + 3]).strip(".,:;()'") for k in range(len(words) - 2)]
            found = sum(three in text for three in threes)  # only half, because the code composes some sentences
            assert len(threes) < 3 or 2 * found >= len(threes), f"{template}: the code does not say {literal!r}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_filled_in_is_filled_in_everywhere(language: str) -> None:
    for kind, template, translation in templates_of(language):
        wanted, filled = (set(re.findall(r"\{(\w+)\}", text)) for text in (template, translation))
        assert filled <= wanted, template
        assert {name for name in wanted - filled if name != "are"} == set(), template
        assert translation.strip() == translation != "", (kind, template)


def test_all_languages_know_the_same() -> None:
    first, *others = ([(kind, template) for kind, template, _ in templates_of(language)] for language in LANGUAGES)
    assert len({*first}) == len(first)
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("message", "spoken"),
    [
        (
            "2 of the 12 slices that 'GTV-1' needs are missing, at z = -12.5 to 24 mm."
            " Send the whole CT series again from the PACS.",
            "Noch nicht da: 2 von 12 Schichten, die 'GTV-1' braucht, bei z = -12.5 bis 24 mm."
            " Die ganze CT-Serie noch einmal aus dem PACS senden.",
        ),
        (
            "Choose one of these: 'GTV 1.5', 'CTV', 1 region (name hidden for privacy).",
            "Eine von diesen wählen: 'GTV 1.5', 'CTV', 1 Region (Name aus Datenschutz nicht gezeigt).",
        ),
        ("/srv/in box/v1.2 can be read.", "/srv/in box/v1.2 ist lesbar."),
        (
            "Slices next to the region may still arrive. You need not do anything: the case continues by itself, at the"
            " latest at 2026-11-30 05:00:00+01:00.",
            "Schichten neben der Region können noch kommen. Es ist nichts zu tun: der Fall geht von selbst weiter,"
            " spätestens um 2026-11-30 05:00:00+01:00.",
        ),
        (
            "Job 3 is claimed; only delivered, refused and held jobs can be requeued.",
            "Auftrag 3 ist in Arbeit; noch einmal verarbeitet wird nur, was zugestellt, abgelehnt oder zurückgehalten"
            " ist.",
        ),
        ("There is no coronal plane 7.", "Diese Ebene gibt es nicht: koronar 7."),
        (
            "The ledger /srv/state/ledger.sqlite cannot be used at the moment: its disk is full.",
            "Das Auftragsbuch /srv/state/ledger.sqlite ist im Moment nicht verwendbar: sein Datenträger ist voll.",
        ),
        (
            "Region 'GTV-1' has 1 contour marked as points (POINT) instead of closed (Contour Geometric Type,"
            " 3006,0042).",
            "Region 'GTV-1' hat 1 Kontur, als Punkte gekennzeichnet (POINT) statt geschlossen (Contour Geometric Type,"
            " 3006,0042).",
        ),
        (
            "Two contours of the region overlap on slice 1.2.3. Draw it, and export again.",
            "Zwei Konturen der Region überlappen auf Schicht 1.2.3. Sie zeichnen und noch einmal exportieren.",
        ),
    ],
)
def test_numbers_places_and_names_are_taken_over(message: str, spoken: str) -> None:
    assert in_language(message, "de") == spoken
    assert in_language(message, "en") == message


@pytest.mark.parametrize(
    "message",
    [
        "Something new happened.", "Something new happened. Send the CT series that it was drawn on.",
        "Send the CT series that it was drawn on. Something new happened.", "Something new. /srv/inbox can be read.",
    ],
)  # fmt: skip
def test_what_is_not_wholly_known_is_not_said_in_halves(message: str) -> None:
    assert in_language(message, "de") is None


@given(st.text(max_size=80))
def test_any_text_is_said_or_left_as_it_is(text: str) -> None:
    for language in LANGUAGES:
        spoken = in_language(f"{text}. No region was received for this CT series.", language)
        assert spoken is None or isinstance(spoken, str)


def test_the_catalogues_are_packed() -> None:
    assert {path.stem for path in Path(FOLDER).glob("*.po")} == {*LANGUAGES}
