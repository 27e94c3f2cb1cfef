"""What is known of how well a model does: on patients it had not seen, against simpler models, at one prevalence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Write it as plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_dict` wrote."""
        return cls(float(entry["value"]), float(entry["low"]), float(entry["high"]))


@dataclass(frozen=True, slots=True)
class PredictiveValue:
    """The chance that an answer is right: of the patients who would be given it, the share whose class it names.

    Attributes
    ----------
    chance
        At the prevalence in force.
    positives, negatives
        Patients of either class whom it is worked out from, each answered by models that had not seen them.
    """

    chance: Estimate
    positives: int
    negatives: int


@dataclass(frozen=True, slots=True)
class Answering:
    """What a model answers at one prevalence.

    Attributes
    ----------
    prevalence
        In force: share of the positive class, strictly between 0 and 1.
    is_site
        Whether the site stated it; otherwise it is the training cohort's.
    negative_up_to, positive_from
        Probabilities of the positive class, at that prevalence, up to and from which the negative and the positive
        class are answered; None where a class is never.
    withheld
        Whether the conformal set names one class and it is not answered: it would be the less likely one, or be wrong
        in more than half of such patients, or too few patients were so answered to tell.
    predictive_value
        Of the answer; None where there is none, or the bundle does not say how it did.
    is_known
        Whether the bundle says how it did on patients that it had not seen.
    """

    prevalence: float
    is_site: bool
    negative_up_to: float | None
    positive_from: float | None
    withheld: bool = False
    predictive_value: PredictiveValue | None = None
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class Worth:
    """Whether a model is shown to beat chance and the best of the simple models, on patients that it had not seen.

    Attributes
    ----------
    auc
        Of the model's procedure, out of fold.
    beats_chance
        Whether the AUC's interval lies above 0.5.
    rival
        Code of the best model of two features at most (``rival.…`` in the catalogues); None where there was none.
    rival_auc
        Its AUC, on the same folds.
    beats_rival
        Whether the model is shown to be better than it.
    """

    auc: Estimate
    beats_chance: bool
    rival: str | None = None
    rival_auc: Estimate | None = None
    beats_rival: bool = False

    @property
    def is_shown(self) -> bool:
        """Whether the model is shown to be worth more than chance and than the simple model."""
        return self.beats_chance and self.beats_rival
