"""A training run on disk: the fitted model as plain arrays, and the record of the training.

Export reads this folder and nothing else. So it contains everything that the bundle and its card say.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.spec import STAGE_GROUP, Covariate, Endpoint

Array = npt.NDArray[np.float64]

ROBUSTNESS = "robustness.json"
"""File in a run's folder: repeatability of the model's probability under simulated perturbations."""
ASSISTED = "assisted.json"
"""File in a run's folder: answers of the procedure on semi-automatic contours, beside those on experts' contours."""

OWN: Final = MappingProxyType(
    {
        "procedure_sha256": "settings",
        "table": "tables or rows",
        "endpoint": "endpoints",
        "covariates": "covariates",
        "repeatability": "repeatability filters",
    }
)
"""Keys of a record that must be the same in a file beside it for the file to be about this model, in words."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Per-input steps before the network, fitted on training rows only. Each array is (k + c,), features first.

    Notes
    -----
    ``x`` → NaN replaced by ``median`` → clipped to [``lower``, ``upper``] → ``(x - center) / spread``
    → Yeo–Johnson with ``lmbda`` → ``(y - mean) / scale``.
    """

    median: Array
    lower: Array
    upper: Array
    center: Array
    spread: Array
    lmbda: Array
    mean: Array
    scale: Array


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A seed ensemble of multilayer perceptrons with ReLU between layers; its logits are averaged.

    ``weights[i]`` is (members, inputs, outputs) and ``biases[i]`` is (members, outputs). The first layer has k + c
    inputs, features first. The last layer has one output.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class FittedModel:
    """Everything that ``model.onnx`` contains.

    Attributes
    ----------
    features
        The k selected features, in input order.
    preprocessing, ensemble
        See there.
    calibration
        (slope, intercept): ``probability = sigmoid(slope * mean_logit + intercept)``, fitted on out-of-fold logits.
    domain_precision
        (k, k) inverse of the shrunk covariance of the *unclipped* standardised features of the training rows:
        ``distance = sqrt(z @ precision @ z)``. ``z`` is the output of :class:`Preprocessing` without the clipping
        step, limited to ±10.
    domain_references
        (m, k) means of small groups of such rows: the neighbours of :func:`training.model.domain.neighbour_distances`.
    covariates
        The clinical covariates; their columns are the c inputs after the k features.
    """

    features: tuple[str, ...]
    preprocessing: Preprocessing
    ensemble: Ensemble
    calibration: tuple[float, float]
    domain_precision: Array
    domain_references: Array
    covariates: tuple[Covariate, ...] = ()

    @property
    def covariate_columns(self) -> tuple[str, ...]:
        """Names of the c inputs after the features."""
        return tuple(column for covariate in self.covariates for column in covariate.columns)


@dataclass(frozen=True, slots=True)
class Run:
    """A fitted model and its record.

    Attributes
    ----------
    model
        The fitted model.
    record
        JSON-serialisable; the keys are listed in :data:`RECORD_KEYS`.
    evaluation
        Content of ``evaluation.json`` in the same folder, by ``lungstage-train evaluate``; None without that file.
    robustness
        Content of ``robustness.json`` there, by ``lungstage-train robustness``; None without that file.
    assisted
        Content of ``assisted.json`` there, by ``lungstage-train assisted``; None without that file.
    """

    model: FittedModel
    record: dict[str, Any]
    evaluation: dict[str, Any] | None = None
    robustness: dict[str, Any] | None = None
    assisted: dict[str, Any] | None = None

    @property
    def own_evaluation(self) -> dict[str, Any] | None:
        """The evaluation, if it has this model's procedure, rows and inputs; else None."""
        return None if self.evaluation is None or differences(self.record, self.evaluation) else self.evaluation

    @property
    def own_assisted(self) -> dict[str, Any] | None:
        """The answers on semi-automatic contours, if they have this model's procedure, rows and inputs; else None."""
        return None if self.assisted is None or differences(self.record, self.assisted) else self.assisted

    @property
    def endpoint(self) -> Endpoint:
        """The two classes of the model."""
        return Endpoint(**self.record.get("endpoint", asdict(STAGE_GROUP)))

    def save(self, folder: Path) -> None:
        """Write ``model.npz`` and ``run.json`` into `folder`, which is created if it is missing.

        The evaluation is not written; ``lungstage-train evaluate`` writes it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        model = self.model
        arrays: dict[str, Any] = {
            f"preprocessing_{name}": getattr(model.preprocessing, name) for name in Preprocessing.__slots__
        }
        for i, (weights, biases) in enumerate(zip(model.ensemble.weights, model.ensemble.biases, strict=True)):
            arrays[f"weights_{i}"], arrays[f"biases_{i}"] = weights, biases
        arrays["features"] = np.array(model.features)
        arrays["calibration"] = np.array(model.calibration)
        arrays["domain_precision"] = model.domain_precision
        arrays["domain_references"] = model.domain_references
        arrays["covariates"] = np.array(json.dumps([asdict(covariate) for covariate in model.covariates]))
        np.savez(folder / "model.npz", **arrays)
        text = json.dumps(self.record, indent=2, sort_keys=True, allow_nan=False)
        (folder / "run.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read the files of :meth:`save`, and the evaluation in the same folder."""
        with np.load(folder / "model.npz", allow_pickle=False) as arrays:
            layers = sum(key.startswith("weights_") for key in arrays.files)
            slope, intercept = (float(v) for v in arrays["calibration"])
            model = FittedModel(
                features=tuple(str(name) for name in arrays["features"]),
                preprocessing=Preprocessing(**{n: arrays[f"preprocessing_{n}"] for n in Preprocessing.__slots__}),
                ensemble=Ensemble(
                    weights=tuple(arrays[f"weights_{i}"] for i in range(layers)),
                    biases=tuple(arrays[f"biases_{i}"] for i in range(layers)),
                ),
                calibration=(slope, intercept),
                domain_precision=arrays["domain_precision"],
                domain_references=arrays["domain_references"],
                covariates=tuple(
                    Covariate(entry["name"], tuple(entry["levels"])) for entry in json.loads(str(arrays["covariates"]))
                ),
            )
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        beside = (folder / "evaluation.json", folder / ROBUSTNESS, folder / ASSISTED)
        return cls(model, record, *(json.loads(file.read_text("utf-8")) if file.is_file() else None for file in beside))


def differences(record: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    """List the differences between ``run.json`` and ``evaluation.json``; empty if the metrics belong to the model.

    The hashes of settings and table are not enough: the rows that are left out, features and covariates can differ.
    """
    return [
        f"run.json and evaluation.json are of different {kind}, so the evaluation does not belong to this model. "
        "Run fit and evaluate with the same options."
        for key, kind in OWN.items()
        if record.get(key) != evaluation.get(key)
    ]


def prevalence(table: Mapping[str, Any]) -> float:
    """Share of the positive class in a record's ``table``; under censoring the share of all patients (Kaplan-Meier)."""
    given = table.get("prevalence")
    return float(table["positives"] / table["used"] if given is None else given)


RECORD_KEYS = (
    "schema_version",  # 2
    "seed",  # the seed of everything random
    "settings",  # every setting of the procedure
    "procedure_sha256",  # training.procedure.Procedure.digest; the same in an evaluation of the same procedure
    "configuration",  # Configuration.departures: settings that differ from the defaults, by section; file names only
    "endpoint",  # {"name", "negative", "positive"}
    "target",  # where the classes were read: {"target", "positive", "negative", "event", "horizon_days"}
    "covariates",  # [{"name", "levels": [...]}]
    "table",  # {"name", "sha256", "rows", "used", "excluded": {"roi_touches_crop_edge": n, ...}, "positives"}; of
    # survival also "prevalence", see prevalence
    "cohort",  # lungstage.training.cohorts.description.CohortDescription without extraction and table_sha256
    "extraction",  # PyRadiomics `setting` dictionary that the table was measured with
    "warnings",  # plain sentences on reasons for doubt
    "repeatability",  # of an ICC table, {"table", "sha256", "minimum", "left_out": {feature: ICC}}, or null
    "selection",  # {"features": [...], "rounds": [{"remaining", "removed": [...], "importance": {...}}]}
    "stability_selection",  # {"frequency": {feature: share of halves}, "pairs", "nogueira": {"value", "low", "high"}}
    "curve",  # AUC on inner folds by the number of features: {"k": [...], "auc", "se", "best", "one_se", "chosen"}
    "correlation",  # {"features": [in cluster order], "spearman": [[...]], "selected": [...]}
    "distributions",  # {selected feature: {class: {"0.05", "0.25", "0.5", "0.75", "0.95"}}}
    "envelope",  # {feature: {"0": .., "0.01": .., "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1": ..}}
    "domain",  # {"quantiles": {"0.5", "0.95", "0.99", "1"}, "neighbour_quantiles": likewise}, see training.model.domain
    "conformal",  # {"alpha", "early_min_probability", "advanced_min_probability", "coverage", "early_coverage", ...}
    "out_of_fold",  # metrics of the whole procedure, selection inside each fold: {metric: {"value", "low", "high"}}
    "reached",  # training.evaluation.curves.reached: share of each class whose probability reached each mark
    "verdicts",  # training.evaluation.verdicts.verdict of each comparator
    "interval",  # how the intervals of every metric were computed
    "comparators",  # {method: metrics like out_of_fold}, on the same folds
    "stability",  # {method: Nogueira stability of its selections over the folds, with its interval}
    "selection_frequency",  # {feature: share of folds in which GL-RFE selected it}
    "calibration",  # {"slope", "intercept", "informative"}
    "survival",  # training.evaluation.survival.survival_record, or null
    "cut_rows",  # effect of the excluded rows: {"used_only": {...}, "all_rows": {...}} or null
    "cut_coverage",  # how many of those rows keep their true class: {class: {"patients", "covered"}} or null
    "versions",  # {"python", "numpy", "torch", "scikit-learn", "lungstage"}
)
"""Keys of :attr:`Run.record`. With them export can write manifest and card without the table."""


def versions() -> dict[str, str]:
    """Return the software versions that a run depends on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("numpy", "scipy", "scikit-learn", "torch", "lungstage")
    }
