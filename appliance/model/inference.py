"""Run the model's graph with onnxruntime: from features to a probability."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import Covariate, DomainAssessment, FeatureVector, StagingResult
from lungstage.appliance.model.answering import singled_out
from lungstage.appliance.model.manifest import Decision, FeatureEntry
from lungstage.appliance.model.model_file import require_plain
from lungstage.appliance.model.sealed import BUILD_AGAIN

Array = npt.NDArray[np.float64]

FEATURES_INPUT: Final = "features"
COVARIATES_INPUT: Final = "covariates"


class Outputs(NamedTuple):
    """Outputs of the graph for n rows, under their names in the graph.

    Attributes
    ----------
    probability_advanced
        (n,) of the positive class, whatever its name, at the training prevalence.
    contributions
        (n, k) in logit units.
    domain_distance
        (n,) from the training cohort, in standard deviations.
    neighbour_distance
        (n,) to the nearest training tumours, likewise.
    covariate_contributions
        (n, c) in logit units; None for a model without covariates.
    """

    probability_advanced: Array
    contributions: Array
    domain_distance: Array
    neighbour_distance: Array
    covariate_contributions: Array | None = None


def open_session(model: bytes) -> Any:
    """Open an onnxruntime session on the CPU with one thread; it reads nothing but `model`."""
    # onnxruntime 1.28 contacts no host. From 1.29 on this variable prevents it. It must be set before the import, so
    # the import is here.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # For one case and a small network, threads cost more time than they save. One thread also sums in a fixed order.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base below Exception
        raise Refused(ReasonCode.BUNDLE_INVALID, f"The bundle's model.onnx cannot be loaded. {BUILD_AGAIN}") from error


class Predictor:
    """The model of a bundle, ready to answer.

    Parameters
    ----------
    model
        The bytes of ``model.onnx``.
    features
        The network's inputs in order, with the range of each in training.
    decision
        The conformal thresholds.
    covariates
        The clinical inputs, in order; their columns are the second input of the graph.

    Raises
    ------
    Refused
        ``bundle_invalid`` if `model` is not a plain graph from (n, k) features and (n, c) covariates, if any, to the
        fields of :class:`Outputs`.
    """

    def __init__(
        self,
        model: bytes,
        features: tuple[FeatureEntry, ...],
        decision: Decision,
        covariates: tuple[Covariate, ...] = (),
    ) -> None:
        require_plain(model)
        self._session = open_session(model)
        self._names = tuple(entry.name for entry in features)
        self._covariates = covariates
        self._columns = sum(len(covariate.columns) for covariate in covariates)
        self._outputs = list(Outputs._fields if covariates else Outputs._fields[:-1])
        self._lowest = np.array([entry.training_quantiles["0"] for entry in features])
        self._highest = np.array([entry.training_quantiles["1"] for entry in features])
        self._decision = decision
        self._require_signature()

    def _require_signature(self) -> None:
        k, c = len(self._names), self._columns
        inputs = [(i.name, i.type, i.shape[1:]) for i in self._session.get_inputs()]
        outputs = {o.name: (o.type, o.shape[1:]) for o in self._session.get_outputs()}
        wanted = [(FEATURES_INPUT, "tensor(double)", [k])]
        if c:
            wanted.append((COVARIATES_INPUT, "tensor(double)", [c]))
        widths = {"contributions": [k], "covariate_contributions": [c]}
        if inputs != wanted or any(
            outputs.get(name) != ("tensor(double)", widths.get(name, [])) for name in self._outputs
        ):
            taken = " and ".join(f"'{name}' (n, {width})" for name, _, (width,) in wanted)
            raise Refused(
                ReasonCode.BUNDLE_INVALID,
                f"The bundle's model.onnx must have the inputs {taken} and the outputs {', '.join(self._outputs)}, all "
                "float64. "
                f"{BUILD_AGAIN}",
            )

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata texts in the model file."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, values: Array, covariates: Array | None = None) -> Outputs:
        """Run the graph.

        Parameters
        ----------
        values
            (n, k) raw features; the graph replaces NaN by the training median.
        covariates
            (n, c) encoded covariates, with the same treatment of NaN; None means that all are missing.
        """
        inputs = {FEATURES_INPUT: values.astype(np.float64)}
        if self._covariates:
            given = np.full((len(values), self._columns), np.nan) if covariates is None else covariates
            inputs[COVARIATES_INPUT] = given.astype(np.float64)
        return Outputs(*self._session.run(self._outputs, inputs))

    def run_alike(self, values: Array, covariates: Mapping[str, float | str]) -> Outputs:
        """Run the graph on n versions of one patient's features (n, k), with that patient's known covariates."""
        return self.run(values, np.tile(self._encoded(covariates), (len(values), 1)))

    def _encoded(self, covariates: Mapping[str, float | str]) -> Array:
        """Encode one patient's covariates: (1, c)."""
        encoded = [covariate.encode(covariates.get(covariate.name)) for covariate in self._covariates]
        return np.array([list(itertools.chain.from_iterable(encoded))])

    def predict(
        self, features: FeatureVector, covariates: Mapping[str, float | str] = MappingProxyType({})
    ) -> StagingResult:
        """Answer for one region of interest.

        Parameters
        ----------
        features
            The bundle's features, in the bundle's order.
        covariates
            The known values of the bundle's covariates.

        Returns
        -------
        StagingResult
            The class that the conformal set singles out (:mod:`model.answering` decides on the answer), the
            probability at the training prevalence, the contributions, and the distances to the training cohort. The
            contributions sum to the logit minus the logit of the training median.

        Raises
        ------
        ValueError
            `features` are not the bundle's features.
        """
        if features.names != self._names:
            raise ValueError("the measured features are not those of the model, or not in its order")
        answer = self.run(features.values[np.newaxis], self._encoded(covariates))
        p = float(answer.probability_advanced[0])
        with np.errstate(invalid="ignore"):
            beyond = (features.values < self._lowest) | (features.values > self._highest)
        return StagingResult(
            stage=singled_out(p, self._decision),
            probability_advanced=p,
            contributions={
                **dict(zip(self._names, answer.contributions[0].tolist(), strict=True)),
                **self._by_covariate(answer.covariate_contributions),
            },
            domain=DomainAssessment(
                distance=float(answer.domain_distance[0]),
                neighbour_distance=float(answer.neighbour_distance[0]),
                outside=tuple(name for name, out in zip(self._names, beyond, strict=True) if out),
            ),
        )

    def _by_covariate(self, contributions: Array | None) -> dict[str, float]:
        """Add up the contributions (1, c) of each covariate's columns."""
        if contributions is None:
            return {}
        columns = iter(contributions[0].tolist())
        return {
            covariate.name: sum(itertools.islice(columns, len(covariate.columns))) for covariate in self._covariates
        }
