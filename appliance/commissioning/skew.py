"""Compare the site's patients with the training cohort, to find a shift by scanner or protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lungstage.appliance.commissioning.instrument import Instrument
from lungstage.appliance.commissioning.plan import Study, Thresholds
from lungstage.appliance.commissioning.statistics import more_than_chance
from lungstage.appliance.commissioning.verdict import Cell, Check, Verdict, graded, worst
from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.model.manifest import QUANTILES, FeatureEntry

Array = npt.NDArray[np.float64]

_MIDDLE = ("0.05", "0.95")
_OUTSIDE_MIDDLE = 0.1
_LEVELS = [float(level) for level in QUANTILES]


def check_patients(studies: Sequence[Study], instrument: Instrument, thresholds: Thresholds) -> tuple[Check, ...]:
    """Measure consecutive patients, also those that the model refuses, and compare their features."""
    outcomes = [instrument.measure(study) for study in studies]
    measured = [outcome for outcome in outcomes if outcome["features"] is not None]
    checks = [_check_number(outcomes, len(measured), thresholds)]
    if measured:
        entries = instrument.bundle.manifest.features
        values = {
            entry.name: np.array([outcome["features"][entry.name] for outcome in measured], dtype=np.float64)
            for entry in entries
        }
        checks.append(check_skew(values, entries, thresholds))
    return tuple(checks)


def _check_number(outcomes: Sequence[Mapping[str, object]], measured: int, thresholds: Thresholds) -> Check:
    reasons = Counter(
        str(outcome["reason"]["code"]) for outcome in outcomes if isinstance(outcome["reason"], dict)
    )  # fmt: skip
    told = [f"{measured} of {len(outcomes)} patients could be measured"]
    told += [f"{count} refused or held as {code}" for code, count in sorted(reasons.items())]
    beyond = reasons[ReasonCode.OUTSIDE_INTENDED_USE] / len(outcomes)
    verdict = graded(beyond, warn=thresholds.outside_warn, fail=thresholds.outside_fail)
    if measured < thresholds.patients:
        told.append(f"at least {thresholds.patients} are needed, so the shares below are imprecise")
        verdict = worst([verdict, Verdict.WARN])
    return Check("the site's patients", verdict, f"{'; '.join(told)}.")


def check_skew(values: Mapping[str, Array], entries: Sequence[FeatureEntry], thresholds: Thresholds) -> Check:
    """Compare the features of the site's patients with the quantiles of the training cohort.

    Parameters
    ----------
    values
        (n,) for each feature; NaN if it could not be computed.
    entries
        Training quantiles of each feature.
    thresholds
        Limits for the share of patients outside a feature's whole range. ``chance``, divided by the number of features
        (Bonferroni), is the limit for the number of patients outside its middle 90 %: beyond it, there is a warning.
    """
    rows, verdicts = [], []
    for entry in entries:
        row, verdict = _feature_row(entry, values[entry.name], thresholds, len(entries))
        rows.append(row)
        verdicts.append(verdict)
    unlike = [str(row["feature"]) for row, v in zip(rows, verdicts, strict=True) if v in (Verdict.WARN, Verdict.FAIL)]
    finding = (
        f"Different from the training cohort: {len(unlike)} of {len(entries)} features ({', '.join(unlike)})."
        if unlike
        else f"With this number of patients, all {len(entries)} features are like those of the training cohort."
    )
    return Check("features beside the training cohort", worst(verdicts), finding, tuple(rows))


def _feature_row(
    entry: FeatureEntry, every: Array, thresholds: Thresholds, features: int
) -> tuple[dict[str, Cell], Verdict]:
    values, seen = every[np.isfinite(every)], entry.training_quantiles
    n = len(values)
    if not n:
        nothing: dict[str, Cell] = {"feature": entry.name.removeprefix("original_"), "patients": 0}
        return nothing | dict.fromkeys(_HEAD), Verdict.NOTE
    beyond = float(np.mean((values < seen["0"]) | (values > seen["1"])))
    outside = int(np.sum((values < seen[_MIDDLE[0]]) | (values > seen[_MIDDLE[1]])))
    chance = more_than_chance(outside, n, _OUTSIDE_MIDDLE)
    verdict = worst(
        [
            graded(beyond, warn=thresholds.outside_warn, fail=thresholds.outside_fail),
            Verdict.WARN if chance < thresholds.chance / features else Verdict.PASS,
        ]
    )
    row: dict[str, Cell] = {
        "feature": entry.name.removeprefix("original_"),
        "patients": n,
        "outside the range": beyond,
        "outside the middle 90 %": outside / n,
        "by chance": chance,
        "median": float(np.median(values)),
        "training median": seen["0.5"],
        "median's place": float(np.interp(np.median(values), [seen[level] for level in QUANTILES], _LEVELS)),
        "verdict": verdict,
    }
    return row, verdict


_HEAD = (
    "outside the range", "outside the middle 90 %", "by chance", "median", "training median", "median's place",
    "verdict",
)  # fmt: skip
