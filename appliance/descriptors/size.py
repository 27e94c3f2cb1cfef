"""Size of a tumour: axes, diameters, volume, T class by size only, and growth."""

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
"""Largest size in mm of each class; larger tumours are T4. TNM, 9th edition; the sizes are those of the 8th."""
LARGEST: Final = "T4"
REPEATABILITY: Final = 0.25
"""Relative change of volume below which two measurements of an unchanged nodule may differ."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Long and short axis of one part of the mask, in the axial slice with the longest long axis.

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
        Of the mask; holes are ignored.

    Returns
    -------
    Axes
        The long axis is the largest distance between two points of one outline in an axial slice. The short axis is
        the longest line perpendicular to it, from one side of the same outline to the other.

    Notes
    -----
    Eisenhauer EA et al. New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1).
    European Journal of Cancer 45, 2009. Both axes are exact for the smooth line, because the longest line across ends
    at a corner. On ellipses at random places both are 0.1 to 0.3 mm too long with voxels of 0.6 to 1 mm. Between the
    corners of the voxel steps the error would be twice as large.
    """
    best, where = 0.0, outlines[0]
    ends = np.zeros((2, 2))
    for outline in outer(outlines):
        # The diagonal of a line's box is an upper limit for the distance of its points.
        if float(np.hypot(*np.ptp(outline.smooth, axis=0))) <= best:
            continue
        corners = hull(outline.smooth)
        apart = np.hypot(*(corners[:, None] - corners[None]).transpose(2, 0, 1))
        furthest = np.unravel_index(int(apart.argmax()), apart.shape)
        if apart[furthest] > best:
            best, where, ends = float(apart[furthest]), outline, corners[list(furthest)]
    return Axes(best, _across(where.smooth, (ends[1] - ends[0]) / best), where.slice)


def _across(points: Floats, direction: Floats) -> float:
    """Return the length of the longest line perpendicular to `direction` across the closed line `points` (n, 2)."""
    along, across = points @ direction, points @ np.array([-direction[1], direction[0]])
    next_along, next_across = np.roll(along, -1), np.roll(across, -1)
    run = next_along - along
    flat = run == 0
    # Place of each side (columns) at the height of each corner (rows), if the side reaches this height.
    share = (along[:, None] - along) / np.where(flat, 1, run)
    place = across + share * (next_across - across)
    reaches = (share >= 0) & (share <= 1) & ~flat
    highest = np.where(reaches, place, across[:, None]).max(axis=1)
    lowest = np.where(reaches, place, across[:, None]).min(axis=1)
    return float((highest - lowest).max())


def effective_diameter(volume: float) -> float:
    """Diameter in mm of the ball with the volume `volume` in mm³."""
    return float((6 * volume / math.pi) ** (1 / 3))


def t_size_class(millimetres: float) -> str:
    """Return the T class by size only.

    Parameters
    ----------
    millimetres
        The largest dimension: of the tumour, or of the solid part of a part-solid tumour. It is first rounded to a
        whole millimetre, half upwards, because sizes are reported and staged in whole millimetres.

    Notes
    -----
    TNM classification of lung cancer, 9th edition: Van Schil PE et al., Journal of Thoracic Oncology 19, 2024. Solid
    part and whole millimetre: Travis WD et al., Journal of Thoracic Oncology 11, 2016. Invasion, atelectasis and
    further nodules raise T. They are not considered here.
    """
    whole = math.floor(millimetres + 0.5)
    return next((name for limit, name in T_LIMITS if whole <= limit), LARGEST)


@dataclass(frozen=True, slots=True)
class Growth:
    """Change of a tumour's volume between two examinations.

    Attributes
    ----------
    doubling_time_days
        Negative if the tumour shrank (it then halves in this number of days); None if it cannot be computed.
    change
        Change of the volume, relative to the earlier one.
    reason
        Why there is no doubling time, in plain words; None if there is one.
    """

    doubling_time_days: float | None
    change: float
    reason: str | None


def growth(earlier_mm3: float, earlier: datetime.date, later_mm3: float, later: datetime.date) -> Growth:
    """Compute the volume doubling time of a tumour that was measured twice.

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
        raise ValueError("the volumes must be positive numbers of mm³")
    days = (later - earlier).days
    if days < 0:
        raise ValueError("the earlier examination is dated after the later one")
    change = later_mm3 / earlier_mm3 - 1
    if days == 0:
        return Growth(None, change, "Both examinations are of the same day.")
    if abs(change) < REPEATABILITY:
        return Growth(
            None, change,
            f"The volume changed by {change:+.1%}. A change below 25 % is within the error of measurement.",
        )  # fmt: skip
    return Growth(days * math.log(2) / math.log(later_mm3 / earlier_mm3), change, None)
