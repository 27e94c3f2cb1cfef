"""A run with random weights and a realistic record: export can read it, and no training is needed."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungstage.appliance.contract.spec import ALL_FEATURES, STAGE_GROUP, Covariate, Endpoint
from lungstage.appliance.model.manifest import QUANTILES
from lungstage.export.bundle import build
from lungstage.training.procedure import PRESETS
from lungstage.training.run import RECORD_KEYS, Ensemble, FittedModel, Preprocessing, Run

MARKS = [k / 100 for k in range(101)]
SURVIVAL = Endpoint("two-year survival", "alive", "dead")


def make_model(
    seed: int = 0,
    k: int = 15,
    members: int = 5,
    hidden: tuple[int, ...] = (64, 32),
    covariates: tuple[Covariate, ...] = (),
) -> FittedModel:
    """A model with random arrays of the shape and magnitude that training gives; its exponents include 0 and 2."""
    rng = np.random.default_rng(seed)
    columns = [column for covariate in covariates for column in covariate.columns]
    d = k + len(columns)
    center = rng.normal(0.0, 1.0, d) * 10 ** rng.uniform(-2, 5, d)
    spread = 10 ** rng.uniform(-2, 5, d)
    lmbda = rng.uniform(-2.0, 4.0, d)
    lmbda[: min(k, 4)] = [0.0, 2.0, 1e-9, 2.0 - 1e-12][: min(k, 4)]
    for i, name in enumerate(columns, k):  # age in years, the others 0 or 1
        center[i], spread[i], lmbda[i] = (65.0, 12.0, 1.0) if name == "age" else (0.4, 0.5, 1.0)
    sizes = (d, *hidden, 1)
    basis = rng.normal(0.0, 1.0, (k, k))
    return FittedModel(
        features=tuple(rng.permutation(np.array(ALL_FEATURES))[:k].tolist()),
        preprocessing=Preprocessing(
            median=center + 0.1 * spread * rng.normal(0.0, 1.0, d),
            lower=center - spread * rng.uniform(1.0, 3.0, d),
            upper=center + spread * rng.uniform(1.0, 5.0, d),
            center=center,
            spread=spread,
            lmbda=lmbda,
            mean=rng.normal(0.0, 0.3, d),
            scale=rng.uniform(0.5, 2.0, d),
        ),
        ensemble=Ensemble(
            weights=tuple(rng.normal(0.0, np.sqrt(2.0 / a), (members, a, b)) for a, b in itertools.pairwise(sizes)),
            biases=tuple(rng.normal(0.0, 0.1, (members, b)) for b in sizes[1:]),
        ),
        calibration=(0.7, 0.2),
        domain_precision=basis @ basis.T / k + 0.1 * np.eye(k),
        domain_references=rng.normal(0.0, 0.7, (32, k)),
        covariates=covariates,
    )


def make_run(
    seed: int = 0, k: int = 15, covariates: tuple[Covariate, ...] = (), endpoint: Endpoint = STAGE_GROUP
) -> Run:
    """A run with every key of the contract in its record."""
    model = make_model(seed, k, covariates=covariates)
    steps = model.preprocessing
    low, high = (steps.median[:k] + sign * 2 * steps.spread[:k] for sign in (-1, 1))
    figure = {"value": 0.641, "low": 0.552, "high": 0.726}
    record: dict[str, Any] = {
        "schema_version": 2,
        "seed": seed,
        "settings": {"selection": {"features": k, "importance": "effects"}},
        "procedure_sha256": replace(PRESETS["hardened"], seed=seed).digest(),
        "configuration": {},
        "endpoint": asdict(endpoint),
        "target": {
            "target": endpoint.name, "positive": endpoint.positive, "negative": endpoint.negative, "event": None,
            "horizon_days": None,
        },
        "covariates": [{"name": one.name, "levels": list(one.levels)} for one in covariates],
        "table": {
            "name": "features.csv", "sha256": "ab" * 32, "rows": 195, "used": 160,
            "excluded": {"roi_touches_crop_edge": 35}, "positives": 98,
        },
        "cohort": {
            "name": "Made-up cohort", "source": "Random numbers", "licence": "CC BY-NC 3.0",
            "citation": "Nobody, 2020.", "stages_absent": ["IV"], "notes": ["Drawn at random."],
        },
        "extraction": {"binWidth": 25, "interpolator": "sitkLinear", "resampledPixelSpacing": [1, 1, 1]},
        "selection": {"features": list(model.features), "rounds": []},
        "warnings": ["Nothing here was learned."],
        "repeatability": None,
        "stability_selection": {
            "frequency": dict.fromkeys(model.features, 0.74), "pairs": 25, "nogueira": {**figure, "value": 0.707},
        },
        "curve": {"k": [5, 15, 20], "auc": [0.61, 0.66, 0.67], "se": [0.021, 0.022, 0.023], "best": 20, "one_se": 5,
                  "chosen": 15},
        "correlation": {"features": [], "spearman": [], "selected": []},
        "distributions": {},
        "envelope": {
            name: {key: a + float(key) * (b - a) for key in QUANTILES}
            for name, a, b in zip(model.features, low.tolist(), high.tolist(), strict=True)
        },
        "domain": {
            "quantiles": {"0.5": 2.0, "0.95": 4.0, "0.99": 5.0, "1": 6.5},
            "neighbour_quantiles": {"0.5": 0.5, "0.95": 1.0, "0.99": 1.25, "1": 1.5},
        },
        "conformal": {
            "alpha": 0.1, "early_min_probability": 0.31, "advanced_min_probability": 0.42,
            "early_coverage": [0.8, 0.97], "advanced_coverage": [0.82, 0.95],
            "coverage": {endpoint.positive: 0.91, endpoint.negative: 0.9}, "indeterminate": 0.6,
        },
        "out_of_fold": {"auc": figure, "accuracy": figure},
        "reached": {
            "positives": 98, "negatives": 62, "thresholds": MARKS,
            "positives_at_least": [1 - mark**2 for mark in MARKS],
            "negatives_at_least": [(1 - mark) ** 2 for mark in MARKS],
        },
        "verdicts": [{"against": "volume", "adds_value": None, "sentence": "No difference could be shown."}],
        "interval": "95 % bootstrap over patients.",
        "comparators": {"majority": {"auc": figure, "accuracy": figure}, "volume": {"auc": {**figure, "value": 0.655}}},
        "stability": {"gl_rfe_dnn": 0.4},
        "selection_frequency": dict.fromkeys(model.features, 0.8),
        "calibration": {"slope": 0.7, "intercept": 0.2, "informative": True},
        "survival": None,
        "cut_rows": {key: {"auc": figure} for key in ("used_only", "all_rows", "all_rows_scored_on_used")},
        "cut_coverage": {
            endpoint.negative: {"patients": 14, "covered": 0}, endpoint.positive: {"patients": 21, "covered": 21},
        },
        "versions": {"python": "3.11", "numpy": "2", "torch": "2", "scikit-learn": "1", "lungstage": "0.1.0"},
    }  # fmt: skip
    assert set(record) == set(RECORD_KEYS)
    return Run(model, record)


@pytest.fixture(scope="session")
def model() -> FittedModel:
    return make_model()


@pytest.fixture(scope="session")
def run() -> Run:
    return make_run()


def without_limits(run: Run) -> Run:
    """The same run with a domain without limits: there is no training cohort that a case could be too far from."""
    far = dict.fromkeys(run.record["domain"]["quantiles"], 1e9)
    return replace(run, record=run.record | {"domain": {"quantiles": far, "neighbour_quantiles": far}})


@pytest.fixture(scope="session")
def packed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on disk; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("models") / "made-up"
    build(run, folder)
    return folder
