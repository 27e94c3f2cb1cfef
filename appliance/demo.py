"""A phantom study as DICOM, and one run of the real daemon over it: ``lungstage demo``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from appliance import phantom
from appliance.database import Database
from appliance.errors import Refused, Unavailable
from appliance.job import Job, JobState
from appliance.ledger import Ledger

Mask = npt.NDArray[np.bool_]

_INTERCEPT = -1024
_PATIENT_ID = "LUNGSTAGE-PHANTOM"
_TIMEOUT = 60.0  # seconds; the daemon needs about two


def ct_datasets(volume: hd.Volume, study: str, thickness: float | None = None) -> list[Dataset]:
    """Make the CT slices of a volume.

    Parameters
    ----------
    volume
        (slices, rows, columns) in whole HU.
    study
        A name that every UID of the study follows from.
    thickness
        Slice Thickness in mm; the slice spacing where it is not given.
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


def segmentation(slices: list[Dataset], mask: Mask, label: str = "Tumour") -> hd.seg.Segmentation:
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


def write_phantom_study(folder: Path) -> tuple[Path, ...]:
    """Write the phantom as a CT series and a SEG.

    Returns
    -------
    tuple of Path
        The SEG first, then the slices.
    """
    volume, mask = phantom.make()
    slices = ct_datasets(volume, phantom.NAME)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, dataset in [("seg", segmentation(slices, mask)), *((f"ct-{k:03}", d) for k, d in enumerate(slices))]:
        paths.append(folder / f"{name}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return tuple(paths)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the ledger says became of the study, the title of the report as it was read back, and the time it took."""

    outcome: dict[str, Any]
    title: str
    seconds: float


@contextmanager
def _daemon(inbox: Path, outbox: Path, state: Path, bundle: Path) -> Iterator[subprocess.Popen[str]]:
    """Run ``lungstage run`` until the block ends, from its ``ready`` on."""
    command = [sys.executable, "-m", "appliance.cli", "run"]
    command += ["--inbox", str(inbox), "--outbox", str(outbox), "--state", str(state), "--bundle", str(bundle)]
    quiet = os.environ | {"LUNGSTAGE_LOG_LEVEL": "WARNING"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet) as process:  # noqa: S603  (our own command)
        try:
            if process.stdout is None or process.stdout.readline().strip() != "ready":
                raise Unavailable("The daemon did not start.")
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=_TIMEOUT)


def run_demo(bundle: Path, folder: Path) -> DemoResult:
    """Send the phantom study through the daemon and read the report back.

    Parameters
    ----------
    bundle
        The model bundle.
    folder
        Holds ``inbox``, ``outbox`` and ``state`` afterwards.

    Raises
    ------
    Unavailable
        The daemon does not start, or no report appears.
    Refused
        The study was refused; the reason says why.
    """
    inbox, outbox, state = (folder / name for name in ("inbox", "outbox", "state"))
    for path in (inbox, outbox, state):
        path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = write_phantom_study(Path(scratch))
        with _daemon(inbox, outbox, state, bundle) as process:
            for file in files:
                shutil.copy(file, inbox / file.name)
            start = time.monotonic()
            while (job := _finished(state)) is None:
                if process.poll() is not None or time.monotonic() - start > _TIMEOUT:
                    raise Unavailable("No structured report appeared; `lungstage jobs` on the state folder says why.")
                time.sleep(0.05)
            seconds = time.monotonic() - start
    if job.sr_path is None or job.outcome is None:
        raise Refused(job.reason.code, job.reason.message) if job.reason else Unavailable("The report is not there.")
    report = hd.sr.srread(job.sr_path)
    return DemoResult(
        dict(job.outcome) | {"sr": job.sr_path}, str(report.ConceptNameCodeSequence[0].CodeMeaning), seconds
    )


def _finished(state: Path) -> Job | None:
    """Return the phantom's job once it is delivered or refused."""
    with Database(state / "ledger.sqlite") as database:
        jobs = Ledger(database).jobs()
    return next((job for job in jobs if job.state in (JobState.DELIVERED, JobState.REFUSED)), None)
