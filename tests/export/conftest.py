"""A run with random weights and an honest-looking record: what export reads, without the minutes of training."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.manifest import QUANTILES
from appliance.spec import ALL_FEATURES
from export.bundle import build
from training.run import RECORD_KEYS, Ensemble, FittedModel, Preprocessing, Run


def make_model(seed: int = 0, k: int = 15, members: int = 5, hidden: tuple[int, ...] = (64, 32)) -> FittedModel:
    """A model with random arrays of the shape and magnitude that training gives; its exponents include 0 and 2."""
    rng = np.random.default_rng(seed)
    center = rng.normal(0.0, 1.0, k) * 10 ** rng.uniform(-2, 5, k)
    spread = 10 ** rng.uniform(-2, 5, k)
    lmbda = rng.uniform(-2.0, 4.0, k)
    lmbda[: min(k, 4)] = [0.0, 2.0, 1e-9, 2.0 - 1e-12][: min(k, 4)]
    sizes = (k, *hidden, 1)
    basis = rng.normal(0.0, 1.0, (k, k))
    return FittedModel(
        features=tuple(rng.permutation(np.array(ALL_FEATURES))[:k].tolist()),
        preprocessing=Preprocessing(
            median=center + 0.1 * spread * rng.normal(0.0, 1.0, k),
            lower=center - spread * rng.uniform(1.0, 3.0, k),
            upper=center + spread * rng.uniform(1.0, 5.0, k),
            center=center,
            spread=spread,
            lmbda=lmbda,
            mean=rng.normal(0.0, 0.3, k),
            scale=rng.uniform(0.5, 2.0, k),
        ),
        ensemble=Ensemble(
            weights=tuple(rng.normal(0.0, np.sqrt(2.0 / a), (members, a, b)) for a, b in itertools.pairwise(sizes)),
            biases=tuple(rng.normal(0.0, 0.1, (members, b)) for b in sizes[1:]),
        ),
        calibration=(0.7, 0.2),
        domain_precision=basis @ basis.T / k + 0.1 * np.eye(k),
    )


def make_run(seed: int = 0, k: int = 15) -> Run:
    """A run whose record has every key of the contract."""
    model = make_model(seed, k)
    steps = model.preprocessing
    low, high = steps.median - 2 * steps.spread, steps.median + 2 * steps.spread
    figure = {"value": 0.641, "low": 0.552, "high": 0.726}
    record: dict[str, Any] = {
        "schema_version": 1,
        "seed": seed,
        "settings": {},
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
        "envelope": {
            name: {key: a + float(key) * (b - a) for key in QUANTILES}
            for name, a, b in zip(model.features, low.tolist(), high.tolist(), strict=True)
        },
        "domain": {"quantiles": {"0.5": 2.0, "0.95": 4.0, "0.99": 5.0, "1": 6.5}},
        "conformal": {
            "alpha": 0.1, "early_min_probability": 0.31, "advanced_min_probability": 0.42,
            "coverage": {"advanced": 0.91, "early": 0.9}, "indeterminate": 0.6,
        },
        "out_of_fold": {"auc": figure, "accuracy": figure},
        "interval": "95 % bootstrap over patients.",
        "comparators": {"majority": {"auc": figure, "accuracy": figure}, "volume_only": {"auc": figure}},
        "stability": {"gl_rfe_dnn": 0.4},
        "selection_frequency": dict.fromkeys(model.features, 0.8),
        "calibration": {"slope": 0.7, "intercept": 0.2, "informative": True},
        "cut_rows": {"used_only": {"auc": figure}, "all_rows": {"auc": figure}},
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


@pytest.fixture(scope="session")
def packed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on disk; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("models") / "made-up"
    build(run, folder)
    return folder
