"""Say in words how well the network did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

AIMS: Final = {
    "diameter": ("dice", 0.80, 0.60), "diameter, 2 corrections": ("dice", 0.85, 0.72),
}  # fmt: skip
"""Median and tenth percentile of the overlap (Dice) that were aimed at."""

VOLUME_AIM: Final = 0.95
SPHERICITY_AIM: Final = 0.6
"""ICC(2,1) of the logarithms with the expert's, for a contour from a diameter."""


def in_words(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Describe the figures of :func:`training.contour.evaluation.summarise`, a line for each way of drawing."""
    for method, found in figures.items():
        aim = AIMS.get(method)
        told = f"; aims {aim[1]:.2f} and {aim[2]:.2f}" if aim else ""
        iccs = ", ".join(
            f"ICC of {what} {found[key]:.2f}"
            for what, key in (("volume", "volume_icc"), ("sphericity", "sphericity_icc"))
            if found[key] is not None
        )
        yield (
            f"{method}: Dice {found['dice_median']:.3f} (median), {found['dice_tenth_percentile']:.3f} (tenth "
            f"percentile) in {found['patients']} patients{told}{'; ' if iccs else ''}{iccs}"
        )
