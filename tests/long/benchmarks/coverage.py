"""Measure the coverage of the conformal thresholds on unseen patients, by repeated splits of one table.

``python -m tests.long.benchmarks.coverage TABLE [--method METHOD] [--splits N]``: in each split, three quarters of the
patients of either class are used for all steps (selection, networks, calibration, thresholds by folds). The coverage is
measured on the last quarter. docs/evaluation-log.md contains the results.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungstage.training.cohorts.cohort import Cohort, read_cohort
from lungstage.training.evaluation.folds import assign_folds, prepare
from lungstage.training.evaluation.methods import Method, methods, predict, select
from lungstage.training.model.calibration import Thresholds, calibrate, conformal_thresholds
from lungstage.training.model.network import single_threaded
from lungstage.training.procedure import QUICK, Procedure

TEST_SHARE = 0.25
PROCEDURE = replace(QUICK, folds=5, repeats=2, members=3, network=replace(QUICK.network, max_epochs=60))
"""Lighter than the default, so that a split takes seconds: the question is only whether the thresholds transfer."""


def split(cohort: Cohort, procedure: Procedure, method: Method, seed: int) -> tuple[float, float]:
    """Return the coverage of the negative and of the positive class in one split's test patients."""
    rng, labels = np.random.default_rng(seed), cohort.labels
    test = np.zeros(len(labels), dtype=np.bool_)
    for of in (False, True):
        rows = np.flatnonzero(labels == of)
        test[rng.choice(rows, round(TEST_SHARE * len(rows)), replace=False)] = True
    train = np.flatnonzero(~test)
    fold = assign_folds(labels[train], procedure.folds, procedure.repeats, int(rng.integers(2**31)))
    places = [(r, f) for r in range(procedure.repeats) for f in range(procedure.folds)]
    tasks = [prepare(cohort.values, train[fold[r] != f], (seed, r, f)) for r, f in places]
    tasks.append(prepare(cohort.values, train, (seed, 99)))
    chosen: npt.NDArray[np.intp] = np.tile(np.array(method.columns, dtype=np.intp), (len(tasks), 1))
    with single_threaded():
        if method.selector is not None:
            chosen = np.concatenate([select(method.selector, procedure, [task], labels) for task in tasks])
        logits = np.concatenate(
            [predict(method, procedure, [t], labels, own[None]) for t, own in zip(tasks, chosen, strict=True)]
        )
    unseen = np.empty(fold.shape)
    for (r, f), values in zip(places, logits, strict=False):
        unseen[r, fold[r] == f] = values[train][fold[r] == f]
    calibration = calibrate(unseen.ravel(), np.tile(labels[train], procedure.repeats))
    each = [conformal_thresholds(calibration(one), labels[train], procedure.alpha) for one in unseen]
    thresholds = Thresholds(
        float(np.mean([one.early_min_probability for one in each])),
        float(np.mean([one.advanced_min_probability for one in each])),
    )
    possible = thresholds.possible(calibration(logits[-1][test]))
    return float(possible[~labels[test], 0].mean()), float(possible[labels[test], 1].mean())


def main() -> None:
    """Print mean, spread and range of the coverage over the splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--method", default="gl_rfe_dnn")
    parser.add_argument("--splits", type=int, default=100)
    asked = parser.parse_args()
    cohort = read_cohort(asked.table)
    method = methods(PROCEDURE, cohort.features)[asked.method]
    found = np.array([split(cohort, PROCEDURE, method, seed) for seed in range(asked.splits)])
    for name, column in zip((cohort.endpoint.negative, cohort.endpoint.positive), found.T, strict=True):
        low, high = np.percentile(column, (5, 95))
        spread = f"SD {column.std():.3f}, 5 to 95 % of splits {low:.2f} to {high:.2f}"
        print(f"{name}: {column.mean():.3f} on average, {spread}")


if __name__ == "__main__":
    main()
