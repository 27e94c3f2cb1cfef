"""Cut out the tumour and its surroundings: all descriptors use this part of the volume and no more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.descriptors.outline import Outline, outlines
from lungstage.appliance.radiomics import grid

Mask = npt.NDArray[np.bool_]
Hu = npt.NDArray[np.float32]
Spacing = tuple[float, float, float]

MARGIN_MM: Final = 6.0


@dataclass(frozen=True, slots=True)
class Crop:
    """A tumour and the volume around it, up to :data:`MARGIN_MM` as far as available.

    Attributes
    ----------
    hu, mask
        (slices, rows, columns).
    spacing
        (slices, rows, columns) in mm.
    box
        Bounding box of the mask in the crop.
    outlines
        Outlines of the mask, in mm from the crop's first voxel.
    at_edge
        Whether the mask reaches the edge of the slices: the tumour may continue beyond it.
    """

    hu: Hu
    mask: Mask
    spacing: Spacing
    box: tuple[slice, slice, slice]
    outlines: tuple[Outline, ...]
    at_edge: bool

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing)


def crop(volume: hd.Volume, mask: Mask) -> Crop:
    """Cut the tumour and its surroundings out of a volume.

    Parameters
    ----------
    volume, mask
        (slices, rows, columns), the volume in HU; the mask must not be empty.
    """
    _, inside = grid.bounds(mask)
    z, y, x = volume.spacing
    spacing = (float(z), float(y), float(x))
    cut, box = [], []
    for index, step, length in zip(inside, spacing, mask.shape, strict=True):
        start = max(0, index.start - math.ceil(MARGIN_MM / step))
        cut.append(slice(start, min(length, index.stop + math.ceil(MARGIN_MM / step))))
        box.append(slice(index.start - start, index.stop - start))
    region = (cut[0], cut[1], cut[2])
    here = np.ascontiguousarray(mask[region])
    edges = zip(inside[1:], mask.shape[1:], strict=True)
    return Crop(
        volume.array[region].astype(np.float32), here, spacing, (box[0], box[1], box[2]), outlines(here, spacing),
        any(index.start == 0 or index.stop == length for index, length in edges),
    )  # fmt: skip
