from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import Covariate, FeatureVector
from lungstage.appliance.model.answering import singled_out
from lungstage.appliance.model.inference import Predictor
from lungstage.appliance.model.manifest import QUANTILES, Decision, FeatureEntry
from lungstage.appliance.model.model_file import require_plain
from lungstage.export.graph import build_graph
from lungstage.export.parity import reference
from lungstage.training.run import FittedModel
from tests.export.conftest import make_model
from tests.support.covariates import AGE, HISTOLOGY, SEX

MODEL = make_model(5)
DECISION = Decision(alpha=0.1, early_min_probability=0.3, advanced_min_probability=0.4)


def entries_of(model: FittedModel) -> tuple[FeatureEntry, ...]:
    steps = model.preprocessing
    return tuple(
        FeatureEntry(
            name=name,
            unit="1",
            ibsi=None,
            training_median=float(median),
            training_quantiles={key: float(a + float(key) * (b - a)) for key in QUANTILES},
        )
        for name, median, a, b in zip(model.features, steps.median, steps.lower, steps.upper, strict=False)
    )


def predictor_of(proto: onnx.ModelProto) -> Predictor:
    return Predictor(proto.SerializeToString(), entries_of(MODEL), DECISION)


PREDICTOR = predictor_of(build_graph(MODEL, {"note": "text"}))


def test_predict_gives_the_models_own_numbers() -> None:
    steps = MODEL.preprocessing
    values = steps.median + 0.3 * (steps.upper - steps.median)
    values[2], values[4] = steps.upper[2] + 1.0, steps.lower[4] - 1.0
    result = PREDICTOR.predict(FeatureVector(MODEL.features, values))
    expected = reference(MODEL, values[np.newaxis])
    assert result.probability_advanced == pytest.approx(expected.probability_advanced[0], abs=1e-12)
    assert list(result.contributions) == list(MODEL.features)
    np.testing.assert_allclose(list(result.contributions.values()), expected.contributions[0], rtol=1e-9, atol=1e-12)
    assert result.domain.distance == pytest.approx(expected.domain_distance[0], rel=1e-10)
    assert result.domain.neighbour_distance == pytest.approx(expected.neighbour_distance[0], rel=1e-10)
    assert result.prevalence is None
    assert result.domain.outside == (MODEL.features[2], MODEL.features[4])
    assert result.stage == singled_out(result.probability_advanced, DECISION)
    assert PREDICTOR.metadata == {"note": "text"}


def test_values_on_the_edge_of_training_and_missing_ones_are_not_outside() -> None:
    values = np.array([entry.training_quantiles["1"] for entry in entries_of(MODEL)])
    values[0] = np.nan
    assert PREDICTOR.predict(FeatureVector(MODEL.features, values)).domain.outside == ()


def test_features_of_another_model_or_order_are_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="order"):
        PREDICTOR.predict(FeatureVector(MODEL.features[::-1], np.zeros(15)))


CLINICAL = make_model(6, covariates=(AGE, SEX, HISTOLOGY))
CLINICAL_PREDICTOR = Predictor(
    build_graph(CLINICAL).SerializeToString(), entries_of(CLINICAL), DECISION, CLINICAL.covariates
)


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        ({"age": 71.5, "sex": "M", "histology": "large cell carcinoma"}, [71.5, 1.0, 0.0, 1.0]),
        ({"age": 71.5, "sex": "F", "histology": "adenocarcinoma"}, [71.5, 0.0, 0.0, 0.0]),
        ({"histology": "squamous cell carcinoma"}, [np.nan, np.nan, 1.0, 0.0]),
        ({"histology": "sarcoma"}, [np.nan] * 4),
        ({}, [np.nan] * 4),
    ],
)
def test_covariates_are_encoded_in_order_and_summed_by_name(
    given: dict[str, float | str], columns: list[float]
) -> None:
    steps = CLINICAL.preprocessing
    values = steps.median[:15] + 0.3 * (steps.upper - steps.median)[:15]
    result = CLINICAL_PREDICTOR.predict(FeatureVector(CLINICAL.features, values), given)
    expected = reference(CLINICAL, np.concatenate([values, columns])[np.newaxis])
    assert result.probability_advanced == pytest.approx(expected.probability_advanced[0], abs=1e-12)
    assert list(result.contributions) == [*CLINICAL.features, "age", "sex", "histology"]
    shares = expected.contributions[0]
    told = [result.contributions[name] for name in ("age", "sex", "histology")]
    np.testing.assert_allclose(told, [shares[15], shares[16], shares[17:].sum()], rtol=1e-9, atol=1e-12)
    baseline = reference(CLINICAL, steps.median[np.newaxis]).logit[0]
    assert sum(result.contributions.values()) == pytest.approx(expected.logit[0] - baseline, rel=1e-9, abs=1e-12)
    if not given:
        assert told == pytest.approx([0.0, 0.0, 0.0], abs=1e-14)


def test_many_rows_at_once_are_answered_alike() -> None:
    steps = CLINICAL.preprocessing
    rows = np.tile(steps.median, (3, 1))
    rows[1, 3], rows[2, 16] = np.nan, np.nan
    outputs = CLINICAL_PREDICTOR.run(rows[:, :15], rows[:, 15:])
    assert outputs.covariate_contributions is not None
    assert [len(field) for field in outputs] == [3] * 5
    np.testing.assert_allclose(outputs.probability_advanced, outputs.probability_advanced[0], rtol=1e-12)
    assert PREDICTOR.run(np.zeros((2, 15))).covariate_contributions is None


@pytest.mark.parametrize("covariates", [(), (AGE,), (AGE, SEX)])
def test_a_graph_of_other_covariates_is_refused(covariates: tuple[Covariate, ...]) -> None:
    with pytest.raises(Refused, match="must have the inputs") as caught:
        Predictor(build_graph(CLINICAL).SerializeToString(), entries_of(CLINICAL), DECISION, covariates)
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID


def external_weights(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    raw = tensor.raw_data
    Path("weights.bin").write_bytes(raw)
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin", length=len(raw))
    tensor.ClearField("raw_data")


def custom_operator(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.node[0].domain = "com.microsoft"


def custom_domain_unused(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.example", 1))


def subgraph(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("body", onnx.GraphProto(name="inner")))


def tensor_in_a_node(proto: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.zeros(1), "value")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["spare"], value=value))


def local_function(proto: onnx.ModelProto) -> None:
    proto.functions.append(onnx.FunctionProto(name="f", domain="here"))


def sparse_weights(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[1]))


def single_precision(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def second_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.DOUBLE, ["n", 1]))


def missing_output(proto: onnx.ModelProto) -> None:
    del proto.graph.output[1]


def wrong_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 9999


@pytest.mark.parametrize(
    "spoil",
    [
        external_weights, custom_operator, custom_domain_unused, subgraph, tensor_in_a_node, local_function,
        sparse_weights, single_precision, second_input, missing_output, wrong_opset,
    ],
)  # fmt: skip
def test_a_model_that_is_not_one_plain_graph_is_refused(
    spoil: Callable[[onnx.ModelProto], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this folder onnxruntime finds external weights, so that lungstage must refuse them itself.
    monkeypatch.chdir(tmp_path)
    proto = build_graph(MODEL)
    predictor_of(proto)
    spoil(proto)
    with pytest.raises(Refused) as caught:
        predictor_of(proto)
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID


def test_external_weights_are_refused_where_onnxruntime_alone_would_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    proto = build_graph(MODEL)
    external_weights(proto)
    content = proto.SerializeToString()
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])  # therefore lungstage has its own check
    with pytest.raises(Refused, match="a field that is not allowed"):
        require_plain(content)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_model_are_refused_and_nothing_else(content: bytes) -> None:
    with pytest.raises(Refused) as caught:
        Predictor(content, entries_of(MODEL), DECISION)
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID


@given(st.data())
def test_a_truncated_model_is_refused(data: st.DataObject) -> None:
    content = build_graph(MODEL).SerializeToString()
    with pytest.raises(Refused):
        Predictor(content[: data.draw(st.integers(0, len(content) - 1))], entries_of(MODEL), DECISION)


@pytest.mark.parametrize("module", ["lungstage.appliance.model.inference", "lungstage.appliance.model.bundle"])
def test_import_is_light_and_sets_nothing_up(module: str) -> None:
    heavy = "('torch', 'pandas', 'sklearn', 'onnx', 'onnxruntime', 'scipy')"
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    code = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
        "from lungstage.appliance.model.inference import open_session\n"
        "from lungstage.appliance.contract.errors import Refused\n"
        "class Spy:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print('telemetry', os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Spy())\n"
        "try: open_session(b'')\n"
        "except Refused: pass\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    assert done.stdout.splitlines()[0] == "telemetry 1"
