"""Write the phantom of :mod:`radiomics.phantom` as a DICOM study: a CT series and a SEG."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lungstage.appliance.radiomics.phantom import NAME, make

_INTERCEPT = -1024
_PATIENT_ID = "LUNGSTAGE-PHANTOM"


def ct_datasets(volume: hd.Volume, study: str, thickness: float | None = None) -> list[Dataset]:
    """Make the CT slices of a volume.

    Parameters
    ----------
    volume
        (slices, rows, columns) in whole HU.
    study
        A name from which all UIDs of the study are derived.
    thickness
        Slice Thickness in mm; by default the slice spacing.
    """
    spacing, position, direction = volume.spacing, volume.affine[:3, 3], volume.direction
    slices = []
    for k, plane in enumerate(volume.array):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        uid = generate_uid(entropy_srcs=[study, "image", str(k)])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=[study, "study"])
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[study, "series"])
        dataset.FrameOfReferenceUID = volume.frame_of_reference_uid
        dataset.PositionReferenceIndicator = ""
        dataset.PatientID, dataset.PatientName = _PATIENT_ID, "Phantom^Generated"
        dataset.PatientBirthDate, dataset.PatientSex = "", "O"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "1"
        dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
        dataset.PatientPosition = "HFS"
        dataset.Modality, dataset.Manufacturer = "CT", "Generated phantom"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, k + 1, 1
        dataset.BodyPartExamined, dataset.KVP = "CHEST", 120
        corner = position + k * spacing[0] * direction[:, 0]
        dataset.ImagePositionPatient = [f"{v:.10g}" for v in corner]
        dataset.ImageOrientationPatient = [f"{v:.10g}" for v in (*direction[:, 2], *direction[:, 1])]
        dataset.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[2]:.10g}"]
        dataset.SliceThickness = f"{thickness or spacing[0]:.10g}"
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = _INTERCEPT, 1, "HU"
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.PixelData = (plane.astype(np.int32) - _INTERCEPT).astype("<i2").tobytes()
        slices.append(dataset)
    return slices


def segmentation(slices: list[Dataset], mask: npt.NDArray[np.bool_], label: str = "Tumour") -> hd.seg.Segmentation:
    """Make the SEG of a mask (slices, rows, columns) drawn on `slices`, coded as a primary neoplasm."""
    study = slices[0].StudyInstanceUID
    description = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.NeoplasmPrimary,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    return hd.seg.Segmentation(
        source_images=slices,
        pixel_array=mask.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=generate_uid(entropy_srcs=[study, "seg-series"]),
        series_number=2,
        sop_instance_uid=generate_uid(entropy_srcs=[study, "seg"]),
        instance_number=1,
        manufacturer="Generated phantom",
        manufacturer_model_name="phantom",
        software_versions="1",
        device_serial_number="1",
    )


def write_study(folder: Path, study: str = NAME) -> tuple[Path, ...]:
    """Write the phantom as a CT series and a SEG.

    Parameters
    ----------
    folder
        The folder to write to.
    study
        A name from which all UIDs of the study are derived.

    Returns
    -------
    tuple of Path
        The SEG first, then the slices.
    """
    volume, mask = make()
    slices = ct_datasets(volume, study)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, dataset in [("seg", segmentation(slices, mask)), *((f"ct-{k:03}", d) for k, d in enumerate(slices))]:
        paths.append(folder / f"{name}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return tuple(paths)
