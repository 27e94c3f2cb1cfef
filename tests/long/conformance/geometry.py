"""The checks of the geometry with their tolerances; each with a study just inside, and one just outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from tests.support.studies import ROI_SLICES, SQUARE, Study, contour, rtstruct_study, seg_study, structure_set


@dataclass(frozen=True)
class Proof:
    """One check.

    Attributes
    ----------
    what, tolerance, code
        The requirement and its tolerance in words, and the reason code of a study that does not fulfil it.
    study
        Makes a study with a deviation of that size.
    inside, outside
        A deviation that is accepted, and one that is not.
    """

    what: str
    tolerance: str
    code: str
    study: Callable[[float], Study]
    inside: float
    outside: float


def _slice_five(change: Callable[[Dataset, float], None]) -> Callable[[float], Study]:
    """Change one slice in the middle of the region."""

    def make(by: float) -> Study:
        study = rtstruct_study()
        change(study.slices[5], by)
        return study

    return make


def _every_slice(change: Callable[[int, Dataset, float], None]) -> Callable[[float], Study]:
    def make(by: float) -> Study:
        study = rtstruct_study()
        for k, dataset in enumerate(study.slices):
            change(k, dataset, by)
        return study

    return make


def _seg(change: Callable[[Dataset, float], None]) -> Callable[[float], Study]:
    def make(by: float) -> Study:
        study = seg_study()
        change(study.rois[0], by)
        return study

    return make


def _turn(dataset: Dataset, by: float) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, by]


def _slant(_: int, dataset: Dataset, by: float) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, by, 1, 0]


def _widen(dataset: Dataset, by: float) -> None:
    dataset.PixelSpacing = [float(value) * (1 + by) for value in dataset.PixelSpacing]


def _move(axis: int) -> Callable[[Dataset, float], None]:
    def move(dataset: Dataset, by: float) -> None:
        position = [float(value) for value in dataset.ImagePositionPatient]
        position[axis] += by
        dataset.ImagePositionPatient = position

    return move


def _shear(k: int, dataset: Dataset, by: float) -> None:
    _move(0)(dataset, 3.0 * k * by)


def _tilt(_: int, dataset: Dataset, by: float) -> None:
    dataset.GantryDetectorTilt = by


def _thin(_: int, dataset: Dataset, by: float) -> None:
    dataset.SliceThickness = 3.0 / by


def _lift(by: float) -> Study:
    study = rtstruct_study()
    contours = [contour(study.slices[k], SQUARE, shift=by) for k in ROI_SLICES]
    return Study(study.slices, [structure_set(study.slices, {"GTV-1": contours}, study.slices)])


def _move_frames(seg: Dataset, by: float) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        _move(1)(group.PlanePositionSequence[0], by)


def _turn_frames(seg: Dataset, by: float) -> None:
    plane = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [1, by, 0, -by, 1, 0]


def _widen_frames(seg: Dataset, by: float) -> None:
    _widen(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], by)


PROOFS: Final = (
    Proof("slices have one orientation", "1e-4 of each cosine", "orientation_varies", _slice_five(_turn), 5e-5, 5e-4),
    Proof("rows and columns are orthogonal", "1e-4", "geometry_missing", _every_slice(_slant), 5e-5, 5e-4),
    Proof("slices have one pixel spacing", "1e-5 relative", "grid_varies", _slice_five(_widen), 5e-6, 5e-5),
    Proof(
        "slices are evenly spaced",
        "0.02 mm, or 2 % of the spacing if that is more",
        "spacing_not_uniform",
        _slice_five(_move(2)),
        0.05,
        0.08,
    ),
    Proof(
        "slices are not shifted sideways",
        "0.02 mm plus 1/1000 of the distance",
        "gantry_tilt",
        _every_slice(_shear),
        5e-4,
        2.5e-3,
    ),
    Proof("Gantry/Detector Tilt is zero", "0.05 degrees", "gantry_tilt", _every_slice(_tilt), 0.04, 0.06),
    Proof(
        "no slice is missing between two slices (a spacing above 1.5 times the slice thickness is a gap)",
        "1.5",
        "slices_missing",
        _every_slice(_thin),
        1.4,
        1.6,
    ),
    Proof(
        "a contour lies in the plane of its slice",
        "0.1 mm, or a fifth of the spacing if that is less",
        "contour_off_slice",
        _lift,
        0.09,
        0.11,
    ),
    Proof(
        "a SEG frame lies on the pixels of its slice", "0.01 mm", "seg_grid_mismatch", _seg(_move_frames), 0.008, 0.012
    ),
    Proof(
        "rows and columns of a SEG are parallel to those of the slices",
        "1e-4 of each cosine",
        "seg_grid_mismatch",
        _seg(_turn_frames),
        5e-5,
        5e-4,
    ),
    Proof(
        "a SEG has the pixel spacing of the slices",
        "1e-4 relative",
        "seg_grid_mismatch",
        _seg(_widen_frames),
        5e-5,
        5e-4,
    ),
)
