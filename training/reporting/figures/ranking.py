"""Figures of a comparison over tables: critical differences, differences to GL-RFE, stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from lungstage.training.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILLION,
    Picture,
    canvas,
    clipped,
    estimate,
    picture,
    whiskers,
)

Record = Mapping[str, Any]

_REFERENCE = "gl_rfe"


def critical_difference(record: Record, classifier: str) -> Picture:
    """Draw mean ranks, with bars over methods that do not differ by Nemenyi's test."""
    own, labels, tables = record["classifiers"][classifier], record["labels"], len(record["tables"])
    ranks, difference = own["mean_rank"], own["critical_difference"]
    order = sorted(ranks, key=lambda name: (ranks[name], name))
    with canvas(1.2 + 0.24 * len(order)) as figure:
        axes = figure.subplots()
        for y, name in enumerate(order):
            axes.plot(ranks[name], y, "o", color=BLUE if name == _REFERENCE else GREY, markersize=6, zorder=3)
            axes.annotate(f"{ranks[name]:.2f}", (ranks[name], y), (6, 3), textcoords="offset points", fontsize=7.5)
        for i, run in enumerate(own["cliques"]):  # to the right of the axes, each in a separate column without labels
            rows, x = [order.index(run[0]) - 0.25, order.index(run[-1]) + 0.25], 1.02 + 0.02 * i
            axes.plot([x, x], rows, color=BLACK, linewidth=2.2, clip_on=False, transform=axes.get_yaxis_transform())
        axes.plot([1, 1 + difference], [-1, -1], color=ORANGE, linewidth=3)
        axes.annotate(
            f"critical difference {difference:.2f}", (1 + difference, -1), (6, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
        _name_rows(axes, [labels[name] for name in order], "mean rank over the tables (1: the highest AUC)", above=1.7)
        axes.set_xlim(0.8, len(order) + 0.8)
        test = own["friedman"]
        said = "not done" if test is None else f"p = {test['p']:.2g}"
        caption = (
            f"{classifier}, {tables} tables. Best mean rank: {labels[order[0]]} ({ranks[order[0]]:.2f}). "
            f"GL-RFE: {ranks[_REFERENCE]:.2f}, rank {order.index(_REFERENCE) + 1} of {len(order)}. Friedman's test: "
            f"{said}. A bar on the right spans methods whose ranks differ by at most Nemenyi's critical difference."
        )
        alt = f"Mean ranks of {len(order)} selectors, with bars over those that do not differ."
        return picture(figure, f"ranks-{classifier}", f"Mean ranks, {classifier}", alt, caption)


def differences(record: Record, classifier: str) -> Picture:
    """Draw GL-RFE's AUC minus that of every other selector and of the models without one."""
    against, labels = record["classifiers"][classifier]["against"], record["labels"]
    order = sorted(against, key=lambda name: (-against[name]["difference"]["value"], name))
    with canvas(1.0 + 0.24 * len(order)) as figure:
        axes = figure.subplots()
        above = below = 0
        for y, name in enumerate(order):
            apart = _whole(against[name]["difference"])
            better, worse = apart["low"] > 0, apart["high"] < 0
            above, below = above + better, below + worse
            colour = BLUE if better else VERMILLION if worse else GREY
            whiskers(axes, apart, y, colour, fill=colour if better or worse else "white")
            text = f"{estimate(apart)}  won {against[name]['wins']}, lost {against[name]['losses']}"
            axes.text(1.02, y, text, va="center", fontsize=7.5, transform=axes.get_yaxis_transform())
        axes.axvline(0, color=BLACK, linewidth=0.8)
        _name_rows(axes, [labels[name] for name in order], "AUC of GL-RFE minus it (right of 0: GL-RFE better)")
        caption = (
            f"{classifier}; mean over tables with its interval over tables, not corrected for multiple comparisons. "
            f"Above 0 against {above} of {len(order)}, below 0 against {below}."
        )
        alt = f"Differences of the AUC between GL-RFE and {len(order)} others."
        return picture(figure, f"differences-{classifier}", f"GL-RFE minus each other, {classifier}", alt, caption)


def stability(record: Record) -> Picture:
    """Draw each selector's stability on disjoint halves and over folds."""
    found, labels = record["stability"], record["labels"]
    order = sorted(found, key=lambda name: (-found[name]["halves"]["value"], name))
    with canvas(1.0 + 0.27 * len(order)) as figure:
        axes = figure.subplots()
        for y, name in enumerate(order):
            whiskers(axes, _whole(found[name]["halves"]), y - 0.13, BLUE if name == _REFERENCE else GREY)
            whiskers(axes, _whole(found[name]["folds"]), y + 0.13, ORANGE, marker="s")
        _name_rows(axes, [labels[name] for name in order], "Nogueira stability (0: chance, 1: always the same)")
        caption = (
            f"Circles: disjoint halves of the patients. Squares: folds, which share most patients. GL-RFE on halves: "
            f"{estimate(found[_REFERENCE]['halves'], 2)}, rank {order.index(_REFERENCE) + 1} of {len(order)}. The "
            f"most stable is {labels[order[0]]} with {estimate(found[order[0]]['halves'], 2)}."
        )
        alt = f"Stability of {len(order)} selectors on halves and over folds."
        return picture(figure, "stability", "Stability", alt, caption)


def _name_rows(axes: Axes, names: Sequence[str], scale: str, above: float = 0.8) -> None:
    """Label the rows, with the first at the top and space above it, and label the x axis."""
    axes.set_yticks(range(len(names)), [clipped(name) for name in names])
    axes.set(xlabel=scale, ylim=(len(names) - 0.4, -above))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def _whole(entry: Record) -> dict[str, float]:
    """Return a figure with its interval; a single table has none, so the value is used for both limits."""
    return {key: float(entry["value"] if entry[key] is None else entry[key]) for key in ("value", "low", "high")}
