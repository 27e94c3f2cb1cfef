"""Distance of a case from the training cohort: from its centre, and from its nearest tumours.

There are two distances, because each detects cases that the other misses. The Mahalanobis distance detects unusual
combinations of features, but treats the cohort as one ellipsoid. The distance to the nearest neighbours detects gaps
and sparse regions within the ellipsoid. The neighbours are searched in the standardised space. In the whitened space
their distance would repeat the Mahalanobis distance.

Both are shipped with the model, and no patient's values may be readable from it. So the neighbours are means of groups
of at least :data:`GROUP_SIZE` patients, with each patient in one group. This is microaggregation: every published value
is shared by that many patients (k-anonymity).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

GROUP_SIZE: Final = 5
NEIGHBOURS: Final = 3
_FOLDS: Final = 10
QUANTILES: Final = ("0.5", "0.95", "0.99", "1")


@dataclass(frozen=True, slots=True)
class Domain:
    """Location of the training rows in the space of k standardised features.

    Attributes
    ----------
    precision
        (k, k) inverse of their shrunk covariance.
    references
        (m, k) means of groups of at least :data:`GROUP_SIZE` of them.
    quantiles, neighbour_quantiles
        Quantiles of their distances when they are left out, by :data:`QUANTILES`.
    """

    precision: Array
    references: Array
    quantiles: dict[str, float]
    neighbour_quantiles: dict[str, float]


def fit_domain(z: Array) -> Domain:
    """Describe the location of training rows.

    Parameters
    ----------
    z
        (n, k) unclipped standardised features, n at least twice :data:`GROUP_SIZE`.

    Notes
    -----
    Distances of training rows to a domain fitted on the same rows are too small, and new patients would exceed such
    limits too often. So the quantiles are those of left-out rows: each tenth of the rows is measured from the other
    nine.
    """
    fold = np.arange(len(z)) % _FOLDS
    distances = np.empty((2, len(z)))
    for one in np.unique(fold):
        own, others = z[fold == one], z[fold != one]
        distances[0, fold == one] = mahalanobis_distances(own, _precision(others))
        distances[1, fold == one] = neighbour_distances(own, _references(others))
    return Domain(_precision(z), _references(z), *map(_quantiles, distances))


def _precision(z: Array) -> Array:
    precision: Array = LedoitWolf(assume_centered=True).fit(z).precision_
    return precision


def _references(z: Array) -> Array:
    groups = micro_aggregate(z)
    return np.stack([z[groups == group].mean(axis=0) for group in range(groups.max() + 1)])


def mahalanobis_distances(z: Array, precision: Array) -> Array:
    """Distance of each row of `z` (n, k) from the training centre, which is zero after standardising; (n,)."""
    distances: Array = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", z, precision, z), 0.0))
    return distances


def neighbour_distances(z: Array, references: Array) -> Array:
    """Mean Euclidean distance of each row of `z` (n, k) to its three nearest `references` (m, k), over sqrt(k); (n,).

    The division by the root of k makes it independent of the number of features: 1 is one standard deviation in each.
    """
    nearest: Array = np.sort(cdist(z, references), axis=1)[:, :NEIGHBOURS].mean(axis=1) / np.sqrt(z.shape[1])
    return nearest


def micro_aggregate(z: Array) -> Indices:
    """Split rows into groups of :data:`GROUP_SIZE` or a few more close rows.

    Parameters
    ----------
    z
        (n, k), n at least :data:`GROUP_SIZE`.

    Returns
    -------
    ndarray
        (n,) group of each row, counted from 0.

    Notes
    -----
    Maximum distance to average vector: the row furthest from the centre forms a group with its nearest rows, then the
    row furthest from that one does. Domingo-Ferrer J, Torra V. Ordinal, continuous and heterogeneous k-anonymity
    through microaggregation. Data Mining and Knowledge Discovery 11, 2005, algorithm 1 (MDAV-generic).
    """
    groups = np.zeros(len(z), dtype=np.intp)
    left = np.arange(len(z))
    count = 0

    def furthest(point: Array) -> Array:
        row: Array = z[left[cdist(z[left], point[None])[:, 0].argmax()]]
        return row

    def group_around(seed: Array) -> None:
        nonlocal left, count
        nearest = np.argsort(cdist(z[left], seed[None])[:, 0], kind="stable")[:GROUP_SIZE]
        groups[left[nearest]] = count
        left, count = np.delete(left, nearest), count + 1

    while len(left) >= 3 * GROUP_SIZE:
        first = furthest(z[left].mean(axis=0))
        group_around(first)
        group_around(furthest(first))
    if len(left) >= 2 * GROUP_SIZE:
        group_around(furthest(z[left].mean(axis=0)))
    groups[left] = count
    return groups


def _quantiles(distances: Array) -> dict[str, float]:
    return {level: float(np.quantile(distances, float(level))) for level in QUANTILES}
