"""The mark that says that a study is still being sent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.arrival import VOID_SECONDS, Mark

NAMES = st.text(min_size=1).filter(lambda name: "/" not in name and name not in (".", ".."))
MOMENTS = st.floats(0, 1e9)


@given(NAMES, st.text(), MOMENTS)
def test_what_is_written_is_read(folder: str, boot: str, at: float) -> None:
    mark = Mark(folder, boot, at)
    assert Mark.read(mark.as_text()) == mark


@given(MOMENTS, st.floats(-1e6, 1e6))
def test_it_holds_for_thirty_seconds_of_its_own_boot(at: float, later: float) -> None:
    mark, now = Mark("1.2", "a", at), at + later
    assert mark.holds("a", now) == (0 <= now - at <= VOID_SECONDS)
    assert not mark.holds("b", now)


@given(st.text())
def test_any_other_text_is_none(text: str) -> None:
    assert Mark.read(text) is None


@pytest.mark.parametrize("folder", ["", ".", "..", "../a", "a/b", 1, None])
def test_a_mark_names_a_folder_of_the_inbox_and_nothing_outside(folder: object) -> None:
    assert Mark.read(json.dumps({"folder": folder, "boot": "b", "at": 1.0})) is None


def test_a_text_that_is_nested_too_deeply_is_none() -> None:
    assert Mark.read("[" * 100_000) is None
