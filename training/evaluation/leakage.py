"""Demonstrate data leakage on purpose: select features, and multiply rows, before the split.

In this way a table on which a correct evaluation gives 65 to 70 % gives published results of about 90 %. The networks
and the folds are those of the first repeat of the correct evaluation; only the order of the steps is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.neighbors import NearestNeighbors

from lungstage.training.cohorts.cohort import Cohort
from lungstage.training.evaluation.folds import Progress, assign_folds, prepare, run_tasks
from lungstage.training.evaluation.methods import Method, predict, select
from lungstage.training.evaluation.metrics import Interval, intervals, resamples, score
from lungstage.training.model.network import single_threaded
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.procedure import Procedure

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

WARNING: Final = (
    "These figures are wrong on purpose. They show the effect of leaks from test rows into training. They say nothing "
    "about the performance of a model. The same networks were evaluated on the folds of one repeat, with uncalibrated "
    "logits. Synthetic and repeated rows are scored as if they were patients, so the intervals are too narrow. If "
    "features are selected after the split, ANOVA selects them."
)
METRICS: Final = ("auc", "accuracy", "macro_f1")
TIMES: Final = 3
_NEIGHBOURS: Final = 5


@dataclass(frozen=True, slots=True)
class Rows:
    """A table that can contain synthetic or repeated rows: (n, d), (n,) and (n, c) or None."""

    values: Array
    labels: Bools
    covariates: Array | None


@dataclass(frozen=True, slots=True)
class Variant:
    """A wrong evaluation: the steps that are done before the split instead of after it."""

    name: str
    label: str
    what_is_wrong: str
    selection: bool = False
    smote: bool = False
    duplicates: bool = False


VARIANTS: Final = (
    Variant(
        "selection_before_split", "features selected on all rows",
        "GL-RFE selected the features on all rows, so it used the labels of the test rows.", selection=True,
    ),
    Variant(
        "smote_before_split", "SMOTE before the split",
        f"SMOTE enlarged both classes to {TIMES} times the larger one before the split. So test rows lie between "
        "training rows and are scored as if they were patients.", smote=True,
    ),
    Variant(
        "duplicates_before_split", "rows duplicated before the split",
        f"Rows were repeated until both classes had {TIMES} times the size of the larger one, before the split. So "
        "test rows are also training rows.", duplicates=True,
    ),
    Variant(
        "all_before_split", "all of it before the split",
        "SMOTE balanced the classes, GL-RFE selected the features on all rows, and rows were repeated until there were "
        f"{TIMES} times as many. The table was split after that.", selection=True, smote=True, duplicates=True,
    ),
)  # fmt: skip


@single_threaded()
def demonstrate(
    cohort: Cohort,
    procedure: Procedure,
    report: Progress,
    honest: Mapping[str, Interval],
    variants: Sequence[Variant] = VARIANTS,
) -> dict[str, Any]:
    """Evaluate wrong variants on the first repeat's folds, for the key ``leakage`` of ``evaluation.json``.

    Parameters
    ----------
    cohort, procedure
        As in the correct evaluation.
    report
        Progress.
    honest
        The reference's metrics, for comparison.
    variants
        The wrong evaluations.
    """
    table = Rows(cohort.values, cohort.labels, cohort.covariate_values)
    records: list[dict[str, Any]] = []
    for variant in variants:
        report("leaks", len(records), len(variants))
        figures = _evaluate(variant, table, procedure)
        records.append(
            {
                "name": variant.name,
                "label": variant.label,
                "what_is_wrong": variant.what_is_wrong,
                "metrics": {name: figures[name] for name in METRICS},
            }
        )
    report("leaks", len(variants), len(variants))
    return {"warning": WARNING, "variants": records, "honest": {name: honest[name] for name in METRICS}}


def _evaluate(variant: Variant, table: Rows, procedure: Procedure) -> dict[str, Interval]:
    """Metrics of one repeat. Rows of the table keep their folds; added rows are distributed over the folds.

    Steps after the split are done inside the folds. A selection there is ANOVA's, because it is fast.
    """
    stream = np.random.default_rng(np.random.SeedSequence([procedure.seed, 9]))
    larger = int(max(table.labels.sum(), (~table.labels).sum()))
    rows = table
    if variant.smote:
        rows = smote(rows, larger if variant.duplicates else TIMES * larger, stream)
    columns = None
    if variant.selection:
        whole = prepare(rows.values, np.arange(len(rows.labels)), (procedure.seed, 8), rows.covariates)
        columns = np.repeat(select("gl_rfe", procedure, [whole], rows.labels), procedure.folds, axis=0)
    if variant.duplicates:
        rows = duplicate(rows, TIMES * larger, stream)
    more = len(rows.labels) - len(table.labels)
    fold = np.concatenate(
        [
            assign_folds(table.labels, procedure.folds, procedure.repeats, procedure.seed)[0],
            stream.permutation(more) % procedure.folds,
        ]
    )
    tasks = [
        prepare(rows.values, np.flatnonzero(fold != f), (procedure.seed, 1, 0, f, f), rows.covariates)
        for f in range(procedure.folds)
    ]
    if columns is None:
        columns = run_tasks(tasks, rows.labels, partial(select, "anova", procedure), lambda *_: None)
    network = Method(variant.label, "network")
    logits = run_tasks(tasks, rows.labels, partial(predict, network, procedure), lambda *_: None, columns)
    own = logits[fold, np.arange(len(fold))]
    weights = resamples(len(fold), np.random.SeedSequence([procedure.seed, 4]))
    return intervals(score(expit(own)[None], rows.labels, fold[None], weights))


def smote(table: Rows, count: int, stream: np.random.Generator) -> Rows:
    """Enlarge each class to `count` rows by points between a row and one of its five nearest of the same class.

    Missing values are first replaced by the column's median. Distances are between standardised values.

    Notes
    -----
    Chawla NV, Bowyer KW, Hall LO, Kegelmeyer WP. SMOTE: synthetic minority over-sampling technique. JAIR 16, 2002.
    """
    standardised = Standardise().fit(table.values).transform(table.values)
    sources, partners = [], []
    for label in (False, True):
        own = np.flatnonzero(table.labels == label)
        more = max(0, count - len(own))
        near = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(own) - 1)).fit(standardised[own])
        neighbours = near.kneighbors(return_distance=False)  # neighbours of the fitted rows, without the row itself
        chosen = stream.integers(len(own), size=more)
        sources.append(own[chosen])
        partners.append(own[neighbours[chosen, stream.integers(neighbours.shape[1], size=more)]])
    source, partner = np.concatenate(sources), np.concatenate(partners)
    share = stream.random((len(source), 1))

    def between(values: Array) -> Array:
        filled = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
        return np.vstack([values, filled[source] + share * (filled[partner] - filled[source])])

    return Rows(
        between(table.values),
        np.concatenate([table.labels, table.labels[source]]),
        None if table.covariates is None else between(table.covariates),
    )


def duplicate(table: Rows, count: int, stream: np.random.Generator) -> Rows:
    """Enlarge each class to `count` rows by drawing from its rows with replacement."""
    drawn = [np.arange(len(table.labels))]
    for label in (False, True):
        own = np.flatnonzero(table.labels == label)
        drawn.append(stream.choice(own, max(0, count - len(own))))
    rows = np.concatenate(drawn)
    return Rows(table.values[rows], table.labels[rows], None if table.covariates is None else table.covariates[rows])
