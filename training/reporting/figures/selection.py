"""Figures of the selection: elimination, number of features, stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

import numpy as np
from matplotlib.ticker import MaxNLocator

from lungstage.training.reporting.figures.canvas import (
    BLUE,
    GREY,
    ORANGE,
    SEQUENTIAL,
    VERMILLION,
    WIDTH,
    Picture,
    canvas,
    clipped,
    estimate,
    picture,
    short,
    whiskers,
    wrapped,
)

Record = Mapping[str, Any]

_SHOWN: Final = 40  # largest number of rows in these figures


def elimination(record: Record) -> Picture:
    """Draw the importance by round of the features that stayed longest."""
    rounds, chosen = record["rounds"], record["features"]
    final = rounds[-1]["importance"]
    order = sorted(final, key=lambda name: (name not in chosen, -final[name]))
    order = [name for name in order if name not in rounds[-1]["removed"]]
    for passed in reversed(rounds):
        order += sorted(passed["removed"], key=lambda name: -passed["importance"][name])
    shown = order[:_SHOWN]
    ranks = np.full((len(shown), len(rounds)), np.nan)
    gone = []
    for column, passed in enumerate(rounds):
        rated = sorted(passed["importance"], key=lambda name: -passed["importance"][name])
        place = {name: 1 - i / max(1, len(rated) - 1) for i, name in enumerate(rated)}
        for row, name in enumerate(shown):
            ranks[row, column] = place.get(name, np.nan)
            if name in passed["removed"]:
                gone.append((column, row))
    with canvas(1.0 + 0.17 * len(shown)) as figure:
        axes = figure.subplots()
        image = axes.imshow(ranks, cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="none", aspect="auto")
        if gone:
            axes.plot(*zip(*gone, strict=True), linestyle="none", marker="x", color=VERMILLION, markersize=5)
        axes.set_yticks(range(len(shown)), [short(name) for name in shown], fontsize=7.5)
        for label, name in zip(axes.get_yticklabels(), shown, strict=True):
            label.set_fontweight("bold" if name in chosen else "normal")
        every = ceil(len(rounds) / 30)
        ticks = range(0, len(rounds), every)
        axes.set_xticks(ticks, [str(rounds[i]["remaining"]) for i in ticks], fontsize=7)
        axes.set_xlabel("number of features in each round")
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=20, pad=0.01, ticks=[0, 1])
        bar.ax.set_yticklabels(["least", "most"])
        bar.set_label("importance, by rank in the round")
        first, last = next((r for r in rounds if r["removed"]), None), [r for r in rounds if r["removed"]]
        caption = (
            f"{len(rounds)} rounds from {rounds[0]['remaining']} features. The figure shows the {len(shown)} features "
            "that stayed longest. Bold: selected. Cross: eliminated in this round."
        )
        if first is not None:
            caption += (
                f" The last eliminated feature was {short(last[-1]['removed'][-1])}, in a round of "
                f"{last[-1]['remaining']} features."
            )
        best = max(final, key=lambda name: float(final[name]))
        caption += f" The most important feature of the last round was {short(best)}."
        alt = f"Grid of {len(shown)} features by {len(rounds)} rounds, coloured by importance until elimination."
        return picture(figure, "elimination", "Elimination, round by round", alt, caption)


def number_of_features(record: Record) -> Picture:
    """Draw the inner cross-validation's AUC over the number of features, with the 1-SE rule."""
    k, auc, se = (np.array(record[key], dtype=float) for key in ("k", "auc", "se"))
    best, one_se, chosen = record["best"], record["one_se"], record["chosen"]
    at = {number: float(auc[list(record["k"]).index(number)]) for number in (best, one_se, chosen) if number in k}
    bar = at[best] - float(se[list(record["k"]).index(best)])
    with canvas(3.6) as figure:
        axes = figure.subplots()
        axes.fill_between(k, auc - se, auc + se, color=BLUE, alpha=0.18, linewidth=0, label="± 1 standard error")
        axes.plot(k, auc, color=BLUE, label="mean of the inner folds")
        axes.axhline(bar, color=GREY, linestyle="--", linewidth=1, label=f"best minus 1 standard error: {bar:.3f}")
        for number, marker, colour, name in (
            (best, "^", BLUE, "best"), (one_se, "s", ORANGE, "1-SE rule"), (chosen, "o", VERMILLION, "chosen"),
        ):  # fmt: skip
            if number in at:
                axes.plot(
                    number, at[number], marker=marker, color=colour, markersize=8, linestyle="none",
                    markeredgecolor="black", label=f"{name}: k = {number}",
                )  # fmt: skip
        axes.set(xlabel="number of features k", ylabel="AUC, inner cross-validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        named = f"AUC {at[chosen]:.3f} at the chosen k = {chosen}; " if chosen in at else ""
        caption = (
            f"{named}the best is {at[best]:.3f} at k = {best}, and k = {one_se} is the smallest within one standard "
            "error of it. Inner folds of the training rows only. This is not an estimate of performance."
        )
        alt = f"Line of the inner AUC for k from {int(k[0])} to {int(k[-1])}, with a band of one standard error."
        return picture(figure, "number-of-features", "How many features", alt, caption)


def by_selector(evaluation: Record) -> dict[str, Record]:
    """One method per selector, the reference's first. The selections of a selector are the same for each classifier."""
    reference = evaluation["reference"]
    found: dict[str, Record] = {}
    for name in sorted(evaluation["methods"], key=lambda name: (name != reference, name)):
        method = evaluation["methods"][name]
        if method["selector"] and method["stability"]:
            found.setdefault(method["selector"], method)
    return {method["label"].rsplit(" + ", 1)[0]: method for method in found.values()}


def stability(evaluation: Record) -> Picture:
    """Draw Nogueira's stability of each selector over the outer folds."""
    found = by_selector(evaluation)
    order = sorted(found, key=lambda name: -found[name]["stability"]["value"])
    own = next(iter(found))
    with canvas(0.9 + 0.26 * len(order)) as figure:
        axes = figure.subplots()
        for y, name in enumerate(order):
            whiskers(axes, found[name]["stability"], y, BLUE if name == own else GREY)
            axes.text(1.01, y, estimate(found[name]["stability"], 2), va="center", fontsize=8.5,
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_yticks(range(len(order)), [clipped(name) for name in order])
        axes.set(ylim=(len(order) - 0.4, -0.6), xlabel="Nogueira stability (0: chance, 1: always the same features)")
        low = min(0.0, *(found[name]["stability"]["low"] for name in order))
        axes.set_xlim(low - 0.02, 1.0)
        axes.grid(axis="x")
        best = order[0]
        caption = f"{own}: {estimate(found[own]['stability'], 2)}, "
        caption += (
            f"the most stable of {len(order)} selectors."
            if best == own
            else f"rank {order.index(own) + 1} of {len(order)} selectors; the most stable is {best} with "
            f"{estimate(found[best]['stability'], 2)}."
        )
        caption += " Intervals are asymptotic and assume independent folds, but folds share patients."
        alt = f"Dots with intervals: stability of {len(order)} selectors."
        return picture(figure, "stability", "Stability of the selections over the outer folds", alt, caption)


def frequencies(evaluation: Record, chosen: Sequence[str]) -> Picture:
    """Draw each selector's selection frequency of each feature over the outer folds."""
    found = by_selector(evaluation)
    own = next(iter(found))
    share = {name: method["selection_frequency"] or {} for name, method in found.items()}
    ranked = sorted(share[own], key=lambda feature: (-share[own][feature], feature))
    wanted = [*ranked[: _SHOWN - len(chosen)], *(name for name in chosen if name not in ranked[: _SHOWN - len(chosen)])]
    rows = sorted(wanted, key=lambda feature: (-share[own].get(feature, 0.0), feature))
    values = np.array([[share[name].get(feature, 0.0) for name in found] for feature in rows])
    with canvas(1.7 + 0.19 * len(rows), width=WIDTH) as figure:
        axes = figure.subplots()
        axes.imshow(
            np.where(values > 0, values, np.nan), cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="none", aspect="auto"
        )
        for (row, column), value in np.ndenumerate(values):
            axes.text(
                column, row, f"{100 * value:.0f}" if value else "·", ha="center", va="center", fontsize=7.5,
                color="white" if value > 0.55 else "black", in_layout=False,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [short(name) for name in rows], fontsize=8)
        for label, name in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if name in chosen else "normal")
        labels = [wrapped(clipped(name, 30), 13) for name in found]
        axes.set_xticks(range(len(found)), labels, fontsize=7.2)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        always = sum(value >= 1.0 for value in share[own].values())
        half = sum(value >= 0.5 for value in share[own].values())
        caption = (
            f"Percentage of the outer folds in which a feature was selected. {own} selected {always} "
            f"features in every fold, {half} in at least half of them and {len(share[own])} at least once; most often "
            f"{short(ranked[0])} ({100 * share[own][ranked[0]]:.0f} %). Bold: selected by the final fit."
        )
        alt = f"Colour table: {len(rows)} features by {len(found)} selectors, in percent of the folds."
        return picture(figure, "frequencies", "Selection frequency by selector", alt, caption)
