"""How large a tumour is: axes, diameters, volume, the class of T by size alone, and how fast it grew."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.descriptors.outline import Outline, hull, outer

Floats = npt.NDArray[np.float64]

T_LIMITS: Final = ((10, "T1a"), (20, "T1b"), (30, "T1c"), (40, "T2a"), (50, "T2b"), (70, "T3"))
"""Greatest size in mm of each class; larger is T4. TNM, 9th edition, whose sizes are those of the 8th."""
LARGEST: Final = "T4"
REPEATABILITY: Final = 0.25
"""A smaller change of volume is within what two measurements of an unchanged nodule differ by."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Long and short axis in mm of one piece of the mask, in the axial slice where its long axis is longest.

    Attributes
    ----------
    long, short
        In mm.
    slice
        Index of the slice.
    """

    long: float
    short: float
    slice: int


def axes(outlines: Sequence[Outline]) -> Axes:
    """Find the long and the short axis as RECIST defines them.

    Parameters
    ----------
    outlines
        Of the mask; holes are of no account.

    Returns
    -------
    Axes
        The long axis is the greatest distance between two points of one outline of an axial slice. The short axis is
        the longest line at right angles to it, from one side of the same outline to the other.

    Notes
    -----
    Eisenhauer EA et al. New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1).
    European Journal of Cancer 45, 2009. Both are exact for the smooth line: the longest line across ends at a corner.
    On ellipses at random places both are 0.1 to 0.3 mm too long with voxels of 0.6 to 1 mm; between the steps' corners
    it would be twice that.
    """
    best, where = 0.0, outlines[0]
    ends = np.zeros((2, 2))
    for outline in outer(outlines):
        # No two points of a line are further apart than the diagonal of its box.
        if float(np.hypot(*np.ptp(outline.smooth, axis=0))) <= best:
            continue
        corners = hull(outline.smooth)
        apart = np.hypot(*(corners[:, None] - corners[None]).transpose(2, 0, 1))
        furthest = np.unravel_index(int(apart.argmax()), apart.shape)
        if apart[furthest] > best:
            best, where, ends = float(apart[furthest]), outline, corners[list(furthest)]
    return Axes(best, _across(where.smooth, (ends[1] - ends[0]) / best), where.slice)


def _across(points: Floats, direction: Floats) -> float:
    """Longest line at right angles to `direction`, from one side of the closed line `points` (n, 2) to the other."""
    along, across = points @ direction, points @ np.array([-direction[1], direction[0]])
    next_along, next_across = np.roll(along, -1), np.roll(across, -1)
    run = next_along - along
    flat = run == 0
    # Where each side (columns) lies at the height of each corner (rows), if it reaches there.
    share = (along[:, None] - along) / np.where(flat, 1, run)
    place = across + share * (next_across - across)
    reaches = (share >= 0) & (share <= 1) & ~flat
    highest = np.where(reaches, place, across[:, None]).max(axis=1)
    lowest = np.where(reaches, place, across[:, None]).min(axis=1)
    return float((highest - lowest).max())


def effective_diameter(volume: float) -> float:
    """Diameter in mm of the ball that has `volume` in mm³."""
    return float((6 * volume / math.pi) ** (1 / 3))


def t_size_class(millimetres: float) -> str:
    """Return the class of T that a size alone gives.

    Parameters
    ----------
    millimetres
        The greatest dimension: of the tumour, or of its solid part where it is part-solid. It is rounded to a whole
        millimetre first, half upwards, because that is how sizes are reported and staged.

    Notes
    -----
    TNM classification of lung cancer, 9th edition: Van Schil PE et al., Journal of Thoracic Oncology 19, 2024; the
    solid part and the whole millimetre: Travis WD et al., Journal of Thoracic Oncology 11, 2016. Invasion, atelectasis
    and further nodules raise T, and none of them is looked at here.
    """
    whole = math.floor(millimetres + 0.5)
    return next((name for limit, name in T_LIMITS if whole <= limit), LARGEST)


@dataclass(frozen=True, slots=True)
class Growth:
    """How fast a tumour's volume changed between two examinations.

    Attributes
    ----------
    doubling_time_days
        Negative where it shrank (it halves in so many days); None where that cannot be said.
    change
        Of the volume, as a share of the earlier one.
    reason
        Why there is no doubling time, in plain words; None where there is one.
    """

    doubling_time_days: float | None
    change: float
    reason: str | None


def growth(earlier_mm3: float, earlier: datetime.date, later_mm3: float, later: datetime.date) -> Growth:
    """Work out the volume doubling time of a tumour that was measured twice.

    Parameters
    ----------
    earlier_mm3, later_mm3
        Volumes of the same tumour in mm³.
    earlier, later
        Dates of the examinations.

    Raises
    ------
    ValueError
        A volume is not positive, or the examinations are in the wrong order.

    Notes
    -----
    Days × ln 2 / ln(later / earlier): Schwartz M. Cancer 14, 1961. A change of less than a quarter is within the error
    of measurement: Callister MEJ et al. British Thoracic Society guidelines for pulmonary nodules. Thorax 70, 2015.
    """
    if not (0 < earlier_mm3 < math.inf and 0 < later_mm3 < math.inf):
        raise ValueError("a volume is not a positive number of mm³")
    days = (later - earlier).days
    if days < 0:
        raise ValueError("the earlier examination is dated after the later one")
    change = later_mm3 / earlier_mm3 - 1
    if days == 0:
        return Growth(None, change, "Both volumes are of the same day.")
    if abs(change) < REPEATABILITY:
        return Growth(
            None, change,
            f"The volume changed by {change:+.0%}, which is less than measurements of one nodule differ by (25 %).",
        )  # fmt: skip
    return Growth(days * math.log(2) / math.log(later_mm3 / earlier_mm3), change, None)
