"""Each check with made-up answers: what passes, what gives a warning, what fails."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungstage.appliance.commissioning.constancy import check_reference_cases
from lungstage.appliance.commissioning.instrument import Instrument
from lungstage.appliance.commissioning.plan import Pair, Plan, PlanError, ReferenceCase, Study, Thresholds
from lungstage.appliance.commissioning.retest import check_answers, check_features, check_pairs, check_probability
from lungstage.appliance.commissioning.skew import check_patients, check_skew
from lungstage.appliance.commissioning.verdict import Verdict, graded, worst
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.model.manifest import QUANTILES, FeatureEntry
from lungstage.appliance.staging.outcome import outcome

NOW = datetime(2025, 3, 4, 12, tzinfo=UTC)
THRESHOLDS = Thresholds.model_validate({})
NAME = "original_shape_Sphericity"
ENTRY = FeatureEntry(
    name=NAME, unit="1", ibsi="QCFX", training_median=0.5,
    training_quantiles=dict(zip(QUANTILES, [float(level) for level in QUANTILES], strict=True)),
)  # fmt: skip


class Fake(Instrument):
    """Returns the outcome that the test sets for each name."""

    def __init__(self, outcomes: Mapping[str, Any], digest: str = "d1") -> None:
        self.outcomes = outcomes
        self.bundle = type("B", (), {})()
        self.bundle.digest = digest
        self.bundle.manifest = type("M", (), {"name": "m", "version": "1", "features": (ENTRY,)})()

    def stage(self, study: Study) -> Any:
        return self.outcomes[study.name]

    measure = stage


def staged(value: float | None = 0.3, probability: float = 0.6, stage: str = "early") -> dict[str, Any]:
    return outcome(status="staged") | {
        "stage": stage,
        "probability_advanced": probability,
        "features": {NAME: value},
        "domain": {"distance": 2.0, "outside": []},
        "roi": {"name": "GTV", "voxels": 100, "volume_mm3": 100.0},
    }


def refused(code: ReasonCode) -> dict[str, Any]:
    return outcome(status="refused", reason=Reason(code, "Why."))


def study(name: str) -> Study:
    return Study(name, Path(name), None)


# --- constancy ----------------------------------------------------------------------------------------------------


def constancy(outcomes: Mapping[str, Any], expected: Path, digest: str = "d1", **changes: Any) -> Any:
    expect = changes.pop("expect", None)
    cases = [ReferenceCase(study(name), expect) for name in outcomes]
    limits = Thresholds.model_validate(changes.pop("thresholds", {}))
    record = changes.pop("record", False)
    return check_reference_cases(cases, Fake(outcomes, digest), expected, limits, NOW, record=record)


BEFORE = {"a": staged(0.3), "b": refused(ReasonCode.NOT_CT)}


def test_first_recorded_then_held_against_bit_for_bit(tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    assert constancy(BEFORE, expected).verdict is Verdict.NOTE
    again = constancy(BEFORE, expected)
    assert again.verdict is Verdict.PASS
    assert [row["why"] for row in again.rows] == ["identical to the last bit"] * 2
    assert "2025-03-04" in again.finding


def spoilt(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    after = deepcopy(BEFORE)
    change(after["a"])
    return after


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda a: a["features"].update({NAME: math.nextafter(0.3, 1)}), Verdict.PASS),
        (lambda a: a["features"].update({NAME: 0.3 * (1 + 9e-10)}), Verdict.PASS),
        (lambda a: a["features"].update({NAME: 0.3 * (1 + 2e-9)}), Verdict.FAIL),
        (lambda a: a["features"].update({NAME: None}), Verdict.FAIL),
        (lambda a: a["features"].update({"another": 1.0}), Verdict.FAIL),
        (lambda a: a.update(probability_advanced=0.6 + 5e-7), Verdict.PASS),
        (lambda a: a.update(probability_advanced=0.6 + 2e-6), Verdict.FAIL),
        (lambda a: a.update(domain={"distance": 2.0001, "outside": []}), Verdict.FAIL),
        (lambda a: a.update(stage="indeterminate"), Verdict.FAIL),
        (lambda a: a["roi"].update(voxels=101), Verdict.FAIL),
        (lambda a: a.update(status="held", reason={"code": "slices_missing", "message": ""}), Verdict.FAIL),
        (lambda a: a.update(warnings=["new"], seconds={}), Verdict.PASS),  # not part of the answer
    ],
)
def test_constancy(change: Callable[[dict[str, Any]], None], verdict: Verdict, tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    constancy(BEFORE, expected)
    check = constancy(spoilt(change), expected)
    assert check.verdict is verdict, check
    assert check.rows[1]["verdict"] is Verdict.PASS, "the other case has not changed"


def test_bit_for_bit_can_be_asked_for(tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    constancy(BEFORE, expected)
    after = spoilt(lambda a: a["features"].update({NAME: math.nextafter(0.3, 1)}))
    assert constancy(after, expected, thresholds={"feature_tolerance": 0}).verdict is Verdict.FAIL


def test_a_refusal_that_turns_into_an_answer_fails(tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    constancy(BEFORE, expected)
    check = constancy(BEFORE | {"b": staged()}, expected)
    assert check.verdict is Verdict.FAIL
    assert check.rows[1]["why"] == "status was refused, is staged"


def test_what_differs_is_never_recorded_unasked(tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    constancy(BEFORE, expected)
    bytes_before = expected.read_bytes()
    after = BEFORE | {"a": staged(0.31), "c": staged()}
    check = constancy(after, expected)
    assert [row["verdict"] for row in check.rows] == [Verdict.FAIL, Verdict.PASS, Verdict.NOTE]
    assert expected.read_bytes() == bytes_before
    assert constancy(after, expected, record=True).verdict is Verdict.NOTE
    assert constancy(after, expected).verdict is Verdict.PASS


def test_a_case_that_vanished_and_another_bundle_are_told(tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    constancy(BEFORE, expected)
    check = constancy({"a": BEFORE["a"]}, expected, digest="d2")
    assert check.verdict is Verdict.WARN
    assert "No longer in the list: b." in check.finding
    assert "another bundle" in check.finding


def test_what_the_list_expects_holds_in_the_first_run_too(tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    check = constancy(BEFORE, expected, expect="not_ct")
    assert check.verdict is Verdict.FAIL
    assert "a: staged, not not_ct" in check.finding
    assert not expected.exists(), "later runs must not be compared with a wrong answer"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recorded": "x", "environment": {}, "cases": {}}'])
def test_an_unreadable_record_is_no_first_run(text: str, tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    expected.write_text(text)
    with pytest.raises(PlanError):
        constancy(BEFORE, expected)
    assert expected.read_text() == text


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    constancy(BEFORE, tmp_path / "expected.json")
    recorded = json.loads((tmp_path / "expected.json").read_text())
    assert recorded["cases"]["a"]["features"] == {NAME: 0.3}
    assert recorded["cases"]["b"]["code"] == "not_ct"


# --- test–retest --------------------------------------------------------------------------------------------------


def pairs_of(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> tuple[list[Pair], Fake]:
    outcomes = {f"1-{k}": value for k, value in enumerate(first)} | {f"2-{k}": v for k, v in enumerate(second)}
    return [Pair(study(f"1-{k}"), study(f"2-{k}")) for k in range(len(first))], Fake(outcomes)


def test_pairs_go_to_the_checks_in_order() -> None:
    values = np.linspace(0.2, 0.8, 30)
    checks = check_pairs(*pairs_of([staged(v, v) for v in values], [staged(v + 0.01, v) for v in values]), THRESHOLDS)
    assert [check.verdict for check in checks] == [Verdict.PASS] * 4
    (row,) = checks[1].rows
    assert row["pairs"] == 30
    assert row["within-subject SD"] == pytest.approx(0.01 / math.sqrt(2))
    assert row["ICC(3,1)"] == pytest.approx(1.0)
    assert row["ICC(A,1)"] < 1.0
    assert row["coefficient / training's middle 90 %"] == pytest.approx(1.96 * 0.01 / 0.9)


def test_a_pair_answered_only_once_and_too_few_pairs_are_warned_of() -> None:
    whole = [staged(v) for v in np.linspace(0.2, 0.8, 30)]
    (number, *_) = check_pairs(*pairs_of(whole, [*whole[:29], refused(ReasonCode.ROI_EMPTY)]), THRESHOLDS)
    assert number.verdict is Verdict.WARN
    assert "29 of 30" in number.finding
    assert "1 only once" in number.finding
    (few, *_) = check_pairs(*pairs_of(whole[:5], whole[:5]), THRESHOLDS)
    assert few.verdict is Verdict.WARN
    (none,) = check_pairs(*pairs_of([refused(ReasonCode.NOT_CT)], [refused(ReasonCode.NOT_CT)]), THRESHOLDS)
    assert none.verdict is Verdict.FAIL


@pytest.mark.parametrize(("noise", "verdict"), [(0.02, Verdict.PASS), (0.15, Verdict.WARN), (0.6, Verdict.FAIL)])
def test_features_are_judged_by_their_icc(noise: float, verdict: Verdict) -> None:
    random = np.random.default_rng(1)
    values = random.normal(scale=0.3, size=(40, 1)) + random.normal(scale=noise, size=(40, 2))
    assert check_features({NAME: values}, (ENTRY,), THRESHOLDS).verdict is verdict


def test_a_feature_that_fails_to_compute_is_no_number() -> None:
    values = np.linspace(0, 1, 12).repeat(2).reshape(12, 2)
    values[3, 1] = math.nan
    check = check_features({NAME: values}, (ENTRY,), THRESHOLDS)
    assert check.rows[0]["pairs"] == 11
    assert check_features({NAME: np.full((12, 2), math.nan)}, (ENTRY,), THRESHOLDS).verdict is Verdict.NOTE


@pytest.mark.parametrize(("sd", "verdict"), [(0.049, Verdict.PASS), (0.051, Verdict.WARN), (0.11, Verdict.FAIL)])
def test_probability(sd: float, verdict: Verdict) -> None:
    half = sd / math.sqrt(2)
    middle = np.linspace(0.2, 0.8, 10)
    check = check_probability(np.column_stack([middle - half, middle + half]), THRESHOLDS)
    assert check.verdict is verdict
    assert f"Within-subject SD {sd:.4f}" in check.finding


@pytest.mark.parametrize(
    ("changed", "opposite", "verdict"),
    [(0, 0, Verdict.PASS), (2, 0, Verdict.PASS), (3, 0, Verdict.WARN), (0, 1, Verdict.WARN), (5, 0, Verdict.FAIL)],
)
def test_answers(changed: int, opposite: int, verdict: Verdict) -> None:
    said = [("early", "indeterminate")] * changed + [("early", "advanced")] * opposite
    said += [("early", "early")] * (20 - len(said))
    named = {str(number): pair for number, pair in enumerate(said)}
    check = check_answers(named, np.linspace(0, 1, 40).reshape(20, 2), THRESHOLDS)
    assert check.verdict is verdict
    assert [row["patient"] for row in check.rows] == [str(number) for number in range(changed + opposite)]
    assert all(row["probability"] < row["and then"] for row in check.rows)


# --- skew ---------------------------------------------------------------------------------------------------------


def test_patients_like_the_training_cohort_pass() -> None:
    values = np.random.default_rng(2).uniform(size=200)
    check = check_skew({NAME: values}, (ENTRY,), THRESHOLDS)
    assert check.verdict is Verdict.PASS
    (row,) = check.rows
    assert row["outside the range"] == 0
    assert row["outside the middle 90 %"] == pytest.approx(0.1, abs=0.05)
    assert row["median's place"] == pytest.approx(np.median(values))


def test_a_shift_within_the_range_is_noticed() -> None:
    values = np.random.default_rng(2).uniform(0.9, 1.0, size=30)
    check = check_skew({NAME: values}, (ENTRY,), THRESHOLDS)
    assert check.verdict is Verdict.WARN
    assert "shape_Sphericity" in check.finding


@pytest.mark.parametrize(("beyond", "verdict"), [(3, Verdict.PASS), (4, Verdict.WARN), (8, Verdict.FAIL)])
def test_patients_beyond_the_range(beyond: int, verdict: Verdict) -> None:
    values = np.concatenate([np.full(beyond, 1.5), np.full(30 - beyond, 0.5)])
    limits = Thresholds.model_validate({"chance": 0.0})
    assert check_skew({NAME: values}, (ENTRY,), limits).verdict is verdict


def test_chance_alone_is_not_warned_of_too_often() -> None:
    random = np.random.default_rng(4)
    warned = sum(
        check_skew({NAME: random.uniform(size=40)}, (ENTRY,), THRESHOLDS).verdict is not Verdict.PASS
        for _ in range(300)
    )
    assert warned / 300 <= 0.07


def test_those_whom_the_model_refused_are_counted_among_the_skewed() -> None:
    """Otherwise a scanner that moves every second patient out of the domain would seem to fit well."""
    far = refused(ReasonCode.OUTSIDE_INTENDED_USE) | {"features": {NAME: 7.0}}
    outcomes = {str(k): staged(0.5) if k % 2 else far for k in range(30)}
    number, skew = check_patients([study(name) for name in outcomes], Fake(outcomes), THRESHOLDS)
    assert number.verdict is Verdict.FAIL
    assert "15 refused or held as outside_intended_use" in number.finding
    assert skew.verdict is Verdict.FAIL
    assert skew.rows[0]["outside the range"] == 0.5


def test_few_patients_are_told() -> None:
    number, _ = check_patients([study("a")], Fake({"a": staged()}), THRESHOLDS)
    assert number.verdict is Verdict.WARN
    (number,) = check_patients([study("a")], Fake({"a": refused(ReasonCode.NOT_CT)}), THRESHOLDS)
    assert "0 of 1 patients could be measured; 1 refused or held as not_ct" in number.finding


def test_a_feature_that_nobody_has_is_no_skew() -> None:
    check = check_skew({NAME: np.array([math.nan, math.nan])}, (ENTRY,), THRESHOLDS)
    assert check.verdict is Verdict.NOTE
    assert check.rows[0]["patients"] == 0


# --- words --------------------------------------------------------------------------------------------------------


def test_the_worst_counts_and_nan_says_nothing() -> None:
    assert worst([Verdict.PASS, Verdict.WARN, Verdict.NOTE]) is Verdict.WARN
    assert worst([]) is Verdict.PASS
    assert graded(math.nan, warn=1, fail=2) is Verdict.NOTE
    assert [graded(v, warn=1, fail=2) for v in (1, 1.5, 2, 2.5)] == ["pass", "warn", "warn", "fail"]


def test_every_threshold_is_explained() -> None:
    assert all(field.description for field in Thresholds.model_fields.values())
    assert Plan.model_validate({"bundle": "b"}).thresholds == THRESHOLDS
