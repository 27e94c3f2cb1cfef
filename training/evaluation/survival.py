"""Survival part of an evaluation: concordance, curves of strata, and calibration at the horizon.

It uses every patient, including those lost before the horizon. Models that had not seen them predicted them, and their
days alive are part of every curve.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, logrank

from lungstage.training.cohorts.survival import Survival, kaplan_meier
from lungstage.training.evaluation.folds import OutOfFold
from lungstage.training.evaluation.metrics import Counts, interval, resamples
from lungstage.training.evaluation.reliability import bins_for

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Record = dict[str, Any]

CLAIM: Final = (
    "Hosny et al. claim an AUC of 0.70 (radiotherapy) and 0.71 (surgery) for survival at 2 years. Their model is a 3D "
    "convolutional network, tested on unseen patients (PLoS Medicine 15(11), 2018, doi:10.1371/journal.pmed.1002711). "
    "These are their figures, on other patients. They were not reproduced here and do not apply to this model."
)
"""Published performance for the same endpoint; quoted together with this model's metrics."""

VOLUME: Final = "volume"
"""The method whose strata are drawn next to the reference's."""
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Scored:
    """A method's label and its predictions."""

    label: str
    oof: OutOfFold


def survival_record(
    followed: Survival, methods: Mapping[str, Scored], reference: str, fold: Indices, seed: int
) -> Record:
    """Return the survival part of a record.

    Parameters
    ----------
    followed
        The follow-up of n + m patients.
    methods
        Methods by name; strata are computed for the reference and for :data:`VOLUME`.
    reference
        Name of the reference.
    fold
        (repeats, n + m), the fold whose models predicted each patient.
    seed
        The seed.

    Returns
    -------
    dict
        JSON-serialisable: ``patients``, ``events``, ``lost`` before the horizon, the whole cohort's ``curve``, and for
        each method the ``concordance``, its ``difference`` from the reference's, and ``strata``.
    """
    days, observed, horizon = followed.every_day, followed.every_observed, followed.horizon_days
    weights = resamples(len(days), np.random.SeedSequence([seed, 11]))
    probabilities = {name: np.hstack([one.oof.probabilities, one.oof.of_others]) for name, one in methods.items()}
    figures = {name: concordance(p, days, observed, fold, weights) for name, p in probabilities.items()}
    return {
        "horizon_days": horizon,
        "patients": len(days),
        "events": int(observed.sum()),
        "lost": len(followed.censored_days),
        "median_follow_up_days": _half(kaplan_meier(days, ~observed)) if (~observed).any() else None,
        "curve": _curve(days, observed, horizon),
        "methods": {
            name: {
                "label": one.label,
                "concordance": interval(figures[name]),
                "difference": None if name == reference else interval(figures[reference] - figures[name]),
                "strata": _strata(probabilities[name].mean(axis=0), days, observed, horizon)
                if name in (reference, VOLUME)
                else None,
            }
            for name, one in methods.items()
        },
    }


def censoring(record: Mapping[str, Any]) -> str:
    """Describe how patients lost before the horizon are handled."""
    horizon, curve = f"{record['horizon_days']:g}", record["curve"]
    at = curve["at_horizon"]
    died = "" if at is None else f" By Kaplan-Meier {100 * (1 - at['value']):.1f} % had died by then."
    return (
        f"{record['patients']} patients, {record['events']} observed deaths. {record['lost']} were lost to follow-up "
        f"before day {horizon}. Whether they died by then is not known, so nothing was trained on them. In every "
        "metric and in the calibration the other patients are weighted for them (inverse probability of censoring). "
        f"This assumes that loss to follow-up does not depend on the tumour.{died} The figures of this section include "
        "the lost patients, predicted by models that had not seen them. The conformal thresholds use the patients with "
        "known outcome."
    )


def concordance(p: Array, days: Array, observed: Bools, fold: Indices, weights: Counts) -> Array:
    """Share of pairs of a fold in which the patient who died first had the higher probability; ties count half; (w,).

    Parameters
    ----------
    p
        (repeats, n) probability of the event.
    days, observed
        (n,) days until event or last follow-up, and whether the event was observed.
    fold
        (repeats, n); as for the AUC, predictions of different folds come from different models.
    weights
        (w, n), see :func:`training.evaluation.metrics.resamples`.

    Notes
    -----
    Harrell FE, Lee KL, Mark DB. Multivariable prognostic models. Statistics in Medicine 15(4), 1996. A pair counts if
    one patient had the event while the other is known to have been without it. A patient censored on the day of the
    other's event was without it.
    """
    later = (days[:, None] < days) | ((days[:, None] == days) & ~observed)
    each = []
    for one, of in zip(p, fold, strict=True):
        comparable = (observed[:, None] & later & (of[:, None] == of)).astype(np.float64)
        won = comparable * ((one[:, None] > one) + 0.5 * (one[:, None] == one))
        each.append(((weights @ won) * weights).sum(axis=1) / ((weights @ comparable) * weights).sum(axis=1))
    share: Array = np.mean(each, axis=0)
    return share


def _strata(p: Array, days: Array, observed: Bools, horizon: float) -> Record:
    """Split the patients at the median of their mean probability, and compare prediction and outcome in groups."""
    high = p > np.median(p)
    halves = [(days[of], observed[of]) for of in (~high, high)]
    record: Record = {
        "cut": float(np.median(p)),
        "low": _curve(*halves[0], horizon),
        "high": _curve(*halves[1], horizon),
        "log_rank": None,
    }
    if all(len(half) for half, _ in halves):  # one half is empty if all probabilities are equal
        shorter, longer = (CensoredData(uncensored=t[e], right=t[~e]) for t, e in halves)
        tested = logrank(shorter, longer)
        record["log_rank"] = {"z": float(abs(tested.statistic)), "p": float(tested.pvalue)}
    groups = np.array_split(np.argsort(p, kind="stable"), bins_for(len(p)))
    record["calibration"] = [_group(p, days, observed, horizon, of) for of in (np.arange(len(p)), *groups)]
    return record


def _group(p: Array, days: Array, observed: Bools, horizon: float, of: Indices) -> Record:
    """Mean prediction and Kaplan-Meier estimate of a group; the first group of a record contains all patients."""
    at = _curve(days[of], observed[of], horizon)["at_horizon"]
    seen = None if at is None else {"value": 1 - at["value"], "low": 1 - at["high"], "high": 1 - at["low"]}
    return {"patients": len(of), "predicted": float(p[of].mean()), "observed": seen}


def _curve(days: Array, observed: Bools, horizon: float) -> Record:
    """Kaplan-Meier curve with its 95 % interval (log-log); its value at the horizon is None without follow-up to it."""
    record: Record = {"patients": len(days), "events": int(observed.sum()), "median_days": None}
    if not observed.any():
        # Without a death the estimate is 1, and there is no formula for an interval.
        at = {"value": 1.0, "low": 1.0, "high": 1.0} if len(days) and days.max() >= horizon else None
        return {**record, "days": [], "survival": [], "low": [], "high": [], "at_horizon": at}
    estimate = kaplan_meier(days, observed)
    with warnings.catch_warnings():  # scipy warns where the interval has no formula, which is handled below
        warnings.simplefilter("ignore", RuntimeWarning)
        between = estimate.confidence_interval(method="log-log")
    survival = np.asarray(estimate.probabilities)
    record["median_days"] = _half(estimate)
    # There is no formula for the interval where the estimate is 1 or 0.
    low, high = (np.where(np.isfinite(o), o, survival) for o in (between.low.probabilities, between.high.probabilities))
    stops = np.asarray(estimate.quantiles)
    place = int(np.searchsorted(stops, horizon, side="right")) - 1
    at = None
    if days.max() >= horizon:
        at = {key: float(of[place]) if place >= 0 else 1.0 for key, of in _named(survival, low, high)}
    falls = np.flatnonzero(np.diff(survival, prepend=1.0) < 0)
    drawn = {key: [round(float(v), _DIGITS) for v in of[falls]] for key, of in _named(survival, low, high)}
    return {
        **record,
        "days": [float(stop) for stop in stops[falls]],
        "survival": drawn["value"],
        "low": drawn["low"],
        "high": drawn["high"],
        "at_horizon": at,
    }


def _named(survival: Array, low: Array, high: Array) -> tuple[tuple[str, Array], ...]:
    return ("value", survival), ("low", low), ("high", high)


def _half(estimate: Any) -> float | None:
    """First day on which a Kaplan-Meier estimate is one half or less; None if there is none."""
    below = np.flatnonzero(np.asarray(estimate.probabilities) <= 0.5)
    return float(np.asarray(estimate.quantiles)[below[0]]) if below.size else None
