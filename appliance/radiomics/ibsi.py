"""IBSI's image processing where it differs from PyRadiomics: the grid, and the mask of intensities.

Source: Zwanenburg et al., Image biomarker standardisation initiative, reference manual, arXiv 1612.07003. The
four-letter codes are its identifiers. ``test_ibsi.py`` compares the results with the consensus values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import highdicom as hd
import numpy as np

from lungstage.appliance.radiomics import _kernels
from lungstage.appliance.radiomics.grid import Box, Floats, Mask, MeasurableRoi

_PARTIAL_VOLUME = 0.5  # E8H9
# Spacings are rounded to single precision before resampling. In an image of thousands of voxels, this rounding must not
# add another voxel.
_NO_VOXEL = 1e-3
_SAME_SPACING = 1e-6
# A value that differs from a half only by rounding counts as a half. Otherwise a mirrored image could differ.
_DECIMALS = 6


def centred(size: int, old: float, new: float) -> Floats:
    """Place a grid of spacing `new` (mm) around the centre of a line of `size` voxels of spacing `old` (026Q, QCY4).

    Returns
    -------
    numpy.ndarray
        Continuous voxel indices of the new grid, all within the outer faces of the line's voxels.
    """
    count = max(math.ceil(size * old / new - _NO_VOXEL), 1)
    steps = np.arange(count, dtype=np.float64) - (count - 1) / 2
    return steps * (new / old) + (size - 1) / 2


def resample(volume: hd.Volume, mask: Mask, box: Box, spacing: tuple[float, float, float]) -> MeasurableRoi:
    """Interpolate linearly on a grid with the same centre as the volume (UMPJ).

    Parameters
    ----------
    volume, mask, box
        The reference volume (z, y, x), whose centre is that of the grid; its mask, and the mask's bounding box.
    spacing
        (x, y, z) in mm; 0 keeps the planes along an axis.

    Returns
    -------
    MeasurableRoi
        A box that contains the whole region; image voxels outside the region may be 0. HU are rounded to the nearest
        integer (68QD), in the image's own type. A voxel belongs to the region if the interpolated mask is at least 0.5
        (E8H9). Beyond the outermost centres, the outermost values are used (026Q).

    Notes
    -----
    If no axis gets another spacing, nothing is interpolated and nothing is rounded.
    """
    old = _zyx(volume.spacing)
    wanted = zip(spacing[::-1], old, strict=True)
    new = _zyx([was if v == 0 or math.isclose(v, was, rel_tol=_SAME_SPACING) else v for v, was in wanted])
    if new == old:
        return MeasurableRoi(volume.array, mask, old)
    z, y, x = (
        # Outside this range the interpolated mask is 0.
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
    """Keep the voxels of a region whose HU are within `limits`, both included: IBSI's intensity mask (ECJF, USB3).

    The original region remains the morphological mask. Shape features are measured on it.
    """
    return MeasurableRoi(roi.image, roi.mask & (roi.image >= limits[0]) & (roi.image <= limits[1]), roi.spacing)
