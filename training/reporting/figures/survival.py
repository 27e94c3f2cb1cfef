"""Figures of survival: curves of strata by predicted probability, and calibration at the horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lungstage.training.reporting.figures.canvas import (
    BLUE,
    GREY,
    ORANGE,
    Picture,
    canvas,
    clipped,
    estimate,
    picture,
)

Record = Mapping[str, Any]


def curves(survival: Record) -> Picture:
    """Draw Kaplan-Meier curves of two halves, for each method with strata."""
    drawn = [method for method in survival["methods"].values() if method["strata"]]
    horizon = survival["horizon_days"]
    with canvas(3.8) as figure:
        each = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        told = []
        for axes, method in zip(each, drawn, strict=True):
            strata = method["strata"]
            for key, colour, name in (("low", BLUE, "lower half"), ("high", ORANGE, "upper half")):
                curve = strata[key]
                label = f"{name}, {curve['patients']} patients, {curve['events']} deaths"
                _steps(axes, curve, colour, label)
            axes.axvline(horizon, color=GREY, linestyle=":", linewidth=1)
            axes.set(xlabel="days", ylim=(0, 1.02), title=clipped(method["label"]))
            axes.set_xlim(left=0)
            axes.grid()
            axes.legend(loc="upper right")
            tested = strata["log_rank"]
            halves = [strata[key]["at_horizon"] for key in ("low", "high")]
            alive = " and ".join("not known" if one is None else estimate(one) for one in halves)
            test = "no test" if tested is None else f"log-rank z {tested['z']:.2f}, p {tested['p']:.2g}"
            told.append(f"{method['label']}: alive at day {horizon:g} {alive}; {test}")
        each[0].set(ylabel="alive (Kaplan-Meier)")
        caption = (
            "Patients split at the median of their mean out-of-fold probability, with 95 % intervals (log-log); "
            f"dotted: the horizon. {'. '.join(told)}. The predictions of different folds are not independent, so p is "
            "an indication only."
        )
        alt = f"Survival curves of a lower and an upper half, for {len(drawn)} methods."
        return picture(figure, "kaplan-meier", "Survival of the strata", alt, caption)


def _steps(axes: Any, curve: Record, colour: str, label: str) -> None:
    days = [0.0, *curve["days"]]
    for key, of in (("low", curve["low"]), ("high", curve["high"])):
        axes.step(days, [1.0, *of], where="post", color=colour, linewidth=0.6, alpha=0.6, label=f"_{key}")
    axes.step(days, [1.0, *curve["survival"]], where="post", color=colour, linewidth=1.8, label=label)


def calibration(survival: Record) -> Picture:
    """Draw predicted and observed deaths at the horizon, in groups of patients."""
    drawn = [
        (method["label"], method["strata"]["calibration"])
        for method in survival["methods"].values()
        if method["strata"]
    ]
    horizon = survival["horizon_days"]
    with canvas(4.4, width=6.4) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=":", label="perfect")
        for (label, groups), colour, marker in zip(drawn, (BLUE, ORANGE), "os", strict=False):
            seen = [group for group in groups[1:] if group["observed"]]
            for group in seen:
                between = [group["observed"]["low"], group["observed"]["high"]]
                axes.plot([group["predicted"]] * 2, between, color=colour, linewidth=1.2)
            axes.plot(
                [group["predicted"] for group in seen], [group["observed"]["value"] for group in seen],
                color=colour, marker=marker, linewidth=0.9, label=clipped(label),
            )  # fmt: skip
        axes.set(xlabel="predicted to die", ylabel="died (Kaplan-Meier)", xlim=(0, 1), ylim=(0, 1))
        axes.grid()
        axes.legend(loc="upper left")
        everybody = drawn[0][1][0]
        came = "not known" if everybody["observed"] is None else estimate(everybody["observed"])
        caption = (
            f"At day {horizon:g}, in groups of equal size by mean out-of-fold probability. {drawn[0][0]}, all "
            f"{everybody['patients']} patients: predicted {everybody['predicted']:.3f}, observed {came}."
        )
        alt = "Predicted against observed share of deaths, in groups."
        return picture(figure, "survival-calibration", "Calibration at the horizon", alt, caption)
