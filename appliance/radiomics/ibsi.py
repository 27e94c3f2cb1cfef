"""Image processing as IBSI has it, where that is not PyRadiomics' own: the grid, and the mask of intensities.

Source: Zwanenburg et al., Image biomarker standardisation initiative, reference manual, arXiv 1612.07003; four-letter
codes are its identifiers. What comes out is held against the consensus values in ``test_ibsi.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import highdicom as hd
import numpy as np

from lungstage.appliance.radiomics import _kernels
from lungstage.appliance.radiomics.grid import Box, Floats, Mask, MeasurableRoi

_PARTIAL_VOLUME = 0.5  # E8H9
# Spacings are rounded to single precision before resampling; what that adds to an image of thousands of voxels is no
# further voxel.
_NO_VOXEL = 1e-3
_SAME_SPACING = 1e-6
# A half that is one but for the last bit is a half; or a mirrored image would not give the mirrored answer.
_DECIMALS = 6


def centred(size: int, old: float, new: float) -> Floats:
    """Place a grid of spacing `new` (mm) about the centre of a line of `size` voxels of spacing `old` (026Q, QCY4).

    Returns
    -------
    numpy.ndarray
        Continuous voxel indices of the new grid, none of them outside the outer faces of the line's voxels.
    """
    count = max(math.ceil(size * old / new - _NO_VOXEL), 1)
    steps = np.arange(count, dtype=np.float64) - (count - 1) / 2
    return steps * (new / old) + (size - 1) / 2


def resample(volume: hd.Volume, mask: Mask, box: Box, spacing: tuple[float, float, float]) -> MeasurableRoi:
    """Interpolate linearly on a grid that shares its centre with the volume (UMPJ).

    Parameters
    ----------
    volume, mask, box
        The reference volume (z, y, x), whose centre is the grid's; its mask, and the mask's bounding box.
    spacing
        (x, y, z) in mm; 0 keeps the planes along an axis where they are.

    Returns
    -------
    MeasurableRoi
        A box that holds the whole region; image voxels outside the region may be 0. HU are rounded to the nearest
        integer (68QD), in the image's own type. A voxel belongs to the region where the interpolated mask is 0.5 or
        more (E8H9). Beyond the outermost centres, the outermost values hold (026Q).

    Notes
    -----
    Where no axis is given another spacing, nothing is interpolated and nothing is rounded.
    """
    old = _zyx(volume.spacing)
    wanted = zip(spacing[::-1], old, strict=True)
    new = _zyx([was if v == 0 or math.isclose(v, was, rel_tol=_SAME_SPACING) else v for v, was in wanted])
    if new == old:
        return MeasurableRoi(volume.array, mask, old)
    z, y, x = (
        # Further out the interpolated mask is 0.
        (line := centred(size, was, now))[(line > inside.start - 1) & (line < inside.stop)]
        for size, was, now, inside in zip(mask.shape, old, new, box, strict=True)
    )
    shape = len(z), len(y), len(x)
    partial, hu = np.zeros(shape), np.zeros(shape)
    _kernels.resample_linear(mask.astype(np.float64), z, y, x, np.ones(shape, dtype=bool), partial)
    label = partial.round(_DECIMALS) >= _PARTIAL_VOLUME
    _kernels.resample_linear(volume.array.astype(np.float64), z, y, x, label, hu)
    return MeasurableRoi(np.rint(hu.round(_DECIMALS)).astype(volume.array.dtype), label, new)


def _zyx(spacing: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (float(v) for v in spacing)
    return z, y, x


def resegment(roi: MeasurableRoi, limits: tuple[float, float]) -> MeasurableRoi:
    """Keep the voxels of a region whose HU lie within `limits`, both included: IBSI's intensity mask (ECJF, USB3).

    The region as it was remains the morphological mask, which shape is measured on.
    """
    return MeasurableRoi(roi.image, roi.mask & (roi.image >= limits[0]) & (roi.image <= limits[1]), roi.spacing)
