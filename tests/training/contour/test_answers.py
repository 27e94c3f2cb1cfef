"""Answers on semi-automatic contours, by models that were not trained on these patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungstage.appliance.contour.drawing import Network
from lungstage.appliance.contour.prompts import Floats
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, DEFAULT_SETTINGS, ExtractionSpec
from lungstage.appliance.radiomics import extract
from lungstage.training.cohorts.cohort import Cohort
from lungstage.training.cohorts.description import UNDECLARED
from lungstage.training.contour import answers, evaluation
from lungstage.training.contour.cases import Case, is_held_out
from lungstage.training.procedure import QUICK

from .test_contour import case

FEATURES = tuple(name for name in ALL_FEATURES if "_shape_" in name or "_firstorder_" in name)
CONFORMAL = {"early_min_probability": 0.3, "advanced_min_probability": 0.3}
Balls = tuple[Cohort, list[Case]]


@pytest.fixture(scope="module")
def balls() -> Balls:
    """Balls in lung; the large ones are advanced."""
    rng = np.random.default_rng(0)
    spec = ExtractionSpec(FEATURES, DEFAULT_SETTINGS)
    cases = [case(f"LUNG1-{k:03d}", rng.uniform(*((6, 9) if k % 2 else (12, 16)))) for k in range(1, 61)]
    values = [extract.extract(evaluation.volume_of(one), one.mask, spec).values for one in cases]
    labels = np.array([k % 2 == 0 for k in range(1, 61)])
    cohort = Cohort(
        tuple(one.patient for one in cases), labels, FEATURES, np.array(values), UNDECLARED, "table.csv", "0" * 64,
        len(cases), {},
    )  # fmt: skip
    return cohort, cases


def ball(hu: Floats, prompt: Floats) -> Floats:
    """Draw the ball around the line."""
    return np.asarray(prompt[0] - 0.5 + prompt[3] - prompt[4], dtype=np.float32)


def _compared(cohort: Cohort, cases: list[Case], network: Network) -> dict[str, dict[str, object]]:
    found = answers.compare(cohort, cases, network, QUICK, CONFORMAL, lambda step, done, total: None)
    assert found["patients"] + found["left_out"] == sum(is_held_out(patient) for patient in cohort.patients)
    contours: dict[str, dict[str, object]] = found["contours"]
    return contours


def test_the_patients_are_answered_for_by_models_that_do_not_know_them(balls: Balls) -> None:
    cohort, cases = balls
    unseen = np.array([is_held_out(patient) for patient in cohort.patients])
    found = _compared(cohort, cases, ball)
    assert found[answers.EXPERT]["auc"]["value"] > 0.95  # type: ignore[index]
    turned = replace(cohort, labels=np.where(unseen, ~cohort.labels, cohort.labels))
    found = _compared(turned, cases, ball)
    assert found[answers.EXPERT]["auc"]["value"] < 0.05, "these patients' labels were learned"  # type: ignore[index]


def test_what_is_drawn_differently_is_answered_differently(balls: Balls) -> None:
    cohort, cases = balls
    right = _compared(cohort, cases, ball)

    def larger(hu: Floats, prompt: Floats) -> Floats:
        return np.asarray(prompt[0] - 0.02, dtype=np.float32)

    wrong = _compared(cohort, cases, larger)
    assert list(right) == [answers.EXPERT, answers.UNEDITED, answers.CORRECTED]
    of_right, of_wrong = (found[answers.UNEDITED] for found in (right, wrong))
    assert of_wrong["difference"]["median"] > 2 * of_right["difference"]["median"]  # type: ignore[index]
    assert of_right["same_answer"] > of_wrong["same_answer"]  # type: ignore[operator]
    assert right[answers.EXPERT] == wrong[answers.EXPERT]


def test_too_few_patients_in_common_are_refused(balls: Balls) -> None:
    cohort, cases = balls
    with pytest.raises(Refused, match="held-out patients in common"):
        answers.compare(cohort, cases[:20], ball, QUICK, CONFORMAL, lambda *step: None)
