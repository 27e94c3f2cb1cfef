"""Images that another scan might have given: noise as the image has it, on a grid that lies a little otherwise."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_BLOCK: Final = 6  # voxels along each side, within a slice
_SOFT_TISSUE: Final = (-100.0, 200.0)  # HU
_FEWEST: Final = 20  # blocks of soft tissue that tell noise from structure
_LOW: Final = 25  # percentile: what holds an edge or a vessel varies more

SHIFT: Final = 0.5
"""How far at most a grid is shifted along each axis, in its own voxels: the scanner's slices might have lain there."""

TURN: Final = 3.0
"""How far at most a grid is turned within the slices, in degrees, either way."""


def noise_level(image: npt.NDArray[Any]) -> float | None:
    """Measure the noise of a CT where it is homogeneous.

    Of the blocks of a slice whose mean is soft tissue's, the standard deviation of the lower quartile: those that show
    one tissue decide.

    Parameters
    ----------
    image
        (slices, rows, columns) in HU.

    Returns
    -------
    float or None
        In HU; None where too little soft tissue is there.

    Notes
    -----
    After the global noise level of Christianson et al., AJR 205(1), 2015, doi:10.2214/AJR.14.13613, which takes the
    mode over all soft tissue; around a tumour there is too little of it for a mode.
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
    """Add noise (HU) to an image, in the image's own pixel type."""
    noisy = image + noise
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        noisy = np.clip(np.rint(noisy), limits.min, limits.max)
    return noisy.astype(image.dtype)
