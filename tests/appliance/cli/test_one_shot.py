"""What ``lungstage stage`` shows a person at the end, such as the place of the documents."""

from __future__ import annotations

from lungstage.appliance.cli.one_shot import in_words
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.staging.outcome import outcome


def test_the_page_of_a_refusal_is_found() -> None:
    refused = outcome(status="refused", reason=Reason(ReasonCode.NO_ROI, "There is no region."))
    assert in_words(refused) == "refused: There is no region. [no_roi]"
    told = in_words(refused | {"documents": {"pdf": "out/PDF-2.25.1.dcm", "sc": "out/SC-2.25.2.dcm"}})
    assert told.splitlines()[1:] == ["page (PDF): out/PDF-2.25.1.dcm", "page (picture): out/SC-2.25.2.dcm"]


def test_why_not_to_trust_an_answer_stands_before_it() -> None:
    """As in the report, all warnings come before any number, also those of the domain and of other tumours."""
    staged = outcome(status="staged", reason=None) | {
        "warnings": ["The contours were matched by geometry."], "stage": "early", "probability_advanced": 0.25,
        "roi": {"name": "GTV", "voxels": 8, "volume_mm3": 8.0, "others": [{"number": 2, "name": "GTVn"}]},
        "domain": {"outside": ["original_shape_MeshVolume"]}, "contributions": {"original_shape_MeshVolume": -1.0},
    }  # fmt: skip
    lines = in_words(staged).splitlines()
    assert [line.partition(": ")[0] for line in lines[:4]] == ["warning", "warning", "warning", "region"]
    assert "original_shape_MeshVolume" in lines[0]
    assert "GTVn" in lines[1]


def test_the_chance_of_being_right_and_what_the_model_is_worth_follow_the_probability() -> None:
    decision = {
        "prevalence": 0.17, "prevalence_of": "site", "negative_up_to": 0.1, "positive_from": None, "withheld": False,
    }  # fmt: skip
    value = {
        "value": 0.92, "low": 0.87, "high": 0.95, "patients": 160, "positives": 98, "negatives": 62, "cohort": "LUNG1",
        "positive": "advanced", "negative": "early",
    }  # fmt: skip
    staged = outcome(status="staged") | {
        "stage": "early", "probability_advanced": 0.05, "domain": {"outside": []}, "contributions": {},
        "roi": {"name": "GTV", "voxels": 8, "volume_mm3": 8.0, "others": []}, "decision": decision,
        "predictive_value": value, "worth": {"sentence": "This model is not shown to be better than chance."},
    }  # fmt: skip
    lines = in_words(staged).splitlines()
    assert (
        "probability that this answer is right, at this site's prevalence of 17 %: 92 % (87 to 95 %), computed from "
        "160 patients of LUNG1 (62 early, 98 advanced), each answered by models that had not seen them"
    ) in lines
    assert "This model is not shown to be better than chance." in lines
    unknown = in_words(staged | {"predictive_value": None})
    assert "prevalence of 17 %: not known, because the bundle does not contain it" in unknown
    held_back = staged | {"stage": "indeterminate", "predictive_value": None, "decision": decision | {"withheld": True}}
    assert "is not shown to be right often enough at this site's prevalence of 17 %" in in_words(held_back)
