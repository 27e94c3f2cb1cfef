"""Section of the card on survival: censoring, concordance, strata, and calibration at the horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lungstage.export.markdown import as_table, figure, percent
from lungstage.training.evaluation.survival import CLAIM, censoring
from lungstage.training.run import Run

_SHOWN: Final = ("gl_rfe_dnn", "volume", "sphericity_volume", "best_single_lr", "anova_dnn")

Record = Mapping[str, Any]


def survival(run: Run) -> str:
    """Write the section; empty for a model of another endpoint."""
    evaluation = run.own_evaluation
    record = run.record.get("survival") if evaluation is None else evaluation.get("survival")
    if not record:
        return ""
    parts = [censoring(record), _concordance(record), _strata(record), _calibration(record)]
    return "\n\n".join([*parts, CLAIM])


def _concordance(record: Record) -> str:
    methods = record["methods"]
    rows = [
        [methods[name]["label"], figure(methods[name]["concordance"]), figure(methods[name]["difference"])]
        for name in _SHOWN
        if name in methods
    ]
    head = ["", "C-index (Harrell)", "C-index of this procedure minus it, paired"]
    return (
        "Concordance: share of pairs in which the patient who died first had the higher probability. 0.5 is chance. "
        f"All follow-up is used, and pairs are compared within folds:\n\n{as_table(head, rows)}"
    )


def _strata(record: Record) -> str:
    horizon = f"{record['horizon_days']:g}"
    head = [
        "split at the median of the probability by", "alive at the horizon, lower half", "upper half",
        "median survival in days, lower half", "upper half", "log-rank",
    ]  # fmt: skip
    rows = []
    for method in record["methods"].values():
        if strata := method["strata"]:
            low, high, tested = strata["low"], strata["high"], strata["log_rank"]
            rows.append(
                [
                    method["label"],
                    figure(low["at_horizon"]),
                    figure(high["at_horizon"]),
                    *(
                        "not reached" if half["median_days"] is None else f"{half['median_days']:g}"
                        for half in (low, high)
                    ),
                    "none" if tested is None else f"z {tested['z']:.2f}, p {_p(tested['p'])}",
                ]
            )
    return (
        f"Kaplan-Meier estimates of two strata of equal size, at day {horizon}, with their 95 % intervals (log-log). "
        "Out-of-fold probabilities of different folds are not independent, so the p value is an indication only:\n\n"
        f"{as_table(head, rows)}"
    )


def _calibration(record: Record) -> str:
    strata = record["methods"]["gl_rfe_dnn"]["strata"]
    if strata is None:
        return ""
    rows = [
        [
            "all" if i == 0 else f"group {i}",
            str(group["patients"]),
            percent(group["predicted"]),
            figure(group["observed"]),
        ]
        for i, group in enumerate(strata["calibration"])
    ]
    head = ["by predicted probability", "patients", "predicted to die", "died (Kaplan-Meier)"]
    return f"Calibration at day {record['horizon_days']:g}, out of fold:\n\n{as_table(head, rows)}"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
