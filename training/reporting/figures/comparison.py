"""Figures that compare methods: forest plot, ROC curves, leakage, ablation of the covariates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from lungstage.training.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    METRIC_LABELS,
    ORANGE,
    PURPLE,
    VERMILLION,
    Picture,
    canvas,
    clipped,
    estimate,
    picture,
    whiskers,
    wrapped,
)

Record = Mapping[str, Any]

CLAIMED_ACCURACY: Final = 0.9022
"""Accuracy claimed by the method's authors on a cohort that is not public (arXiv 2606.04453); never reproduced."""

_RIVALS: Final = ("gl_rfe_paper_dnn", "sphericity_volume", "volume", "l2_lr")
_RIVAL_STYLES: Final = ((VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, (0, (5, 1))))


def in_order(methods: Record, reference: str) -> list[str]:
    """Order the methods for a table: the reference, methods with a selector by AUC, then the others by AUC."""

    def place(name: str) -> tuple[bool, bool, float, str]:
        method = methods[name]
        return name != reference, method["selector"] is None, -method["metrics"]["auc"]["value"], name

    return sorted(methods, key=place)


def rivals(evaluation: Record) -> list[str]:
    """Return the comparators whose curves are drawn: the best other method, then well-known ones."""
    methods, reference = evaluation["methods"], evaluation["reference"]
    others = [name for name in methods if name != reference]
    if not others:
        return []
    best = max(others, key=lambda name: (methods[name]["metrics"]["auc"]["value"], name))
    return list(dict.fromkeys([best, *(name for name in _RIVALS if name in others)]))[: len(_RIVAL_STYLES)]


def forest(evaluation: Record) -> Picture:
    """Draw every method's AUC and its paired difference to the reference."""
    methods, reference = evaluation["methods"], evaluation["reference"]
    order = in_order(methods, reference)
    with canvas(1.3 + 0.235 * len(order)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        verdicts = {"above": 0, "below": 0, "undecided": 0}
        for y, name in enumerate(order):
            method = methods[name]
            whiskers(left, method["metrics"]["auc"], y, BLUE if name == reference else GREY)
            _beside(left, y, estimate(method["metrics"]["auc"]))
            if (difference := method["difference"]) is None:
                continue
            apart = difference["auc"]
            verdict = "above" if apart["low"] > 0 else "below" if apart["high"] < 0 else "undecided"
            verdicts[verdict] += 1
            colour = {"above": BLUE, "below": VERMILLION, "undecided": GREY}[verdict]
            if (corrected := method["difference_corrected"]) is not None:
                right.plot(
                    [corrected["low"], corrected["high"]], [y + 0.28] * 2, color=colour, linewidth=0.9, alpha=0.7
                )
            whiskers(right, apart, y, colour, fill="white" if verdict == "undecided" else colour)
            _beside(right, y, estimate(apart))
        left.set_yticks(range(len(order)), [clipped(methods[name]["label"]) for name in order])
        left.get_yticklabels()[0].set_fontweight("bold")
        left.axvline(0.5, color=BLACK, linewidth=0.8, linestyle=":")
        right.axvline(0, color=BLACK, linewidth=0.8)
        left.set(xlabel="AUC", title="AUC")
        right.set(xlabel="reference minus method (right of 0: reference better)", title="Paired difference of the AUC")
        unselected = sum(methods[name]["selector"] is None for name in order)
        for axes in (left, right):
            axes.axhline(len(order) - unselected - 0.5, color=GREY, linewidth=0.7, linestyle=(0, (1, 3)))
            axes.set_ylim(len(order) - 0.4, -0.8)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
        own = methods[reference]
        caption = (
            f"{own['label']} (reference): AUC {estimate(own['metrics']['auc'])}. The interval of the paired difference "
            f"lies above 0 against {verdicts['above']} of {len(order) - 1} methods (filled blue). It lies "
            f"below 0 against {verdicts['below']} (filled vermillion). It includes 0 against "
            f"{verdicts['undecided']} (open grey). Thin line: interval with Nadeau and Bengio's correction. Below the "
            "dotted line: methods without feature selection."
        )
        alt = f"Forest plot of {len(order)} methods: AUC on the left, difference to the reference on the right."
        return picture(figure, "forest", "Every method on the same folds", alt, caption)


def _beside(axes: Axes, y: float, text: str) -> None:
    axes.text(1.02, y, text, va="center", fontsize=7.5, transform=axes.get_yaxis_transform())


def roc(evaluation: Record) -> Picture:
    """Draw the reference's ROC curve with its band, and a few comparators'."""
    methods, reference = evaluation["methods"], evaluation["reference"]
    with canvas(4.6) as figure:
        axes = figure.subplots()
        own = methods[reference]["roc"]
        axes.fill_between(own["false_positive_rate"], own["low"], own["high"], color=BLUE, alpha=0.18, linewidth=0)
        for name, (colour, dashes) in styled(evaluation):
            curve = methods[name]["roc"]
            axes.plot(
                curve["false_positive_rate"], curve["true_positive_rate"], color=colour, linestyle=dashes,
                linewidth=2.2 if name == reference else 1.4, label=_labelled(methods[name]),
            )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=":", label="chance")
        positive = evaluation["endpoint"]["positive"]
        axes.set(
            xlabel="1 - specificity", ylabel=f"sensitivity ({clipped(positive, 30)})", xlim=(0, 1), ylim=(0, 1.005)
        )
        axes.set_aspect("equal")
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="AUC (95 % interval)", alignment="left")
        middle = int(np.argmin(np.abs(np.array(own["false_positive_rate"]) - 0.2)))
        caption = (
            f"{methods[reference]['label']}: AUC {estimate(methods[reference]['metrics']['auc'])}. At a specificity of "
            f"0.80 the sensitivity is {own['true_positive_rate'][middle]:.2f} ({own['low'][middle]:.2f} to "
            f"{own['high'][middle]:.2f}). Mean over the repeats; the band is the reference's 95 % interval."
        )
        alt = (
            f"ROC curves of the reference and {len(rivals(evaluation))} comparators, with a band around the reference."
        )
        return picture(figure, "roc", "ROC curves", alt, caption)


def styled(evaluation: Record) -> Iterable[tuple[str, tuple[str, Any]]]:
    """Pair the drawn methods with their line styles; the reference comes last, on top."""
    yield from zip(rivals(evaluation), _RIVAL_STYLES, strict=False)
    yield evaluation["reference"], (BLUE, "-")


def _labelled(method: Record) -> str:
    return f"{wrapped(clipped(method['label']), 30)}\n  {estimate(method['metrics']['auc'], 2)}"


def leakage(record: Record) -> Picture:
    """Draw the effect of data leakage, next to the figures without leakage."""
    variants, honest = record["variants"], record["honest"]
    metrics = [
        name for name in METRIC_LABELS if all(name in one for one in (honest, *(v["metrics"] for v in variants)))
    ]
    rows: Sequence[tuple[str, Record, str]] = [
        ("no leakage: everything inside the fold", honest, BLUE),
        *((one["label"], one["metrics"], VERMILLION) for one in variants),
    ]
    with canvas(1.7 + 0.3 * len(rows)) as figure:
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            for y, (_, figures, colour) in enumerate(rows):
                whiskers(axes, figures[metric], y, colour, marker="o" if colour == BLUE else "D")
                axes.text(
                    figures[metric]["value"],
                    y - 0.24,
                    f"{figures[metric]['value']:.2f}",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color=colour,
                    zorder=4,
                    bbox={"facecolor": "white" if colour == BLUE else "#FBE9DF", "linewidth": 0, "pad": 1},
                )
            if metric == "accuracy":
                axes.axvline(CLAIMED_ACCURACY, color=BLACK, linestyle="--", linewidth=1)
                axes.text(CLAIMED_ACCURACY - 0.01, len(rows) - 0.45, "authors' claim", ha="right", fontsize=7.5)
            axes.axhspan(0.5, len(rows) - 0.4, facecolor="#FBE9DF", zorder=0)
            labels = [clipped(label, 40) for label, _, _ in rows] if axes is panels[0] else [""] * len(rows)
            axes.set_yticks(range(len(rows)), labels)
            axes.set(ylim=(len(rows) - 0.4, -0.7), xlabel=METRIC_LABELS[metric])
            axes.set_xlim(min(0.45, *(f[metric]["low"] - 0.03 for _, f, _ in rows)), 1.02)
            axes.grid(axis="x")
        figure.suptitle("WRONG ON PURPOSE: shaded rows leak test cases into training", color=VERMILLION, fontsize=10)
        worst = max(variants, key=lambda one: float(one["metrics"][metrics[0]]["value"]))
        name = METRIC_LABELS[metrics[0]]
        caption = (
            f"WRONG ON PURPOSE. With '{worst['label']}' the {name} is "
            f"{estimate(worst['metrics'][metrics[0]])}; without leakage it is {estimate(honest[metrics[0]])}. The leak "
            "alone causes the difference. None of the shaded figures is a result."
        )
        named = ", ".join(METRIC_LABELS[metric] for metric in metrics)
        alt = f"Dots with intervals: {named} of the evaluation without leakage and of {len(variants)} with leakage."
        return picture(figure, "leakage-figure", "Effect of data leakage: wrong on purpose", alt, caption)


def ablation(evaluation: Record) -> Picture:
    """Draw the AUC with the clinical covariates, without them, and with covariates only."""
    roles = evaluation["covariate_ablation"]
    methods = evaluation["methods"]
    rows = [(role, methods[roles[role]]) for role in ("with", "without", "alone")]
    words = {"with": "features and covariates", "without": "features only", "alone": "covariates only"}
    with canvas(1.75) as figure:
        axes = figure.subplots()
        for y, (_, method) in enumerate(rows):
            whiskers(axes, method["metrics"]["auc"], y, BLUE if y == 0 else GREY)
            _beside(axes, y, estimate(method["metrics"]["auc"]))
        axes.set_yticks(range(len(rows)), [f"{words[role]}:\n{clipped(m['label'], 40)}" for role, m in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="AUC")
        axes.grid(axis="x")
        caption = "AUC " + ", ".join(f"{estimate(m['metrics']['auc'])} with {words[role]}" for role, m in rows) + "."
        alt = "Dots with intervals: AUC with covariates, without them and with covariates only."
        return picture(figure, "ablation-figure", "Ablation of the clinical covariates", alt, caption)
