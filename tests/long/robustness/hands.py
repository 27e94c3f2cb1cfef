"""Contours of other hands, with which the appliance's own perturbations share no code: other noise, other smoothing.

They are simulated as well: real contours of several readers on the same tumours are not at hand. A hand here is one
that moves the surface by Gaussian noise of its own correlation length, draws smooth lines slice by slice, and is kept
where it overlaps the expert's by a Dice coefficient of 0.8 or more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

SD_MM = 2.1  # across the median surface: Peulen et al. 2015
LEAST_DICE = 0.8
_LENGTHS = (3.0, 8.0)  # standard deviation of the Gaussian, mm
_REACH = 9  # voxels of 1 mm
_MOST_TRIES = 1200


def other_contours(mask: Mask, count: int, seed: int) -> list[Mask]:
    """Draw a tumour on voxels of 1 mm anew; fewer than asked for where hardly any overlaps enough."""
    random = np.random.default_rng(seed)
    where = np.nonzero(mask)
    box = tuple(slice(max(int(axis.min()) - _REACH, 0), int(axis.max()) + _REACH + 1) for axis in where)
    part = mask[box]
    outside, inside = (ndimage.distance_transform_edt(one) - 0.5 for one in (~part, part))
    distance = np.where(part, -inside, outside)
    drawn: list[Mask] = []
    for _ in range(_MOST_TRIES):
        length = random.uniform(*_LENGTHS)
        noise = ndimage.gaussian_filter(random.standard_normal([n + 40 for n in part.shape]), length)
        noise = noise[20:-20, 20:-20, 20:-20] * (2 * np.sqrt(np.pi) * length) ** 1.5  # of unit variance
        moved = SD_MM * (random.standard_normal() + noise) / np.sqrt(2)
        lines = ndimage.gaussian_filter((distance < moved).astype(float), (0, 0.7, 0.7)) > 0.5
        if 2 * (lines & part).sum() / (lines.sum() + part.sum()) >= LEAST_DICE:
            whole = np.zeros_like(mask)
            whole[box] = lines
            drawn.append(whole)
            if len(drawn) == count:
                break
    return drawn
