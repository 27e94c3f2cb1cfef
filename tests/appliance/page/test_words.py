"""What the worklist says of an answer: the probability that it is right here, and the model's performance."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from lungstage.appliance.contract.documents import LANGUAGES, Language
from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.page.words import chance_of, descriptors_of, worth_of
from tests.appliance.descriptors.shapes import ball

VALUE = {
    "value": 0.92, "low": 0.87, "high": 0.95, "prevalence": 0.17, "patients": 160, "positives": 98, "negatives": 62,
    "positive": "dead", "negative": "alive", "cohort": "LUNG1",
}  # fmt: skip
DECISION = {
    "prevalence": 0.17, "prevalence_of": "site", "negative_up_to": 0.12, "positive_from": None, "withheld": False,
}  # fmt: skip
WORTH = {
    "shown": False, "sentence": "s", "auc": {"value": 0.704, "low": 0.617, "high": 0.784}, "beats_chance": True,
    "rival": "sphericity_volume", "rival_auc": {"value": 0.753, "low": 0.669, "high": 0.827}, "beats_rival": False,
}  # fmt: skip


def job(**outcome: Any) -> Any:
    return SimpleNamespace(outcome={"stage": "early", "endpoint": None, "decision": DECISION} | outcome)


def test_the_chance_is_told_with_prevalence_interval_and_source() -> None:
    told = " ".join(chance_of(job(predictive_value=VALUE), "en").split())
    assert told == (
        "Probability that this answer is correct at this site: 92 % (95 % interval 87 % to 95 %). It holds if 17 % of "
        "patients are such cases (setting of this site). Estimated on 160 patients of LUNG1 (62 early, 98 advanced), "
        "with models that were not trained on them."
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_endpoint_is_told_in_its_words(language: Language) -> None:
    endpoint = {"name": "two-year survival", "answer": "alive", "probability": 0.1}
    told = chance_of(job(stage=None, endpoint=endpoint, predictive_value=VALUE), language)
    assert "62 alive" in told
    assert not re.search(r"\bstag|\bstad|early|advanced|fr\u00fch|pr\u00e9coce", told.lower())


def test_what_is_not_known_is_said_to_be() -> None:
    assert chance_of(job(predictive_value=None), "en").startswith("It is not known how often such an answer is correct")
    assert chance_of(job(stage="indeterminate", predictive_value=None), "en") == ""
    withheld = job(stage="indeterminate", predictive_value=None, decision=DECISION | {"withheld": True})
    assert "The model does not decide" in chance_of(withheld, "en")
    assert (chance_of(SimpleNamespace(outcome=None), "en"), worth_of(SimpleNamespace(outcome={}), "en")) == ("", "")  # type: ignore[arg-type]


def test_a_model_that_is_not_shown_to_be_worth_anything_is_said_to_be_one() -> None:
    told = worth_of(job(worth=WORTH), "en")
    assert "two features (sphericity and volume). Its AUC in cross-validation is 0.704" in told
    assert "Sph\u00e4rizit\u00e4t und Volumen" in worth_of(job(worth=WORTH), "de")
    assert "0,704" in worth_of(job(worth=WORTH), "fr")
    assert worth_of(job(worth=WORTH | {"beats_rival": True, "shown": True}), "en") == ""
    unknown = dict.fromkeys(WORTH, None)
    assert "does not say" in worth_of(job(worth=unknown), "en")


def test_descriptors_are_told_with_what_they_are_worth_and_none_where_nobody_asked() -> None:
    found = describe(*ball(12)).as_json()
    exact, readers, computed = descriptors_of(job(descriptors=found), "de")
    assert exact.badge == "exakt f\u00fcr diese Kontur"
    assert exact.items[0] == f"lange Achse {found['long_axis_mm']:.1f} mm".replace(".", ",")
    assert readers.items[0].startswith("Textur: solide (")
    assert computed.badge == "berechnet, nicht validiert"
    assert descriptors_of(job(descriptors=None), "en") == descriptors_of(job(), "en") == ()
