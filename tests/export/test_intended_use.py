from __future__ import annotations

from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.export.intended_use import BODY_PARTS, HU_RANGE, PIXEL_SPACING_MM, SLICE_THICKNESS_MM, intended_use

from .conftest import SURVIVAL

DOMAIN = {
    "quantiles": {"0.5": 1.0, "0.99": 3.0, "1": 4.0},
    "neighbour_quantiles": {"0.5": 0.5, "0.99": 1.0, "1": 1.5},
}


def test_limits_admit_the_chest_scans_at_hand_and_no_leg() -> None:
    assert {"LUNG", "CHEST"} <= set(BODY_PARTS)
    assert not {"EXTREMITY", "LEG", "WHOLEBODY", "ABDOMEN"} & set(BODY_PARTS)
    assert all(len(term) <= 16 and term == term.upper() for term in BODY_PARTS)  # value representation CS
    assert SLICE_THICKNESS_MM[0] < 3.0 < SLICE_THICKNESS_MM[1]
    assert PIXEL_SPACING_MM[0] < 0.9765625 < PIXEL_SPACING_MM[1]
    assert HU_RANGE[0] >= -1024


def test_distance_limits_follow_the_training_rows() -> None:
    use = intended_use(DOMAIN, STAGE_GROUP)
    assert (use.domain_distance_warn, use.domain_distance_max) == (3.0, 8.0)
    assert (use.neighbour_distance_warn, use.neighbour_distance_max) == (1.0, 3.0)


def test_another_endpoint_is_named_and_claims_no_stage() -> None:
    statement = intended_use(DOMAIN, SURVIVAL).statement
    assert "two-year survival (alive or dead)" in statement
    assert "stag" not in statement
    assert "staging" in intended_use(DOMAIN, STAGE_GROUP).statement
