"""Tables whose truth is known: correlated blocks of skewed features, of which a few decide the class.

A selector is asked for fifteen features; how many of the relevant ones are among them is its recall. Selectors that
look at one feature at a time, or at a linear model, cannot see a pure interaction: whether gradients of a network can
is what these tables are for.
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
"""How many features decide: three pairs, six single features, or four of them and two pairs."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A made-up table and what decided its classes.

    Attributes
    ----------
    values
        (n, d) features, skewed as radiomic ones are.
    labels
        (n,) bool.
    relevant
        Columns that the class depends on, ascending.
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
        products of pairs of them, so that no feature has an effect of its own. ``mixed``: half the features each way,
        at the same share of the variance.
    seed
        The same seed gives the same table.
    rows, features
        n and d.
    relevant
        How many features decide, :data:`RELEVANT` by default; a multiple of 4, or of 2 for pure signals.
    strength
        Standard deviation of the log odds; at 2 the best possible classifier has an AUC of about 0.86.

    Notes
    -----
    Features come in blocks of 2 to 12 around a common factor with loadings of 0.6 to 0.95, and the factors share a
    general one, as tumour size does with most radiomic features. Relevant features lie in different blocks, so each has
    correlates that look like it and decide nothing. A monotone transform per feature skews the margins.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, SIGNALS.index(signal)]))
    sizes: list[int] = []
    while sum(sizes) < features:
        sizes.append(int(rng.integers(2, 13)))
    block = np.repeat(np.arange(len(sizes)), sizes)[:features]
    blocks = int(block[-1]) + 1
    relevant = RELEVANT[signal] if relevant is None else relevant
    if relevant > blocks:
        raise ValueError(f"{relevant} relevant features need as many blocks; there are {blocks}")
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
