"""Pictures of the tumour for the result page: three planes through it, in two windows, with outline and scale.

They show the measured voxels: those of the reference volume. Outside it the pictures are grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from lungstage.appliance.report.segmentation import outlines

Plane = Literal["axial", "coronal", "sagittal"]
Pixels = npt.NDArray[np.uint8]
Outline = tuple[tuple[float, float], ...]
Voxels = npt.NDArray[Any]  # of whole HU or of floats

PIXELS: Final = 256
"""Number of rows and of columns of each picture."""

EMPTY: Final = 226
"""Grey level outside the measured voxels."""

_SHORTEST_VIEW, _LONGEST_VIEW = 60.0, 400.0  # mm
_SURROUNDINGS = 1.6  # times the tumour's longest side
_SCALES = (5, 10, 20, 50, 100)  # mm


@dataclass(frozen=True, slots=True)
class Window:
    """A display window.

    Attributes
    ----------
    code
        Code of its name in the catalogues.
    level, width
        Level and width in HU.
    """

    code: str
    level: float
    width: float

    def apply(self, hu: npt.NDArray[np.float32]) -> Pixels:
        """Convert HU to grey levels, NaN to :data:`EMPTY` (PS3.3 C.11.2.1.2.1, without its half steps)."""
        grey = np.clip((hu - (self.level - self.width / 2)) * (255 / self.width), 0, 255)
        return np.where(np.isnan(hu), np.float32(EMPTY), grey).round().astype(np.uint8)


LUNG: Final = Window("lung", -600, 1500)
SOFT_TISSUE: Final = Window("soft_tissue", 40, 400)


@dataclass(frozen=True, slots=True)
class KeyView:
    """One plane through the tumour.

    Attributes
    ----------
    plane
        Name of the plane.
    pictures
        (rows, columns) grey levels, in the order of :attr:`KeyViews.windows`.
    outlines
        Closed outlines of the region as (x, y), both in [0, 1] from the picture's upper left corner.
    letters
        Directions at the left, right, upper and lower edge: R, L, A, P, H (head) or F (feet), as in DICOM.
    """

    plane: Plane
    pictures: tuple[Pixels, ...]
    outlines: tuple[Outline, ...]
    letters: tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class KeyViews:
    """All planes, at one scale.

    Attributes
    ----------
    views
        Axial, coronal, sagittal.
    windows
        Windows of the pictures of each view.
    side
        Side of each picture in mm.
    scale
        Length of the scale bar in mm.
    """

    views: tuple[KeyView, ...]
    windows: tuple[Window, ...]
    side: float
    scale: int


def key_views(hu: Voxels, affine: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> KeyViews:
    """Draw the planes in which the region covers most voxels.

    Parameters
    ----------
    hu
        Volume, (slices, rows, columns) in HU.
    affine
        (4, 4) from indices to patient coordinates (LPS) in mm, columns orthogonal.
    mask
        The region, with the same shape; not empty.

    Returns
    -------
    KeyViews
        The patient's right is on the left of axial and coronal pictures, the front is on the left of sagittal ones, and
        the head is up. Rotated slices are drawn as they were acquired.
    """
    best = [int(np.argmax(np.count_nonzero(mask, axis=others))) for others in ((1, 2), (0, 2), (0, 1))]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    order, backwards = towards_patient(affine)
    # Array views without copies: from head to feet, from front to back, from right to left.
    turned = tuple(slice(None, None, -1 if flip else 1) for flip in backwards)
    hu, mask = hu.transpose(order)[turned], mask.transpose(order)[turned]
    steps = [float(spacing[axis]) for axis in order]
    chosen = [
        mask.shape[k] - 1 - best[axis] if flip else best[axis]
        for k, (axis, flip) in enumerate(zip(order, backwards, strict=True))
    ]
    extents = [_extent(mask, axis) for axis in range(3)]
    longest = max((stop - start) * step for (start, stop), step in zip(extents, steps, strict=True))
    side = float(np.clip(_SURROUNDINGS * longest, _SHORTEST_VIEW, _LONGEST_VIEW))
    centre = [(start + stop) / 2 * step for (start, stop), step in zip(extents, steps, strict=True)]
    windows = (LUNG, SOFT_TISSUE)

    def view(plane: Plane, across: int, letters: tuple[str, str, str, str]) -> KeyView:
        down, right = (axis for axis in range(3) if axis != across)
        axes = ((centre[down], steps[down]), (centre[right], steps[right]))
        sampled = _sample(hu.take(chosen[across], axis=across), axes, side)
        drawn = _outlines(np.asarray(mask.take(chosen[across], axis=across)), axes, side)
        return KeyView(plane, tuple(window.apply(sampled) for window in windows), drawn, letters)

    views = (
        view("axial", 0, ("R", "L", "A", "P")),
        view("coronal", 1, ("R", "L", "H", "F")),
        view("sagittal", 2, ("A", "P", "H", "F")),
    )
    return KeyViews(views, windows, side, max(scale for scale in _SCALES if scale <= side / 3))


def towards_patient(affine: npt.NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return the array axes that run head to feet, front to back and right to left, and whether each is reversed."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left: list[int] = [0, 1, 2]
    order: list[int] = []
    for patient_axis in (2, 1, 0):
        axis = max(left, key=lambda k: abs(float(directions[patient_axis, k])))
        left.remove(axis)
        order.append(axis)
    head, back, side = (float(directions[axis, k]) for axis, k in zip((2, 1, 0), order, strict=True))
    return (order[0], order[1], order[2]), (head > 0, back < 0, side < 0)


def _extent(mask: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    others = tuple(k for k in range(3) if k != axis)
    (occupied,) = np.nonzero(mask.any(axis=others))
    return int(occupied[0]), int(occupied[-1]) + 1


def _sample(plane: Voxels, axes: Sequence[tuple[float, float]], side: float) -> npt.NDArray[np.float32]:
    """Interpolate a plane linearly on the picture's pixels; NaN outside the voxels."""
    lower, upper, weights, outside = [], [], [], []
    for (centre, step), count in zip(axes, plane.shape, strict=True):
        # Lengths count from the outer edge of the first voxel, indices from its centre.
        place = (centre - side / 2 + (np.arange(PIXELS) + 0.5) * (side / PIXELS)) / step - 0.5
        outside.append((place < -0.5) | (place > count - 0.5))
        place = np.clip(place, 0, count - 1)
        lower.append(place.astype(np.intp))
        upper.append(np.minimum(lower[-1] + 1, count - 1))
        weights.append((place - lower[-1]).astype(np.float32))
    across = weights[1]
    rows = [
        plane[np.ix_(index, lower[1])].astype(np.float32) * (1 - across) + plane[np.ix_(index, upper[1])] * across
        for index in (lower[0], upper[0])
    ]
    down = weights[0][:, np.newaxis]
    sampled: npt.NDArray[np.float32] = (rows[0] * (1 - down) + rows[1] * down).astype(np.float32)
    sampled[outside[0], :] = np.nan
    sampled[:, outside[1]] = np.nan
    return sampled


def _outlines(region: npt.NDArray[Any], axes: Sequence[tuple[float, float]], side: float) -> tuple[Outline, ...]:
    """Return outlines along the sides of the voxels, as fractions of the picture."""
    (row, row_end), (column, column_end) = _extent(region[np.newaxis], 1), _extent(region[np.newaxis], 2)
    (down, height), (across, width) = axes
    found = []
    for corners in outlines(region[row:row_end, column:column_end]):
        x = ((corners[:, 0] + column) * width - across) / side + 0.5
        y = ((corners[:, 1] + row) * height - down) / side + 0.5
        found.append(tuple(zip(x.tolist(), y.tolist(), strict=True)))
    return tuple(found)
