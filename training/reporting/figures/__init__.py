"""Figures of a training run as accessible inline SVG. A figure that cannot be drawn is replaced by the reason."""

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

NO_RUN: Final = (
    "This part needs run.json, which this run does not have yet: `lungstage-train fit TABLE -o RUN` writes it."
)
NO_EVALUATION: Final = (
    "This part needs evaluation.json, which this run does not have yet: `lungstage-train evaluate TABLE -o RUN` writes "
    "it."
)
NO_LEAKAGE: Final = (
    "This run has no demonstration of data leakage: `lungstage-train evaluate TABLE -o RUN --demonstrate-leakage` adds "
    "one."
)
NO_COVARIATES: Final = "The model has no clinical covariates, so there is no ablation."


def of_features(run: Record | None) -> Iterator[Picture | str]:
    """Draw all features and the selected ones: correlations and distributions."""
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
    """Draw the selection of features and its stability."""
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
    """Draw the out-of-fold performance of the methods."""
    if evaluation is None:
        yield NO_EVALUATION
        return
    yield comparison.forest(evaluation)
    yield comparison.roc(evaluation)
    yield probability.calibration(evaluation)
    yield probability.decision_curve(evaluation)
    yield probability.conformal(evaluation)


def of_survival(record: Record) -> Iterator[Picture | str]:
    """Draw survival curves and calibration, if the endpoint is survival."""
    if record.get("survival"):
        yield survival.curves(record["survival"])
        yield survival.calibration(record["survival"])


def of_covariates(evaluation: Record | None) -> Iterator[Picture | str]:
    """Draw the ablation of the clinical covariates."""
    if evaluation is None:
        yield NO_EVALUATION
    elif evaluation["covariate_ablation"] is None:
        yield NO_COVARIATES
    else:
        yield comparison.ablation(evaluation)


def of_leakage(evaluation: Record | None) -> Iterator[Picture | str]:
    """Draw the effect of data leakage, with figures that are wrong on purpose."""
    if evaluation is None:
        yield NO_EVALUATION
    elif evaluation["leakage"] is None:
        yield NO_LEAKAGE
    else:
        yield comparison.leakage(evaluation["leakage"])
