"""Changes to an RTSTRUCT: how planning systems and mask-to-contour tools write it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
from pydicom.dataset import Dataset

from tests.support.studies import contours_of, list_series, listing
from tests.support.transformations.of_ct import as_written, without
from tests.support.transformations.registry import Right, changes
from tests.support.transformations.study import Study, Unfit, rename, store, stored, uid

_EITHER, _REFUSED = Right.EITHER, Right.REFUSED


def _of(study: Study) -> Dataset:
    assert study.contours is not None
    return study.contours


def _tumours(study: Study) -> list[Dataset]:
    """Contours of the tumour alone."""
    return list(_of(study).ROIContourSequence[0].ContourSequence)


def _points(contour: Dataset) -> np.ndarray:
    return np.array(contour.ContourData, dtype=float).reshape(-1, 3)


def _draw(contour: Dataset, points: np.ndarray, form: str = ".10g") -> None:
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:{form}}" for value in points.ravel()]


def _another(study: Study, name: str, contours: list[Dataset] | None, kind: str = "ORGAN") -> None:
    """Add a region; if its contours are None, it gets no item for them."""
    roi = _of(study)
    number = len(roi.StructureSetROISequence) + 1
    described = deepcopy(roi.StructureSetROISequence[0])
    described.ROINumber, described.ROIName = number, name
    observed = deepcopy(roi.RTROIObservationsSequence[0])
    observed.ObservationNumber = observed.ReferencedROINumber = number
    observed.RTROIInterpretedType = kind
    roi.StructureSetROISequence.append(described)
    roi.RTROIObservationsSequence.append(observed)
    if contours is not None:
        drawn = deepcopy(roi.ROIContourSequence[0])
        drawn.ReferencedROINumber, drawn.ContourSequence = number, contours
        roi.ROIContourSequence.append(drawn)


@changes("contours")
def structure_set_in_another_study(study: Study) -> None:
    _of(study).StudyInstanceUID = uid("a study of its own")


@changes("contours")
def contours_of_one_and_two_points(study: Study) -> None:
    for count in (1, 2):
        stray = deepcopy(_tumours(study)[2])
        _draw(stray, _points(stray)[:count])
        _of(study).ROIContourSequence[0].ContourSequence.append(stray)


@changes("contours")
def empty_template(study: Study) -> None:
    _another(study, "GTVp", None, "GTV")


@changes("contours")
def empty_region_of_the_same_name(study: Study) -> None:
    _another(study, "GTV-1", [], "GTV")


@changes("contours", _EITHER)
def interpolated_planar(study: Study) -> None:
    for contour in _tumours(study)[1::2]:
        as_written(contour, "ContourGeometricType", "CS", "INTERPOLATED_PLANAR")


@changes("contours")
def exclusive_or(study: Study) -> None:
    for contour in _tumours(study):
        as_written(contour, "ContourGeometricType", "CS", "CLOSEDPLANAR_XOR")


@changes("contours")
def thousands_of_points(study: Study) -> None:
    """Too many for an explicit length of two bytes, so Contour Data are written as UN."""
    contour = _tumours(study)[2]
    start = _points(contour)
    step = np.linspace(0, 1, 6000 // len(start), endpoint=False)[None, :, None]
    between = start[:, None] * (1 - step) + np.roll(start, -1, axis=0)[:, None] * step
    _draw(contour, between.reshape(-1, 3), ".6f")


@changes("contours", _EITHER)
def references_off_by_one(study: Study) -> None:
    uids = [dataset.SOPInstanceUID for dataset in study.ct[:12]]
    for contour in _tumours(study):
        for image in contour.get("ContourImageSequence", ()):
            image.ReferencedSOPInstanceUID = uids[uids.index(image.ReferencedSOPInstanceUID) + 1]


@changes("contours")
def counts_as_decimals(study: Study) -> None:
    for contour in _tumours(study):
        points = _points(contour).ravel()
        as_written(contour, "NumberOfContourPoints", "IS", f"{len(points) // 3}.0")
        written = [f"{v:.13e}" if k % 4 == 0 else f"{v:.14f}" for k, v in enumerate(points)]
        as_written(contour, "ContourData", "DS", "\\".join(written))


@changes("contours")
def counts_unsaid(study: Study) -> None:
    for contour in _tumours(study):
        without(contour, "NumberOfContourPoints")


@changes("contours")
def first_point_again_at_the_end(study: Study) -> None:
    for contour in _tumours(study):
        points = _points(contour)
        _draw(contour, np.concatenate([points, points[:1]]))


@changes("contours")
def drawn_the_other_way_round(study: Study) -> None:
    for contour in _tumours(study):
        _draw(contour, _points(contour)[::-1])


@changes("contours")
def contours_in_any_order(study: Study) -> None:
    drawn = _of(study).ROIContourSequence[0]
    drawn.ContourSequence = [*list(drawn.ContourSequence)[::-2], *list(drawn.ContourSequence)[-2::-2]]


@changes("contours")
def noise_in_the_coordinates(study: Study) -> None:
    for contour in _tumours(study):
        points = _points(contour)
        _draw(contour, points + 4e-5 * np.random.default_rng(5).uniform(-1, 1, points.shape), ".7f")


@changes("contours", _REFUSED)
def contours_off_their_planes(study: Study) -> None:
    for contour in _tumours(study):
        _draw(contour, _points(contour) + np.array([0, 0, 0.4 * study.drawing.step]))


@changes("contours", _REFUSED)
def a_contour_is_missing(study: Study) -> None:
    del _of(study).ROIContourSequence[0].ContourSequence[2]
    study.nothing_is_right()


@changes("contours", _REFUSED)
def every_other_contour(study: Study) -> None:
    drawn = _of(study).ROIContourSequence[0]
    drawn.ContourSequence = list(drawn.ContourSequence)[::2]
    study.nothing_is_right()


@changes("contours", _REFUSED)
def a_contour_twice(study: Study) -> None:
    drawn = _of(study).ROIContourSequence[0]
    drawn.ContourSequence.append(deepcopy(drawn.ContourSequence[1]))


@changes("contours", _EITHER)
def offset_vector(study: Study) -> None:
    for contour in _tumours(study):
        contour.add_new(0x30060045, "DS", ["0", "0", f"{study.drawing.step:g}"])
    study.nothing_is_right()


@changes("contours", _REFUSED)
def two_regions_of_one_number(study: Study) -> None:
    around = deepcopy(_tumours(study))
    for contour in around:
        _draw(contour, _points(contour) + np.array([5, 0, 0]))
    _another(study, "Heart", around)
    for items in (_of(study).StructureSetROISequence, _of(study).RTROIObservationsSequence):
        items[-1]["ROINumber" if "ROINumber" in items[-1] else "ReferencedROINumber"].value = 1
    _of(study).ROIContourSequence[-1].ReferencedROINumber = 1
    study.nothing_is_right()


@changes("contours")
def contours_name_none(study: Study) -> None:
    for contour in contours_of(_of(study)):
        without(contour, "ContourImageSequence")


@changes("contours")
def contours_and_lists_name_none(study: Study) -> None:
    contours_name_none(study)
    list_series(_of(study))


def _named_beside(contour: Dataset, uid_of: Callable[[str], str]) -> None:
    for image in list(contour.get("ContourImageSequence", ()))[:1]:
        beside = deepcopy(image)
        beside.ReferencedSOPInstanceUID = uid_of(image.ReferencedSOPInstanceUID)
        contour.ContourImageSequence.append(beside)


@changes("contours")
def each_image_named_twice(study: Study) -> None:
    for contour in _tumours(study):
        _named_beside(contour, lambda own: own)


@changes("contours")
def contours_name_another_modality_too(study: Study) -> None:
    """The images of the other modality are missing."""
    for contour in _tumours(study):
        _named_beside(contour, lambda own: uid("another modality", own))


@changes("contours")
def nothing_is_listed(study: Study) -> None:
    list_series(_of(study))


@changes("contours")
def instances_listed_that_never_come(study: Study) -> None:
    (held,) = _of(study).ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    for series in list(held.RTReferencedSeriesSequence)[:1]:
        for k in range(20):
            image = deepcopy(series.ContourImageSequence[0])
            image.ReferencedSOPInstanceUID = uid("never", k)
            series.ContourImageSequence.append(image)


def _second_series(study: Study) -> list[Dataset]:
    """Add a series at the same positions, with other HU."""
    series = uid("second series")
    second = []
    for dataset in study.ct[:12]:
        other = rename(deepcopy(dataset), uid("second", dataset.SOPInstanceUID), SeriesInstanceUID=series)
        store(other, stored(dataset) + 30)
        second.append(other)
    study.beside += second
    return second


def _listed_too(study: Study, second: list[Dataset]) -> None:
    (held,) = _of(study).ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    if not held.RTReferencedSeriesSequence:
        raise Unfit  # only the second series would be listed: the file would say that it was drawn there
    held.RTReferencedSeriesSequence.append(listing(second[0].SeriesInstanceUID, second))


@changes("contours", _REFUSED)
def two_series_listed_and_none_named(study: Study) -> None:
    _listed_too(study, _second_series(study))
    contours_name_none(study)


@changes("contours")
def organs_on_another_series(study: Study) -> None:
    second = _second_series(study)
    _listed_too(study, second)
    organ = []
    for dataset in second:
        contour = deepcopy(_tumours(study)[0])
        z = float(dataset.ImagePositionPatient[2])
        middle = [float(places.mean()) for places in study.truth.places[::-1]]
        _draw(contour, np.array([[middle[0] + a, middle[1] + b, z] for a, b in ((-9, -8), (9, -8), (9, 9), (-9, 9))]))
        of = Dataset()
        of.ReferencedSOPClassUID, of.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        contour.ContourImageSequence = [of]
        organ.append(contour)
    _another(study, "Heart", organ)


@changes("contours")
def another_series_listed_first(study: Study) -> None:
    _listed_too(study, _second_series(study))
    (held,) = _of(study).ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    held.RTReferencedSeriesSequence = list(held.RTReferencedSeriesSequence)[::-1]


@changes("contours")
def nodes_beside(study: Study) -> None:
    moved = deepcopy(_tumours(study)[1:4])
    for contour in moved:
        _draw(contour, _points(contour) + np.array([7, 3, 0]))
    _another(study, "GTVn 4R", moved, "GTV")


@changes("contours", _REFUSED)
def a_second_tumour_of_the_same_name(study: Study) -> None:
    moved = deepcopy(_tumours(study))
    for contour in moved:
        _draw(contour, _points(contour) + np.array([6, 0, 0]))
    _another(study, _of(study).StructureSetROISequence[0].ROIName.lower(), moved, "GTV")
    study.nothing_is_right()


@changes("contours", _EITHER)
def two_items_of_contours(study: Study) -> None:
    roi = _of(study)
    first = roi.ROIContourSequence[0]
    other = deepcopy(first)
    first.ContourSequence, other.ContourSequence = list(first.ContourSequence)[:3], list(other.ContourSequence)[3:]
    roi.ROIContourSequence.insert(1, other)


@changes("contours", _EITHER)
def rejected(study: Study) -> None:
    _of(study).ApprovalStatus = "REJECTED"
    study.nothing_is_right()


@changes("contours")
def unapproved(study: Study) -> None:
    if _of(study).get("ApprovalStatus") == "REJECTED":
        raise Unfit("it would be rejected no more")
    _of(study).ApprovalStatus = "UNAPPROVED"


@changes("contours", _EITHER)
def region_without_a_frame_of_reference(study: Study) -> None:
    for described in _of(study).StructureSetROISequence:
        without(described, "ReferencedFrameOfReferenceUID")


@changes("contours", _REFUSED)
def contours_in_another_frame_of_reference(study: Study) -> None:
    for described in _of(study).StructureSetROISequence:
        described.ReferencedFrameOfReferenceUID = uid("another frame")


@changes("contours")
def name_of_blanks_and_capitals(study: Study) -> None:
    _of(study).StructureSetROISequence[0].ROIName = " Gtv_1 "


@changes("contours", _REFUSED)
def name_says_nothing(study: Study) -> None:
    for number, described in enumerate(_of(study).StructureSetROISequence, start=7):  # all, so that no name helps
        described.ROIName = f"ROI {number}"
