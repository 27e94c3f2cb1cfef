"""Read the calibration on readers' ratings: percentiles, thresholds of words, and the model of the margin.

``lungstage-train descriptors`` writes the file. It is never edited by hand.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np

FILE: Final = "lidc.json"
LEAST_MM: Final = 10.0
"""Long axis of the smallest lesion that gets a word."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of a descriptor with readers, on lesions that were not used to set thresholds or models.

    Attributes
    ----------
    auroc, low, high
        Area under the ROC curve and its 95 % interval over patients.
    lesions
        Number of lesions.
    """

    auroc: float
    low: float
    high: float
    lesions: int


@dataclass(frozen=True, slots=True)
class MarginModel:
    """A logistic model of whether readers call a margin sharp.

    Attributes
    ----------
    intercept, mean_hu, log_diameter, irregularity, radial_spread
        Coefficients: of 1, mean HU, the natural logarithm of the effective diameter in mm, and the two shapes.
    """

    intercept: float
    mean_hu: float
    log_diameter: float
    irregularity: float
    radial_spread: float

    def __call__(
        self, mean_hu: float, effective_diameter_mm: float, irregularity: float, radial_spread: float
    ) -> float:
        """Probability that readers call the margin of an outline with these values sharp."""
        logit = (
            self.intercept
            + self.mean_hu * mean_hu
            + self.log_diameter * math.log(effective_diameter_mm)
            + self.irregularity * irregularity
            + self.radial_spread * radial_spread
        )
        return 1 / (1 + math.exp(-logit))


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration on LIDC's readers.

    Attributes
    ----------
    source
        The data, with the attribution that their licence requires.
    thresholds
        By the name of the descriptor, ascending: the value from which the next word holds.
    quantiles
        By the name of the descriptor, its values at 0, 5 … 100 % of the lesions of at least :data:`LEAST_MM`.
    agreement
        By the name of the descriptor.
    margin
        The model.
    """

    source: str
    thresholds: dict[str, tuple[float, ...]]
    quantiles: dict[str, tuple[float, ...]]
    agreement: dict[str, Agreement]
    margin: MarginModel

    @classmethod
    def of(cls, record: dict[str, Any]) -> Calibration:
        """Make it from the file's content."""
        return cls(
            record["source"],
            {name: tuple(values) for name, values in record["thresholds"].items()},
            {name: tuple(values) for name, values in record["quantiles"].items()},
            {name: Agreement(**values) for name, values in record["agreement"].items()},
            MarginModel(**record["margin"]),
        )

    def percentile(self, name: str, value: float) -> int | None:
        """Return the percentage of LIDC's lesions with a value below `value`; None if not known."""
        if name not in self.quantiles:
            return None
        values = self.quantiles[name]
        return round(float(np.interp(value, values, np.linspace(0, 100, len(values)))))

    def band(self, name: str, value: float) -> int:
        """Return the number of the descriptor's thresholds that `value` reaches."""
        return sum(value >= threshold for threshold in self.thresholds[name])


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    """Read the file in this module's folder."""
    content = resources.files("lungstage.appliance.descriptors").joinpath(FILE).read_text(encoding="utf-8")
    return Calibration.of(json.loads(content))
