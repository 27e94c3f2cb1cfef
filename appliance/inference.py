"""From features to an answer: the model's graph, run by onnxruntime, and the decision rule on its probability."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from appliance.errors import ReasonCode, Refused
from appliance.manifest import Decision, FeatureEntry
from appliance.modelfile import require_plain
from appliance.spec import DomainAssessment, FeatureVector, Stage, StagingResult

INPUT: Final = "features"
OUTPUTS: Final = ("probability_advanced", "contributions", "domain_distance")


def _open(model: bytes) -> Any:
    """Open an onnxruntime session on one thread, on the processor, that reads nothing beyond `model`."""
    # 1.28 is clean; from 1.29 on this variable is what keeps onnxruntime from contacting a host, and it must be
    # set before the import, which therefore stands here.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One case at a time through a tiny network: threads cost more than they bring, and one thread sums in one order.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base below Exception
        raise Refused(ReasonCode.BUNDLE_INVALID, "The bundle's model.onnx cannot be loaded.") from error


class Predictor:
    """The model of a bundle, ready to answer.

    Parameters
    ----------
    model
        The bytes of ``model.onnx``.
    features
        The network's inputs in order, with the range that training saw of each.
    decision
        The conformal thresholds.

    Raises
    ------
    Refused
        ``bundle_invalid`` when `model` is not one plain graph from (n, k) features to the three outputs.
    """

    def __init__(self, model: bytes, features: tuple[FeatureEntry, ...], decision: Decision) -> None:
        require_plain(model)
        self._session = _open(model)
        self._names = tuple(entry.name for entry in features)
        self._lowest = np.array([entry.training_quantiles["0"] for entry in features])
        self._highest = np.array([entry.training_quantiles["1"] for entry in features])
        self._decision = decision
        self._require_signature()

    def _require_signature(self) -> None:
        k = len(self._names)
        inputs = [(i.name, i.type, i.shape[1:]) for i in self._session.get_inputs()]
        outputs = {o.name: (o.type, o.shape[1:]) for o in self._session.get_outputs()}
        wanted = dict(
            zip(OUTPUTS, (("tensor(double)", []), ("tensor(double)", [k]), ("tensor(double)", [])), strict=True)
        )
        if inputs != [(INPUT, "tensor(double)", [k])] or any(outputs.get(name) != wanted[name] for name in OUTPUTS):
            raise Refused(
                ReasonCode.BUNDLE_INVALID,
                f"The bundle's model.onnx must take '{INPUT}' (n, {k}) and give {', '.join(OUTPUTS)}, all float64.",
            )

    @property
    def metadata(self) -> Mapping[str, str]:
        """The texts that the model file carries about itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        """Run the graph.

        Parameters
        ----------
        values
            (n, k) raw features; NaN is imputed by the training median inside the graph.

        Returns
        -------
        tuple of ndarray
            Probability of advanced stage (n,), contributions (n, k) in logit units, domain distance (n,).
        """
        outputs: list[npt.NDArray[np.float64]] = self._session.run(OUTPUTS, {INPUT: values.astype(np.float64)})
        return tuple(outputs)

    def predict(self, features: FeatureVector) -> StagingResult:
        """Answer for one region of interest.

        Parameters
        ----------
        features
            The bundle's features, in the bundle's order.

        Returns
        -------
        StagingResult
            Stage group, probability, contributions that sum to logit minus the training median's logit, and the
            distance to the training cohort.

        Raises
        ------
        ValueError
            When `features` are not the bundle's.
        """
        if features.names != self._names:
            raise ValueError("the measured features are not the model's, or not in its order")
        probability, contributions, distance = self.run(features.values[np.newaxis])
        p = float(probability[0])
        with np.errstate(invalid="ignore"):
            beyond = (features.values < self._lowest) | (features.values > self._highest)
        return StagingResult(
            stage=decide(p, self._decision),
            probability_advanced=p,
            contributions=dict(zip(self._names, map(float, contributions[0]), strict=True)),
            domain=DomainAssessment(
                distance=float(distance[0]),
                outside=tuple(name for name, out in zip(self._names, beyond, strict=True) if out),
            ),
        )


def decide(probability_advanced: float, decision: Decision) -> Stage:
    """Name the stage group that the probability singles out.

    A class is possible while its probability reaches its conformal threshold; when both or none are possible the
    evidence does not decide (Vovk, Gammerman & Shafer 2005, label-conditional conformal prediction).
    """
    early = 1.0 - probability_advanced >= decision.early_min_probability
    advanced = probability_advanced >= decision.advanced_min_probability
    if early == advanced:
        return Stage.INDETERMINATE
    return Stage.EARLY if early else Stage.ADVANCED
