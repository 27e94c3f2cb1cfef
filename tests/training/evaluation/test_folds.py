"""Evaluation without leakage: the prediction for a row does not depend on its label."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lungstage.appliance.contract.errors import Refused
from lungstage.training.cohorts.cohort import Cohort, read_cohort
from lungstage.training.evaluation import folds as folds_module
from lungstage.training.evaluation.folds import OutOfFold, assign_folds, left_out, out_of_fold, outer_tasks, run_tasks
from lungstage.training.evaluation.methods import GL_RFE, Method, methods, predict, select
from lungstage.training.evaluation.metrics import score
from lungstage.training.procedure import QUICK, Procedure
from tests.training.tables import make_cohort

PROCEDURE = replace(QUICK, selection=replace(QUICK.selection, features=5, fine_below=6))


def _run(cohort: Cohort, name: str, *, labels=None, values=None, folds: int = 5, workers: int = 1) -> OutOfFold:
    """Run one method on the folds of the cohort's labels; the method may get other labels or values."""
    fold = assign_folds(cohort.labels, folds, 1, seed=0)
    labels = cohort.labels if labels is None else labels
    tasks = outer_tasks(cohort.values if values is None else values, fold, 0)
    method = methods(PROCEDURE, cohort.features)[name]
    columns = fixed = np.tile(np.array(method.columns, dtype=np.intp), (len(tasks), 1))
    if method.selector:
        columns = run_tasks(tasks, labels, partial(select, method.selector, PROCEDURE), _silent, workers=workers)
    logits = run_tasks(tasks, labels, partial(predict, method, PROCEDURE), _silent, columns, workers=workers)
    return out_of_fold(logits, labels, fold, PROCEDURE.alpha, None if columns is fixed else columns)


def _silent(done: int, total: int) -> None:
    assert 0 <= done <= total


def test_folds_are_stratified_and_differ_between_repeats() -> None:
    labels = make_cohort().labels
    fold = assign_folds(labels, 5, 3, seed=0)
    for repeat in fold:
        counts = [(repeat == f).sum() for f in range(5)]
        positives = [labels[repeat == f].sum() for f in range(5)]
        assert max(counts) - min(counts) <= 2
        assert max(positives) - min(positives) <= 1
    assert not np.array_equal(fold[0], fold[1])
    np.testing.assert_array_equal(fold, assign_folds(labels, 5, 3, seed=0))


@pytest.mark.parametrize("folds", [2, 13])
def test_folds_that_cannot_be_are_refused(folds: int) -> None:
    with pytest.raises(
        Refused, match=f"{folds} folds are requested. Choose from 3 to 12: the smaller class has 12 rows"
    ):
        assign_folds(np.arange(40) < 12, folds, 1, seed=0)


def test_every_fold_and_every_pair_is_left_out_once() -> None:
    fold = assign_folds(make_cohort().labels, 5, 2, seed=0)
    places = left_out(fold)
    assert len(places) == len(set(places)) == 2 * (5 + 10)
    assert [f == g for _, f, g in places] == [True] * 10 + [False] * 20
    for (r, f, g), task in zip(places, outer_tasks(np.ones((80, 1)), fold, 0), strict=True):
        assert set(fold[r, task.rows]) == set(range(5)) - {f, g}


@pytest.mark.parametrize("name", [GL_RFE, "anova_dnn", "random_lr", "majority", "volume"])
def test_the_labels_of_test_rows_have_no_say(name: str) -> None:
    """If they are permuted, the fold's selection and its calibrated predictions stay the same, byte for byte."""
    cohort = make_cohort()
    fold = assign_folds(cohort.labels, 3, 1, seed=0)
    before = _run(cohort, name, folds=3)
    test = fold[0] == 2
    labels = cohort.labels.copy()
    labels[test] = np.random.default_rng(2).permutation(~labels[test])
    after = _run(cohort, name, labels=labels, folds=3)
    for field in ("logits", "probabilities", "possible"):
        assert getattr(after, field)[0, test].tobytes() == getattr(before, field)[0, test].tobytes(), field
    if before.selections is not None and after.selections is not None:
        assert after.selections[2].tobytes() == before.selections[2].tobytes()
    others = after.probabilities[0, ~test] != before.probabilities[0, ~test]
    assert others.any(), "the other folds were trained on these labels, so they must change"


def test_the_values_of_test_rows_have_no_say_in_the_selection() -> None:
    cohort = make_cohort()
    fold = assign_folds(cohort.labels, 3, 1, seed=0)
    values = cohort.values.copy()
    values[fold[0] == 1] *= 1e3
    before, after = (_run(cohort, GL_RFE, values=v, folds=3).selections for v in (cohort.values, values))
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after[1], before[1])
    assert not np.array_equal(after, before), "the other folds were trained on these values"


def test_grouping_and_processes_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = make_cohort()
    results = []
    for together, workers in ((13, 1), (2, 2)):
        monkeypatch.setattr(folds_module, "_TASKS_TOGETHER", together)
        results.append(_run(cohort, GL_RFE, folds=3, workers=workers))
    for field in ("logits", "probabilities", "possible", "selections"):
        assert len({getattr(one, field).tobytes() for one in results}) == 1, field


def test_fits_of_unlike_size_are_not_trained_together() -> None:
    """The number of rows decides how many batches make an epoch."""
    fold = assign_folds(make_cohort(n=150).labels, 5, 2, seed=0)
    tasks = outer_tasks(np.ones((150, 1)), fold, 0)
    seen: list[list[int]] = []

    def sizes(group, labels):
        seen.append([len(task.rows) for task in group])
        return np.array(seen[-1])

    np.testing.assert_array_equal(
        run_tasks(tasks, np.ones(150, dtype=bool), sizes, _silent), [len(task.rows) for task in tasks]
    )
    assert all(max(group) < 1.1 * min(group) for group in seen)
    assert max(map(len, seen)) > 8


def test_a_fit_is_given_what_comes_with_its_tasks() -> None:
    fold = assign_folds(make_cohort(n=150).labels, 5, 2, seed=0)
    tasks = outer_tasks(np.ones((150, 1)), fold, 0)
    marks = np.arange(len(tasks))[:, None]
    found = run_tasks(tasks, fold[0] > 0, lambda group, labels, own: own + 0 * len(group), _silent, marks)
    np.testing.assert_array_equal(found, marks)


def test_covariates_reach_the_model_standardised_by_the_training_rows_and_no_selection() -> None:
    cohort = make_cohort(signal=0.0, covariate=3.0)
    fold = assign_folds(cohort.labels, 3, 1, seed=0)
    task = outer_tasks(cohort.values, fold, 0, cohort.covariate_values)[0]
    assert task.covariates is not None
    assert np.isfinite(task.covariates).all(), "a missing value is replaced by the median"
    np.testing.assert_allclose(task.covariates[task.rows].mean(), 0, atol=1e-9)
    alone = Method("covariates alone", "logistic")
    logits = predict(alone, PROCEDURE, [task], cohort.labels, np.empty((1, 0), dtype=np.intp))[0]
    test = fold[0] == 0
    assert logits[test & cohort.labels].mean() > logits[test & ~cohort.labels].mean() + 1
    without = predict(replace(alone, classifier="network", covariates=False), PROCEDURE, [task], cohort.labels,
                      np.array([[0, 1]]))  # fmt: skip
    as_if = predict(replace(alone, classifier="network"), PROCEDURE, [replace(task, covariates=None)], cohort.labels,
                    np.array([[0, 1]]))  # fmt: skip
    np.testing.assert_array_equal(without, as_if)


@pytest.mark.slow
def test_lung1_stays_within_what_is_believable(shared_data: Path) -> None:
    """Models of the primary tumour reach an AUC of 0.60 to 0.72 on LUNG1; much more, or 0.5, shows a fault."""
    cohort = read_cohort(shared_data / "lung1" / "features.csv")
    procedure = Procedure()
    fold = assign_folds(cohort.labels, 5, 1, seed=0)
    tasks = outer_tasks(cohort.values, fold, 0)
    columns = run_tasks(tasks, cohort.labels, partial(select, "anova", procedure), _silent)
    method = methods(procedure, cohort.features)["anova_lr"]
    logits = run_tasks(tasks, cohort.labels, partial(predict, method, procedure), _silent, columns)
    oof = out_of_fold(logits, cohort.labels, fold, procedure.alpha)
    figures = score(oof.probabilities, cohort.labels, fold, np.ones((1, len(cohort.labels))))
    assert 0.56 < figures["auc"][0] < 0.76
    assert 0.18 < figures["brier"][0] < 0.24
