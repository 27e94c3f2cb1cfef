from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import PowerTransformer

from lungstage.appliance.contract.spec import Covariate
from lungstage.appliance.model.model_file import require_plain
from lungstage.export.graph import OPSET, build_graph
from lungstage.export.parity import Answers, prove, random_inputs, reference, run_graph, run_session
from lungstage.training.model.network import ensemble_logits
from lungstage.training.model.preprocessing import Standardise, standardise
from lungstage.training.run import Array, Ensemble, FittedModel
from tests.support.covariates import AGE, HISTOLOGY, SEX

from .conftest import make_model

MODEL = make_model(7)
WITH_COVARIATES = make_model(7, covariates=(AGE, SEX, HISTOLOGY))
SESSIONS = {
    id(model): onnxruntime.InferenceSession(build_graph(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for model in (MODEL, WITH_COVARIATES)
}
SPREAD = MODEL.preprocessing.spread


def run_graph_once(x: Array, model: FittedModel = MODEL) -> Answers:
    """Like run_graph, but with one session for all calls: hypothesis makes hundreds."""
    return run_session(SESSIONS[id(model)], x)


def raw_inputs(rows: int, model: FittedModel = MODEL) -> st.SearchStrategy[Array]:
    """Raw inputs: usual, extreme or missing."""
    steps = model.preprocessing
    scaled = arrays(np.float64, (rows, steps.median.size), elements=st.floats(-1e6, 1e6) | st.just(np.nan))
    return scaled.map(lambda z: steps.center + steps.spread * z)


def either_model(rows: int) -> st.SearchStrategy[tuple[FittedModel, Array]]:
    """A model without covariates or with four columns of them, and inputs for it."""
    return st.sampled_from([MODEL, WITH_COVARIATES]).flatmap(
        lambda model: st.tuples(st.just(model), raw_inputs(rows, model))
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hidden", [(64, 32), (8,), (16, 8, 4)])
def test_graph_follows_torch_over_a_thousand_random_inputs(seed: int, hidden: tuple[int, ...]) -> None:
    model = make_model(seed, hidden=hidden)
    parity = prove(model, build_graph(model).SerializeToString())
    assert parity.rows == 1000
    assert parity.probability <= 1e-12
    assert parity.contributions <= 1e-10
    assert parity.distance <= 1e-10
    assert parity.neighbours <= 1e-10
    assert parity.completeness <= 1e-12


@pytest.mark.parametrize(
    ("k", "covariates", "c"), [(1, (SEX,), 1), (15, (AGE,), 1), (15, (SEX, AGE), 2), (15, (AGE, SEX, HISTOLOGY), 4)]
)
def test_covariates_are_a_second_input_of_their_own(k: int, covariates: tuple[Covariate, ...], c: int) -> None:
    model = make_model(k, k, covariates=covariates)
    proto = build_graph(model)
    assert [(i.name, i.type.tensor_type.shape.dim[1].dim_value) for i in proto.graph.input] == [
        ("features", k), ("covariates", c),
    ]  # fmt: skip
    assert {o.name: len(o.type.tensor_type.shape.dim) for o in proto.graph.output}["covariate_contributions"] == 2
    assert np.isnan(random_inputs(model, rows=200)[:, k:]).any(axis=0).all()
    parity = prove(model, proto.SerializeToString(), rows=200)
    assert max(parity.probability, parity.completeness) <= 1e-12
    assert max(parity.contributions, parity.distance, parity.neighbours) <= 1e-10


def test_a_model_without_covariates_has_one_input_and_says_nothing_of_them() -> None:
    proto = build_graph(MODEL)
    assert [i.name for i in proto.graph.input] == ["features"]
    assert {o.name for o in proto.graph.output} == {
        "probability_advanced", "contributions", "domain_distance", "neighbour_distance", "logit",
    }  # fmt: skip


def test_covariates_move_the_answer_and_not_the_domain() -> None:
    model, k = WITH_COVARIATES, 15
    x = np.tile(random_inputs(model, rows=40)[2:], (2, 1))
    x[38:, k:] = random_inputs(model, rows=40, seed=9)[2:, k:]
    answers = run_graph_once(x, model)
    assert (answers.logit[:38] != answers.logit[38:]).mean() > 0.9
    np.testing.assert_array_equal(answers.domain_distance[:38], answers.domain_distance[38:])
    np.testing.assert_array_equal(answers.neighbour_distance[:38], answers.neighbour_distance[38:])


@pytest.mark.parametrize("references", [1, 2, 3, 40])
def test_neighbour_distance_is_brute_force(references: int) -> None:
    model = dataclasses.replace(
        MODEL, domain_references=np.random.default_rng(references).normal(0.0, 1.0, (references, 15))
    )
    x = random_inputs(model, rows=50)
    answers = run_graph(build_graph(model).SerializeToString(), x)
    z = standardise(model.preprocessing, x, clip=False)
    for row, distance in zip(z, answers.neighbour_distance, strict=True):
        each = sorted(sum((a - b) ** 2 for a, b in zip(row, r, strict=True)) ** 0.5 for r in model.domain_references)
        nearest = each[: min(3, references)]
        assert distance == pytest.approx(sum(nearest) / len(nearest) / 15**0.5, rel=1e-12)


def test_a_case_on_its_references_is_at_no_distance_from_them() -> None:
    model = dataclasses.replace(MODEL, domain_references=np.zeros((3, 15)))
    steps = dataclasses.replace(model.preprocessing, mean=np.zeros(15))
    model = dataclasses.replace(model, preprocessing=steps)
    answers = run_graph(build_graph(model).SerializeToString(), steps.center[None])
    assert answers.neighbour_distance == [0.0]


def test_prove_rejects_a_graph_of_another_model() -> None:
    with pytest.raises(ArithmeticError, match="does not compute"):
        prove(make_model(1), build_graph(make_model(2)).SerializeToString())


def test_random_inputs_hold_what_the_parity_claims_to_cover() -> None:
    x, steps = random_inputs(MODEL), MODEL.preprocessing
    assert np.isnan(x).mean() > 0.03
    assert (x > steps.upper + 10 * steps.spread).any()
    assert (x < steps.lower - 10 * steps.spread).any()
    assert (x[2:] == steps.median).any(axis=0).all()
    assert (x[2:] == steps.upper).any(axis=0).all()


@settings(max_examples=200, deadline=None)
@given(either_model(1))
def test_contributions_sum_to_logit_minus_baseline(case: tuple[FittedModel, Array]) -> None:
    model, x = case
    answers = run_graph_once(np.concatenate([x, model.preprocessing.median[np.newaxis]]), model)
    expected = answers.logit[0] - answers.logit[1]
    assert answers.contributions[0].sum() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert np.abs(answers.contributions[1]).max() <= 1e-14
    assert all(np.isfinite(value).all() for value in (answers.contributions, answers.domain_distance, answers.logit))


@settings(max_examples=50, deadline=None)
@given(either_model(5))
def test_a_row_does_not_depend_on_its_neighbours(case: tuple[FittedModel, Array]) -> None:
    model, x = case
    together = run_graph_once(x, model)
    for i in range(len(x)):
        alone = run_graph_once(x[i : i + 1], model)
        assert together.neighbour_distance[i] == pytest.approx(alone.neighbour_distance[0], rel=1e-12)
        assert together.logit[i] == pytest.approx(alone.logit[0], rel=1e-12, abs=1e-12)
        assert together.contributions[i] == pytest.approx(alone.contributions[0], rel=1e-10, abs=1e-12)
        assert together.domain_distance[i] == pytest.approx(alone.domain_distance[0], rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(raw_inputs(8))
def test_probability_rises_with_the_logit(x: Array) -> None:
    answers = run_graph_once(x)
    order = np.argsort(answers.logit)
    assert (np.diff(answers.probability_advanced[order]) >= 0).all()
    assert ((answers.probability_advanced >= 0) & (answers.probability_advanced <= 1)).all()


@settings(max_examples=100, deadline=None)
@given(either_model(1), st.integers(0, 18))
def test_an_input_at_its_median_or_missing_contributes_nothing(case: tuple[FittedModel, Array], place: int) -> None:
    model, x = case
    place %= x.shape[1]
    x[0, place] = model.preprocessing.median[place]
    missing = x.copy()
    missing[0, place] = np.nan
    answers = run_graph_once(np.concatenate([x, missing]), model)
    assert abs(answers.contributions[0, place]) <= 1e-14
    np.testing.assert_allclose(answers.contributions[0], answers.contributions[1], rtol=1e-10, atol=1e-13)


@settings(max_examples=100, deadline=None)
@given(raw_inputs(1), st.integers(0, 14), st.floats(1.0, 1e9))
def test_beyond_the_clipping_range_only_the_distance_goes_on(x: Array, feature: int, factor: float) -> None:
    x[0, feature] = MODEL.preprocessing.upper[feature]
    further = x.copy()
    further[0, feature] += factor * SPREAD[feature]
    answers = run_graph_once(np.concatenate([x, further]))
    assert answers.logit[0] == pytest.approx(answers.logit[1], rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(answers.contributions[0], answers.contributions[1], rtol=1e-10, atol=1e-13)
    assert answers.domain_distance[1] > 0


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e308, -1e308])
def test_even_the_largest_numbers_give_an_answer(value: float) -> None:
    answers = run_graph_once(np.full((1, 15), value))
    assert np.isfinite(answers.probability_advanced).all()
    assert np.isfinite(answers.contributions).all()
    assert np.isfinite(answers.domain_distance).all()
    assert np.isfinite(answers.neighbour_distance).all()


@pytest.mark.parametrize("lmbda", [0.0, 2.0, 1.0, -3.7, 4.9, 1e-9, -1e-14, 2 - 1e-12, 2 + 1e-9, 1e-300])
def test_yeo_johnson_is_scikit_learns(lmbda: float) -> None:
    # One linear member with weight 1: the logit is the transformed feature itself.
    one = np.ones(1)
    steps = type(MODEL.preprocessing)(0 * one, -50 * one, 50 * one, 0 * one, one, lmbda * one, 0 * one, one)
    ensemble = Ensemble((np.ones((1, 1, 1)),), (np.zeros((1, 1)),))
    model = FittedModel((MODEL.features[0],), steps, ensemble, (1.0, 0.0), np.eye(1), np.zeros((3, 1)))
    x = np.concatenate([np.linspace(-40, 40, 161), [1e-12, -1e-12, 1e-5, -1e-5]])[:, np.newaxis]
    oracle = PowerTransformer(standardize=False).fit(np.random.default_rng(0).normal(size=(9, 1)))
    # scikit-learn itself loses digits if lambda is near 0 or 2 but not equal, so its result at the limit is used.
    near = next((limit for limit in (0.0, 2.0) if 0 < abs(lmbda - limit) < 1e-8), lmbda)
    oracle.lambdas_ = np.array([near])
    logit = run_graph(build_graph(model).SerializeToString(), x).logit
    np.testing.assert_allclose(logit, oracle.transform(x)[:, 0], rtol=1e-6 if near != lmbda else 1e-12, atol=1e-15)


def test_contributions_follow_the_rescale_rule_by_hand() -> None:
    # Two inputs, one hidden unit h = relu(x0 - 2 x1 - 1), logit 3 h; baseline (0, 0) has h = 0 (a = -1).
    two = np.ones(2)
    steps = type(MODEL.preprocessing)(0 * two, -9 * two, 9 * two, 0 * two, two, two, 0 * two, two)
    ensemble = Ensemble((np.array([[[1.0], [-2.0]]]), np.array([[[3.0]]])), (np.array([[-1.0]]), np.array([[0.0]])))
    model = FittedModel(MODEL.features[:2], steps, ensemble, (0.5, 0.0), np.eye(2), np.zeros((3, 2)))
    answers = run_graph(build_graph(model).SerializeToString(), np.array([[4.0, -1.0], [0.0, 3.0], [4.0, 2.0]]))
    # a = 5, so the multiplier is 5 / 6: contributions 0.5 * 3 * 5/6 * (4, 2).
    np.testing.assert_allclose(answers.contributions[0], [5.0, 2.5], rtol=1e-15)
    # Row 1: both activations are below zero. Row 2: a = -1, as in the baseline, so the derivative, 0, is used.
    assert not answers.contributions[1].any()
    assert not answers.contributions[2].any()


def test_a_unit_exactly_at_its_baseline_uses_the_derivative() -> None:
    # At x0 = x1, h = relu(x0 - x1 + 1) is active and equals its baseline: the gradient is used instead of 0 / 0.
    two = np.ones(2)
    steps = type(MODEL.preprocessing)(0 * two, -9 * two, 9 * two, 0 * two, two, two, 0 * two, two)
    ensemble = Ensemble((np.array([[[1.0], [-1.0]]]), np.array([[[3.0]]])), (np.array([[1.0]]), np.array([[0.0]])))
    model = FittedModel(MODEL.features[:2], steps, ensemble, (1.0, 0.0), np.eye(2), np.zeros((3, 2)))
    answers = run_graph(build_graph(model).SerializeToString(), np.array([[2.0, 2.0]]))
    np.testing.assert_allclose(answers.contributions, [[6.0, -6.0]], rtol=1e-14)


def test_graph_follows_trainings_own_steps() -> None:
    # Skewed features of very different size, like radiomics features, fitted by training's own transformer.
    rng = np.random.default_rng(4)
    table = rng.lognormal(0.0, 1.5, (160, 15)) * 10.0 ** rng.integers(-3, 10, 15) - rng.normal(0.0, 1.0, 15)
    table[rng.random(table.shape) < 0.03] = np.nan
    fitted = Standardise().fit(table)
    model = dataclasses.replace(MODEL, preprocessing=fitted.parameters_)
    x = np.concatenate([table, random_inputs(model)])
    answers = run_graph(build_graph(model).SerializeToString(), x)
    z, far = fitted.transform(x), standardise(fitted.parameters_, x, clip=False)
    slope, intercept = model.calibration
    np.testing.assert_allclose(answers.logit, slope * ensemble_logits(model.ensemble, z) + intercept, atol=1e-10)
    distance = np.sqrt(np.einsum("ni,ij,nj->n", far, model.domain_precision, far))
    np.testing.assert_allclose(answers.domain_distance, distance, rtol=1e-8)


def test_reference_distance_and_logit_against_plain_loops() -> None:
    x = random_inputs(MODEL, rows=20, seed=3)
    answers = reference(MODEL, x)
    steps = MODEL.preprocessing
    for row, logit in zip(x, answers.logit, strict=True):
        clipped = np.clip(np.where(np.isnan(row), steps.median, row), steps.lower, steps.upper)
        z = np.array([_standardised(value, j) for j, value in enumerate(clipped)])
        total = 0.0
        for member in range(5):
            h = torch.tensor(z)
            for i in range(3):
                weight, bias = MODEL.ensemble.weights[i][member], MODEL.ensemble.biases[i][member]
                h = torch.tensor(weight).T @ h + torch.tensor(bias)
                h = torch.relu(h) if i < 2 else h
            total += float(h[0]) / 5
        assert logit == pytest.approx(0.7 * total + 0.2, rel=1e-9, abs=1e-9)


def _standardised(value: float, j: int) -> float:
    steps = MODEL.preprocessing
    u, power = (value - steps.center[j]) / steps.spread[j], float(steps.lmbda[j])
    if u >= 0:
        y = np.log1p(u) if abs(power) < 1e-8 else ((1 + u) ** power - 1) / power
    else:
        y = -np.log1p(-u) if abs(power - 2) < 1e-8 else -((1 - u) ** (2 - power) - 1) / (2 - power)
    return float((y - steps.mean[j]) / steps.scale[j])


def test_file_is_deterministic_plain_and_says_nothing_of_its_maker() -> None:
    first, second = (
        build_graph(make_model(3, covariates=(AGE,)), {"b": "2", "a": "1"}).SerializeToString(deterministic=True),
        build_graph(make_model(3, covariates=(AGE,)), {"a": "1", "b": "2"}).SerializeToString(deterministic=True),
    )
    assert first == second
    require_plain(first)
    proto = onnx.load_from_string(first)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", OPSET)]
    assert {p.key: p.value for p in proto.metadata_props} == {"a": "1", "b": "2"}
    assert b"/home" not in first
    assert b"/work" not in first
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert {t.data_type for t in proto.graph.initializer} == {
        onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64,
    }  # fmt: skip
