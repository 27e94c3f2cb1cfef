"""The verdicts of the benchmark page, and that it says why a library is left out. Nothing is timed here."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.long.benchmarks import stock
from tests.long.benchmarks.bare import STATED, milliseconds
from tests.long.benchmarks.page import times
from tests.long.benchmarks.peers.environments import requirements, suitable, why_not
from tests.long.benchmarks.peers.inside import LIBRARIES, NAMES
from tests.long.benchmarks.peers.measure import OURS, Comparison, Row
from tests.long.benchmarks.peers.section import section
from tests.long.benchmarks.subjects import DIAMETERS, FAST_GRIDS, GRIDS
from tests.long.benchmarks.targets import BARS, CROPPED, TOUGHEST, WHOLE, every, summary, targets

NEWER = Requirement('pictologics==1.0 ; python_version >= "3.12"')
REASON = "it has no Python"


def made_up(theirs: float | None) -> tuple[list[stock.Row], Comparison]:
    """Rows in which lungstage takes 1 ms, PyRadiomics exactly the target ratio, and pictologics `theirs`."""
    fifteen, rows = [], []
    for grid in GRIDS:
        for n, diameter in enumerate(DIAMETERS):
            whole, crop = BARS[WHOLE][n], BARS[CROPPED][n]
            fifteen.append(stock.Row(grid, f"{diameter} mm", 1, whole, crop, 1.0, 0.1, 2.0, {"a": 1e-14}))
    for grid in FAST_GRIDS:
        for diameter in DIAMETERS:
            features = {name: dict.fromkeys(STATED, 2.0) for name in (OURS, TOUGHEST)}
            row = Row(grid, f"{diameter} mm", {OURS: [9.0, 1.0, 1.0]}, features)
            if theirs is not None:
                row.take(TOUGHEST, {"milliseconds": [theirs]})
            rows.append(row)
    about: dict[str, Any] = {"packages": {TOUGHEST: "1", "numpy": "2"}, "python": "3.12.0"}
    known = {} if theirs is None else {TOUGHEST: about}
    return fifteen, Comparison(rows, known, {} if known else {TOUGHEST: REASON}, {})


@pytest.mark.parametrize(
    ("theirs", "met", "word"),
    [
        (1.5, 21, "1.50×, met, aim met"),
        (1.0, 21, "1.00×, met, aim not met"),
        (0.999, 15, "0.999×, **not met**"),
        (None, 15, "not measured"),
    ],
)
def test_a_target_is_met_from_its_bar_on(theirs: float | None, met: int, word: str) -> None:
    fifteen, comparison = made_up(theirs)
    found = list(every(fifteen, comparison))
    assert len(found) == 21
    assert sum(target.met for target in found) == met
    assert targets(fifteen, comparison).count(word) == 6
    assert f"{met} of the 21 speed targets are met" in summary(fifteen, comparison)
    assert summary(fifteen, comparison).count(word) == 21 - met


def test_ratios_keep_the_digits_that_decide() -> None:
    assert [times(ratio) for ratio in (0.894, 1.03, 9.94, 63.6, 9109)] == ["0.89×", "1.03×", "9.9×", "64×", "9109×"]


def test_every_pinned_library_is_measured_and_has_the_stated_features() -> None:
    assert {one.name for one in requirements()} == set(LIBRARIES) == set(NAMES)
    assert {name: len(names) for name, names in NAMES.items()} == dict.fromkeys(NAMES, len(STATED))


def test_a_library_gets_the_first_python_that_it_accepts() -> None:
    assert suitable(Requirement("any==1"), {"ours": "3.11.7"}) == "ours"
    assert suitable(NEWER, {"ours": "3.11.7", "old": "3.9.18", "new": "3.12.1", "newest": "3.13.0"}) == "new"
    assert suitable(NEWER, {"ours": "3.11.7", "old": "3.9.18"}) is None
    assert "PEERS_PYTHON" in why_not(NEWER, {"ours": "3.11.7"})


def test_what_was_not_measured_is_said() -> None:
    _, comparison = made_up(None)
    assert f"pictologics is not measured here: {REASON}." in section(comparison)


def test_a_library_that_fails_is_no_fast_one() -> None:
    fifteen, comparison = made_up(1.5)
    comparison.rows[0].take(TOUGHEST, {"error": "ValueError: no"})
    assert "pictologics failed on 10 mm, native: `ValueError: no`" in section(comparison)
    assert targets(fifteen, comparison).count("not measured") == 1


def test_a_difference_has_a_sign_and_ours_for_its_unit() -> None:
    row = Row("native", "10 mm")
    row.take(OURS, {"features": {"a": -2.0, "b": 1.0}})
    row.take("other", {"features": {"a": -3.0}})
    assert row.difference("other", "a") == -0.5
    assert row.difference("other", "b") is None


@pytest.mark.parametrize(("seconds", "fewest", "most", "calls"), [(0.0, 3, 9, 3), (1e9, 1, 4, 4)])
def test_how_often_work_is_timed(seconds: float, fewest: int, most: int, calls: int) -> None:
    done: list[int] = []
    assert len(milliseconds(lambda: done.append(1), seconds, fewest, most)) == len(done) == calls
