"""Weights of patients with a known outcome, and the estimator that they are compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lungstage.training.cohorts.survival import censoring_weights, kaplan_meier
from tests.training.freireich import MERCAPTOPURINE

HORIZON = 100.0
Followed = st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=2, max_size=60)


def _arrays(seen: list[tuple[int, bool]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    return np.array([days for days, _ in seen], dtype=np.float64), np.array([died for _, died in seen])


@given(Followed)
def test_the_weighted_share_of_events_is_that_of_kaplan_and_meier(seen: list[tuple[int, bool]]) -> None:
    days, died = _arrays(seen)
    assume(died.any())
    assume(days.max() >= HORIZON)  # otherwise no known patient can represent the last lost ones
    weights = censoring_weights(days, died, HORIZON)
    lost = ~died & (days < HORIZON)
    assert (weights[lost] == 0).all()
    assert (weights[~lost] >= 1).all()
    assert weights.sum() == pytest.approx(len(days))
    by_then = float(np.average(died & (days <= HORIZON), weights=weights))
    assert by_then == pytest.approx(1 - float(kaplan_meier(days, died).evaluate(HORIZON)), abs=1e-9)


@given(Followed)
def test_where_nobody_is_lost_each_stands_for_one(seen: list[tuple[int, bool]]) -> None:
    days, _ = _arrays(seen)
    assert (censoring_weights(days, np.ones(len(days), dtype=bool), HORIZON) == 1).all()
    assert (censoring_weights(days, days < HORIZON, HORIZON) == 1).all()


def test_a_published_estimate() -> None:
    """Freireich et al., Blood 21, 1963, as textbooks compute it: 0.857 at 6 weeks, 0.627 at 16, 0.448 at 23."""
    curve = kaplan_meier(*MERCAPTOPURINE)
    assert np.round(curve.evaluate(np.array([6.0, 16.0, 23.0])), 3).tolist() == [0.857, 0.627, 0.448]
