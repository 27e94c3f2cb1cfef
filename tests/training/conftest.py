"""Generated feature tables with a known signal."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lungstage.appliance.contract.spec import ALL_FEATURES

Rows = list[dict[str, str]]


@contextlib.contextmanager
def small_comparators() -> Iterator[None]:
    """Use few trees, few rounds of Boruta and a short path of LassoNet, which take most of an evaluation's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lungstage.training.selection.classifiers._TREES", 60)
        patch.setattr("lungstage.training.selection.comparators._STEPS", 5)
        patch.setattr("lungstage.training.selection.trees._BOOSTED", 50)
        patch.setattr("lungstage.training.selection.trees._TREES", 25)
        patch.setattr("lungstage.training.selection.trees._ROUNDS", 5)
        yield


def make_rows(n: int = 60, features: int = 20, signal: float = 1.5, seed: int = 0) -> Rows:
    """Make patients; the first two features differ by `signal` standard deviations between the stages."""
    rng = np.random.default_rng(seed)
    advanced = np.arange(n) % 2 == 1
    values = rng.normal(size=(n, features))
    values[:, :2] += signal * advanced[:, None]
    values = np.exp(0.5 * values)  # skewed, as radiomic features are
    return [
        {
            "patient_id": f"P{i:03d}",
            "stage": "advanced" if advanced[i] else "early",
            **{name: repr(float(v)) for name, v in zip(ALL_FEATURES[:features], values[i], strict=True)},
        }
        for i in range(n)
    ]


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as a CSV file and return its path."""

    def write(rows: Rows, name: str = "features.csv") -> Path:
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write
