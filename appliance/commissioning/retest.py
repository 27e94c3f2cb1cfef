"""The site's test–retest: how much features, probability and answer change without a change of the tumour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lungstage.appliance.commissioning.instrument import Instrument, answer_of
from lungstage.appliance.commissioning.plan import Pair, Thresholds
from lungstage.appliance.commissioning.statistics import Repeatability, repeatability
from lungstage.appliance.commissioning.verdict import Cell, Check, Verdict, graded, worst
from lungstage.appliance.model.manifest import FeatureEntry

Array = npt.NDArray[np.float64]

_GRADES = ((0.5, "poor"), (0.75, "moderate"), (0.9, "good"))


def check_pairs(pairs: Sequence[Pair], instrument: Instrument, thresholds: Thresholds) -> tuple[Check, ...]:
    """Answer both studies of every pair, and compare the answers."""
    answers = {
        pair.test.name: tuple(answer_of(instrument.stage(study)) for study in (pair.test, pair.retest))
        for pair in pairs
    }
    whole = {name: pair for name, pair in answers.items() if all(one["status"] == "staged" for one in pair)}
    both = tuple(whole.values())
    split = sum(len({one["status"] == "staged" for one in pair}) == 2 for pair in answers.values())
    checks = [_check_number(len(pairs), len(both), split, thresholds)]
    if not both:
        return tuple(checks)
    entries = instrument.bundle.manifest.features
    values = {
        entry.name: np.array([[one["features"][entry.name] for one in pair] for pair in both], dtype=np.float64)
        for entry in entries
    }
    probabilities = np.array([[one["probability"] for one in pair] for pair in both], dtype=np.float64)
    said = {name: tuple(str(one["answer"]) for one in pair) for name, pair in whole.items()}
    return (
        *checks,
        check_features(values, entries, thresholds),
        check_probability(probabilities, thresholds),
        check_answers(said, probabilities, thresholds),
    )


def _check_number(listed: int, answered: int, split: int, thresholds: Thresholds) -> Check:
    told = [f"{answered} of {listed} pairs were answered both times"]
    told.append(f"{split} only once" if split else "none only once")
    enough = answered >= thresholds.pairs
    if not enough:
        told.append(f"at least {thresholds.pairs} are needed, so the numbers below are imprecise")
    verdict = Verdict.PASS if enough and not split else Verdict.WARN
    return Check("test–retest pairs", verdict if answered else Verdict.FAIL, f"{'; '.join(told)}.")


def check_features(values: Mapping[str, Array], entries: Sequence[FeatureEntry], thresholds: Thresholds) -> Check:
    """Grade the features by their ICC(A,1).

    Parameters
    ----------
    values
        (n, 2) for each feature; NaN if it could not be computed.
    entries
        Units and training quantiles.
    thresholds
        A feature fails below ``icc_poor``. There is a warning if its lower limit is below ``icc_good``.
    """
    rows, verdicts, grades = [], [], []
    for entry in entries:
        figures = repeatability(values[entry.name])
        verdicts.append(_judge(figures, thresholds))
        grades.append(_grade(figures))
        rows.append(_feature_row(entry, figures, grades[-1], verdicts[-1]))
    counts = ", ".join(f"{grades.count(grade)} {grade}" for grade in dict.fromkeys(grades))
    finding = f"Of {len(entries)} features, by the lower limit of the ICC(A,1): {counts}."
    return Check("repeatability of the features", worst(verdicts), finding, tuple(rows))


def _judge(figures: Repeatability, thresholds: Thresholds) -> Verdict:
    if np.isnan(figures.agreement):
        return Verdict.NOTE
    if figures.agreement < thresholds.icc_poor:
        return Verdict.FAIL
    return Verdict.WARN if figures.interval[0] < thresholds.icc_good else Verdict.PASS


def _grade(figures: Repeatability) -> str:
    """Return the word of Koo & Li (J Chiropr Med 15(2), 2016) for the lower limit of the interval."""
    low = figures.interval[0]
    if np.isnan(low):
        return "not defined"
    return next((word for limit, word in _GRADES if low < limit), "excellent")


def _feature_row(entry: FeatureEntry, figures: Repeatability, grade: str, verdict: Verdict) -> dict[str, Cell]:
    seen = entry.training_quantiles
    spread = seen["0.95"] - seen["0.05"]
    return {
        "feature": entry.name.removeprefix("original_"),
        "pairs": figures.subjects,
        "ICC(A,1)": figures.agreement,
        "from": figures.interval[0],
        "to": figures.interval[1],
        "ICC(3,1)": figures.consistency,
        "within-subject SD": figures.within_sd,
        "repeatability coefficient": figures.coefficient,
        "unit": entry.unit,
        "coefficient / training's middle 90 %": figures.coefficient / spread if spread else None,
        "grade": grade,
        "verdict": verdict,
    }


def check_probability(probabilities: Array, thresholds: Thresholds) -> Check:
    """Grade the probability (n, 2) by its within-subject SD."""
    figures = repeatability(probabilities)
    verdict = graded(
        figures.within_sd, warn=thresholds.probability_sd_warn, fail=thresholds.probability_sd_fail
    )  # fmt: skip
    largest = float(np.abs(np.diff(probabilities, axis=1)).max())
    shift = float(np.diff(probabilities, axis=1).mean())
    finding = (
        f"Within-subject SD {figures.within_sd:.4f}, repeatability coefficient {figures.coefficient:.3f}; largest "
        f"difference {largest:.3f}, mean shift from test to retest {shift:+z.3f}; ICC(A,1) {figures.agreement:.3f} "
        f"({figures.interval[0]:.3f} to {figures.interval[1]:.3f})."
    )
    return Check("repeatability of the probability", verdict, finding)


def check_answers(said: Mapping[str, tuple[str, ...]], probabilities: Array, thresholds: Thresholds) -> Check:
    """Grade the share of pairs with two different answers. A change from one class to the other is always a warning.

    Parameters
    ----------
    said
        Both answers of each patient.
    probabilities
        (n, 2), in the same order.
    thresholds
        Limits for the share of pairs with two different answers.
    """
    rows: list[dict[str, Cell]] = [
        {"patient": name, "test": a, "retest": b, "probability": float(p), "and then": float(q)}
        for (name, (a, b)), (p, q) in zip(said.items(), probabilities, strict=True)
        if a != b
    ]
    opposite = sum("indeterminate" not in (row["test"], row["retest"]) for row in rows)
    share = len(rows) / len(said)
    verdict = graded(share, warn=thresholds.changed_warn, fail=thresholds.changed_fail)
    finding = (
        f"{len(rows)} of {len(said)} pairs ({100 * share:.0f} %) had another answer the second time, "
        f"{opposite} of them the opposite answer."
    )
    return Check(
        "repeatability of the answer", worst([verdict, Verdict.WARN if opposite else verdict]), finding, tuple(rows)
    )
