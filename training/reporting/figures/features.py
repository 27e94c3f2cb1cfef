"""Figures of the features: their correlation before and after the selection, and their distributions by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from lungstage.training.reporting.figures.canvas import (
    BLUE,
    DIVERGING,
    VERMILLION,
    Picture,
    canvas,
    clipped,
    picture,
    short,
    unit_of,
    wrapped,
)

Record = Mapping[str, Any]
Array = npt.NDArray[np.float64]

_ANNOTATED: Final = 24  # largest number of features with room for numbers and names on both sides
_LOG_FROM: Final = 30.0  # ratio of largest to smallest value from which the axis is logarithmic


def correlation(record: Record) -> list[Picture]:
    """Draw Spearman's rank correlation of all features in cluster order, and of the selected ones."""
    names, chosen = list(record["features"]), list(record["selected"])
    values = np.array(record["spearman"], dtype=float)
    at = [names.index(name) for name in chosen]
    every = _heat_map(
        values, names, chosen, "correlation-all", f"Correlation before selection: all {len(names)} features"
    )
    title = f"Correlation after selection: the {len(chosen)} selected features"
    return [every, _heat_map(values[np.ix_(at, at)], chosen, chosen, "correlation-selected", title)]


def _heat_map(values: Array, names: Sequence[str], chosen: Sequence[str], key: str, title: str) -> Picture:
    few = len(names) <= _ANNOTATED
    height = 2.6 + 0.3 * len(names) if few else 1.2 + 0.095 * len(names)
    with canvas(height) as figure:
        axes = figure.subplots()
        image = axes.imshow(values, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="none", aspect="auto")
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.tick_params(length=0, labelsize=8.5 if few else 5.8)
        if few:
            axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=90)
            for (row, column), value in np.ndenumerate(values):
                colour = "white" if abs(value) > 0.7 else "black"
                axes.text(
                    column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=7, color=colour
                )
        else:
            axes.set_xticks([])
            axes.set_xlabel("the same features in the same order")
            for label, name in zip(axes.get_yticklabels(), names, strict=True):
                if name in chosen:
                    label.set(color=VERMILLION, fontweight="bold")
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 3.2 / height), aspect=18, pad=0.01)
        bar.set_label("Spearman's ρ")
        above = np.abs(values[np.triu_indices(len(names), 1)])
        caption = f"{len(names)} features, {len(above)} pairs."
        if len(above):
            row, column = divmod(int(np.argmax(np.abs(np.triu(values, 1)))), len(names))
            caption += (
                f" |ρ| is 0.9 or more in {int((above >= 0.9).sum())} pairs ({100 * (above >= 0.9).mean():.1f} %), "
                f"its median {np.median(above):.2f}; the strongest is {values[row, column]:.2f}, between "
                f"{short(names[row])} and {short(names[column])}."
            )
        if not few:
            caption += " Features are in cluster order; the selected ones are bold."
        alt = f"Heat map of the rank correlation between {len(names)} features; blue is negative, vermillion positive."
        return picture(figure, key, title, alt, caption)


def distributions(record: Record, features: Sequence[str], classes: tuple[str, str]) -> Picture:
    """Draw the distribution of each selected feature in each class, from its quantiles."""
    shown = [name for name in features if name in record]
    rows = ceil(len(shown) / 3)
    shifts: dict[str, float] = {}
    with canvas(0.3 + 1.12 * rows) as figure:
        grid = np.atleast_2d(figure.subplots(rows, 3, squeeze=False))
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
        for axes, name in zip(grid.flat, shown, strict=False):
            shifts[name] = _boxes(axes, record[name], classes)
            axes.set_title(wrapped(short(name), 28), fontsize=8)
            unit = unit_of(name)
            log = " (log scale)" if axes.get_xscale() == "log" else ""
            axes.set_xlabel((unit or "no unit") + log, fontsize=7.5, labelpad=1)
            left = axes in grid[:, 0]
            axes.set_yticks([1, 0], [clipped(one, 14) for one in classes] if left else ["", ""])
        strongest = max(shifts, key=lambda name: abs(shifts[name]))
        medians = " and ".join(f"{record[strongest][one]['0.5']:.4g} in {one}" for one in classes)
        caption = (
            "Box: 25 % to 75 % of the patients; line: median; whiskers: 5 % and 95 %. The largest difference of the "
            f"medians, {abs(shifts[strongest]):.2f} of the classes' mean interquartile range, is in "
            f"{short(strongest)} ({medians})."
        )
        alt = f"Box plots of {len(shown)} features, {classes[0]} above {classes[1]} in each."
        title = f"The {len(shown)} selected features by class"
        return picture(figure, "distributions", title, alt, caption)


def _boxes(axes: Axes, quantiles: Record, classes: tuple[str, str]) -> float:
    """Draw both classes' boxes; return the difference of their medians in mean interquartile ranges."""
    for y, (one, colour) in enumerate(zip(reversed(classes), (VERMILLION, BLUE), strict=True)):
        q = quantiles[one]
        axes.plot([q["0.05"], q["0.95"]], [y, y], color=colour, linewidth=1.2)
        axes.barh(
            y, q["0.75"] - q["0.25"], left=q["0.25"], height=0.56, facecolor=f"{colour}40", edgecolor=colour, zorder=2
        )
        axes.plot([q["0.5"]] * 2, [y - 0.28, y + 0.28], color=colour, linewidth=2.2, zorder=3)
    ends = [quantiles[one][level] for one in classes for level in ("0.05", "0.95")]
    if min(ends) > 0 and max(ends) / min(ends) > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    axes.set_ylim(-0.55, 1.55)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.grid(axis="x")
    middle = [quantiles[one]["0.5"] for one in classes]
    spread = float(np.mean([quantiles[one]["0.75"] - quantiles[one]["0.25"] for one in classes]))
    return float(middle[1] - middle[0]) / spread if spread else 0.0
