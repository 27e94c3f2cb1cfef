"""The expected duration of a fit, which is shown before the fit starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lungstage.training.duration import expected_seconds, in_words
from lungstage.training.procedure import QUICK
from tests.training.tables import make_cohort


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.3, "about 5 seconds"),
        (44, "about 45 seconds"),
        (94, "about 95 seconds"),
        (100, "about 2 minutes"),
        (5300, "about 88 minutes"),
        (5400, "about 2 hours"),
        (40_000, "about 11 hours"),
    ],
)
def test_in_words(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


def test_more_of_everything_is_expected_to_take_longer() -> None:
    cohort = make_cohort(n=60)
    few = replace(QUICK, selection=replace(QUICK.selection, features=3))
    once = expected_seconds(cohort, few)
    assert 0 < once < expected_seconds(cohort, replace(few, repeats=10))
