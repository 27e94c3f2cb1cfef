"""Figures of a training run, as accessible SVG for the inside of a page; in place of one that cannot be drawn, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lungstage.training.reporting.figures import comparison, features, probability, selection, survival
from lungstage.training.reporting.figures.canvas import Picture

__all__ = [
    "canvas", "comparison", "of_covariates", "of_features", "of_leakage", "of_performance", "of_selection",
    "of_survival", "ranking",
]  # fmt: skip

Record = Mapping[str, Any]

NO_RUN: Final = "Not in this run yet: `lungstage-train fit TABLE -o RUN` writes run.json, which this is made of."
NO_EVALUATION: Final = (
    "Not in this run yet: `lungstage-train evaluate TABLE -o RUN` writes evaluation.json, which this is made of."
)
NO_LEAKAGE: Final = (
    "No leak was demonstrated: `lungstage-train evaluate TABLE -o RUN --demonstrate-leakage` does, and marks it wrong."
)
NO_COVARIATES: Final = "No clinical covariates joined, so there is nothing to leave out."


def of_features(run: Record | None) -> Iterator[Picture | str]:
    """Draw the selected features next to all: correlations and distributions."""
    if run is None:
        yield NO_RUN
        return
    if "correlation" in run:
        yield from features.correlation(run["correlation"])
    if "distributions" in run:
        endpoint = run["endpoint"]
        classes = (endpoint["negative"], endpoint["positive"])
        yield features.distributions(run["distributions"], run["selection"]["features"], classes)


def of_selection(run: Record | None, evaluation: Record | None) -> Iterator[Picture | str]:
    """Draw how the features were selected, and how firmly."""
    if run is None:
        yield NO_RUN
    else:
        yield selection.elimination(run["selection"])
        if "curve" in run:
            yield selection.number_of_features(run["curve"])
    if evaluation is None:
        yield NO_EVALUATION
    elif selection.by_selector(evaluation):
        yield selection.stability(evaluation)
        yield selection.frequencies(evaluation, run["selection"]["features"] if run else ())


def of_performance(evaluation: Record | None) -> Iterator[Picture | str]:
    """Draw how well the methods do on patients that they were not fitted to."""
    if evaluation is None:
        yield NO_EVALUATION
        return
    yield comparison.forest(evaluation)
    yield comparison.roc(evaluation)
    yield probability.calibration(evaluation)
    yield probability.decision_curve(evaluation)
    yield probability.conformal(evaluation)


def of_survival(record: Record) -> Iterator[Picture | str]:
    """Draw who lives how long, where the run is about that."""
    if record.get("survival"):
        yield survival.curves(record["survival"])
        yield survival.calibration(record["survival"])


def of_covariates(evaluation: Record | None) -> Iterator[Picture | str]:
    """Draw what clinical covariates add."""
    if evaluation is None:
        yield NO_EVALUATION
    elif evaluation["covariate_ablation"] is None:
        yield NO_COVARIATES
    else:
        yield comparison.ablation(evaluation)


def of_leakage(evaluation: Record | None) -> Iterator[Picture | str]:
    """Draw figures that are wrong on purpose."""
    if evaluation is None:
        yield NO_EVALUATION
    elif evaluation["leakage"] is None:
        yield NO_LEAKAGE
    else:
        yield comparison.leakage(evaluation["leakage"])
