"""The names of survival endpoints with a horizon, and names that are not of this kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint
from lungstage.appliance.model.manifest import EndpointEntry
from lungstage.appliance.report.wording import wording


@given(st.integers(1, 36525))
def test_a_horizon_is_read_off_its_own_name_and_fits_a_bundle_and_a_code(days: int) -> None:
    horizon = Horizon.of_days(days)
    assert horizon is not None
    assert horizon.days == days
    assert Horizon.of(horizon.endpoint) == horizon
    endpoint = horizon.endpoint
    assert EndpointEntry(name=endpoint.name, negative=endpoint.negative, positive=endpoint.positive)
    words = wording(endpoint)
    for code in (words.predicted, words.probability, words.contribution, *words.classes.values()):
        assert len(code.value) <= 16
        assert len(code.meaning) <= 64


def test_two_years_are_two_years() -> None:
    horizon = Horizon.of_days(730)
    assert horizon == Horizon(2, "year")
    assert horizon.endpoint == Endpoint("survival at 2 years", "survival beyond 2 years", "death within 2 years")
    assert str(Horizon.of_days(365)) == "1 year"
    assert str(Horizon.of_days(90)) == "90 days"
    assert Horizon.of_days(182.5) is None


@pytest.mark.parametrize(
    "name", ["survival at 2 year", "survival at 0 years", "Survival at 2 years", "survival at 1 years"]
)
def test_what_is_nearly_such_a_name_is_none(name: str) -> None:
    assert Horizon.of_name(name) is None


def test_other_classes_under_the_name_are_another_endpoint() -> None:
    assert Horizon.of(STAGE_GROUP) is None
    assert Horizon.of(Endpoint("survival at 2 years", "alive", "dead")) is None
    turned = Endpoint("survival at 2 years", "death within 2 years", "survival beyond 2 years")
    assert Horizon.of(turned) is None
    codes = {str(wording(one).probability.value) for one in (turned, Horizon(2, "year").endpoint, STAGE_GROUP)}
    assert len(codes) == 3
    assert wording(Horizon(2, "year").endpoint).probability.value == "PDEATH-2Y"
