"""Divide a tumour's voxels by HU: solid tissue, gas, calcification, and bone that is not part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.descriptors.crop import Crop
from lungstage.appliance.descriptors.outline import Outline, outlines
from lungstage.appliance.descriptors.reach import filled, grown, reachable

Mask = npt.NDArray[np.bool_]
Hu = npt.NDArray[np.float32]

SOLID_HU: Final = -300
"""Voxels at or above this value are solid: Scholten ET et al. European Radiology 25, 2015."""
AIR_HU: Final = -800
"""A mean over 3 × 3 voxels of a slice below this value is aerated lung or gas, and not ground glass."""
GAS_EDGE_HU: Final = -500
"""Halfway between gas and tissue: the wall of a cavity starts here."""
DENSE_HU: Final = 200
"""Voxels above are calcification, bone, metal or contrast medium: Khan AN et al. Insights into Imaging 1, 2010."""


@dataclass(frozen=True, slots=True)
class Density:
    """Shares of a tumour by HU.

    Attributes
    ----------
    mean_hu
        Mean HU of the tissue: without bone, cavities and the voxels next to them, which mix gas and wall. None if no
        voxel is left.
    solid_share
        Share of the tissue that is solid (:data:`SOLID_HU`); None if no voxel is left.
    air_share
        Share of the mask that is aerated lung, or gas outside of a cavity.
    cavity_share
        Share of the region within the outer outline that is enclosed gas.
    dense_share
        Share of the mask without bone that is above :data:`DENSE_HU`.
    bone_share
        Share of the mask above :data:`DENSE_HU` that continues to the edge of the tumour's surroundings: a rib, or a
        vessel.
    solid_outlines
        Outlines of the solid part.
    """

    mean_hu: float | None
    solid_share: float | None
    air_share: float
    cavity_share: float
    dense_share: float
    bone_share: float
    solid_outlines: tuple[Outline, ...]


def _averaged(hu: Hu) -> Hu:
    """Mean over 3 × 3 voxels of a slice; beyond the edge of the slice, the values of the edge are used."""
    for axis in (1, 2):
        ends = [(0, 0)] * 3
        ends[axis] = (1, 1)
        padded = np.moveaxis(np.pad(hu, ends, mode="edge"), axis, 0)
        hu = np.moveaxis(padded[:-2] + padded[1:-1] + padded[2:], 0, axis)
    mean: Hu = hu / np.float32(9)
    return mean


def _cavities(hu: Hu, smooth: Hu, whole: Mask) -> Mask:
    """Find gas that the tumour encloses; `whole` has an empty voxel on every side."""
    gas = (smooth < AIR_HU) & whole
    if not gas.any():
        return gas
    low = (hu < GAS_EDGE_HU) & whole
    rim = whole & grown(~whole)
    enclosed = low & ~reachable(rim, low)
    return reachable(gas, enclosed)


def _bone(hu: Hu, mask: Mask) -> Mask:
    """Find dense voxels in the mask that are connected with the edge of the crop."""
    dense = hu > DENSE_HU
    edge = np.ones_like(mask)
    edge[:, 1:-1, 1:-1] = False
    # The first and last slice are edges only if they are beyond the tumour.
    for end in (0, -1):
        edge[end] |= not mask[end].any()
    if not (dense & mask).any() or not (dense & edge).any():
        return np.zeros_like(mask)
    return reachable(edge, dense) & mask


def density(crop: Crop) -> Density:
    """Divide the voxels of a tumour by HU.

    Notes
    -----
    A cavity is gas that is not connected with the outermost layer of voxels. So aerated lung within the outline is not
    a cavity. The result is the same if the mask includes the cavity or leaves it out as a ring does.
    """
    whole = filled(crop.mask) if any(outline.is_hole for outline in crop.outlines) else crop.mask
    smooth = _averaged(crop.hu)
    padded = np.pad(whole, 1)
    cavity = _cavities(np.pad(crop.hu, 1, mode="edge"), np.pad(smooth, 1, mode="edge"), padded)
    beside = grown(cavity)[1:-1, 1:-1, 1:-1] if cavity.any() else np.zeros_like(crop.mask)
    cavity = cavity[1:-1, 1:-1, 1:-1]
    bone = _bone(crop.hu, crop.mask)
    tissue = crop.mask & ~beside & ~bone
    inside, count = int(crop.mask.sum()), int(tissue.sum())
    solid = tissue & (smooth >= SOLID_HU)
    without_bone = inside - int(bone.sum())
    return Density(
        mean_hu=float(crop.hu[tissue].mean(dtype=np.float64)) if count else None,
        solid_share=int((crop.hu[tissue] >= SOLID_HU).sum()) / count if count else None,
        air_share=int((smooth[crop.mask & ~cavity] < AIR_HU).sum()) / inside,
        cavity_share=int(cavity.sum()) / int(whole.sum()),
        dense_share=int((crop.hu[crop.mask & ~bone] > DENSE_HU).sum()) / without_bone if without_bone else 0.0,
        bone_share=int(bone.sum()) / inside,
        solid_outlines=outlines(solid, crop.spacing),
    )
