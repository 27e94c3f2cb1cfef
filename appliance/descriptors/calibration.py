"""What was learned from readers: percentiles, the thresholds of words, the model of the margin. Read from one file.

The file is written by ``lungstage-train descriptors`` and never by hand.
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
"""Long axis of the smallest lesion that a word is said of."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a descriptor agrees with readers on lesions that nothing was fixed on.

    Attributes
    ----------
    auroc, low, high
        Area under the ROC curve and its 95 % interval over patients.
    lesions
        That it is of.
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
        """Probability that readers call the margin sharp, of an outline with these values."""
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
    """What is known of LIDC's readers.

    Attributes
    ----------
    source
        What it was learned from, with the attribution that its licence asks for.
    thresholds
        By the name of the descriptor, ascending: where the next word begins.
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
        """Make it of the file's content."""
        return cls(
            record["source"],
            {name: tuple(values) for name, values in record["thresholds"].items()},
            {name: tuple(values) for name, values in record["quantiles"].items()},
            {name: Agreement(**values) for name, values in record["agreement"].items()},
            MarginModel(**record["margin"]),
        )

    def percentile(self, name: str, value: float) -> int | None:
        """Return how many per cent of LIDC's lesions have less than `value`; None where that is not known."""
        if name not in self.quantiles:
            return None
        values = self.quantiles[name]
        return round(float(np.interp(value, values, np.linspace(0, 100, len(values)))))

    def band(self, name: str, value: float) -> int:
        """Return how many of the descriptor's thresholds `value` reaches."""
        return sum(value >= threshold for threshold in self.thresholds[name])


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    """Read the file that lies beside this module."""
    content = resources.files("lungstage.appliance.descriptors").joinpath(FILE).read_text(encoding="utf-8")
    return Calibration.of(json.loads(content))
