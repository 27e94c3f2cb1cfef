"""Say in words how well the network did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

AIMS: Final = {"diameter": (0.80, 0.60), "diameter, 2 corrections": (0.85, 0.72)}
"""Median and tenth percentile of the overlap (Dice) that were aimed at."""


def in_words(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Describe the figures of :func:`training.contour.evaluation.summarise`, a line for each way of drawing."""
    for method, found in figures.items():
        aim = AIMS.get(method)
        told = f"; aims {aim[0]:.2f} and {aim[1]:.2f}" if aim else ""
        iccs = ", ".join(
            f"ICC of {what} {found[key]:.2f}"
            for what, key in (("volume", "volume_icc"), ("sphericity", "sphericity_icc"))
            if found[key] is not None
        )
        yield (
            f"{method}: Dice {found['dice_median']:.3f} (median), {found['dice_tenth_percentile']:.3f} (tenth "
            f"percentile) in {found['patients']} patients{told}{'; ' if iccs else ''}{iccs}"
        )


def answers_in_words(found: Mapping[str, Any]) -> Iterator[str]:
    """Describe the result of :func:`training.contour.answers.compare`, a line for each contour."""
    for contour, figures in found["contours"].items():
        auc = figures["auc"]
        told = f"{contour}: AUC {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})"
        if "difference" in figures:
            told += (
                f"; the probability differs by {figures['difference']['median']:.3f} (median), "
                f"{figures['difference']['ninth_decile']:.3f} (ninth decile); same answer in "
                f"{figures['same_answer']:.0%}"
            )
        yield f"{told}; {found['patients']} patients"
