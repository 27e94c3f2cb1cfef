"""Simulate contours of other people, without the code of the appliance's own perturbations: other noise and smoothing.

Real contours of several readers on the same tumours are not available. A simulated contour moves the surface by
Gaussian noise with another correlation length, and draws smooth lines slice by slice. It is accepted if its Dice
coefficient with the expert's contour is at least 0.8.
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
    """Redraw a tumour on voxels of 1 mm; returns fewer contours than requested if too few overlap enough."""
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
