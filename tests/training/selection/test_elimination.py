"""GL-RFE follows the scikit-learn contract and finds the features that contain the signal."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

from lungstage.training.model.classifier import DeepClassifier
from lungstage.training.model.network import NetworkSettings, single_threaded
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.selection.elimination import GradientLossRFE, SelectionSettings, Task, eliminate, selected
from lungstage.training.selection.importance import Importance

FAST = DeepClassifier(members=5, max_epochs=40, patience=6)


def _data(n: int = 150, d: int = 24, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.5, "early", "advanced")
    x = rng.normal(size=(n, d))
    x[:, [2, 11, 17]] += 1.3 * (y == "advanced")[:, None]
    return x, y


@parametrize_with_checks(
    [DeepClassifier(members=2), GradientLossRFE(DeepClassifier(members=2, max_epochs=3), n_features_to_select=1)]
)
def test_scikit_learn_contract(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize(
    "settings",
    [
        *({"importance": kind, "pairwise": False} for kind in get_args(Importance)),
        {"importance": "loss", "aggregate": "rank", "memory": 0.0},
        {"importance": "logit", "dropout_masks": 4},
        {"screened": None},
        {"screened": 1.0, "copies": None},
    ],
    ids=str,
)
def test_the_informative_features_remain(settings) -> None:
    x, y = _data()
    rfe = GradientLossRFE(FAST, n_features_to_select=3, step=0.2, fine_below=6, **settings).fit(x, y)
    assert rfe.get_support(indices=True).tolist() == [2, 11, 17]
    names = [f"f{i}" for i in range(24)]
    assert rfe.get_feature_names_out(names).tolist() == ["f2", "f11", "f17"]
    np.testing.assert_array_equal(rfe.transform(x), x[:, [2, 11, 17]])


def test_the_trace_tells_the_whole_story() -> None:
    x, y = _data(d=40)
    schedule = {"step": 0.1, "fine_below": 30, "fine_step": 1}
    few = DeepClassifier(members=2, max_epochs=8)
    rfe = GradientLossRFE(few, n_features_to_select=15, screened=None, **schedule).fit(x, y)
    sizes = [len(r.remaining) for r in rfe.trace_]
    assert sizes == [40, 36, 32, *range(30, 14, -1)], "a tenth per round above 30, then one"
    for before, after in zip(rfe.trace_, rfe.trace_[1:], strict=False):
        assert np.array_equal(np.union1d(after.remaining, before.removed), before.remaining)
        gone = np.isin(before.remaining, before.removed)
        assert before.importance[gone].max() <= before.importance[~gone].min(), "the least important are removed"
        assert before.importance.min() >= 0
    assert not len(rfe.trace_[-1].removed)
    assert np.array_equal(np.flatnonzero(rfe.support_), rfe.trace_[-1].remaining)
    assert np.array_equal(rfe.ranking_ == 1, rfe.support_)
    assert rfe.ranking_[rfe.trace_[0].removed].tolist() == [rfe.ranking_.max()] * 4


def test_what_enters_is_screened_first() -> None:
    x, y = _data(d=40)
    rfe = GradientLossRFE(FAST, n_features_to_select=5, screened=3.0, fine_step=4).fit(x, y)
    assert [len(r.remaining) for r in rfe.trace_] == [40, 15, 11, 7, 5]
    first = rfe.trace_[0]
    entered = np.isin(first.remaining, first.removed, invert=True)
    assert first.importance[entered].min() >= first.importance[~entered].max()
    assert {2, 11, 17} <= set(np.flatnonzero(rfe.support_))


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_are_never_both_chosen(seed: int) -> None:
    """Such as Energy and TotalEnergy on a grid of 1 mm; also if every relevant feature has copies."""
    rng = np.random.default_rng(seed)
    origin = rng.normal(size=(120, 8))
    y = np.where(origin[:, 0] - origin[:, 1] + 0.5 * rng.normal(size=120) > 0, "advanced", "early")
    copies = 3.0 * origin + 0.3 * rng.normal(size=origin.shape)
    x = np.column_stack([origin, copies, -(origin[:, :2] ** 3), origin[:, 0]])
    rfe = GradientLossRFE(FAST, n_features_to_select=6, random_state=seed).fit(x, y)
    chosen = np.flatnonzero(rfe.support_)
    correlation = np.abs(np.corrcoef(x[:, chosen], rowvar=False)) - np.eye(6)
    assert correlation.max() < 0.9
    of = np.r_[np.arange(8), np.arange(8), 0, 1, 0]  # the original of each column
    assert {0, 1} <= set(of[chosen].tolist())
    every = GradientLossRFE(FAST, n_features_to_select=10, random_state=seed).fit(x, y)
    assert every.support_.sum() == 10, "copies are selected if there are not enough other features"


def test_clones_and_repeats_itself() -> None:
    x, y = _data()
    rfe = GradientLossRFE(FAST, n_features_to_select=8, step=0.4, fine_below=8, random_state=4)
    a, b = clone(rfe).fit(x, y), clone(rfe).fit(x, y)
    np.testing.assert_array_equal(a.importances_, b.importances_)
    other = clone(rfe).set_params(random_state=5, estimator__members=4).fit(x, y)
    assert not np.array_equal(a.importances_, other.importances_)


def test_works_inside_a_pipeline_and_cross_validation() -> None:
    x, y = _data()
    pipeline = make_pipeline(Standardise(), GradientLossRFE(FAST, n_features_to_select=4, step=0.5, fine_below=5), FAST)
    scores = cross_val_score(pipeline, np.exp(x), y, cv=3, scoring="roc_auc")
    assert scores.mean() > 0.9
    assert list(pipeline.fit(x, y).classes_) == ["advanced", "early"]


def test_tasks_run_together_give_what_they_give_alone() -> None:
    x, y = _data()
    labels = y == "advanced"
    tasks = [Task(x, np.setdiff1d(np.arange(150), np.arange(30 * i, 30 * i + 30)), (7, i)) for i in range(5)]
    selection = SelectionSettings(features=4, step=0.3, fine_below=8, members=5)
    network = NetworkSettings(max_epochs=20)
    with single_threaded():
        together = eliminate(tasks, labels, selection, network)
        for task, trace in zip(tasks, together, strict=True):
            (alone,) = eliminate([task], labels, selection, network)
            assert np.array_equal(selected(trace), selected(alone))
            for a, b in zip(trace, alone, strict=True):
                np.testing.assert_array_equal(a.importance, b.importance)


@pytest.mark.parametrize("features", [4, 8, 12])  # 12 is all features: nothing is removed
@pytest.mark.parametrize("screened", [2.0, None])
def test_what_is_selected_does_not_depend_on_its_being_rated(features: int, screened: float | None) -> None:
    x, y = _data()
    x, labels = x[:, :12], y == "advanced"
    selection = SelectionSettings(features=features, screened=screened, step=0.3, fine_below=8, members=3)
    task, network = Task(x, np.arange(len(x)), (3,)), NetworkSettings(max_epochs=5)
    with single_threaded():
        (rated,), (unrated,) = (eliminate([task], labels, selection, network, rated=asked) for asked in (True, False))
    np.testing.assert_array_equal(selected(unrated), selected(rated))


def test_more_than_two_classes_are_refused() -> None:
    x, _ = _data()
    with pytest.raises(ValueError, match="binary"):
        FAST.fit(x, np.arange(150) % 3)
    with pytest.raises(ValueError, match="one class"):
        FAST.fit(x, np.zeros(150))


@pytest.mark.parametrize(
    ("asked", "kept"), [(0.25, 6), (0.5, 12), (0.49, 11), (1.0, 24), (0.01, 1), (1, 1), (np.int64(3), 3), (99, 24)]
)
def test_a_share_of_the_features_is_one_as_in_scikit_learns_rfe(asked, kept) -> None:
    x, y = _data()
    few = DeepClassifier(members=2, max_epochs=2)
    ours = GradientLossRFE(few, n_features_to_select=asked, importance="loss", step=0.9, fine_below=0).fit(x, y)
    assert ours.get_support().sum() == kept
    if kept > 1 and asked != 99:
        theirs = RFE(LogisticRegression(), n_features_to_select=asked, step=0.9).fit(x, y)
        assert theirs.get_support().sum() == kept


@pytest.mark.parametrize("asked", [0, -1, 1.5, 0.0, -0.5, True, False, "a", None, np.nan, np.inf])
def test_a_number_of_features_that_is_none_is_refused(asked) -> None:
    x, y = _data()
    with pytest.raises(InvalidParameterError, match="n_features_to_select"):
        GradientLossRFE(FAST, n_features_to_select=asked).fit(x, y)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("importance", "shap"), ("aggregate", "median"), ("dropout_masks", -1), ("pairwise", "no"), ("copies", -0.1),
        ("memory", 1.0), ("step", 0.0), ("step", 1), ("fine_below", -1), ("fine_step", 0), ("screened", 0.5),
        ("copies", 0.0), ("random_state", "a"),
    ],
)  # fmt: skip
def test_a_parameter_without_a_meaning_is_refused_by_name(name, value) -> None:
    with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of GradientLossRFE"):
        GradientLossRFE(FAST, **{name: value}).fit(*_data())


@pytest.mark.parametrize("estimator", [LogisticRegression(), RandomForestClassifier(), DeepClassifier, "a", 1])
def test_an_estimator_without_gradients_is_refused_with_what_is_needed(estimator) -> None:
    with pytest.raises(InvalidParameterError, match=r"gradients of neural networks.*None or a .*DeepClassifier"):
        GradientLossRFE(estimator).fit(*_data())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value) -> None:
    x, y = _data()
    x[3, 5] = value
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        GradientLossRFE(FAST).fit(x, y)


def test_one_class_or_three_are_refused() -> None:
    x, _ = _data()
    with pytest.raises(ValueError, match="one class"):
        GradientLossRFE(FAST).fit(x, np.zeros(150))
    with pytest.raises(ValueError, match="binary"):
        GradientLossRFE(FAST).fit(x, np.arange(150) % 3)
