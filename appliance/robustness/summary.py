"""Summarise the answers of the perturbed versions: range, agreement, and variation of each feature."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from lungstage.appliance.contract.robustness import Robustness, Unknown
from lungstage.appliance.robustness.chance import Floats
from lungstage.appliance.robustness.versions import Versions

PERCENTILES: Final = (2.5, 97.5)

_LEAST_SHARE: Final = 0.5  # smallest share of measured versions, and of versions with a value of a feature


def summarise(
    versions: Versions,
    names: Sequence[str],
    unperturbed: float,
    probabilities: Floats,
    alike: Sequence[bool],
    asked: int,
    slices: tuple[int, int],
) -> Robustness:
    """Compute range, agreement and variations.

    Parameters
    ----------
    versions
        The measured versions.
    names
        Names of the features, in the order of the versions' columns.
    unperturbed
        Probability of the positive class, at the prevalence in force.
    probabilities
        (n,) the same of each version.
    alike
        Whether each version has the same answer as the case.
    asked
        Requested number of versions.
    slices
        Number of slices before and behind the reference volume that the versions could use.
    """
    made = asked - versions.fewer
    unknown = versions.unknown
    if unknown is None and len(versions.values) < _LEAST_SHARE * made:
        unknown = Unknown.TOO_FEW
    known = unknown is None
    low, high = np.percentile(probabilities, PERCENTILES).tolist() if known else (unperturbed, unperturbed)
    return Robustness(
        asked=asked,
        perturbations=len(versions.values),
        range=(min(low, unperturbed), max(high, unperturbed)) if known else None,
        agreement=sum(alike) / len(alike) if known else None,
        features=MappingProxyType(
            {name: variation(column) for name, column in zip(names, versions.values.T, strict=True)} if known else {}
        ),
        left_out=MappingProxyType(versions.left_out),
        fewer=versions.fewer,
        contour_mm=versions.contour_mm,
        noise_hu=versions.noise_hu,
        unknown=unknown,
        slices=slices,
    )


def variation(values: Floats) -> float | None:
    """Coefficient of variation: standard deviation (n - 1) divided by the mean's magnitude.

    Returns
    -------
    float or None
        None if more than half of the values could not be computed, or if the mean is within two standard errors of
        zero: a ratio to a mean that may be zero has no meaning.
    """
    found = values[np.isfinite(values)]
    if len(found) < max(2, _LEAST_SHARE * len(values)):
        return None
    if (found == found[0]).all():
        return 0.0
    spread, mean = float(found.std(ddof=1)), abs(float(found.mean()))
    return spread / mean if mean > 2 * spread / np.sqrt(len(found)) else None
