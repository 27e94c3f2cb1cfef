"""Selectors and classifiers compared with GL-RFE: what they find, and which data they must not use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression

from lungstage.training.evaluation.folds import assign_folds, outer_tasks
from lungstage.training.evaluation.methods import GL_RFE, methods, select
from lungstage.training.model.network import single_threaded
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.procedure import HARDENED, PAPER, QUICK
from lungstage.training.selection import comparators, products, trees
from lungstage.training.selection.registry import LABELS, selectors
from lungstage.training.selection.statistics import f_statistic
from tests.training.tables import FEATURES, make_cohort

RANKS = {
    one.__name__: one
    for one in (
        comparators.anova, comparators.mrmr, comparators.mutual_information, comparators.rfe_lr, comparators.lasso,
        comparators.lassonet, products.f_of_products, products.lars_on_products, trees.boosted_trees, trees.boruta,
        comparators.random,
    )
}  # fmt: skip
PROCEDURE = replace(QUICK, selection=replace(QUICK.selection, features=12, fine_below=14))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trees, "_ROUNDS", 5)
    with single_threaded():
        yield


def _rows(n: int = 90, d: int = 20, signal: float = 1.5, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.6
    inputs = rng.normal(size=(n, d))
    inputs[:, [3, 7]] += signal * labels[:, None]
    return Standardise().fit_transform(inputs), labels


@pytest.mark.parametrize("name", [name for name in RANKS if name != "random"])
def test_a_selector_finds_a_plain_signal(name: str) -> None:
    inputs, labels = _rows()
    columns = RANKS[name](inputs, labels, 10, 1)
    assert len(set(columns.tolist())) == 10
    assert {3, 7} <= set(columns.tolist())
    assert columns[0] in (3, 7), "the best feature is first"
    assert columns.dtype == np.intp


@pytest.mark.parametrize("name", LABELS)
def test_no_selector_sees_a_row_that_it_is_not_given(name: str) -> None:
    """Labels and values of the left-out rows do not change a byte of the selection."""
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


def test_the_f_statistic_is_that_of_scikit_learn() -> None:
    inputs, labels = _rows()
    np.testing.assert_allclose(f_statistic(inputs, labels), f_classif(inputs, labels)[0], rtol=1e-9)
    inputs[:, 4] = 0.0
    assert f_statistic(inputs, labels)[4] == 0


def test_mrmr_goes_by_relevance_over_redundancy() -> None:
    """Each step is checked with scikit-learn's F and numpy's correlation; of several copies only one is selected."""
    inputs, labels = _rows()
    table = np.hstack([inputs, inputs[:, [3]] + 0.05 * np.random.default_rng(0).normal(size=(90, 4))])
    relevance, correlation = f_classif(table, labels)[0], np.abs(np.corrcoef(table.T))
    chosen = [int(relevance.argmax())]
    for k in range(2, 8):
        rest = [j for j in range(24) if j not in chosen]
        chosen.append(max(rest, key=lambda j: relevance[j] / correlation[j, chosen].mean()))
        np.testing.assert_array_equal(RANKS["mrmr"](table, labels, k, 0), chosen)
    same = [3, *range(20, 24)]
    assert np.isin(RANKS["anova"](table, labels, 2, 0), same).all()
    assert np.isin(RANKS["mrmr"](table, labels, 2, 0), same).sum() == 1


def test_lasso_takes_what_enters_first() -> None:
    """All features that are active at a penalty with at most k active features are selected."""
    inputs, labels = _rows(d=30)
    for k in (2, 6, 12):
        chosen = RANKS["lasso"](inputs, labels, k, 0)
        for inverse in np.logspace(-3, 1, 200):
            model = LogisticRegression(l1_ratio=1.0, solver="liblinear", C=inverse, intercept_scaling=100.0)
            active = np.flatnonzero(model.fit(inputs, labels).coef_[0])
            if len(active) > k:
                break
            inside = active
        assert set(inside) <= set(chosen.tolist())
        assert len(chosen) == k


@pytest.mark.parametrize("name", RANKS)
def test_all_features_may_be_asked_for(name: str) -> None:
    inputs, labels = (of[:, :6] if of.ndim == 2 else of for of in _rows())
    np.testing.assert_array_equal(np.sort(RANKS[name](inputs, labels, 6, 0)), np.arange(6))


def test_lassonet_leaves_the_global_generator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungstage.training.selection.comparators._STEPS", 3)
    inputs, labels = _rows(n=40, d=8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = RANKS["lassonet"](inputs, labels, 6, 1)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    np.testing.assert_array_equal(RANKS["lassonet"](inputs, labels, 6, 1), first)


def test_every_method_is_there_and_has_a_label_of_its_own() -> None:
    names = (*FEATURES, "original_shape_Sphericity")
    found = methods(HARDENED, names, covariates=True)
    assert next(iter(found)) == GL_RFE
    assert list(LABELS) == list(selectors(HARDENED.selection, HARDENED.network))
    for selector in LABELS:
        assert found[f"{selector}_dnn"].selector == found[f"{selector}_lr"].selector == selector
    assert {
        "majority",
        "volume",
        "sphericity_volume",
        "shape_lr",
        "l2_lr",
        "random_forest",
        "gradient_boosting",
    } <= set(found)
    assert len({method.label for method in found.values()}) == len(found)
    assert found["l2_lr"].columns == tuple(range(21))
    assert found["volume"].columns == (19,)
    assert not found["volume"].covariates
    assert found["sphericity_volume"].columns == (20, 19)
    assert len(methods(HARDENED, names)) == len(found) - 2
    assert not {"volume", "shape_lr"} & set(methods(HARDENED, [f"original_glcm_{i}" for i in range(20)]))
    assert "gl_rfe_paper_dnn" not in methods(PAPER, names), "with these settings it is the same as gl_rfe_dnn"


def test_a_product_that_decides_is_found_where_no_single_feature_tells() -> None:
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(160, 40))
    labels = inputs[:, 5] * inputs[:, 9] + 0.3 * rng.normal(size=160) > 0
    for rank in (products.f_of_products, products.lars_on_products):
        assert set(rank(inputs, labels, 6, 0)[:2].tolist()) == {5, 9}
    assert not {5, 9} <= set(comparators.lasso(inputs, labels, 6, 0).tolist())


def test_products_are_those_of_the_shortlist_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SHORTLIST", 4)
    inputs, labels = _rows()
    terms, features = products._terms(inputs, labels)
    assert terms.shape == (90, 20 + 6)
    best = set(np.argsort(-f_statistic(inputs, labels))[:4].tolist())
    assert set(features[20:].ravel().tolist()) == best
    for term, (i, j) in zip(terms[:, 20:].T, features[20:], strict=True):
        np.testing.assert_array_equal(term, inputs[:, i] * inputs[:, j])


def test_boruta_puts_what_it_confirms_before_the_rest() -> None:
    inputs, labels = _rows(n=160, signal=3.0)
    assert {*trees.boruta(inputs, labels, 20, 0)[:2].tolist()} == {3, 7}


def test_eliminating_coarsely_at_first_ends_where_one_at_a_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = _rows(n=120, d=60, signal=2.0)
    finely = comparators.rfe_lr(inputs, labels, 8, 0)
    monkeypatch.setattr(comparators, "_FINE_BELOW", 20)
    coarsely = comparators.rfe_lr(inputs, labels, 8, 0)
    assert len(np.intersect1d(finely, coarsely)) >= 6
    assert set(finely[:2]) == set(coarsely[:2]) == {3, 7}
    assert RANKS["rfe_lr"](inputs[:, :8], labels, 8, 0).size == 8
