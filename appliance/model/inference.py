"""From features to a probability: the model's graph, run by onnxruntime."""

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
from lungstage.appliance.model.manifest import BUILD_AGAIN, Decision, FeatureEntry
from lungstage.appliance.model.model_file import require_plain

Array = npt.NDArray[np.float64]

FEATURES_INPUT: Final = "features"
COVARIATES_INPUT: Final = "covariates"


class Outputs(NamedTuple):
    """What the graph says of n rows, under the names of its outputs.

    Attributes
    ----------
    probability_advanced
        (n,) of the positive class, whatever it is called, at the training prevalence.
    contributions
        (n, k) in logit units.
    domain_distance
        (n,) from the training cohort, in standard deviations.
    neighbour_distance
        (n,) to the nearest training tumours, likewise.
    covariate_contributions
        (n, c) in logit units; None of a model without covariates.
    """

    probability_advanced: Array
    contributions: Array
    domain_distance: Array
    neighbour_distance: Array
    covariate_contributions: Array | None = None


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
        raise Refused(ReasonCode.BUNDLE_INVALID, f"The bundle's model.onnx cannot be loaded. {BUILD_AGAIN}") from error


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
    covariates
        The clinical inputs, in order; their columns are the second input of the graph.

    Raises
    ------
    Refused
        ``bundle_invalid`` when `model` is not one plain graph from (n, k) features, and (n, c) covariates where there
        are any, to the fields of :class:`Outputs`.
    """

    def __init__(
        self,
        model: bytes,
        features: tuple[FeatureEntry, ...],
        decision: Decision,
        covariates: tuple[Covariate, ...] = (),
    ) -> None:
        require_plain(model)
        self._session = _open(model)
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
                f"The bundle's model.onnx must take {taken} and give {', '.join(self._outputs)}, all float64. "
                f"{BUILD_AGAIN}",
            )

    @property
    def metadata(self) -> Mapping[str, str]:
        """The texts that the model file carries about itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, values: Array, covariates: Array | None = None) -> Outputs:
        """Run the graph.

        Parameters
        ----------
        values
            (n, k) raw features; NaN is imputed by the training median inside the graph.
        covariates
            (n, c) encoded covariates, imputed likewise; None takes all of them for missing.
        """
        inputs = {FEATURES_INPUT: values.astype(np.float64)}
        if self._covariates:
            given = np.full((len(values), self._columns), np.nan) if covariates is None else covariates
            inputs[COVARIATES_INPUT] = given.astype(np.float64)
        return Outputs(*self._session.run(self._outputs, inputs))

    def run_alike(self, values: Array, covariates: Mapping[str, float | str]) -> Outputs:
        """Run the graph on n versions of one patient's features (n, k), of whom these covariates are known."""
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
            The value of each covariate of the bundle that is known.

        Returns
        -------
        StagingResult
            What the conformal set singles out (what is answered is :mod:`model.answering`'s to say), probability at
            the training prevalence, contributions that sum to logit minus the training
            median's logit, and the distances to the training cohort.

        Raises
        ------
        ValueError
            When `features` are not the bundle's.
        """
        if features.names != self._names:
            raise ValueError("the measured features are not the model's, or not in its order")
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
