"""Stability of feature selection: similarity of selections from different samples of the patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from sklearn.model_selection import StratifiedShuffleSplit

from lungstage.training.evaluation.folds import prepare, run_tasks
from lungstage.training.evaluation.methods import select
from lungstage.training.procedure import Procedure

_PAIRS_A_REPEAT: Final = 2


def pairs_of(procedure: Procedure) -> int:
    """Return how many times an evaluation splits the patients into halves: ten times by default."""
    return _PAIRS_A_REPEAT * procedure.repeats


def nogueira(selections: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Stability of selections and its 95 % interval.

    Parameters
    ----------
    selections
        (m, d) which of d features each of m selections contains; m is at least 2.

    Returns
    -------
    value, low, high
        1 for always the same features, about 0 for random ones.

    Notes
    -----
    Nogueira S, Sechidis K, Brown G. On the stability of feature selection algorithms. JMLR 18(174), 2018: their measure
    and its asymptotic interval. The interval assumes independent selections. Those of cross-validation share patients,
    so the interval describes the choice of folds in this cohort, and is too narrow for another cohort. If all features
    or no features are always selected, no difference is possible and the value is 1.
    """
    m, d = selections.shape
    z = selections.astype(np.float64)
    frequency, size = z.mean(axis=0), z.sum(axis=1)
    mean_size = size.mean()
    expected = mean_size / d * (1.0 - mean_size / d)
    if expected == 0:
        return 1.0, 1.0, 1.0
    value = 1.0 - frequency @ (1.0 - frequency) * m / (m - 1) / d / expected
    # Influence of each selection on the estimate, to first order. Its spread gives the asymptotic variance.
    influence = (
        z @ frequency / d
        - size * mean_size / d**2
        + value / 2.0 * (2.0 * mean_size * size / d**2 - size / d - mean_size / d + 1.0)
    ) / expected
    reach = norm.ppf(0.975) * 2.0 / m * np.sqrt(((influence - influence.mean()) ** 2).sum())
    return float(value), float(value - reach), float(value + reach)


def complementary_pairs(
    values: npt.NDArray[np.float64],
    labels: npt.NDArray[np.bool_],
    selector: str,
    procedure: Procedure,
    report: Callable[[int, int], None],
    *,
    pairs: int,
    workers: int = 1,
) -> npt.NDArray[np.bool_]:
    """Select features on both halves of the patients, for several random splits.

    Parameters
    ----------
    values, labels
        (n, d) raw features and (n,) labels of the training rows.
    selector, procedure
        The selector, and its settings.
    report
        Called with the number of finished selections and the total.
    pairs, workers
        Number of splits, and of processes; the result does not depend on the processes.

    Returns
    -------
    ndarray
        (2 * pairs, d) which features are selected on each half. Their mean is the selection frequency.

    Notes
    -----
    Meinshausen N, Bühlmann P. Stability selection. JRSS B 72(4), 2010, on the halves of Shah RD, Samworth RJ. Variable
    selection with error control: another look at stability selection. JRSS B 75(1), 2013. A half has less information
    than the whole cohort. So a feature that is always selected from all patients may be missing in some halves.
    """
    parting = StratifiedShuffleSplit(pairs, test_size=0.5, random_state=procedure.seed)
    halves = [half for both in parting.split(labels, labels) for half in both]
    tasks = [prepare(values, np.sort(half), (procedure.seed, 8, i)) for i, half in enumerate(halves)]
    columns = run_tasks(tasks, labels, partial(select, selector, procedure), report, workers=workers)
    held = np.zeros((len(tasks), values.shape[1]), dtype=bool)
    np.put_along_axis(held, columns, True, axis=1)
    return held


def on_halves(held: npt.NDArray[np.bool_], features: Sequence[str]) -> dict[str, Any]:
    """Return the record of selections on halves of the patients (2 * pairs, d), see :func:`complementary_pairs`."""
    value, low, high = nogueira(held)
    shares = zip(features, held.mean(axis=0), strict=True)
    return {
        "pairs": len(held) // 2,
        "frequency": {name: float(share) for name, share in shares if share},
        "nogueira": {"value": value, "low": low, "high": high},
    }
