"""Answers at a prevalence and how often they are right: by hand, by general rules, and in simulated cohorts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import expit, logit
from scipy.stats import binom

from lungstage.appliance.contract.spec import DomainAssessment, Stage, StagingResult
from lungstage.appliance.model.answering import FEWEST, AnswerRule, at_prevalence, corrected, singled_out
from lungstage.appliance.model.manifest import Decision, OutOfFold
from lungstage.training.evaluation.curves import net_benefit, reached
from lungstage.training.model.calibration import conformal_thresholds, coverage_range

DECISION = Decision(alpha=0.1, early_min_probability=0.3, advanced_min_probability=0.4)
PREVALENCES = (0.05, 0.17, 0.39, 0.61, 0.8)
TRAINING = 0.6125

share = st.floats(1e-6, 1 - 1e-6)
middling = st.floats(0.01, 0.99)


def answer_of(probability: float) -> StagingResult:
    return StagingResult(singled_out(probability, DECISION), probability, {"a": 1.0}, DomainAssessment(1.0, 1.0, ()))


class TestCorrection:
    """The prior correction of Saerens et al. 2002."""

    @given(st.floats(0, 1), share)
    def test_at_the_training_prevalence_nothing_changes(self, p: float, training: float) -> None:
        assert corrected(p, training, training) == pytest.approx(p, abs=1e-12)

    @given(share, share, share)
    def test_it_is_a_shift_of_the_logit(self, p: float, training: float, site: float) -> None:
        odds = [float(np.log(v) - np.log1p(-v)) for v in (p, training, site)]
        shifted = 1 / (1 + np.exp(-(odds[0] - odds[1] + odds[2])))
        assert corrected(p, training, site) == pytest.approx(shifted, rel=1e-9, abs=1e-12)

    @given(st.floats(0, 1), st.floats(0, 1), share, share)
    def test_more_stays_more(self, p: float, q: float, training: float, site: float) -> None:
        low, high = (corrected(v, training, site) for v in sorted((p, q)))
        assert low <= high + 1e-15

    @given(share, share, share, share)
    def test_two_corrections_are_one(self, p: float, first: float, second: float, third: float) -> None:
        twice = corrected(corrected(p, first, second), second, third)
        assert twice == pytest.approx(corrected(p, first, third), rel=1e-6, abs=1e-9)

    @pytest.mark.parametrize("p", [0.0, 1.0])
    def test_certainty_stays_certain(self, p: float) -> None:
        assert corrected(p, 0.6, 0.01) == p

    def test_by_hand(self) -> None:
        # Odds 4, prevalence odds from 1 to 1/4: odds 1.
        assert corrected(0.8, 0.5, 0.2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("probability", "early", "advanced", "stage"),
    [
        (0.9, 0.3, 0.4, Stage.ADVANCED),
        (0.1, 0.3, 0.4, Stage.EARLY),
        (0.5, 0.3, 0.4, Stage.INDETERMINATE),  # both classes possible
        (0.5, 0.6, 0.6, Stage.INDETERMINATE),  # no class possible
        (0.4, 0.7, 0.4, Stage.ADVANCED),  # a threshold is reached at its own value
        (0.75, 0.25, 0.8, Stage.EARLY),
        (0.0, 0.0, 0.0, Stage.INDETERMINATE),
    ],
)
def test_singled_out(probability: float, early: float, advanced: float, stage: Stage) -> None:
    decision = Decision(alpha=0.1, early_min_probability=early, advanced_min_probability=advanced)
    assert singled_out(probability, decision) is stage


decisions = st.builds(
    lambda early, advanced: Decision(alpha=0.1, early_min_probability=early, advanced_min_probability=advanced),
    st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip


def seen_of(positives: npt.NDArray[np.float64], negatives: npt.NDArray[np.float64]) -> OutOfFold:
    """What a bundle states about patients with these probabilities."""
    p = np.concatenate([positives, negatives])[None]
    found = reached(p, np.arange(p.size) < len(positives))
    return OutOfFold(**{key: tuple(v) if isinstance(v, list) else v for key, v in found.items()})


RNG = np.random.default_rng(1)
SEEN = seen_of(RNG.beta(3, 2, 98), RNG.beta(2, 3, 62))
knowledge = st.sampled_from([None, SEEN])


class TestRule:
    @given(st.floats(0, 1), decisions, middling, st.none() | middling, knowledge)
    def test_no_class_is_answered_against_its_own_probability(
        self, p: float, decision: Decision, training: float, site: float | None, seen: OutOfFold | None
    ) -> None:
        before = StagingResult(singled_out(p, decision), p, {"a": 1.0}, DomainAssessment(1.0, 1.0, ()))
        result = at_prevalence(before, AnswerRule(decision, training, site, seen))
        assert result.stage in (before.stage, Stage.INDETERMINATE)
        if result.stage is not Stage.INDETERMINATE:
            own = result.probability_advanced if result.stage is Stage.ADVANCED else 1 - result.probability_advanced
            assert own >= 0.5 - 1e-12

    @given(st.floats(0, 1), st.floats(0, 1), decisions, middling, st.none() | middling, knowledge)
    def test_more_probability_never_turns_advanced_into_early(
        self, p: float, q: float, decision: Decision, training: float, site: float | None, seen: OutOfFold | None
    ) -> None:
        rule = AnswerRule(decision, training, site, seen)
        low, high = (rule.answer(v)[0] for v in sorted((p, q)))
        assert not (low is Stage.ADVANCED and high is Stage.EARLY)

    @given(st.floats(0, 1), decisions, middling, st.none() | middling, knowledge)
    def test_the_limits_part_the_answers(
        self, p: float, decision: Decision, training: float, site: float | None, seen: OutOfFold | None
    ) -> None:
        """For any thresholds and prevalence, early lies below the open part and advanced above it."""
        rule = AnswerRule(decision, training, site, seen)
        (stage, withheld), shown, (low, high) = rule.answer(p), rule.probability(p), rule.open_between
        assert not (withheld and stage is not Stage.INDETERMINATE)
        if stage is Stage.EARLY:
            assert shown <= low + 1e-9
        elif stage is Stage.ADVANCED:
            assert shown >= high - 1e-9
        else:
            assert low - 1e-9 <= shown <= high + 1e-9

    def test_contributions_and_domain_stay(self) -> None:
        before = answer_of(0.9)
        after = at_prevalence(before, AnswerRule(DECISION, 0.6, 0.2))
        assert (after.contributions, after.domain) == (before.contributions, before.domain)
        assert after.prevalence == 0.2

    def test_an_unknown_prevalence_is_the_training_cohort_s(self) -> None:
        after = at_prevalence(answer_of(0.3), AnswerRule(DECISION, 0.6))
        assert (after.probability_advanced, after.stage, after.prevalence) == (0.3, Stage.EARLY, None)
        assert after.answering is not None
        assert (after.answering.prevalence, after.answering.is_site) == (0.6, False)

    def test_what_stood_beside_a_probability_below_one_half_is_withheld(self) -> None:
        # Odds 4 at 61 %, where 17 % are advanced: odds 0.52.
        after = at_prevalence(answer_of(0.8), AnswerRule(DECISION, 0.6125, 0.17))
        assert answer_of(0.8).stage is Stage.ADVANCED
        assert after.probability_advanced == pytest.approx(0.3413, abs=1e-3)
        assert after.stage is Stage.INDETERMINATE
        assert after.answering is not None
        assert after.answering.withheld
        assert after.answering.predictive_value is None

    def test_an_answer_that_would_be_wrong_more_often_than_right_is_withheld(self) -> None:
        """Probabilities that are too high: 30 of 100 early patients reached 0.9, and 40 of 100 advanced ones."""
        bold = seen_of(np.repeat([0.95, 0.2], [40, 60]), np.repeat([0.95, 0.2], [30, 70]))
        rule = AnswerRule(DECISION, 0.5, 0.3, bold)
        assert corrected(0.95, 0.5, 0.3) > 0.5
        assert rule.answer(0.95) == (Stage.INDETERMINATE, True)
        assert AnswerRule(DECISION, 0.5, 0.3).answer(0.95) == (Stage.ADVANCED, False), "no data to withhold it"

    def test_too_few_patients_are_no_evidence(self) -> None:
        few = seen_of(np.repeat([0.95, 0.2], [FEWEST - 1, 60]), np.full(70, 0.2))
        enough = seen_of(np.repeat([0.95, 0.2], [FEWEST, 60]), np.full(70, 0.2))
        assert AnswerRule(DECISION, 0.5, None, few).predictive_value(Stage.ADVANCED) is None
        assert AnswerRule(DECISION, 0.5, None, few).limits[1] is None
        assert AnswerRule(DECISION, 0.5, None, enough).answer(0.95)[0] is Stage.ADVANCED


class TestPredictiveValue:
    def test_by_hand(self) -> None:
        """80 of 100 and 20 of 100: a likelihood ratio of 80.5 to 20.5, at odds of 1 to 4."""
        seen = seen_of(np.repeat([0.9, 0.1], [80, 20]), np.repeat([0.9, 0.1], [20, 80]))
        found = AnswerRule(DECISION, 0.5, 0.2, seen).predictive_value(Stage.ADVANCED)
        assert found is not None
        odds = 0.25 * 80.5 / 20.5
        assert found.chance.value == pytest.approx(odds / (1 + odds))
        reach = 1.96 * math.sqrt(1 / 80.5 - 1 / 101 + 1 / 20.5 - 1 / 101)
        assert logit(found.chance.high) - logit(found.chance.value) == pytest.approx(reach, rel=1e-4)
        assert (found.positives, found.negatives) == (100, 100)

    @given(decisions, middling, middling)
    def test_the_value_lies_within_its_interval(self, decision: Decision, training: float, site: float) -> None:
        rule = AnswerRule(decision, training, site, SEEN)
        for stage in (Stage.EARLY, Stage.ADVANCED):
            if (found := rule.predictive_value(stage)) is not None:
                assert 0 <= found.chance.low <= found.chance.value <= found.chance.high <= 1

    def test_the_decision_curve_at_the_training_prevalence_is_that_of_the_patients(self) -> None:
        positive, negative = RNG.beta(3, 2, 980), RNG.beta(2, 3, 620)
        rule = AnswerRule(DECISION, 980 / 1600, None, seen_of(positive, negative))
        thresholds = np.arange(5, 96) / 100
        labels = np.arange(1600) < 980
        wanted = net_benefit(np.concatenate([positive, negative]), labels, np.ones((1, 1600)))[0]
        assert [model for model, _ in rule.net_benefit(thresholds.tolist())] == pytest.approx(wanted, abs=1e-9)

    def test_nothing_is_made_up_where_the_bundle_does_not_say(self) -> None:
        rule = AnswerRule(DECISION, 0.5, 0.2)
        assert rule.predictive_value(Stage.ADVANCED) is None
        with pytest.raises(ValueError, match="gives no performance"):
            rule.net_benefit([0.5])


@pytest.mark.parametrize(
    "broken",
    [{"thresholds": (0.0, 0.5)}, {"positives_at_least": (1.0, 0.4, 0.6)}, {"negatives_at_least": (1.0, 0.0)},
     {"positives": 0}, {"thresholds": (0.0, 0.0, 1.0)}, {"positives_at_least": (0.9, 0.5, 0.0)}],
)  # fmt: skip
def test_a_bundle_cannot_say_nonsense_of_its_patients(broken: dict[str, object]) -> None:
    sound = {
        "positives": 9, "negatives": 8, "thresholds": (0.0, 0.5, 1.0), "positives_at_least": (1.0, 0.5, 0.0),
        "negatives_at_least": (1.0, 0.3, 0.0),
    }  # fmt: skip
    OutOfFold(**sound)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        OutOfFold(**sound | broken)  # type: ignore[arg-type]


# Simulated cohorts: the score is normal in each class, with means 1.5 apart, so that the probability is known.


def _draw(rng: np.random.Generator, n: int, prevalence: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Probabilities at the training prevalence and true classes of n patients, at a given prevalence."""
    labels = rng.random(n) < prevalence
    score = rng.normal(size=n) + 1.5 * labels
    return np.asarray(expit(1.5 * score - 1.125 + logit(TRAINING))), labels


def _bundle(rng: np.random.Generator, n: int) -> tuple[Decision, OutOfFold]:
    p, labels = _draw(rng, n, TRAINING)
    found = conformal_thresholds(p, labels, 0.2)
    decision = Decision(
        alpha=0.2, early_min_probability=found.early_min_probability,
        advanced_min_probability=found.advanced_min_probability,
    )  # fmt: skip
    return decision, seen_of(p[labels], p[~labels])


def _is_binomial(successes: int, trials: int, low: float, high: float) -> bool:
    """Whether a count is plausible for a probability within [low, high], with 0.1 % on either side."""
    return bool(binom.ppf(0.001, trials, low) <= successes <= binom.ppf(0.999, trials, high))


@pytest.mark.parametrize("prevalence", PREVALENCES)
def test_answers_hold_where_they_are_given(prevalence: float) -> None:
    """With many patients, predictive values and coverage are right within binomial noise at every prevalence."""
    rng = np.random.default_rng([5, round(100 * prevalence)])
    decision, seen = _bundle(rng, 20_000)
    rule = AnswerRule(decision, TRAINING, prevalence, seen)
    p, labels = _draw(rng, 4000, prevalence)
    answers = [rule.answer(float(one))[0] for one in p]
    here = np.array([rule.probability(float(one)) for one in p])
    given_count = 0
    for stage, own, of_class in ((Stage.EARLY, 1 - here, ~labels), (Stage.ADVANCED, here, labels)):
        so = np.array([answer is stage for answer in answers])
        assert (own[so] >= 0.5).all(), "a class is answered against its own probability"
        told = rule.predictive_value(stage)
        if so.any():
            assert told is not None
            assert _is_binomial(int(of_class[so].sum()), int(so.sum()), told.chance.low, told.chance.high)
            given_count += int(so.sum())
        # An answer rules out the other class; what is indeterminate rules out none.
        other = Stage.ADVANCED if stage is Stage.EARLY else Stage.EARLY
        ruled_out = np.array([answer is other for answer in answers])
        kept = int((of_class & ~ruled_out).sum())
        assert kept >= binom.ppf(0.001, int(of_class.sum()), 0.8 - 0.01)
        # The conformal set has its intended coverage at any prevalence.
        singled = np.array([singled_out(float(one), decision) is other for one in p])
        assert _is_binomial(int((of_class & ~singled).sum()), int(of_class.sum()), 0.79, 0.81)
    assert given_count > 400, "too few answers to show anything"


@pytest.mark.parametrize("prevalence", PREVALENCES)
def test_what_a_bundle_of_few_patients_says_holds_on_average(prevalence: float) -> None:
    """160 patients, as in the shipped bundle: intervals contain the truth as often as they state, within noise."""
    rng = np.random.default_rng([6, round(100 * prevalence)])
    p, labels = _draw(rng, 20_000, prevalence)
    held = told_of = 0
    covered: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(200):
        decision, seen = _bundle(rng, 160)
        rule = AnswerRule(decision, TRAINING, prevalence, seen)
        low, high = rule.open_between
        here = p * prevalence / TRAINING / (p * prevalence / TRAINING + (1 - p) * (1 - prevalence) / (1 - TRAINING))
        for stage, so, of_class in ((Stage.EARLY, here < low, ~labels), (Stage.ADVANCED, here >= high, labels)):
            told = rule.predictive_value(stage)
            if rule.allows(stage) and told is not None and so.sum() > 200:
                told_of += 1
                held += told.chance.low - 0.01 <= of_class[so].mean() <= told.chance.high + 0.01
        for positive in (False, True):
            bound = decision.advanced_min_probability if positive else decision.early_min_probability
            own = p if positive else 1 - p
            covered[positive].append(float((own[labels == positive] >= bound).mean()))
    assert told_of > 100
    assert held >= binom.ppf(0.001, told_of, 0.93)
    for positive, patients in ((False, 62), (True, 98)):
        assert np.mean(covered[positive]) == pytest.approx(0.81, abs=0.02)
        low, high = coverage_range(patients, 0.2)
        within = np.mean([low <= one <= high for one in covered[positive]])
        assert within >= 0.88, "the coverage of single bundles varies more than stated"


def test_the_answer_rule_of_an_older_bundle_is_known_for_what_it_is() -> None:
    rule = AnswerRule(DECISION, 0.6, 0.3)
    answering = rule.answering(Stage.EARLY, withheld=False)
    assert not answering.is_known
    assert replace(rule, out_of_fold=SEEN).answering(Stage.EARLY, withheld=False).is_known
