"""The measured performance of a model: on patients not used for training, against simpler models, at one prevalence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return it as plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """Read the output of :meth:`as_dict`."""
        return cls(float(entry["value"]), float(entry["low"]), float(entry["high"]))


@dataclass(frozen=True, slots=True)
class PredictiveValue:
    """The probability that an answer is right: among patients who get this answer, the share who have its class.

    Attributes
    ----------
    chance
        The probability at the prevalence in force.
    positives, negatives
        Number of patients of each class behind this value. Each was answered by models that had not seen the patient.
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
        Prevalence in force: share of the positive class, strictly between 0 and 1.
    is_site
        Whether the site stated the prevalence; otherwise it is that of the training cohort.
    negative_up_to, positive_from
        Thresholds of the probability of the positive class at that prevalence. The negative class is answered up to the
        first, the positive class from the second on. None if a class is never answered.
    withheld
        Whether the conformal set contains one class but no answer is given. The reasons: this class would be the less
        likely one, or wrong in more than half of such patients, or too few patients had this answer to know.
    predictive_value
        Predictive value of the answer; None without an answer, or if the bundle does not contain its performance.
    is_known
        Whether the bundle contains its performance on patients not used for training.
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
    """Whether a model is shown to beat chance and the best simple model, on patients not used for training.

    Attributes
    ----------
    auc
        AUC of the model's procedure, out of fold.
    beats_chance
        Whether the interval of the AUC lies above 0.5.
    rival
        Code of the best model with at most two features (``rival.…`` in the catalogues); None if there was none.
    rival_auc
        AUC of that model, on the same folds.
    beats_rival
        Whether the model is shown to be better than that model.
    """

    auc: Estimate
    beats_chance: bool
    rival: str | None = None
    rival_auc: Estimate | None = None
    beats_rival: bool = False

    @property
    def is_shown(self) -> bool:
        """Whether the model is shown to be better than chance and better than the simple model."""
        return self.beats_chance and self.beats_rival
