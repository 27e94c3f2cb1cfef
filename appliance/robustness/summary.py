"""What the perturbed versions say of an answer: range, agreement, and how much each feature varies."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from lungstage.appliance.contract.robustness import Robustness, Unknown
from lungstage.appliance.robustness.chance import Floats
from lungstage.appliance.robustness.versions import Versions

PERCENTILES: Final = (2.5, 97.5)

_LEAST_SHARE: Final = 0.5  # of the versions that were made, or of them a feature


def summarise(
    versions: Versions,
    names: Sequence[str],
    unperturbed: float,
    probabilities: Floats,
    alike: Sequence[bool],
    asked: int,
    slices: tuple[int, int],
) -> Robustness:
    """Put together what became of an answer.

    Parameters
    ----------
    versions
        What was measured.
    names
        Of the features, in the order of the versions' columns.
    unperturbed
        Probability of the positive class, at the prevalence in force.
    probabilities
        (n,) that of each version.
    alike
        Whether each version is answered as the case is.
    asked
        Versions that were asked for.
    slices
        Slices before and behind the reference volume that the versions could use.
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
    """Coefficient of variation: standard deviation (n - 1) over the mean's magnitude.

    Returns
    -------
    float or None
        None where half of the values or more could not be computed, and where the mean is within two of its standard
        errors of zero: a ratio to what may be nothing says nothing.
    """
    found = values[np.isfinite(values)]
    if len(found) < max(2, _LEAST_SHARE * len(values)):
        return None
    if (found == found[0]).all():
        return 0.0
    spread, mean = float(found.std(ddof=1)), abs(float(found.mean()))
    return spread / mean if mean > 2 * spread / np.sqrt(len(found)) else None
