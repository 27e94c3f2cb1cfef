"""What a person points at: a diameter, a box or a point, and corrections; and how the network is told.

Coordinates are patient coordinates (x, y, z) in mm: towards the patient's left, back and head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contour.windows import Point, Window

Floats = npt.NDArray[np.float32]
Kind = Literal["diameter", "box", "point", "region"]

CHANNELS: Final = ("size", "line", "size known", "include", "exclude")
"""The network's second input, in this order; each channel has the shape of the window."""

LINE_MM: Final = 3.0
CORRECTION_MM: Final = 4.0
POINT_MM: Final = 12.0
"""Widths of the marks in a window with voxels of 1 mm. In a window with larger voxels they grow with these."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Where the tumour is.

    Attributes
    ----------
    kind
        What `points` are: the two ends of the longest diameter, two opposite corners of a box, or one point inside.
        For the corrections of an existing region there are none, or one point in the only part of it that is kept;
        :mod:`staging.sketching` takes the box around it.
    points
        As `kind` says.
    include, exclude
        Corrections: points that belong to the tumour, and points that do not.
    smooth
        How much the surface is smoothed at last, in mm; 0 for not at all.
    """

    kind: Kind
    points: tuple[Point, ...]
    include: tuple[Point, ...] = ()
    exclude: tuple[Point, ...] = ()
    smooth: float = 0.0

    @property
    def centre(self) -> Point:
        """Middle of the diameter or box, or the point."""
        x, y, z = np.mean(self.points, axis=0).tolist()
        return x, y, z

    @property
    def radii(self) -> Point | None:
        """Half axes (x, y, z) of the tumour that the prompt suggests, in mm; None for a point."""
        if self.kind == "point":
            return None
        first, second = self.points
        if self.kind == "diameter":
            half = math.dist(first, second) / 2
            return half, half, half
        x, y, z = (max(abs(a - b) / 2, 1.0) for a, b in zip(first, second, strict=True))
        return x, y, z

    @property
    def reach(self) -> float:
        """Radius around the centre within which the tumour is expected, in mm; a point says nothing about it."""
        return max(self.radii) if self.radii is not None else 2 * POINT_MM

    @property
    def span(self) -> float:
        """Radius around the centre that holds the expected tumour and all corrections, in mm."""
        return max([self.reach, *(math.dist(self.centre, point) for point in self.corrections)])

    @property
    def corrections(self) -> tuple[Point, ...]:
        """All corrections."""
        return (*self.include, *self.exclude)


def channels(prompt: Prompt, window: Window) -> Floats:
    """Write a prompt as images.

    Returns
    -------
    ndarray
        (5, z, y, x) float32 in 0 to 1, as :data:`CHANNELS` says.
    """
    unit = window.spacing
    told = np.zeros((len(CHANNELS), *window.shape), dtype=np.float32)
    radii = prompt.radii or (POINT_MM * unit,) * 3
    told[0] = np.exp2(-squares_from(window, prompt.centre, radii))
    if prompt.kind != "box":
        ends = prompt.points if prompt.kind == "diameter" else (prompt.centre, prompt.centre)
        told[1] = np.exp(-0.5 * squares_from_line(window, *ends) / (LINE_MM * unit) ** 2)
    told[2] = prompt.radii is not None
    for channel, points in ((3, prompt.include), (4, prompt.exclude)):
        for point in points:
            mark = np.exp(-0.5 * squares_from(window, point, (CORRECTION_MM * unit,) * 3))
            np.maximum(told[channel], mark, out=told[channel])
    return told


def squares_from(window: Window, point: Point, scale: Point) -> Floats:
    """Squared distance of each voxel to a point, with each axis divided by its scale."""
    x, y, z = (((axis - p) / s) ** 2 for axis, p, s in zip(window.axes, point, scale, strict=True))
    total: Floats = (z[:, None, None] + y[:, None] + x).astype(np.float32)
    return total


def squares_from_line(window: Window, first: Point, second: Point) -> Floats:
    """Squared distance of each voxel to the line between two points, in mm²."""
    along = np.subtract(second, first)
    length = float(along @ along)
    x, y, z = (axis - p for axis, p in zip(window.axes, first, strict=True))
    squares = squares_from(window, first, (1.0, 1.0, 1.0))
    if not length:
        return squares
    parts = z * along[2], y * along[1], x * along[0]
    dot = (parts[0][:, None, None] + parts[1][:, None] + parts[2]).astype(np.float32)
    share = np.clip(dot / length, 0, 1)
    # |v - s a|² = |v|² - 2 s v.a + s² a²
    distance: Floats = np.maximum(squares - share * (2 * dot - share * length), 0)
    return distance
