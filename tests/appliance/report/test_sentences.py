"""The sentences of a report are short, agree with the numbers beside them, and use the words of the endpoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.spec import ALL_FEATURES, FeatureVector, Stage
from lungstage.appliance.report import sentences
from lungstage.appliance.report.measurements import _percent
from lungstage.appliance.report.result_page import result_page
from lungstage.appliance.report.vocabulary import FEATURES_BY_CODES, plain_name
from tests.support.pages import page_context
from tests.support.reports import FEATURES, cohort, generated_sources, made_up_context

CONTEXT = made_up_context(generated_sources())


def with_result(**changes: object) -> sentences.ReportContext:
    return replace(CONTEXT, result=replace(CONTEXT.result, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fraction", "words"),
    [(0.0, "0 %"), (1e-9, "less than 1 %"), (0.004, "less than 1 %"), (0.005001, "1 %"), (0.446, "45 %"),
     (0.994, "99 %"), (0.996, "more than 99 %"), (1 - 1e-12, "more than 99 %"), (1.0, "100 %")],
)  # fmt: skip
def test_a_probability_is_no_certainty_unless_it_is(fraction: float, words: str) -> None:
    assert f"Probability of advanced stage: {words}, at" in sentences.answer(with_result(probability_advanced=fraction))


@given(st.floats(0, 1))
def test_the_percentage_of_the_number_is_near_and_no_certainty_unless_it_is(fraction: float) -> None:
    percent = float(_percent(fraction))
    assert percent == pytest.approx(100 * fraction, abs=0.051)
    if 1e-11 < fraction < 1 - 1e-11:
        assert 0 < percent < 100


def test_an_indeterminate_answer_says_so_before_any_number() -> None:
    text = sentences.answer(with_result(stage=Stage.INDETERMINATE))
    assert text.startswith("Predicted stage: indeterminate (the measurements do not clearly favour one stage group). P")


def test_the_prevalence_is_named_with_whose_it_is() -> None:
    assert sentences.answer(CONTEXT).endswith("at the training cohort's prevalence of 61 %.")
    assert sentences.answer(with_result(prevalence=0.26)).endswith("at this site's prevalence of 26 %.")


def test_features_outside_the_range_are_one_warning_and_other_tumours_another() -> None:
    domain = replace(CONTEXT.result.domain, outside=ALL_FEATURES[:10])
    several = replace(with_result(domain=domain), others=((2, "GTV\\2"), (3, "node")))
    first, second, *rest = sentences.warnings(several)
    assert first.startswith("10 of 15 measurements lie outside the range of the training cohort")
    assert all(plain_name(name) in first for name in ALL_FEATURES[:10])
    assert "GTV 2 (number 2), node (number 3)" in second
    assert tuple(rest) == CONTEXT.warnings
    inside = replace(CONTEXT.result.domain, outside=())
    assert tuple(sentences.warnings(with_result(domain=inside))) == CONTEXT.warnings


def test_a_contribution_of_nothing_moves_to_neither_side() -> None:
    shares = {"original_firstorder_Entropy": 0.0, "age": -0.5, "original_firstorder_Mean": 0.25}
    assert [*sentences.contributions(with_result(contributions=shares))] == [
        "age: favours early (I-II), logit -0.5",
        "denser than half (Mean of attenuation, original_firstorder_Mean): favours advanced (III), logit +0.25",
        "more varied in density than half (Intensity Histogram Entropy, original_firstorder_Entropy): "
        "no effect on the answer",
    ]


@given(st.lists(st.floats(-3, 3) | st.just(np.nan), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_report_and_page_compare_a_tumour_in_the_same_words(values: list[float]) -> None:
    """For any values, report and page give the same comparisons in the same order and direction."""
    context = page_context(features=FeatureVector(FEATURES, np.array(values)), cohort=cohort())
    rows = result_page(context, "en").rows
    told = [*sentences.contributions(context.report)]
    assert [text.partition(" (")[0] for text in told] == [row.words for row in rows]
    towards = ["advanced" if row.contribution > 0 else "early" for row in rows]
    assert [text.partition(": favours ")[2].split()[0] for text in told] == towards


def test_every_feature_is_known_by_its_codes_and_by_a_plain_name() -> None:
    assert sorted(FEATURES_BY_CODES.values()) == sorted(ALL_FEATURES)
    names = [plain_name(feature) for feature in ALL_FEATURES]
    assert len(set(names)) == len(names)
    assert not any("(" in name.replace("(sum of squares)", "").replace("(energy x voxel volume)", "") for name in names)
