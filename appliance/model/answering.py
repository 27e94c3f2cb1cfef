"""Compute the answer at the prevalence in force, and how often such an answer is right.

The prevalence at a site changes three things: the probability, the possible answers, and how often an answer is right.
All three are computed here from the bundle's own figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lungstage.appliance.contract.evidence import Answering, Estimate, PredictiveValue
from lungstage.appliance.contract.spec import Stage, StagingResult
from lungstage.appliance.model.manifest import Decision, Manifest, OutOfFold

FEWEST: Final = 10
"""Fewest out-of-fold patients with the same answer for a predictive value; with fewer, its interval is very wide."""

_Z: Final = 1.959963984540054  # of a 95 % interval


def corrected(probability: float, training: float, site: float) -> float:
    """Correct a probability from one prevalence to another.

    The prevalences are strictly between 0 and 1. The probability may also be 0 or 1.

    Notes
    -----
    ``logit(p') = logit(p) - logit(training) + logit(site)``: Saerens, Latinne & Decaestecker, Neural Computation
    14(1), 2002, eq. 2.4. It is written in odds, so a probability of 0 or 1 does not change. It assumes that patients
    of the same class look alike at both sites.
    """
    positive = probability * site / training
    negative = (1.0 - probability) * (1.0 - site) / (1.0 - training)
    return positive / (positive + negative)


def singled_out(probability_advanced: float, decision: Decision) -> Stage:
    """Return the only class in the conformal set; indeterminate if both or none are in it.

    A class is possible if its probability reaches its conformal threshold. If both or none are possible, the evidence
    does not decide (Vovk, Gammerman & Shafer 2005, label-conditional conformal prediction). The coverage within a
    class does not depend on the prevalence. So the probability at the training prevalence is used in every case.
    """
    early = 1.0 - probability_advanced >= decision.early_min_probability
    advanced = probability_advanced >= decision.advanced_min_probability
    if early == advanced:
        return Stage.INDETERMINATE
    return Stage.EARLY if early else Stage.ADVANCED


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """The rule by which a model answers at a given prevalence of its positive class.

    A class is the answer under these conditions:

    - It is the only class in the conformal set.
    - Its probability at the prevalence in force is at least one half.
    - If the bundle gives its performance on unseen patients: at least :data:`FEWEST` of them got this answer, and it
      is right in at least half of such patients at this prevalence.

    Otherwise the answer is indeterminate, which excludes no class. So coverage is at least that of the conformal set.

    Attributes
    ----------
    decision
        The conformal thresholds, at the training prevalence.
    training
        Prevalence of the positive class for which the model's probabilities are valid.
    site
        The site's prevalence, strictly between 0 and 1; None if not known: then the training cohort's is used.
    out_of_fold
        The model's probabilities for unseen patients; None if the bundle does not contain them.
    """

    decision: Decision
    training: float
    site: float | None = None
    out_of_fold: OutOfFold | None = None

    @classmethod
    def of(cls, manifest: Manifest, site: float | None) -> AnswerRule:
        """Return a bundle's rule at a prevalence."""
        return cls(manifest.decision, manifest.provenance.prevalence_advanced, site, manifest.out_of_fold)

    @property
    def prevalence(self) -> float:
        """The prevalence in force."""
        return self.training if self.site is None else self.site

    def probability(self, at_training: float) -> float:
        """State a probability at the prevalence in force."""
        return at_training if self.site is None else corrected(at_training, self.training, self.site)

    def answer(self, at_training: float) -> tuple[Stage, bool]:
        """Return the answer for a probability at the training prevalence, and whether an answer was withheld."""
        stage, here = singled_out(at_training, self.decision), self.probability(at_training)
        if stage is Stage.INDETERMINATE:
            return stage, False
        likelier = here <= 0.5 if stage is Stage.EARLY else here >= 0.5
        return (stage, False) if likelier and self.allows(stage) else (Stage.INDETERMINATE, True)

    def allows(self, stage: Stage) -> bool:
        """Whether the performance on out-of-fold patients allows this answer at all."""
        if self.out_of_fold is None:
            return True
        value = self.predictive_value(stage)
        return value is not None and value.chance.value >= 0.5

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Highest probability for the negative answer and lowest for the positive one, at the prevalence in force.

        None if this answer is never given.
        """
        low, high = self._limits_at_training()
        return (
            self.probability(low) if self.allows(Stage.EARLY) else None,
            self.probability(high) if self.allows(Stage.ADVANCED) else None,
        )

    @property
    def open_between(self) -> tuple[float, float]:
        """Probabilities at the prevalence in force between which the answer is indeterminate."""
        low, high = self.limits
        return 0.0 if low is None else low, 1.0 if high is None else high

    def _limits_at_training(self) -> tuple[float, float]:
        ends = 1.0 - self.decision.early_min_probability, self.decision.advanced_min_probability
        half = 0.5 if self.site is None else corrected(0.5, self.site, self.training)
        return min(*ends, half), max(*ends, half)

    def reached(self, stage: Stage) -> tuple[float, float]:
        """Shares of the negative and of the positive class, out of fold, that would get this answer here."""
        seen = self.out_of_fold
        if seen is None or stage is Stage.INDETERMINATE:
            raise ValueError("no figures are available for this answer")
        low, high = self._limits_at_training()
        at = high if stage is Stage.ADVANCED else low
        negative, positive = (
            float(np.interp(at, seen.thresholds, shares))
            for shares in (seen.negatives_at_least, seen.positives_at_least)
        )
        return (negative, positive) if stage is Stage.ADVANCED else (1.0 - negative, 1.0 - positive)

    def predictive_value(self, stage: Stage) -> PredictiveValue | None:
        """Compute how often an answer is right here; None without an answer, or with too few patients that got it.

        Notes
        -----
        Bayes: the odds of being right are the odds of the class here times the likelihood ratio of the answer. The
        interval of that ratio: Simel, Samsa & Matchar, J Clin Epidemiol 44(8), 1991. Half a patient is added to each
        count, so zero wrong answers do not give certainty. The prevalence itself is taken as exact.
        """
        seen = self.out_of_fold
        if seen is None or stage is Stage.INDETERMINATE:
            return None
        negative, positive = self.reached(stage)
        if negative * seen.negatives + positive * seen.positives < FEWEST:
            return None
        right, wrong = ((positive, seen.positives), (negative, seen.negatives))
        odds = self.prevalence / (1.0 - self.prevalence)
        if stage is Stage.EARLY:
            right, wrong, odds = wrong, right, 1.0 / odds
        (a, n), (b, m) = ((share * count + 0.5, count + 1.0) for share, count in (right, wrong))
        centre = math.log(odds * (a / n) / (b / m))
        reach = _Z * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m)
        low, value, high = (1.0 / (1.0 + math.exp(-(centre + k * reach))) for k in (-1, 0, 1))
        return PredictiveValue(Estimate(value, low, high), seen.positives, seen.negatives)

    def answering(self, stage: Stage, *, withheld: bool) -> Answering:
        """Return prevalence, limits and predictive value of an answer."""
        return Answering(
            self.prevalence, self.site is not None, *self.limits, withheld, self.predictive_value(stage),
            self.out_of_fold is not None,
        )  # fmt: skip

    def net_benefit(self, thresholds: Sequence[float]) -> list[tuple[float, float]]:
        """Net benefit per patient here: of acting if the probability reaches each threshold, and of acting in all.

        Notes
        -----
        Vickers AJ, Elkin EB. Decision curve analysis. Medical Decision Making 26(6), 2006: true positives less false
        positives at the threshold's odds. Acting in no patient has a benefit of 0.
        """
        seen, p = self.out_of_fold, self.prevalence
        if seen is None:
            raise ValueError("the bundle gives no performance on unseen patients")
        found = []
        for threshold in thresholds:
            at = threshold if self.site is None else corrected(threshold, self.site, self.training)
            negative, positive = (
                float(np.interp(at, seen.thresholds, s)) for s in (seen.negatives_at_least, seen.positives_at_least)
            )
            odds = threshold / (1.0 - threshold)
            found.append((p * positive - odds * (1 - p) * negative, p - odds * (1 - p)))
        return found


def at_prevalence(result: StagingResult, rule: AnswerRule) -> StagingResult:
    """State an answer at the prevalence in force.

    Parameters
    ----------
    result
        The answer, its probability at the training prevalence.
    rule
        Of the bundle, at the site's prevalence.

    Notes
    -----
    The contributions do not change: they add up to the logit at the training prevalence.
    """
    stage, withheld = rule.answer(result.probability_advanced)
    return replace(
        result,
        stage=stage,
        probability_advanced=rule.probability(result.probability_advanced),
        prevalence=rule.site,
        answering=rule.answering(stage, withheld=withheld),
    )
