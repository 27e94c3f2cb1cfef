"""The cube around a prompt that the network sees, and the way from it back to the voxels of the CT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Point = tuple[float, float, float]

MULTIPLE: Final = 8
"""A window's side in voxels is a multiple of it, because the network halves it three times."""

LEAST: Final = 64
MOST: Final = 96
"""Limits of a window's sides in voxels. A tumour that does not fit gets larger voxels."""

SHORTEST: Final = 32
"""Least side in voxels for a CT that is shorter than the window; only then is its last slice seen repeatedly."""

MARGIN_MM: Final = 16.0
"""What the window shows around the expected tumour on each side."""


@dataclass(frozen=True, slots=True)
class Window:
    """A box of voxels along the patient's axes.

    Attributes
    ----------
    origin
        Centre (x, y, z) of the first voxel in mm.
    sides
        Number of voxels along x, y and z.
    spacing
        Size of the voxels in mm.
    """

    origin: Point
    sides: tuple[int, int, int]
    spacing: float = 1.0

    @classmethod
    def around(cls, centre: Point, reach: float, grid: hd.VolumeGeometry) -> Window:
        """Place a window around a tumour of radius `reach` in mm; it shows the CT only, if the CT is large enough."""
        width = 2 * (reach + MARGIN_MM)
        spacing = max(1.0, width / MOST)
        wanted = min(max(LEAST, MULTIPLE * math.ceil(width / spacing / MULTIPLE)), MOST)
        low, high = extent(grid)
        origin, sides = [], []
        for c, first, last in zip(centre, low, high, strict=True):
            room = MULTIPLE * int((last - first) / spacing // MULTIPLE)
            side = min(wanted, max(room, SHORTEST))
            length = (side - 1) * spacing
            furthest = max(first, last - length)  # of a window that ends with the CT
            origin.append(min(max(c - length / 2, first), furthest))
            sides.append(side)
        return cls((origin[0], origin[1], origin[2]), (sides[0], sides[1], sides[2]), spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        x, y, z = self.sides
        return z, y, x

    @property
    def axes(self) -> tuple[npt.NDArray[np.float64], ...]:
        """Positions of the voxels along x, y and z in mm."""
        return tuple(
            np.float64(start) + np.arange(n) * self.spacing for start, n in zip(self.origin, self.sides, strict=True)
        )

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """(4, 4), from voxel (z, y, x) to mm."""
        affine = np.zeros((4, 4))
        affine[[2, 1, 0], [0, 1, 2]] = self.spacing
        affine[:3, 3], affine[3, 3] = self.origin, 1.0
        return affine


def extent(grid: hd.VolumeGeometry) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lowest and highest (x, y, z) of a CT's voxel centres in mm."""
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in grid.spatial_shape], indexing="ij")).reshape(3, -1)
    at = grid.affine[:3, :3] @ ends + grid.affine[:3, 3:]
    return at.min(axis=1), at.max(axis=1)


def covered(grid: hd.VolumeGeometry, window: Window) -> tuple[Any, ...]:
    """Box (slices, rows, columns) of the CT's voxels that the window covers, and one more voxel on each side."""
    ends = [(axis[0], axis[-1]) for axis in window.axes]
    corners = np.array([(x, y, z, 1.0) for x in ends[0] for y in ends[1] for z in ends[2]])
    at = (np.linalg.inv(grid.affine) @ corners.T)[:3]
    first, last = np.floor(at.min(axis=1)) - 1, np.ceil(at.max(axis=1)) + 2
    return tuple(
        slice(int(np.clip(start, 0, size)), int(np.clip(stop, 0, size)))
        for start, stop, size in zip(first, last, grid.spatial_shape, strict=True)
    )


def sample(volume: hd.Volume, window: Window) -> Floats:
    """Sample a CT in a window, linearly.

    Parameters
    ----------
    volume
        HU (slices, rows, columns), of any orientation and spacing.

    Returns
    -------
    ndarray
        (z, y, x) float32 in HU; outside the CT, the value of its nearest voxel.
    """
    image = _image(np.asarray(volume.array, dtype=np.float32), volume.affine)
    return _resample(image, window.shape, window.affine)


def bring_back(values: Floats, window: Window, grid: hd.VolumeGeometry) -> Floats:
    """Sample a window's values at the voxels of a CT, linearly.

    Returns
    -------
    ndarray
        (slices, rows, columns) float32; the lowest value outside the window.
    """
    z, y, x = (int(n) for n in grid.spatial_shape)
    return _resample(_image(values, window.affine), (z, y, x), grid.affine, outside=float(values.min()))


def _image(values: Floats, affine: npt.NDArray[np.float64]) -> Any:
    import SimpleITK as sitk  # deferred, as in :mod:`radiomics.grid`

    image = sitk.GetImageFromArray(values)
    _place(image, affine)
    return image


def _place(image: Any, affine: npt.NDArray[np.float64]) -> None:
    columns = affine[:3, [2, 1, 0]]  # ITK counts x first
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())


def _resample(
    image: Any, shape: tuple[int, int, int], affine: npt.NDArray[np.float64], outside: float | None = None
) -> Floats:
    import SimpleITK as sitk

    columns = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(columns, axis=0)
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([shape[2], shape[1], shape[0]])
    resampler.SetOutputSpacing(spacing.tolist())
    resampler.SetOutputDirection((columns / spacing).ravel().tolist())
    resampler.SetOutputOrigin(affine[:3, 3].tolist())
    resampler.SetInterpolator(sitk.sitkLinear)
    if outside is None:
        resampler.UseNearestNeighborExtrapolatorOn()
    else:
        resampler.SetDefaultPixelValue(outside)
    resampler.SetNumberOfThreads(1)
    values: Floats = sitk.GetArrayFromImage(resampler.Execute(image))
    return values
