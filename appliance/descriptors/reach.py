"""Find the voxels that are connected with given voxels, without labelling all parts of a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def _swept(reached: Mask, allowed: Mask, axis: int) -> Mask:
    """Extend the reached voxels upwards along an axis, through allowed voxels."""
    shape = [1] * reached.ndim
    shape[axis] = -1
    place = np.arange(1, reached.shape[axis] + 1, dtype=np.int16).reshape(shape)
    started = np.maximum.accumulate(place * reached, axis=axis)
    stopped = np.maximum.accumulate(place * ~allowed, axis=axis)
    further: Mask = started > stopped
    return further


def reachable(seeds: Mask, allowed: Mask, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
    """Find the allowed voxels that can be reached from the seeds by steps to neighbours that share a face.

    Parameters
    ----------
    seeds, allowed
        (slices, rows, columns); seeds that are not allowed are ignored.
    axes
        Axes of the steps.

    Returns
    -------
    ndarray of bool
        (slices, rows, columns).
    """
    reached = seeds & allowed
    count = -1
    while (now := int(np.count_nonzero(reached))) != count:
        count = now
        for axis in axes:
            reached = _swept(reached, allowed, axis)
            reached = np.flip(_swept(np.flip(reached, axis), np.flip(allowed, axis), axis), axis)
    return reached


def filled(mask: Mask) -> Mask:
    """Fill the holes of a mask in each axial slice."""
    outside = np.pad(~mask, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    seeds = np.zeros_like(outside)
    seeds[:, 0] = True
    whole: Mask = ~reachable(seeds, outside, axes=(1, 2))[:, 1:-1, 1:-1]
    return whole


def grown(mask: Mask) -> Mask:
    """Add the voxels that share a face with the mask; the mask must have an empty voxel on every side."""
    more = mask.copy()
    for axis in range(mask.ndim):
        more |= np.roll(mask, 1, axis) | np.roll(mask, -1, axis)
    return more
