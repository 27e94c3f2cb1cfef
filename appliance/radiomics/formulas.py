"""PyRadiomics' 106 formulas on shared intermediate results; a formula is evaluated only if its feature is selected.

Every formula is that of the feature of the same name in PyRadiomics 3.0.1 (class ``Radiomics...``, method
``get...FeatureValue``). If IBSI defines the same quantity, its code is in :mod:`report.vocabulary`. Sums use the same
axes in the same order as PyRadiomics, because some features (MCC, Imc2) amplify rounding. Matrices have rows only for
grey levels that are present. Their last axis is the direction; a feature's value is the mean over directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_EPSILON = float(np.spacing(1))


def _mean(values: Floats) -> float:
    """Mean over the directions that have a value (``numpy.nanmean`` without its overhead and warnings)."""
    mean = float(values.sum()) / values.size if values.size else np.nan
    if mean == mean:
        return mean
    kept = values[~np.isnan(values)]
    return float(kept.sum()) / kept.size if kept.size else np.nan


def _entropy(p: Floats) -> Floats:
    """Entropy in bits of the probabilities of each direction, (..., directions)."""
    result: Floats = -np.sum(p * np.log2(p + _EPSILON), axis=tuple(range(p.ndim - 1)))
    return result


# --- first order -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Intensities:
    """The voxel values of the region, ascending, with the number of equal ones.

    Attributes
    ----------
    values
        (n,) ascending, in HU.
    counts
        (n,) number of voxels with each value.
    grey_counts
        (k,) number of voxels of each present grey level.
    shift
        ``voxelArrayShift``.
    voxel_volume
        In mm³.
    """

    values: Floats
    counts: Int64
    grey_counts: Int64
    shift: float
    voxel_volume: float

    @cached_property
    def total(self) -> int:
        """Number of voxels in the region."""
        return int(self._cumulative[-1])

    @cached_property
    def mean(self) -> float:
        """Mean of the values."""
        return float((self.values * self.counts).sum()) / self.total

    @cached_property
    def _cumulative(self) -> Int64:
        total: Int64 = self.counts.cumsum()
        return total

    @cached_property
    def _away(self) -> Floats:
        return self.values - self.mean

    @cached_property
    def p(self) -> Floats:
        """(k,) probability of each grey level."""
        return self.grey_counts / float(self.total)

    def at(self, rank: int) -> float:
        """Return the value of the voxel with this rank, counted from 0."""
        return float(self.values[self._cumulative.searchsorted(rank, side="right")])

    def percentile(self, q: float) -> float:
        """Return the same as ``numpy.percentile`` with linear interpolation, by the same arithmetic."""
        rank = (self.total - 1) * (q / 100)
        below = int(rank)
        t = rank - below
        a, b = self.at(below), self.at(min(below + 1, self.total - 1))
        return b - (b - a) * (1 - t) if t >= 0.5 else a + (b - a) * t

    def moment(self, order: int) -> float:
        """Central moment."""
        product = self.counts * self._away
        for _ in range(order - 1):
            product = product * self._away
        return float(product.sum()) / self.total

    def energy(self) -> float:
        """Sum of squares of the shifted values."""
        return float(((self.values + self.shift) ** 2 * self.counts).sum())


def _standardised(m: Intensities, order: int) -> float:
    return m.moment(order) / float((m.moment(2) or 1.0) ** (order / 2))


def _mean_absolute_deviation(values: Floats, counts: Int64) -> float:
    total = float(counts.sum())
    mean = float((values * counts).sum()) / total
    return float((np.abs(values - mean) * counts).sum()) / total


def _robust(m: Intensities) -> float:
    kept = (m.values - m.percentile(10) >= 0) & (m.values - m.percentile(90) <= 0)
    # With two voxels, both percentiles are between them, and no voxel is left.
    return _mean_absolute_deviation(m.values[kept], m.counts[kept]) if kept.any() else np.nan


FIRST_ORDER: Mapping[str, Callable[[Intensities], float]] = MappingProxyType(
    {
        "10Percentile": lambda m: m.percentile(10),
        "90Percentile": lambda m: m.percentile(90),
        "Energy": lambda m: m.energy(),
        "Entropy": lambda m: float(-(m.p * np.log2(m.p + _EPSILON)).sum()),
        "InterquartileRange": lambda m: m.percentile(75) - m.percentile(25),
        "Kurtosis": lambda m: _standardised(m, 4),
        "Maximum": lambda m: float(m.values[-1]),
        "Mean": lambda m: m.mean,
        "MeanAbsoluteDeviation": lambda m: _mean_absolute_deviation(m.values, m.counts),
        "Median": lambda m: (m.at((m.total - 1) // 2) + m.at(m.total // 2)) / 2,
        "Minimum": lambda m: float(m.values[0]),
        "Range": lambda m: float(m.values[-1] - m.values[0]),
        "RobustMeanAbsoluteDeviation": _robust,
        "RootMeanSquared": lambda m: float(np.sqrt(m.energy() / m.total)),
        "Skewness": lambda m: _standardised(m, 3),
        "TotalEnergy": lambda m: m.energy() * m.voxel_volume,
        "Uniformity": lambda m: float((m.p**2).sum()),
        "Variance": lambda m: m.moment(2),
    }
)


# --- grey-level co-occurrence ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cooccurrence:
    """Normalised co-occurrence matrices and the quantities that several formulas share.

    Attributes
    ----------
    p
        (k, k, directions); each direction sums to 1.
    levels
        (k,) present grey levels.
    highest
        The highest of them; PyRadiomics' :math:`N_g`.
    """

    p: Floats
    levels: Int64
    highest: int

    @cached_property
    def i(self) -> Floats:
        """(k, 1, 1) grey level of a row."""
        return self.levels.astype(np.float64)[:, None, None]

    @cached_property
    def j(self) -> Floats:
        """(1, k, 1) grey level of a column."""
        return self.levels.astype(np.float64)[None, :, None]

    @cached_property
    def px(self) -> Floats:
        """(k, 1, directions) marginal over columns."""
        total: Floats = self.p.sum(axis=1, keepdims=True)
        return total

    @cached_property
    def py(self) -> Floats:
        """(1, k, directions) marginal over rows."""
        total: Floats = self.p.sum(axis=0, keepdims=True)
        return total

    @cached_property
    def ux(self) -> Floats:
        """(1, 1, directions) mean grey level of rows."""
        mean: Floats = np.sum(self.i * self.p, axis=(0, 1), keepdims=True)
        return mean

    @cached_property
    def uy(self) -> Floats:
        """(1, 1, directions) mean grey level of columns."""
        mean: Floats = np.sum(self.j * self.p, axis=(0, 1), keepdims=True)
        return mean

    def _grouped(self, key: Int64) -> tuple[Floats, Floats]:
        """Sum p over cells with equal key; return the occurring keys (n, 1) and their sums (n, directions)."""
        flat = key.ravel()
        order = np.argsort(flat, kind="stable")
        ascending = flat[order]
        new = np.ones(len(flat), dtype=bool)
        new[1:] = ascending[1:] != ascending[:-1]
        starts = np.flatnonzero(new)
        cells = self.p.reshape(flat.size, -1)[order]
        return ascending[starts].astype(np.float64)[:, None], np.add.reduceat(cells, starts, axis=0)

    @cached_property
    def sums(self) -> tuple[Floats, Floats]:
        """The occurring sums of two grey levels, (n, 1), and their probabilities, (n, directions)."""
        return self._grouped(self.levels[:, None] + self.levels[None, :])

    @cached_property
    def differences(self) -> tuple[Floats, Floats]:
        """The occurring absolute differences of two grey levels, (n, 1), and their probabilities."""
        return self._grouped(np.abs(self.levels[:, None] - self.levels[None, :]))

    @cached_property
    def joint_entropy(self) -> Floats:
        """(directions,) PyRadiomics' HXY."""
        return _entropy(self.p)

    def cluster(self, order: int) -> float:
        """Central moment of the sum of both grey levels."""
        return _mean(np.sum(self.p * (self.i + self.j - self.ux - self.uy) ** order, axis=(0, 1)))

    def expected(self, weight: Floats) -> Floats:
        """Sum p times a symmetric weight (k, k): (directions,)."""
        total: Floats = weight.ravel() @ self.p.transpose(1, 0, 2).reshape(weight.size, -1)  # in memory order
        return total

    @cached_property
    def apart(self) -> Floats:
        """(k, k) difference of the grey levels of row and column."""
        level = self.levels.astype(np.float64)
        return np.abs(level[:, None] - level)

    def over_differences(self, weight: Callable[[Floats], Floats]) -> float:
        """Mean over directions of the expected weight of a difference."""
        return _mean(self.expected(weight(self.apart)))


def _correlation(m: Cooccurrence) -> float:
    px, py, level = m.px[:, 0], m.py[0], m.levels.astype(np.float64)
    level -= np.rint(level @ px.mean(axis=1))  # relative to the mean; else large squares would hide the variance
    x, y, square = level @ px, level @ py, level * level
    spread = np.sqrt((square @ px - x * x) * (square @ py - y * y))
    together = m.expected(level[:, None] * level) - x * y
    return _mean(np.where(spread == 0, 1.0, together / (spread + _EPSILON)))


def _difference_variance(m: Cooccurrence) -> float:
    k, p = m.differences
    return _mean(np.sum(p * (k - np.sum(k * p, axis=0)) ** 2, axis=0))


def _inverse_variance(m: Cooccurrence) -> float:
    k, p = m.differences  # ascending; the first is 0, because each present level pairs with itself
    return _mean(np.sum(p[1:] / k[1:] ** 2, axis=0))


def _imc1(m: Cooccurrence) -> float:
    independent = -np.sum(m.p * np.log2(m.px * m.py + _EPSILON), axis=(0, 1))
    entropy = np.fmax(_entropy(m.px), _entropy(m.py))
    return _mean(np.where(entropy == 0, 0.0, (m.joint_entropy - independent) / entropy))


def _imc2(m: Cooccurrence) -> float:
    independent = _entropy(m.px * m.py)
    result = (1 - np.e ** (-2 * (independent - m.joint_entropy))) ** 0.5
    result[independent == m.joint_entropy] = 0
    return _mean(result)


def _mcc(m: Cooccurrence) -> float:
    if not np.isfinite(m.p).all():  # no direction has a pair, and PyRadiomics' eigenvalues fail
        return np.nan
    if len(m.levels) < 2:
        return 1.0
    q = np.zeros_like(m.p)
    for level in range(len(m.levels)):
        q += m.p[:, None, level] * m.p[None, :, level] / (m.px * m.py[:, level, None] + _EPSILON)
    eigenvalues = np.linalg.eigvals(q.transpose(2, 0, 1))
    eigenvalues.sort()
    return _mean(np.sqrt(eigenvalues[:, -2]).real)


GLCM: Mapping[str, Callable[[Cooccurrence], float]] = MappingProxyType(
    {
        "Autocorrelation": lambda m: _mean(np.sum(m.p * (m.i * m.j), axis=(0, 1))),
        "ClusterProminence": lambda m: m.cluster(4),
        "ClusterShade": lambda m: m.cluster(3),
        "ClusterTendency": lambda m: m.cluster(2),
        "Contrast": lambda m: m.over_differences(lambda k: k**2),
        "Correlation": _correlation,
        "DifferenceAverage": lambda m: m.over_differences(lambda k: k),
        "DifferenceEntropy": lambda m: _mean(_entropy(m.differences[1])),
        "DifferenceVariance": _difference_variance,
        "Id": lambda m: m.over_differences(lambda k: 1 / (1 + k)),
        "Idm": lambda m: m.over_differences(lambda k: 1 / (1 + k**2)),
        "Idmn": lambda m: m.over_differences(lambda k: 1 / (1 + k**2 / m.highest**2)),
        "Idn": lambda m: m.over_differences(lambda k: 1 / (1 + k / m.highest)),
        "Imc1": _imc1,
        "Imc2": _imc2,
        "InverseVariance": _inverse_variance,
        "JointAverage": lambda m: _mean(m.ux.ravel()),
        "JointEnergy": lambda m: _mean(np.sum(m.p**2, axis=(0, 1))),
        "JointEntropy": lambda m: _mean(m.joint_entropy),
        "MCC": _mcc,
        "MaximumProbability": lambda m: _mean(m.p.max(axis=(0, 1))),
        "SumAverage": lambda m: _mean(np.sum(m.sums[0] * m.sums[1], axis=0)),
        "SumEntropy": lambda m: _mean(_entropy(m.sums[1])),
        "SumSquares": lambda m: _mean(np.sum(m.p * (m.i - m.ux) ** 2, axis=(0, 1))),
    }
)


# --- run lengths, zone sizes, dependences ------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Counts by grey level and size: of runs by length, of zones by voxels, of voxels by equal neighbours.

    Attributes
    ----------
    p
        (k, sizes, directions) counts, or weighted sums of them; zones and dependences have one direction.
    levels
        (k,) present grey levels.
    sizes
        (sizes,) occurring sizes.
    """

    p: Floats
    levels: Int64
    sizes: Int64

    @cached_property
    def i(self) -> Floats:
        """(k, 1) grey level of a row."""
        return self.levels.astype(np.float64)[:, None]

    @cached_property
    def j(self) -> Floats:
        """(sizes, 1) size of a column."""
        return self.sizes.astype(np.float64)[:, None]

    @cached_property
    def by_level(self) -> Floats:
        """(k, directions) counts of each grey level."""
        total: Floats = self.p.sum(axis=1)
        return total

    @cached_property
    def by_size(self) -> Floats:
        """(sizes, directions) counts of each size."""
        total: Floats = self.p.sum(axis=0)
        return total

    @cached_property
    def total(self) -> Floats:
        """(directions,) sum of all counts; NaN if there are none."""
        total: Floats = self.by_size.sum(axis=0)
        total[total == 0] = np.nan
        return total

    def emphasis(self, level_power: int, size_power: int) -> float:
        """Mean over directions of the expected product of powers of grey level and size."""
        if level_power and size_power:
            weighted = (self.p * self.i[:, None] ** level_power * self.j[None] ** size_power).sum(axis=(0, 1))
        elif level_power:
            weighted = (self.by_level * self.i**level_power).sum(axis=0)
        else:
            weighted = (self.by_size * self.j**size_power).sum(axis=0)
        return _mean(weighted / self.total)

    def non_uniformity(self, counts: Floats, power: int) -> float:
        """Mean over directions of the sum of squared counts by a power of their total."""
        return _mean((counts**2).sum(axis=0) / self.total**power)

    def variance(self, counts: Floats, of: Floats) -> float:
        """Mean over directions of the variance of grey level or size."""
        p = counts / self.total
        return _mean((p * (of - (p * of).sum(axis=0)) ** 2).sum(axis=0))

    def percentage(self) -> float:
        """Mean over directions of the number of runs or zones per voxel."""
        return _mean(self.total / (self.by_size * self.j).sum(axis=0))


_SIZES: Mapping[str, Callable[[Sizes], float]] = MappingProxyType(
    {
        "LevelNonUniformity": lambda m: m.non_uniformity(m.by_level, 1),
        "LevelNonUniformityNormalized": lambda m: m.non_uniformity(m.by_level, 2),
        "LevelVariance": lambda m: m.variance(m.by_level, m.i),
        "SizeNonUniformity": lambda m: m.non_uniformity(m.by_size, 1),
        "SizeNonUniformityNormalized": lambda m: m.non_uniformity(m.by_size, 2),
        "SizeVariance": lambda m: m.variance(m.by_size, m.j),
        "Entropy": lambda m: _mean(_entropy(m.p / m.total)),
        "Percentage": Sizes.percentage,
        "Small": lambda m: m.emphasis(0, -2),
        "Large": lambda m: m.emphasis(0, 2),
        "Low": lambda m: m.emphasis(-2, 0),
        "High": lambda m: m.emphasis(2, 0),
        "SmallLow": lambda m: m.emphasis(-2, -2),
        "SmallHigh": lambda m: m.emphasis(2, -2),
        "LargeLow": lambda m: m.emphasis(-2, 2),
        "LargeHigh": lambda m: m.emphasis(2, 2),
    }
)


def _named(names: Mapping[str, str]) -> Mapping[str, Callable[[Sizes], float]]:
    return MappingProxyType({name: _SIZES[formula] for name, formula in names.items()})


# The three families use the same formulas under different names.
GLRLM = _named(
    {
        "GrayLevelNonUniformity": "LevelNonUniformity",
        "GrayLevelNonUniformityNormalized": "LevelNonUniformityNormalized",
        "GrayLevelVariance": "LevelVariance",
        "HighGrayLevelRunEmphasis": "High",
        "LongRunEmphasis": "Large",
        "LongRunHighGrayLevelEmphasis": "LargeHigh",
        "LongRunLowGrayLevelEmphasis": "LargeLow",
        "LowGrayLevelRunEmphasis": "Low",
        "RunEntropy": "Entropy",
        "RunLengthNonUniformity": "SizeNonUniformity",
        "RunLengthNonUniformityNormalized": "SizeNonUniformityNormalized",
        "RunPercentage": "Percentage",
        "RunVariance": "SizeVariance",
        "ShortRunEmphasis": "Small",
        "ShortRunHighGrayLevelEmphasis": "SmallHigh",
        "ShortRunLowGrayLevelEmphasis": "SmallLow",
    }
)
GLSZM = _named(
    {
        "GrayLevelNonUniformity": "LevelNonUniformity",
        "GrayLevelNonUniformityNormalized": "LevelNonUniformityNormalized",
        "GrayLevelVariance": "LevelVariance",
        "HighGrayLevelZoneEmphasis": "High",
        "LargeAreaEmphasis": "Large",
        "LargeAreaHighGrayLevelEmphasis": "LargeHigh",
        "LargeAreaLowGrayLevelEmphasis": "LargeLow",
        "LowGrayLevelZoneEmphasis": "Low",
        "SizeZoneNonUniformity": "SizeNonUniformity",
        "SizeZoneNonUniformityNormalized": "SizeNonUniformityNormalized",
        "SmallAreaEmphasis": "Small",
        "SmallAreaHighGrayLevelEmphasis": "SmallHigh",
        "SmallAreaLowGrayLevelEmphasis": "SmallLow",
        "ZoneEntropy": "Entropy",
        "ZonePercentage": "Percentage",
        "ZoneVariance": "SizeVariance",
    }
)
GLDM = _named(
    {
        "DependenceEntropy": "Entropy",
        "DependenceNonUniformity": "SizeNonUniformity",
        "DependenceNonUniformityNormalized": "SizeNonUniformityNormalized",
        "DependenceVariance": "SizeVariance",
        "GrayLevelNonUniformity": "LevelNonUniformity",
        "GrayLevelVariance": "LevelVariance",
        "HighGrayLevelEmphasis": "High",
        "LargeDependenceEmphasis": "Large",
        "LargeDependenceHighGrayLevelEmphasis": "LargeHigh",
        "LargeDependenceLowGrayLevelEmphasis": "LargeLow",
        "LowGrayLevelEmphasis": "Low",
        "SmallDependenceEmphasis": "Small",
        "SmallDependenceHighGrayLevelEmphasis": "SmallHigh",
        "SmallDependenceLowGrayLevelEmphasis": "SmallLow",
    }
)


# --- neighbouring grey tone difference ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ToneDifferences:
    """The neighbouring grey tone difference matrix of the present levels.

    Attributes
    ----------
    counts, s
        (k,) number of voxels, and the sum of their differences from their neighbours' mean.
    levels
        (k,) grey levels.
    """

    counts: Floats
    s: Floats
    levels: Int64

    @cached_property
    def p(self) -> Floats:
        """(k,) probability of each grey level."""
        return self.counts / float(self.counts.sum())

    @cached_property
    def i(self) -> Floats:
        """(k,) grey levels."""
        return self.levels.astype(np.float64)

    @cached_property
    def expected(self) -> float:
        """Sum of p s."""
        return float((self.p * self.s).sum())


def _coarseness(m: ToneDifferences) -> float:
    return 1 / m.expected if m.expected != 0 else 1e6


def _contrast(m: ToneDifferences) -> float:
    k = len(m.i)
    if k < 2:
        return 0.0
    spread = (m.p[:, None] * m.p[None, :] * (m.i[:, None] - m.i[None, :]) ** 2).sum()
    return float(spread * m.s.sum() / m.counts.sum() / (k * (k - 1)))


def _busyness(m: ToneDifferences) -> float:
    weighted = m.i * m.p
    apart = float(np.abs(weighted[:, None] - weighted[None, :]).sum())
    return m.expected / apart if apart != 0 else 0.0


def _complexity(m: ToneDifferences) -> float:
    weighted = m.p * m.s
    ratio = (weighted[:, None] + weighted[None, :]) / (m.p[:, None] + m.p[None, :])
    return float((np.abs(m.i[:, None] - m.i[None, :]) * ratio).sum() / m.counts.sum())


def _strength(m: ToneDifferences) -> float:
    total = float(m.s.sum())
    apart = float(((m.p[:, None] + m.p[None, :]) * (m.i[:, None] - m.i[None, :]) ** 2).sum())
    return apart / total if total != 0 else 0.0


NGTDM: Mapping[str, Callable[[ToneDifferences], float]] = MappingProxyType(
    {
        "Busyness": _busyness,
        "Coarseness": _coarseness,
        "Complexity": _complexity,
        "Contrast": _contrast,
        "Strength": _strength,
    }
)


# --- shape -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Inputs of the shape formulas; inputs that no selected feature needs are NaN.

    Attributes
    ----------
    area, volume
        Of the mesh, in mm² and mm³.
    axes
        (3,) eigenvalues of the covariance of voxel centres, ascending, in mm².
    diameters
        Largest distances in mm of mesh vertices with equal z, equal y, equal x, and of any vertices.
    """

    area: float
    volume: float
    axes: Floats
    diameters: tuple[float, float, float, float]


def _axis(m: Shape, index: int) -> float:
    return float(4 * np.sqrt(m.axes[index]))


SHAPE: Mapping[str, Callable[[Shape], float]] = MappingProxyType(
    {
        "Elongation": lambda m: float(np.sqrt(m.axes[1] / m.axes[2])),
        "Flatness": lambda m: float(np.sqrt(m.axes[0] / m.axes[2])),
        "LeastAxisLength": lambda m: _axis(m, 0),
        "MajorAxisLength": lambda m: _axis(m, 2),
        "Maximum2DDiameterColumn": lambda m: m.diameters[1],
        "Maximum2DDiameterRow": lambda m: m.diameters[2],
        "Maximum2DDiameterSlice": lambda m: m.diameters[0],
        "Maximum3DDiameter": lambda m: m.diameters[3],
        "MeshVolume": lambda m: m.volume,
        "MinorAxisLength": lambda m: _axis(m, 1),
        "Sphericity": lambda m: float((36 * np.pi * m.volume**2) ** (1.0 / 3.0) / m.area),
        "SurfaceArea": lambda m: m.area,
        "SurfaceVolumeRatio": lambda m: m.area / m.volume,
    }
)
