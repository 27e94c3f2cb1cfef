"""What a bundle answers at one prevalence and at others, how often that is right, and whom it would help: as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lungstage.appliance.contract.spec import Endpoint, Stage
from lungstage.appliance.model.answering import FEWEST, AnswerRule
from lungstage.appliance.model.manifest import Decision, OutOfFold
from lungstage.export.markdown import as_table

PREVALENCES: Final = (0.05, 0.17, 0.39, 0.61, 0.8)
"""At which a card states answers: from a screened population to a centre of radiotherapy."""

THRESHOLDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def rules(
    decision: Decision, training: float, out_of_fold: OutOfFold | None, prevalences: Sequence[float] = PREVALENCES
) -> list[AnswerRule]:
    """Return the rule at the training prevalence, and at others."""
    return [AnswerRule(decision, training, site, out_of_fold) for site in (None, *prevalences)]


def answers(each: Sequence[AnswerRule], endpoint: Endpoint) -> str:
    """Tabulate, at each prevalence, when a class is answered, how often it is and how often that is right."""
    rows = []
    for rule in each:
        row = [f"{100 * rule.prevalence:.3g} %" + (" (training)" if rule.site is None else "")]
        for stage, limit in zip((Stage.EARLY, Stage.ADVANCED), rule.limits, strict=True):
            row += _answer(rule, stage, limit)
        rows.append(row)
    classes = endpoint.negative, endpoint.positive
    head = [f"share of {endpoint.positive}"]
    for name, way in zip(classes, ("up to", "from"), strict=True):
        head += [f"“{name}” is answered {way}", f"of {classes[0]}, of {classes[1]}", "right in (95 %)"]
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
    """Tabulate the net benefit of acting on the model's probability at one prevalence, and of acting in all."""
    if rule.out_of_fold is None:
        return "The bundle does not say how it did on patients that it had not seen, so there is no decision curve."
    rows = [
        [f"{100 * threshold:.0f} %", f"{model:+.3f}", f"{all_:+.3f}", "yes" if model > max(all_, 0.0) else "no"]
        for threshold, (model, all_) in zip(THRESHOLDS, rule.net_benefit(THRESHOLDS), strict=True)
    ]
    return as_table(["acting from a probability of", "net benefit", "of acting in all", "better than both"], rows)


NOTE: Final = (
    "A class is answered where the conformal set singles it out, its probability at the prevalence is at least one "
    f"half, at least {FEWEST} of the patients out of fold were so answered, and the answer is right in at least half "
    "of such patients at that prevalence; else the answer is `indeterminate`, which rules out nothing. How often an "
    "answer is right follows by Bayes from how often patients of either class reached the limit out of fold; the "
    "intervals (Simel, Samsa & Matchar 1991) take the prevalence for known, and assume that patients of one class look "
    "alike at both places."
)
