"""Figures of the probabilities: calibration, decision curve, conformal answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lungstage.training.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SKY,
    Picture,
    canvas,
    clipped,
    estimate,
    picture,
    wrapped,
)
from lungstage.training.reporting.figures.comparison import in_order, styled

Record = Mapping[str, Any]


def calibration(evaluation: Record) -> Picture:
    """Draw the reference's reliability diagram, with the number of predictions per point."""
    method = evaluation["methods"][evaluation["reference"]]
    bins, positive = method["calibration"]["bins"], evaluation["endpoint"]["positive"]
    predicted, observed = ([one[key] for one in bins] for key in ("predicted", "observed"))
    counts = [one["count"] for one in bins]
    with canvas(5.0, width=6.4) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=":", label="perfect")
        for one in bins:
            axes.plot([one["predicted"]] * 2, [one["low"], one["high"]], color=BLUE, linewidth=1.4)
        axes.plot(predicted, observed, color=BLUE, marker="o", linewidth=0.9, label=clipped(method["label"]))
        axes.set(ylabel=f"observed share of {clipped(positive, 30)}", xlim=(0, 1), ylim=(0, 1))
        axes.grid()
        axes.legend(loc="upper left")
        below.bar(predicted, counts, width=0.02, color=BLUE)
        below.set(xlabel=f"predicted probability of {clipped(positive, 30)}", ylabel="count per bin")
        furthest = max(bins, key=lambda one: abs(one["observed"] - one["predicted"]))
        slope, fitted = method["metrics"]["calibration_slope"], method["calibration"]
        caption = (
            f"Calibration slope {estimate(slope, 2)} (1 is perfect, below 1 is overconfident), intercept "
            f"{fitted['intercept']:.2f}; expected calibration error {estimate(method['metrics']['ece'])}, Brier score "
            f"{estimate(method['metrics']['brier'])}. In the bin with the largest difference, "
            f"{furthest['predicted']:.2f} is predicted and {furthest['observed']:.2f} ({furthest['low']:.2f} to "
            f"{furthest['high']:.2f}) is observed."
        )
        alt = f"Reliability diagram with {len(bins)} bins and their intervals, and the count per bin below it."
        return picture(figure, "calibration", "Calibration", alt, caption)


def decision_curve(evaluation: Record) -> Picture:
    """Draw the net benefit of the model, of treating all and of treating none."""
    methods, reference = evaluation["methods"], evaluation["reference"]
    own, treat_all = methods[reference]["decision_curve"], np.array(evaluation["decision_curve_treat_all"])
    threshold, benefit = np.array(own["threshold"]), np.array(own["net_benefit"])
    with canvas(4.0) as figure:
        axes = figure.subplots()
        axes.fill_between(threshold, own["low"], own["high"], color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(threshold, treat_all, color=BLACK, linewidth=1.1, label="treat all")
        axes.axhline(0, color=GREY, linewidth=1.1, label="treat none")
        for name, (colour, dashes) in styled(evaluation):
            curve = methods[name]["decision_curve"]
            axes.plot(
                curve["threshold"], curve["net_benefit"], color=colour, linestyle=dashes,
                linewidth=2.2 if name == reference else 1.4, label=wrapped(clipped(methods[name]["label"]), 30),
            )  # fmt: skip
        top = max(float(benefit.max()), float(treat_all.max()))
        positive = clipped(evaluation["endpoint"]["positive"], 30)
        axes.set(ylim=(-0.12 * top - 0.02, 1.08 * top + 0.01), xlim=(0, 1))
        axes.set(xlabel=f"threshold probability of {positive}", ylabel="net benefit")
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        better = threshold[benefit > np.maximum(treat_all, 0)]
        where = (
            f"at {len(better)} of {len(threshold)} thresholds, from {better.min():.2f} up to {better.max():.2f} at most"
            if len(better)
            else "at no threshold"
        )
        caption = (
            f"{methods[reference]['label']} has a higher net benefit than treating all and treating none {where}. The "
            "reader decides what 'treating' means. The curve does not show that the model is suitable for it."
        )
        alt = (
            "Net benefit over the threshold probability: the reference with a band, comparators, treat all, treat none."
        )
        return picture(figure, "decision-curve", "Decision curve", alt, caption)


def conformal(evaluation: Record) -> Picture:
    """Draw each method's coverage by class with the target, and the share of indeterminate cases."""
    methods, reference = evaluation["methods"], evaluation["reference"]
    aim = 1 - evaluation["settings"]["alpha"]
    classes = (evaluation["endpoint"]["negative"], evaluation["endpoint"]["positive"])
    order = in_order(methods, reference)
    with canvas(1.4 + 0.22 * len(order)) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for one, colour, marker, aside in zip(classes, (ORANGE, BLUE), "so", (-0.14, 0.14), strict=True):
            coverage = [methods[name]["conformal"]["coverage"][one] for name in order]
            left.plot(
                coverage, [y + aside for y in range(len(order))], color=colour, marker=marker, linestyle="none",
                markersize=5.5, markeredgecolor="black", markeredgewidth=0.5, label=clipped(one, 24),
            )  # fmt: skip
        left.axvline(aim, color=BLACK, linestyle="--", linewidth=1, label=f"target, 1 - alpha: {aim:.2f}")
        share = [methods[name]["conformal"]["indeterminate"] for name in order]
        right.barh(range(len(order)), share, color=[BLUE if name == reference else SKY for name in order], height=0.7)
        for y, value in enumerate(share):
            right.text(value + 0.01, y, f"{100 * value:.0f} %", va="center", fontsize=7.5)
        left.set_yticks(range(len(order)), [clipped(methods[name]["label"]) for name in order])
        left.get_yticklabels()[0].set_fontweight("bold")
        left.set(xlabel="coverage", title="Coverage by class", ylim=(len(order) - 0.4, -0.6))
        right.set(xlabel="share of the cases", title="Indeterminate", xlim=(0, 1.15))
        right.tick_params(axis="y", length=0)
        left.grid(axis="both")
        left.set_xlim(min(0.5, *left.dataLim.intervalx) - 0.02, 1.02)
        figure.legend(loc="outside upper center", ncols=3)
        own = methods[reference]["conformal"]
        covered = " and ".join(f"{own['coverage'][one]:.3f} of {one}" for one in classes)
        right_where = own["accuracy_where_decided"]
        decided = "no case is decided" if right_where is None else f"{right_where:.3f} of the decided cases are right"
        caption = (
            f"{methods[reference]['label']}: out of fold, the conformal set contains the true class in {covered} "
            f"(target: {aim:.2f}). {100 * own['indeterminate']:.1f} % of the cases are indeterminate, and {decided}."
        )
        alt = f"Dots: coverage of both classes for {len(order)} methods; bars: share of indeterminate cases."
        return picture(figure, "conformal", "Conformal answers", alt, caption)
