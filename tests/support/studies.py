"""Small generated studies for the tests: CT, RTSTRUCT and SEG that a test can change in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from lungstage.appliance.staging.phantom import ct_datasets, segmentation

Polygon = Sequence[tuple[float, float]]  # (row, column) in pixel units, the centre of the first pixel at (0, 0)

SQUARE: Polygon = ((12.5, 14.5), (12.5, 30.5), (27.5, 30.5), (27.5, 14.5))
AROUND: Polygon = ((6.5, 8.5), (6.5, 38.5), (33.5, 38.5), (33.5, 8.5))
ROI_SLICES = range(3, 9)


def volume(
    shape: tuple[int, int, int] = (12, 40, 48),
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.25),
    rotation: npt.NDArray[np.float64] | None = None,
) -> hd.Volume:
    """Tissue with texture in a lung; `rotation` turns the whole patient (3, 3)."""
    texture = np.random.default_rng(7).integers(-120, 80, size=shape)
    _, y, x = np.indices(shape)
    inside = ((y - 20) / 9) ** 2 + ((x - 22) / 10) ** 2 < 1
    hu = np.where(inside, texture, -800 + texture // 4)
    affine = np.eye(4)
    turned = np.eye(3) if rotation is None else rotation
    affine[:3, 0] = turned @ [0, 0, spacing[0]]
    affine[:3, 1] = turned @ [0, spacing[1], 0]
    affine[:3, 2] = turned @ [spacing[2], 0, 0]
    affine[:3, 3] = turned @ [-21.25, 33.5, -120.0]
    return hd.Volume(hu.astype(np.int16), affine, coordinate_system="PATIENT", frame_of_reference_uid="1.2.826.0.1.77")


def patient_points(image: Dataset, polygon: Polygon) -> npt.NDArray[np.float64]:
    """Corners in LPS mm of a polygon drawn on `image`."""
    row, column = np.array(polygon, dtype=float).T
    orientation = np.array(image.ImageOrientationPatient, dtype=float)
    spacing = np.array(image.PixelSpacing, dtype=float)
    position = np.array(image.ImagePositionPatient, dtype=float)
    points: npt.NDArray[np.float64] = (
        position + np.outer(column * spacing[1], orientation[:3]) + np.outer(row * spacing[0], orientation[3:])
    )
    return points


def contour(image: Dataset, polygon: Polygon, *, reference: bool = True, shift: float = 0.0) -> Dataset:
    """One closed contour on `image`, moved `shift` mm along the slice normal."""
    orientation = np.array(image.ImageOrientationPatient, dtype=float)
    points = patient_points(image, polygon) + shift * np.cross(orientation[:3], orientation[3:])
    item = Dataset()
    if reference:
        of = Dataset()
        of.ReferencedSOPClassUID, of.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        item.ContourImageSequence = [of]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{value:.10g}" for value in points.ravel()]
    return item


def listing(series_instance_uid: str, images: Sequence[Dataset]) -> Dataset:
    """An item of the RT Referenced Series Sequence."""
    series = Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = series_instance_uid, []
    for image in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ContourImageSequence.append(item)
    return series


def list_series(roi: Dataset, *series: Dataset) -> None:
    """Replace the series that an RTSTRUCT lists."""
    (study,) = roi.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    study.RTReferencedSeriesSequence = list(series)


def contours_of(roi: Dataset) -> list[Dataset]:
    """Every contour of an RTSTRUCT."""
    return [contour for one in roi.ROIContourSequence for contour in one.ContourSequence]


def structure_set(slices: Sequence[Dataset], rois: dict[str, list[Dataset]], listed: Sequence[Dataset]) -> Dataset:
    """An RTSTRUCT with the given ROIs (name to contours), which lists `listed` as the images of its series."""
    first = slices[0]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    uid = generate_uid(entropy_srcs=[first.StudyInstanceUID, *sorted(rois)])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    for keyword in (
        "StudyInstanceUID",
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
    ):
        setattr(dataset, keyword, first[keyword].value)
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[uid, "series"])
    dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "TEST"
    study, frame = Dataset(), Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [listing(first.SeriesInstanceUID, listed)]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, item, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, first.FrameOfReferenceUID
        item.ReferencedROINumber, item.ContourSequence = number, contours
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType = "ORGAN"
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(item)
        dataset.RTROIObservationsSequence.append(observation)
    return dataset


@dataclass
class Study:
    """A generated study in memory; a test changes it, then writes it with :meth:`write`."""

    slices: list[Dataset]
    rois: list[Dataset] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write every object as a file with a neutral name; return `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for k, dataset in enumerate([*self.rois, *self.slices]):
            dataset.save_as(folder / f"{k:04}", enforce_file_format=True)
        return folder


def rtstruct_study(
    polygons: Callable[[int], list[Polygon]] = lambda _: [SQUARE],
    *,
    names: Sequence[str] = ("GTV-1",),
    on: Sequence[int] = ROI_SLICES,
    reference: bool = True,
    source: hd.Volume | None = None,
) -> Study:
    """CT and an RTSTRUCT; all its ROIs have the polygons that `polygons` gives for each slice in `on`."""
    slices = ct_datasets(volume() if source is None else source, "test study")
    contours = [contour(slices[k], polygon, reference=reference) for k in on for polygon in polygons(k)]
    return Study(slices, [structure_set(slices, dict.fromkeys(names, contours), slices)])


def square_mask(shape: tuple[int, int, int] = (12, 40, 48), on: Sequence[int] = ROI_SLICES) -> npt.NDArray[np.bool_]:
    """The voxels with their centres in :data:`SQUARE`."""
    mask = np.zeros(shape, dtype=bool)
    mask[list(on), 13:28, 15:31] = True
    return mask


def seg_study(mask: npt.NDArray[np.bool_] | None = None, *, source: hd.Volume | None = None) -> Study:
    """CT and a binary SEG of one segment."""
    slices = ct_datasets(volume() if source is None else source, "test study")
    return Study(slices, [segmentation(slices, square_mask() if mask is None else mask)])


def named_study(name: str) -> Study:
    """CT and an RTSTRUCT; all their UIDs follow from a name."""
    slices = ct_datasets(volume(), name)
    contours = [contour(slices[k], SQUARE) for k in ROI_SLICES]
    return Study(slices, [structure_set(slices, {"GTV-1": contours}, slices)])
