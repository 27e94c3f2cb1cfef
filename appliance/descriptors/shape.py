"""Roundness of a tumour and irregularity of its outline, as readers of axial slices see them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungstage.appliance.descriptors.outline import Outline, hull, length, outer


def radial_spread(outlines: Sequence[Outline]) -> float:
    """Spread of the radius divided by its mean: 0 for a circle.

    Parameters
    ----------
    outlines
        Of the mask; holes are ignored.

    Returns
    -------
    float
        Standard deviation divided by mean of the distance from the outline's centre of area, along the smooth line. It
        is averaged over the outlines by their area. An ellipse with axes 2 : 1 has 0.23.

    Notes
    -----
    Also called the normalised standard deviation of the radial length: Kilday J et al. Classifying mammographic
    lesions using computerized image analysis. IEEE Transactions on Medical Imaging 12, 1993.
    """
    spreads, areas = [], []
    for outline in outer(outlines):
        start, end = outline.smooth, np.roll(outline.smooth, -1, axis=0)
        cross = start[:, 0] * end[:, 1] - end[:, 0] * start[:, 1]
        centre = ((start + end) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
        sides = np.hypot(*(end - start).T)
        radius = np.hypot(*((start + end) / 2 - centre).T)
        mean = float((radius * sides).sum() / sides.sum())
        spreads.append(float(np.sqrt(((radius - mean) ** 2 * sides).sum() / sides.sum())) / mean)
        areas.append(outline.area)
    return float(np.average(spreads, weights=areas))


def irregularity(outlines: Sequence[Outline]) -> float:
    """Share by which the convex hull is shorter than the outline: 0 for a convex outline.

    Parameters
    ----------
    outlines
        Of the mask; holes are ignored.

    Returns
    -------
    float
        1 − perimeter of the hull / perimeter, both of the smooth line, averaged over the outlines by their area.

    Notes
    -----
    One minus the convexity of Zunic J and Rosin PL. A new convexity measure for polygons. IEEE Transactions on Pattern
    Analysis and Machine Intelligence 26, 2004, by perimeters.
    """
    those = outer(outlines)
    convexity = [min(1.0, length(hull(outline.smooth)) / outline.perimeter) for outline in those]
    return 1 - float(np.average(convexity, weights=[outline.area for outline in those]))
