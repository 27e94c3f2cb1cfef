"""Generated cohorts in memory, and networks to train on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lungstage.appliance.contract.spec import STAGE_GROUP, Covariate, Endpoint
from lungstage.training.cohorts.cohort import Cohort
from lungstage.training.cohorts.description import UNDECLARED
from lungstage.training.model.members import Member, inner_splits

FEATURES = (*(f"original_shape_{i}" for i in range(19)), "original_shape_MeshVolume")


def make_cohort(
    n: int = 80,
    signal: float = 1.2,
    seed: int = 0,
    *,
    features: int = len(FEATURES),
    covariate: float | None = None,
    endpoint: Endpoint = STAGE_GROUP,
) -> Cohort:
    """Make patients; three features differ by `signal` standard deviations between the classes, age by `covariate`."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.6
    values = rng.normal(size=(n, features))
    values[:, :3] += signal * labels[:, None]
    names = (*FEATURES, *(f"original_glcm_{i}" for i in range(features - len(FEATURES))))
    cohort = Cohort(
        tuple(map(str, range(n))), labels, names, np.exp(values), UNDECLARED, "t.csv", "0" * 64, n, {}, endpoint
    )  # fmt: skip
    if covariate is None:
        return cohort
    age = 65 + 8 * (rng.normal(size=n) + covariate * labels)
    age[rng.random(n) < 0.05] = np.nan
    return replace(cohort, covariates=(Covariate("age"),), covariate_values=age[:, None])


def make_members(count: int, n: int = 90, k: int = 7, seed: int = 0) -> list[Member]:
    """Make networks to train, on folds of one table; its first features differ most between the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    inputs = rng.normal(size=(n, k)) + labels[:, None] * np.linspace(1.5, 0, k)
    splits = inner_splits(labels, np.arange(n), count, 5, np.random.SeedSequence(seed))
    return [Member(inputs, labels, *split) for split in splits]
