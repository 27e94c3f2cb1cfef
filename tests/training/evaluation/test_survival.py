"""Figures of survival: by their definition, by a published example, and on a cohort with lost patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungstage.training.cohorts.cohort import Cohort, read_cohort
from lungstage.training.cohorts.endpoint import Target
from lungstage.training.cohorts.survival import Survival
from lungstage.training.evaluation.evaluate import evaluate
from lungstage.training.evaluation.folds import OutOfFold
from lungstage.training.evaluation.methods import GL_RFE
from lungstage.training.evaluation.survival import Scored, censoring, concordance, survival_record
from lungstage.training.procedure import QUICK
from tests.training.conftest import make_rows
from tests.training.freireich import MERCAPTOPURINE, PLACEBO

PROCEDURE = replace(QUICK, selection=replace(QUICK.selection, features=8, fine_below=10))
TARGET = Target(target="days", horizon_days=365, event="death")


def _by_definition(p: Any, days: Any, died: Any, fold: Any) -> float:
    won = pairs = 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            outlived = days[j] > days[i] or (days[j] == days[i] and not died[j])
            if i != j and fold[i] == fold[j] and died[i] and outlived:
                pairs += 1
                won += 1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0
    return won / pairs


def test_concordance_is_what_its_definition_says_under_every_weighting() -> None:
    random = np.random.default_rng(3)
    n = 40
    days, died = random.integers(1, 30, n).astype(float), random.random(n) < 0.6
    p, fold = np.round(random.random((2, n)), 1), random.integers(0, 2, (2, n))
    found = concordance(p, days, died, fold, np.ones((1, n)))[0]
    assert found == pytest.approx(np.mean([_by_definition(p[r], days, died, fold[r]) for r in (0, 1)]), abs=1e-12)
    # A patient who is drawn twice counts as two patients, but these two do not form a pair.
    drawn = random.integers(0, 3, n)
    twice = np.repeat(np.arange(n), drawn)
    mean = np.mean([_by_definition(p[r][twice], days[twice], died[twice], fold[r][twice]) for r in (0, 1)])
    assert concordance(p, days, died, fold, drawn[None].astype(float))[0] == pytest.approx(mean, abs=1e-12)


def test_strata_of_a_published_trial() -> None:
    """The published log-rank chi-squared is 16.79; the median remission is 23 weeks on the drug, 8 on placebo."""
    (drug, relapsed), (placebo, all_relapsed) = MERCAPTOPURINE, PLACEBO
    days, observed = np.concatenate([drug, placebo]), np.concatenate([relapsed, all_relapsed])
    p = np.where(np.arange(len(days)) < len(drug), 0.2, 0.8)[None]
    followed = Survival(20.0, days, observed, np.ones(len(days)), np.empty(0), np.empty((0, 1)), None)
    oof = OutOfFold(p, p, np.ones((1, len(days), 2), bool), np.zeros_like(p, int), None, np.empty((1, 0)))
    record = survival_record(followed, {"one": Scored("One", oof)}, "one", np.zeros_like(p, int), 0)
    strata = record["methods"]["one"]["strata"]
    assert strata["log_rank"]["z"] ** 2 == pytest.approx(16.79, abs=0.01)
    assert (strata["low"]["median_days"], strata["high"]["median_days"]) == (23.0, 8.0)
    assert strata["low"]["at_horizon"]["value"] == pytest.approx(0.627, abs=1e-3)
    assert strata["low"]["at_horizon"]["low"] < 0.627 < strata["low"]["at_horizon"]["high"]
    everybody = strata["calibration"][0]
    assert (everybody["patients"], everybody["predicted"]) == (42, pytest.approx(0.5))
    assert record["methods"]["one"]["difference"] is None
    assert "0 were lost to follow-up before day 20" in censoring(record)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Patients with the signal die early; every fifth patient is lost early."""
    random = np.random.default_rng(7)
    path: Path = tmp_path_factory.mktemp("table") / "features.csv"
    rows = make_rows(n=120, signal=2.0)
    for i, row in enumerate(rows):
        days = random.exponential(150 if row["stage"] == "advanced" else 900)
        until = random.uniform(20, 300) if i % 5 == 0 else 1500
        row |= {"days": f"{min(days, until):.1f}", "death": str(int(days <= until))}
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n")
    return read_cohort(path, target=TARGET)


def _evaluated(cohort: Cohort) -> tuple[dict[str, Any], OutOfFold]:
    return evaluate(cohort, PROCEDURE, lambda *_: None, (GL_RFE, "volume", "majority"), halves_of=())


def test_who_is_lost_is_scored_and_never_trained_on(cohort: Cohort) -> None:
    followed = cohort.survival
    assert followed is not None
    lost = len(followed.censored_days)
    assert lost > 5
    evaluation, oof = _evaluated(cohort)
    moved = replace(cohort, survival=replace(followed, censored_values=followed.censored_values * 3.0))
    _, other = _evaluated(moved)
    np.testing.assert_allclose(other.probabilities, oof.probabilities, rtol=1e-6)
    assert not np.allclose(other.of_others, oof.of_others)
    survival = evaluation["survival"]
    assert (survival["lost"], survival["patients"]) == (lost, 120)
    own = survival["methods"][GL_RFE]
    assert own["concordance"]["low"] > 0.5, "the signal is found"
    assert own["strata"]["log_rank"]["p"] < 0.01
    assert survival["methods"]["majority"]["concordance"]["value"] == pytest.approx(0.5, abs=0.05)
    assert survival["methods"]["majority"]["strata"] is None


def test_probabilities_are_calibrated_to_everybody_and_not_to_those_who_are_known(cohort: Cohort) -> None:
    evaluation, oof = _evaluated(cohort)
    weights = cohort.weights
    assert weights is not None
    told = evaluation["table"]["prevalence"]
    assert told == cohort.prevalence < cohort.labels.mean()
    _, unweighted = _evaluated(replace(cohort, survival=None))
    moved = oof.probabilities.mean() - unweighted.probabilities.mean()
    assert moved == pytest.approx(told - cohort.labels.mean(), abs=0.015)
    everybody = evaluation["survival"]["methods"][GL_RFE]["strata"]["calibration"][0]
    assert everybody["observed"]["value"] == pytest.approx(told, abs=1e-9)
    majority = evaluation["methods"]["majority"]["metrics"]["brier"]["value"]
    assert majority == pytest.approx(told * (1 - told), abs=0.01)
    assert "inverse probability of censoring" in evaluation["interval"]
