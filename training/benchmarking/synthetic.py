"""Synthetic tables with known truth: correlated blocks of skewed features, a few of which decide the class.

A selector selects fifteen features. Its recall is the share of the relevant features among them. Selectors that use one
feature at a time, or a linear model, cannot find a pure interaction. These tables test whether gradients of a network
can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import expit

Array = npt.NDArray[np.float64]
Signal = Literal["linear", "interaction", "mixed"]
SIGNALS: Final[tuple[Signal, ...]] = get_args(Signal)
RELEVANT: Final[Mapping[Signal, int]] = MappingProxyType({"linear": 6, "interaction": 6, "mixed": 8})
"""Number of features that decide the class: six single features, three pairs, or four single features and two pairs."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A synthetic table and its relevant features.

    Attributes
    ----------
    values
        (n, d) features, skewed like radiomic features.
    labels
        (n,) bool.
    relevant
        Columns that decide the class, ascending.
    """

    values: Array
    labels: npt.NDArray[np.bool_]
    relevant: npt.NDArray[np.intp]


def make_table(
    signal: Signal,
    seed: int,
    *,
    rows: int = 200,
    features: int = 106,
    relevant: int | None = None,
    strength: float = 2.0,
) -> Truth:
    """Draw a table.

    Parameters
    ----------
    signal
        ``linear``: the log odds are a sum of the relevant features with random signs. ``interaction``: a sum of
        products of pairs of them, so that no single feature has an effect. ``mixed``: half of the features each way,
        with equal shares of the variance.
    seed
        The same seed gives the same table.
    rows, features
        n and d.
    relevant
        Number of relevant features, default :data:`RELEVANT`; a multiple of 4, or of 2 for pure signals.
    strength
        Standard deviation of the log odds; at 2 the best possible classifier has an AUC of about 0.86.

    Notes
    -----
    Features are in blocks of 2 to 12 with a common factor and loadings of 0.6 to 0.95. The factors share a general
    factor, like tumour size in most radiomic features. Relevant features are in different blocks, so each has
    correlated features that do not decide the class. A monotone transform per feature skews the marginal distributions.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, SIGNALS.index(signal)]))
    sizes: list[int] = []
    while sum(sizes) < features:
        sizes.append(int(rng.integers(2, 13)))
    block = np.repeat(np.arange(len(sizes)), sizes)[:features]
    blocks = int(block[-1]) + 1
    relevant = RELEVANT[signal] if relevant is None else relevant
    if relevant > blocks:
        raise ValueError(f"{relevant} relevant features need {relevant} blocks; there are {blocks}")
    general = rng.normal(size=(rows, 1))
    share = rng.uniform(0.0, 0.5, size=blocks)
    factors = np.sqrt(share) * general + np.sqrt(1.0 - share) * rng.normal(size=(rows, blocks))
    loading = rng.uniform(0.6, 0.95, size=features)
    normal = loading * factors[:, block] + np.sqrt(1.0 - loading**2) * rng.normal(size=(rows, features))
    chosen = [int(rng.choice(np.flatnonzero(block == b))) for b in rng.choice(blocks, relevant, replace=False)]
    odds = strength * _signal(normal[:, chosen], signal, rng.choice([-1.0, 1.0], relevant))
    labels = rng.random(rows) < expit(odds - np.median(odds))
    skew = rng.uniform(0.0, 0.8, size=features)
    values = np.where(skew > 0.1, np.expm1(skew * normal) / np.maximum(skew, 0.1), normal)
    return Truth(values * 10.0 ** rng.uniform(-3, 4, size=features), labels, np.sort(np.array(chosen, dtype=np.intp)))


def _signal(x: Array, signal: Signal, signs: Array) -> Array:
    """Log odds of unit variance from the relevant features (n, r)."""
    effects = x * signs
    pairs = x[:, 0::2] * x[:, 1::2] * signs[0::2]
    half = x.shape[1] // 2
    parts = {
        "linear": [effects],
        "interaction": [pairs],
        "mixed": [effects[:, half:], x[:, 0:half:2] * x[:, 1:half:2] * signs[0:half:2]],
    }[signal]
    standard = [part.sum(axis=1) / part.sum(axis=1).std() for part in parts]
    total: Array = np.sum(standard, axis=0)
    total -= total.mean()
    return total / float(total.std())
