"""Repeatability of features, and of a model's probability, under simulated perturbations: a table of ICCs.

The perturbations are those of the appliance's robustness check (:mod:`appliance.robustness`). A feature with a low ICC
here makes answers of the appliance less robust.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.commissioning.statistics import intraclass_correlations
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.radiomics import extract
from lungstage.appliance.radiomics.nifti import read_pair
from lungstage.appliance.robustness.versions import Scan, Surroundings, perturb
from lungstage.training.cohorts.table import refuse
from lungstage.training.measuring.crops import read_crops
from lungstage.training.measuring.subjects import BATCH, Subject, read_subjects

Array = npt.NDArray[np.float64]

Case = tuple[str, Callable[[], Surroundings]]
"""A patient, and a function that reads the tumour and its surroundings."""

CONTOUR: Final = "contour"
IMAGE: Final = "image"
BOTH: Final = "both"

AIMS: Final = {CONTOUR: 0.88, IMAGE: 0.90}
"""Targets. Reported agreement of readers of one CT is 0.88, and of two scans of one tumour 0.91."""

_ENOUGH: Final = 2 / 3  # smallest share of the requested versions that must be measurable for a patient
_RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Rated:
    """Perturbed measurements of a cohort.

    Attributes
    ----------
    features
        Names.
    patients
        Patients with enough measured versions.
    left_out
        The other patients, with the reason.
    values
        (patients, versions, features) by what was perturbed: :data:`CONTOUR`, :data:`IMAGE`, :data:`BOTH`.
    grids_moved
        Whether grids were shifted and rotated.
    """

    features: tuple[str, ...]
    patients: tuple[str, ...]
    left_out: dict[str, str]
    values: dict[str, Array]
    grids_moved: bool


def read_cases(source: Path) -> list[Case]:
    """List the tumours of a folder of crops, or of a list of NIfTI pairs (``ID,Image,Mask[,Label]``).

    Raises
    ------
    Refused
        ``table_invalid``.
    """
    if source.is_dir():
        return read_crops(source)
    subjects = read_subjects(source)
    if any(subject.mask is None for subject in subjects):
        refuse(
            f"{source.name} lists DICOM studies, but this command reads NIfTI pairs only. Give a list with the columns "
            f"{', '.join(BATCH)}."
        )
    return [(subject.patient_id, partial(_pair, subject)) for subject in subjects]


def _pair(subject: Subject) -> Surroundings:
    pair = read_pair(subject.study, cast(Path, subject.mask), subject.label or 1)
    z, y, x = (float(step) for step in pair.volume.spacing)
    return Surroundings(pair.volume.array, pair.mask, (z, y, x))


def rate(cases: Iterable[Case], spec: ExtractionSpec, options: RobustnessOptions, *, move_grids: bool = False) -> Rated:
    """Measure perturbed versions of each case: contour alone, image alone, and both.

    Parameters
    ----------
    cases
        Cases of :func:`read_cases`.
    spec, options
        What is measured; the number of versions, and the distance between contours.
    move_grids
        Also move the grid of images that already lie on the measuring grid. They are then smoothed twice.
    """
    enough = int(np.ceil(_ENOUGH * options.perturbations))
    found: dict[str, list[Array]] = {CONTOUR: [], IMAGE: [], BOTH: []}
    patients, left_out, moved = [], {}, False
    for patient, read in cases:
        try:
            around = read()
            roi = extract.place_on_grid(_volume(around), around.mask, spec)
        except Refused as refused:
            left_out[patient] = str(refused.reason.code)
            continue
        moves = move_grids or not np.allclose(around.spacing, roi.spacing)
        moved |= moves
        scans = (Scan.NOISE, Scan.SHIFT, Scan.TURN) if moves else (Scan.NOISE,)
        made = {
            CONTOUR: perturb(around, roi, spec, options, (Scan.SAME,)),
            IMAGE: perturb(around, roi, spec, options, scans, drawn_anew=False, move_grids=move_grids),
            BOTH: perturb(around, roi, spec, options, move_grids=move_grids),
        }
        fewest = min(made.values(), key=lambda versions: len(versions.values))
        if len(fewest.values) < enough:
            left_out[patient] = str(fewest.unknown or "too_few")
            continue
        patients.append(patient)
        for what, versions in made.items():
            found[what].append(versions.values[:enough])
    shape = (-1, enough, len(spec.features))
    values = {what: np.array(rows).reshape(shape) for what, rows in found.items()}
    return Rated(spec.features, tuple(patients), left_out, values, moved)


def _volume(around: Surroundings) -> hd.Volume:
    z, y, x = around.spacing
    affine = np.array([[0, 0, x, 0], [0, y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1.0]])
    return hd.Volume(around.image, affine, coordinate_system="PATIENT")


def feature_iccs(rated: Rated) -> dict[str, Array]:
    """ICC(2,1) of each feature by what was perturbed; NaN if a version has no value."""
    return {what: intraclass_correlations(values.transpose(2, 0, 1))[0] for what, values in rated.values.items()}


def table(rated: Rated) -> bytes:
    """Write the ICC table as ``fit`` reads it: ``icc`` is under both perturbations; others are in further columns."""
    iccs = feature_iccs(rated)
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["feature", "icc", "icc_contour", "icc_image", "patients", "versions"])
    n, k = rated.values[BOTH].shape[:2]
    for index, name in enumerate(rated.features):
        each = [f"{float(np.nan_to_num(iccs[what][index])):.4f}" for what in (BOTH, CONTOUR, IMAGE)]
        writer.writerow([name, *each, n, k])
    return file.getvalue().encode("utf-8")


def of_model(rated: Rated, bundle: Bundle, seed: int = 0) -> dict[str, Any]:
    """Compute the repeatability of a bundle's probability: ICC(2,1) with its 95 % interval by bootstrap over patients.

    Returns
    -------
    dict
        For ``robustness.json`` beside a run, which the card shows. ``simulated`` is always true.
    """
    columns = [rated.features.index(name) for name in bundle.spec.features]
    figures: dict[str, Any] = {}
    for what, values in rated.values.items():
        n, k = values.shape[:2]
        flat = values[:, :, columns].reshape(n * k, -1)
        probabilities = bundle.predictor.run(flat).probability_advanced.reshape(n, k)
        figures[what] = {**_with_interval(probabilities, seed), "aim": AIMS.get(what)}
    return {
        "simulated": True,
        "model_sha256": bundle.manifest.files["model.onnx"],
        "patients": len(rated.patients),
        "left_out": len(rated.left_out),
        "versions": int(rated.values[BOTH].shape[1]),
        "grids_moved": rated.grids_moved,
        "probability": figures,
    }


def _with_interval(table_: Array, seed: int) -> dict[str, float]:
    """ICC(2,1) of (n, k) and its percentile interval over resampled rows."""
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(table_), (_RESAMPLES, len(table_)))
    resampled = intraclass_correlations(table_[chosen])[0]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"icc": float(intraclass_correlations(table_)[0]), "low": float(low), "high": float(high)}


def in_words(model: dict[str, Any]) -> Sequence[str]:
    """Describe the repeatability of a probability, for a terminal."""
    lines = []
    for what, figure in model["probability"].items():
        aim = "" if figure["aim"] is None else f"; aim {figure['aim']:.2f}, {_met(figure)}"
        lines.append(
            f"simulated, {what}: ICC(2,1) of the probability {figure['icc']:.3f} ({figure['low']:.3f} to "
            f"{figure['high']:.3f}){aim}"
        )
    return lines


def _met(figure: dict[str, Any]) -> str:
    return "met" if figure["icc"] >= figure["aim"] else "missed"
