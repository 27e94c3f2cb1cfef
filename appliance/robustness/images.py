"""Perturb an image like another scan would: with the image's own noise level, and on a moved grid."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_BLOCK: Final = 6  # voxels along each side, within a slice
_SOFT_TISSUE: Final = (-100.0, 200.0)  # HU
_FEWEST: Final = 20  # blocks of soft tissue needed to separate noise from structure
_LOW: Final = 25  # percentile: blocks with an edge or a vessel vary more

SHIFT: Final = 0.5
"""Largest shift of a grid along each axis, in its own voxels: another scan could have its slices there."""

TURN: Final = 3.0
"""Largest turn of a grid within the slices, in degrees, in either direction."""


def noise_level(image: npt.NDArray[Any]) -> float | None:
    """Measure the noise of a CT in homogeneous soft tissue.

    Each slice is divided into blocks. Of the blocks with a mean in the range of soft tissue, the lower quartile of the
    standard deviations is taken. So blocks that show only one tissue decide.

    Parameters
    ----------
    image
        (slices, rows, columns) in HU.

    Returns
    -------
    float or None
        In HU; None if there is too little soft tissue.

    Notes
    -----
    Based on the global noise level of Christianson et al., AJR 205(1), 2015, doi:10.2214/AJR.14.13613. They take the
    mode over all soft tissue. Around a tumour there is too little soft tissue for a mode.
    """
    slices, rows, columns = (n // m for n, m in zip(image.shape, (1, _BLOCK, _BLOCK), strict=True))
    blocks = image[:, : rows * _BLOCK, : columns * _BLOCK].astype(np.float64)
    blocks = blocks.reshape(slices, rows, _BLOCK, columns, _BLOCK)
    means = blocks.mean(axis=(2, 4))
    soft = (means >= _SOFT_TISSUE[0]) & (means <= _SOFT_TISSUE[1])
    if np.count_nonzero(soft) < _FEWEST:
        return None
    variances = blocks.transpose(0, 1, 3, 2, 4)[soft].reshape(-1, _BLOCK * _BLOCK).var(axis=1, ddof=1)
    return float(np.sqrt(np.percentile(variances, _LOW)))


def with_noise(image: npt.NDArray[Any], noise: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Add noise (HU) to an image; the pixel type does not change."""
    noisy = image + noise
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        noisy = np.clip(np.rint(noisy), limits.min, limits.max)
    return noisy.astype(image.dtype)
