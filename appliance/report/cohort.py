"""The training cohort, with which measurements are compared, and the comparison in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lungstage.appliance.report.plain_words import QUALITIES, degree
from lungstage.appliance.report.translation import Translator


@dataclass(frozen=True, slots=True)
class Cohort:
    """Quantiles of the training cohort, and the probabilities at which the model does not decide.

    Attributes
    ----------
    shares
        Shares of the cohort, ascending from 0 to 1.
    quantiles
        For each feature the quantiles at these shares.
    open_between
        Probabilities between which the model does not decide, at the prevalence of the answer.
    """

    shares: tuple[float, ...]
    quantiles: Mapping[str, tuple[float, ...]]
    open_between: tuple[float, float]

    def share_below(self, feature: str, value: float) -> float:
        """Return the share of the cohort below a value; -1 or 2 outside the range of the cohort."""
        values = self.quantiles[feature]
        if value < values[0]:
            return -1.0
        return 2.0 if value > values[-1] else float(np.interp(value, values, self.shares))

    def compared(self, feature: str, value: float | None, say: Translator) -> str:
        """Compare a tumour of this value with the cohort in words: ``rounder than most``.

        Parameters
        ----------
        feature
            PyRadiomics name.
        value
            Measured value; None if it could not be computed.
        say
            The reader's language.
        """
        if value is None:
            return say("rows.failed")
        share = self.share_below(feature, value)
        quality = QUALITIES[feature].high if share >= 0.5 else QUALITIES[feature].low
        return say(f"degree.{degree(share)}", quality=say(f"quality.{quality}"))
