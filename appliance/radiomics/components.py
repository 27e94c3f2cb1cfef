"""Find the separate parts of a mask, so that a person can choose one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungstage.appliance.radiomics.grid import bounds

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Component:
    """One connected part of a mask.

    Attributes
    ----------
    voxels
        Number of voxels.
    volume
        In mm³.
    centre
        Mean of its voxels' centres, in the coordinates of the affine (mm).
    """

    voxels: int
    volume: float
    centre: tuple[float, float, float]


def components(mask: Mask, affine: npt.NDArray[np.float64]) -> tuple[tuple[Component, ...], npt.NDArray[np.uint32]]:
    """Find the connected parts of a mask, diagonal neighbours included.

    Parameters
    ----------
    mask
        (slices, rows, columns).
    affine
        (4, 4), from voxel (slice, row, column) to mm.

    Returns
    -------
    tuple
        The parts, the largest first (of equal ones, the first in the array). And an array (slices, rows, columns) with
        the number of each voxel's part, counted from 1; 0 outside the mask.
    """
    import SimpleITK as sitk  # deferred, as in :mod:`radiomics.grid`

    numbered = np.zeros(mask.shape, dtype=np.uint32)
    if not mask.any():
        return (), numbered
    _, box = bounds(mask)
    part_of_mask = mask[box]
    found = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(part_of_mask.astype(np.uint8)), True))
    sizes = np.bincount(found.ravel())
    order = sorted(range(1, len(sizes)), key=lambda part: (-int(sizes[part]), part))
    rank = np.zeros(len(sizes), dtype=np.uint32)
    rank[order] = np.arange(1, len(order) + 1)
    numbered[box] = rank[found]
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    at = np.argwhere(part_of_mask) + [index.start for index in box]
    parts = numbered[box][part_of_mask]
    every = []
    for k, part in enumerate(order, start=1):
        x, y, z = (affine @ [*at[parts == k].mean(axis=0), 1.0])[:3]
        every.append(Component(int(sizes[part]), int(sizes[part]) * voxel, (float(x), float(y), float(z))))
    return tuple(every), numbered
