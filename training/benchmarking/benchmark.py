"""Recall of each selector on synthetic tables: the share of the relevant features that it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed  # type: ignore[import-untyped]
from scipy.stats import t as student

from lungstage.training.benchmarking.synthetic import RELEVANT, SIGNALS, Signal, make_table
from lungstage.training.evaluation.folds import prepare
from lungstage.training.evaluation.methods import select
from lungstage.training.model.network import single_threaded
from lungstage.training.procedure import Procedure
from lungstage.training.selection.registry import GL_RFE, selectors

Array = npt.NDArray[np.float64]


def benchmark_selectors(
    procedure: Procedure, tables: int, report: Callable[[int, int], None], *, workers: int | None = None
) -> dict[str, Any]:
    """Run every selector on the same synthetic tables of each signal.

    Parameters
    ----------
    procedure
        Its selection is GL-RFE, and gives the number of features to select.
    tables
        Number of tables of each signal; at least 2.
    report
        Called with the number of finished tables and the total.
    workers
        Processes; the figures do not depend on it. Default: one per core.

    Returns
    -------
    dict
        ``signals``: for each, by selector, ``recall`` and, except for GL-RFE, ``difference`` (GL-RFE minus this one, on
        the same tables), each ``{"value", "low", "high"}`` with a 95 % t interval over tables. ``labels``, ``tables``,
        ``features`` and the settings.
    """
    places = [(signal, table) for signal in SIGNALS for table in range(tables)]
    jobs = (delayed(_recalls)(procedure, signal, procedure.seed + table) for signal, table in places)
    found: list[dict[str, float]] = []
    report(0, len(places))
    for recalls in Parallel(n_jobs=workers or cpu_count(), return_as="generator")(jobs):
        found.append(recalls)
        report(len(found), len(places))
    signals: dict[str, Any] = {}
    for signal in SIGNALS:
        own = [recalls for (name, _), recalls in zip(places, found, strict=True) if name == signal]
        columns = {name: np.array([recalls[name] for recalls in own]) for name in own[0]}
        signals[signal] = {
            name: {"recall": _interval(column)}
            | ({} if name == GL_RFE else {"difference": _interval(columns[GL_RFE] - column)})
            for name, column in columns.items()
        }
    return {
        "schema_version": 1,
        "settings": asdict(procedure),
        "procedure_sha256": procedure.digest(),
        "tables": tables,
        "relevant": dict(RELEVANT),
        "features": procedure.selection.features,
        "labels": {
            name: selector.label for name, selector in selectors(procedure.selection, procedure.network).items()
        },
        "signals": signals,
    }


def _recalls(procedure: Procedure, signal: Signal, seed: int) -> dict[str, float]:
    """Share of the relevant features that each selector finds in one table."""
    truth = make_table(signal, seed)
    with single_threaded():
        task = prepare(truth.values, np.arange(len(truth.labels)), (seed, SIGNALS.index(signal)))
        offered = selectors(procedure.selection, procedure.network)
        found = {name: select(name, procedure, [task], truth.labels)[0] for name in offered}
    return {name: float(np.isin(truth.relevant, columns).mean()) for name, columns in found.items()}


def _interval(values: Array) -> dict[str, float]:
    """Mean and its 95 % t interval."""
    reach = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return {"value": mean, "low": mean - reach, "high": mean + reach}


def in_order(result: Mapping[str, Any]) -> Sequence[str]:
    """Names of the selectors, GL-RFE first and the others by their mean recall over the signals, best first."""
    signals = result["signals"].values()
    others = [name for name in result["labels"] if name != GL_RFE]
    return [GL_RFE, *sorted(others, key=lambda name: -sum(one[name]["recall"]["value"] for one in signals))]
