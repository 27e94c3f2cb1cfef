"""Tables of a bundle's answers by prevalence, of their predictive values, and of the decision curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lungstage.appliance.contract.spec import Endpoint, Stage
from lungstage.appliance.model.answering import FEWEST, AnswerRule
from lungstage.appliance.model.manifest import Decision, OutOfFold
from lungstage.export.markdown import as_table

PREVALENCES: Final = (0.05, 0.17, 0.39, 0.61, 0.8)
"""Prevalences in a card: from a screened population to a radiotherapy centre."""

THRESHOLDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def rules(
    decision: Decision, training: float, out_of_fold: OutOfFold | None, prevalences: Sequence[float] = PREVALENCES
) -> list[AnswerRule]:
    """Return the answer rules at the training prevalence and at others."""
    return [AnswerRule(decision, training, site, out_of_fold) for site in (None, *prevalences)]


def answers(each: Sequence[AnswerRule], endpoint: Endpoint) -> str:
    """Tabulate, for each prevalence, the limits of each answer, its frequency, and its predictive value."""
    rows = []
    for rule in each:
        row = [f"{100 * rule.prevalence:.3g} %" + (" (training)" if rule.site is None else "")]
        for stage, limit in zip((Stage.EARLY, Stage.ADVANCED), rule.limits, strict=True):
            row += _answer(rule, stage, limit)
        rows.append(row)
    classes = endpoint.negative, endpoint.positive
    head = [f"prevalence of {endpoint.positive}"]
    for name, way in zip(classes, ("up to", "from"), strict=True):
        head += [
            f"answer “{name}” {way} a probability of",
            f"given to {classes[0]}, {classes[1]}",
            "right in (95 % interval)",
        ]
    return as_table(head, rows)


def _answer(rule: AnswerRule, stage: Stage, limit: float | None) -> list[str]:
    if limit is None:
        return ["never", "", ""]
    if rule.out_of_fold is None:
        return [f"{100 * limit:.0f} %", "not known", "not known"]
    told = rule.predictive_value(stage)
    negative, positive = (f"{100 * share:.0f} %" for share in rule.reached(stage))
    value = told.chance if told else None
    chance = f"{100 * value.value:.0f} % ({100 * value.low:.0f} to {100 * value.high:.0f} %)" if value else ""
    return [f"{100 * limit:.0f} %", f"{negative}, {positive}", chance]


def decision_curve(rule: AnswerRule) -> str:
    """Tabulate the net benefit of acting by the model's probability at one prevalence, and of acting in all."""
    if rule.out_of_fold is None:
        return "The bundle contains no out-of-fold results, so there is no decision curve."
    rows = [
        [f"{100 * threshold:.0f} %", f"{model:+.3f}", f"{all_:+.3f}", "yes" if model > max(all_, 0.0) else "no"]
        for threshold, (model, all_) in zip(THRESHOLDS, rule.net_benefit(THRESHOLDS), strict=True)
    ]
    head = ["act from a probability of", "net benefit", "net benefit of acting in all", "better than all and none"]
    return as_table(head, rows)


NOTE: Final = (
    "A class is the answer only under four conditions. The conformal set contains only this class. Its probability at "
    f"the prevalence is at least one half. At least {FEWEST} patients got this answer out of fold. The answer is right "
    "in at least half of such patients at that prevalence. Otherwise the answer is `indeterminate`, which rules out "
    "nothing. The predictive value follows by Bayes' theorem from the shares of both classes that reached the limit "
    "out of fold. The intervals (Simel, Samsa & Matchar 1991) treat the prevalence as known. They assume that patients "
    "of one class are alike at both places."
)
