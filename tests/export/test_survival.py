"""What the card of a survival bundle says, and what it must not say."""

from __future__ import annotations

import re

import pytest

from lungstage.appliance.contract.horizon import Horizon
from lungstage.export.bundle import pack
from lungstage.export.survival import survival
from lungstage.training.run import Run, prevalence
from tests.training.records import evaluation_record, followed

from .conftest import make_run
from .test_card import card_of

ENDPOINT = Horizon(2, "year").endpoint


@pytest.fixture(scope="module")
def run() -> Run:
    made = make_run(endpoint=ENDPOINT)
    made.record["survival"] = followed(evaluation_record(endpoint=ENDPOINT))["survival"]
    made.record["table"]["prevalence"] = 0.53
    return made


def test_the_card_tells_strata_concordance_calibration_and_who_was_lost(run: Run) -> None:
    card, record = card_of(run), run.record["survival"]
    own = record["methods"]["gl_rfe_dnn"]
    for told in (
        f"{record['lost']} were lost to follow-up before day 730", f"z {own['strata']['log_rank']['z']:.2f}",
        f"{own['concordance']['value']:.3f} (",
        "| tumour volume alone |", "| group 1 |", "Hosny et al. claim", "not reproduced",
        "53.0 % death within 2 years by Kaplan-Meier", "right in 53.0 %", "TNM group IV is absent",
        "It does not predict the cause or the time of death",
    ):  # fmt: skip
        assert told in card, told
    assert not re.search(r"\bstag(e|es|ed|ing)\b", card.replace("lungstage stage", ""), re.IGNORECASE)


def test_the_bundle_states_its_probabilities_at_the_share_of_all_patients(run: Run) -> None:
    contents, _ = pack(run, "made-up")
    assert b'"prevalence_advanced": 0.53,' in contents["manifest.json"]
    assert prevalence(run.record["table"]) == 0.53
    assert prevalence({"positives": 1, "used": 4}) == 0.25


def test_another_endpoint_has_no_such_section() -> None:
    assert survival(make_run()) == ""
    assert "Kaplan-Meier" not in card_of(make_run())
