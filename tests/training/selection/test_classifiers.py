"""Classifiers compared with GL-RFE's networks: what they rank, and which data they must not use."""

from __future__ import annotations

import numpy as np
import pytest

from lungstage.training.evaluation.folds import assign_folds, outer_tasks
from lungstage.training.evaluation.methods import Method, predict
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.procedure import QUICK
from lungstage.training.selection.classifiers import CLASSIFIERS
from tests.training.tables import make_cohort


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_classifier_sees_the_labels_of_the_rows_that_it_rates(name: str) -> None:
    cohort = make_cohort(n=60)
    fold = assign_folds(cohort.labels, 3, 1, seed=0)
    task = outer_tasks(cohort.values, fold, 0)[0]
    labels = cohort.labels.copy()
    labels[fold[0] == 0] ^= True
    method, columns = Method("", name), np.arange(6)[None]
    before, after = (predict(method, QUICK, [task], given, columns) for given in (cohort.labels, labels))
    assert before.tobytes() == after.tobytes()
    assert np.isfinite(before).all()


def test_classifiers_rank_a_plain_signal_and_the_majority_ranks_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(160) < 0.6
    raw = rng.normal(size=(160, 20))
    raw[:, [3, 7]] += 1.5 * labels[:, None]
    inputs = Standardise().fit_transform(raw)
    for name, fit in CLASSIFIERS.items():
        said = fit(inputs[:100], labels[:100], inputs[100:], 0)
        assert said.shape == (60,)
        if name == "majority":
            np.testing.assert_allclose(1 / (1 + np.exp(-said)), labels[:100].mean())
        else:
            assert said[labels[100:]].mean() > said[~labels[100:]].mean() + 0.5, name
