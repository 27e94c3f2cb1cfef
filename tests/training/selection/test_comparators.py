"""Selectors and classifiers beside GL-RFE: what they find, and what they must not see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression

from lungstage.training.evaluation.folds import assign_folds, outer_tasks
from lungstage.training.evaluation.methods import GL_RFE, Method, methods, predict, select
from lungstage.training.model.network import single_threaded
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.procedure import HARDENED, PAPER, QUICK
from lungstage.training.selection.comparators import CLASSIFIERS, LABELS, SELECTORS, f_statistic
from tests.training.tables import FEATURES, make_cohort

PROCEDURE = replace(QUICK, selection=replace(QUICK.selection, features=12, fine_below=14))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def _rows(n: int = 90, d: int = 20, signal: float = 1.5, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.6
    inputs = rng.normal(size=(n, d))
    inputs[:, [3, 7]] += signal * labels[:, None]
    return Standardise().fit_transform(inputs), labels


@pytest.mark.parametrize("name", [name for name in SELECTORS if name != "random"])
def test_a_selector_finds_a_plain_signal(name: str) -> None:
    inputs, labels = _rows()
    columns = SELECTORS[name](inputs, labels, 10, 1)
    assert len(set(columns)) == 10
    assert {3, 7} <= set(columns.tolist())
    assert list(columns) == sorted(columns)
    assert columns.dtype == np.intp


@pytest.mark.parametrize("name", ["gl_rfe", "gl_rfe_paper", *SELECTORS])
def test_no_selector_sees_a_row_that_it_is_not_given(name: str) -> None:
    """Neither labels nor values of the rows left out change a byte; those of the rows given do, but for chance."""
    cohort = make_cohort(n=70)
    fold = assign_folds(cohort.labels, 5, 1, seed=0)
    outer, *_, pair = outer_tasks(cohort.values, fold, 0)
    for task in (outer, pair) if name != "lassonet" else (pair,):
        before = select(name, PROCEDURE, [task], cohort.labels)
        away = np.setdiff1d(np.arange(70), task.rows)
        labels, inputs = cohort.labels.copy(), task.inputs.copy()
        labels[away] = np.random.default_rng(1).permutation(~labels[away])
        inputs[away] = 1e3
        after = select(name, PROCEDURE, [replace(task, inputs=inputs)], labels)
        assert after.tobytes() == before.tobytes()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_classifier_sees_the_labels_of_the_rows_that_it_rates(name: str) -> None:
    cohort = make_cohort(n=60)
    fold = assign_folds(cohort.labels, 3, 1, seed=0)
    task = outer_tasks(cohort.values, fold, 0)[0]
    labels = cohort.labels.copy()
    labels[fold[0] == 0] ^= True
    method, columns = Method("", name), np.arange(6)[None]
    before, after = (predict(method, PROCEDURE, [task], given, columns) for given in (cohort.labels, labels))
    assert before.tobytes() == after.tobytes()
    assert np.isfinite(before).all()


def test_classifiers_rank_a_plain_signal_and_the_majority_ranks_nothing() -> None:
    inputs, labels = _rows(n=160)
    for name, fit in CLASSIFIERS.items():
        said = fit(inputs[:100], labels[:100], inputs[100:], 0)
        assert said.shape == (60,)
        if name == "majority":
            np.testing.assert_allclose(1 / (1 + np.exp(-said)), labels[:100].mean())
        else:
            assert said[labels[100:]].mean() > said[~labels[100:]].mean() + 0.5, name


def test_the_f_statistic_is_that_of_scikit_learn() -> None:
    inputs, labels = _rows()
    np.testing.assert_allclose(f_statistic(inputs, labels), f_classif(inputs, labels)[0], rtol=1e-9)
    inputs[:, 4] = 0.0
    assert f_statistic(inputs, labels)[4] == 0


def test_mrmr_goes_by_relevance_over_redundancy() -> None:
    """One step after the other, by scikit-learn's F and numpy's correlation; of copies it takes one at first."""
    inputs, labels = _rows()
    table = np.hstack([inputs, inputs[:, [3]] + 0.05 * np.random.default_rng(0).normal(size=(90, 4))])
    relevance, correlation = f_classif(table, labels)[0], np.abs(np.corrcoef(table.T))
    chosen = [int(relevance.argmax())]
    for k in range(2, 8):
        rest = [j for j in range(24) if j not in chosen]
        chosen.append(max(rest, key=lambda j: relevance[j] / correlation[j, chosen].mean()))
        np.testing.assert_array_equal(SELECTORS["mrmr"](table, labels, k, 0), sorted(chosen))
    same = [3, *range(20, 24)]
    assert np.isin(SELECTORS["anova"](table, labels, 2, 0), same).all()
    assert np.isin(SELECTORS["mrmr"](table, labels, 2, 0), same).sum() == 1


def test_lasso_takes_what_enters_first() -> None:
    """Whatever is in at a penalty that lets k features in is selected."""
    inputs, labels = _rows(d=30)
    for k in (2, 6, 12):
        chosen = SELECTORS["lasso"](inputs, labels, k, 0)
        for inverse in np.logspace(-3, 1, 200):
            model = LogisticRegression(l1_ratio=1.0, solver="liblinear", C=inverse, intercept_scaling=100.0)
            active = np.flatnonzero(model.fit(inputs, labels).coef_[0])
            if len(active) > k:
                break
            inside = active
        assert set(inside) <= set(chosen.tolist())
        assert len(chosen) == k


@pytest.mark.parametrize("name", SELECTORS)
def test_all_features_may_be_asked_for(name: str) -> None:
    inputs, labels = (of[:, :6] if of.ndim == 2 else of for of in _rows())
    np.testing.assert_array_equal(SELECTORS[name](inputs, labels, 6, 0), np.arange(6))


def test_lassonet_leaves_the_global_generator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungstage.training.selection.comparators._STEPS", 3)
    inputs, labels = _rows(n=40, d=8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = SELECTORS["lassonet"](inputs, labels, 6, 1)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    np.testing.assert_array_equal(SELECTORS["lassonet"](inputs, labels, 6, 1), first)


def test_every_method_is_there_and_has_a_label_of_its_own() -> None:
    found = methods(HARDENED, FEATURES, covariates=True)
    assert next(iter(found)) == GL_RFE
    assert set(LABELS) == set(SELECTORS)
    for selector in ("gl_rfe", "gl_rfe_paper", *SELECTORS):
        assert found[f"{selector}_dnn"].selector == found[f"{selector}_lr"].selector == selector
    assert {"majority", "volume", "shape_lr", "l2_lr", "random_forest", "gradient_boosting"} <= set(found)
    assert len({method.label for method in found.values()}) == len(found)
    assert found["l2_lr"].columns == tuple(range(20))
    assert found["volume"].columns == (19,)
    assert not found["volume"].covariates
    assert len(methods(HARDENED, FEATURES)) == len(found) - 2
    assert not {"volume", "shape_lr"} & set(methods(HARDENED, [f"original_glcm_{i}" for i in range(20)]))
    assert "gl_rfe_paper_dnn" not in methods(PAPER, FEATURES), "it is what gl_rfe_dnn does then"
