"""Data for tests of report and segmentation: generated CT headers, a context, and the validators."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from lungstage.appliance.contract.case import KnownCovariates
from lungstage.appliance.contract.evidence import Answering, Estimate, PredictiveValue, Worth
from lungstage.appliance.contract.robustness import Robustness
from lungstage.appliance.contract.spec import DomainAssessment, Endpoint, FeatureVector, Stage, StagingResult
from lungstage.appliance.report.cohort import Cohort
from lungstage.appliance.report.structured_report import (
    BundleIdentity,
    ReportContext,
    RoiSource,
    SegmentReference,
    build_report,
    build_segmentation,
)

FEATURES = (
    "original_shape_MajorAxisLength",
    "original_shape_SurfaceVolumeRatio",
    "original_shape_Maximum2DDiameterSlice",
    "original_firstorder_Mean",
    "original_firstorder_Kurtosis",
    "original_firstorder_90Percentile",
    "original_firstorder_Variance",
    "original_firstorder_TotalEnergy",
    "original_firstorder_Entropy",
    "original_glcm_Idmn",
    "original_glcm_MCC",
    "original_gldm_LargeDependenceEmphasis",
    "original_glrlm_RunVariance",
    "original_glszm_ZoneVariance",
    "original_ngtdm_Coarseness",
)
SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_TILT = np.deg2rad(25)
OBLIQUE = (float(np.cos(_TILT)), float(np.sin(_TILT)), 0.0, 0.0, 0.0, -1.0)


def generated_sources(
    count: int = 7, orientation: tuple[float, ...] = AXIAL, drop: tuple[str, ...] = (), **attributes: Any
) -> tuple[Dataset, ...]:
    """CT headers as read from a disk: they are written and read again."""
    normal = np.cross(orientation[:3], orientation[3:])
    sources = []
    for index in range(count):
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID = f"1.2.3.4.{index + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200102", "030405", "S1", "A1"
        ds.PatientName, ds.PatientID, ds.PatientSex, ds.PatientBirthDate = "Müller^Jürgen", "P-17", "M", "19500102"
        ds.ReferringPhysicianName, ds.Modality, ds.Manufacturer, ds.KVP = "", "CT", "Maker", 120
        ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, index + 1
        ds.PositionReferenceIndicator, ds.Laterality, ds.PatientPosition = "", "", "HFS"
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 24, 32, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleIntercept, ds.RescaleSlope = 0, 1
        ds.PixelSpacing, ds.SliceThickness = [0.75, 0.5], 2.5
        ds.ImageOrientationPatient = [round(v, 12) for v in orientation]
        ds.ImagePositionPatient = [round(float(v), 9) for v in np.array([-90.5, 12.25, -300.0]) + 2.5 * index * normal]
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        for keyword in drop:
            delattr(ds, keyword)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        sources.append(reread(ds))
    return tuple(sources)


def reread(dataset: Dataset) -> pydicom.FileDataset:
    """Write a dataset and read it again, so that it is what other readers get."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def ellipsoid(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """A generated tumour; its largest slice is not the middle one."""
    center = [(0.55 if axis == 0 else 0.4) * (size - 1) for axis, size in enumerate(shape)]
    radius = [max(0.4 * shape[0], 0.6), 0.2 * shape[1], 0.25 * shape[2]]
    grid = np.indices(shape)
    squares = [((grid[axis] - center[axis]) / radius[axis]) ** 2 for axis in range(3)]
    return np.asarray(sum(squares) <= 1.0)


ANSWERING = Answering(
    0.6125, False, 0.5, 0.7, predictive_value=PredictiveValue(Estimate(0.784, 0.661, 0.871), 98, 62), is_known=True
)
WORTH = Worth(Estimate(0.704, 0.621, 0.78), True, "sphericity_volume", Estimate(0.753, 0.676, 0.826), False)


def cohort(values: Sequence[float] | None = None, names: Sequence[str] = FEATURES, **changes: Any) -> Cohort:
    """A cohort with features from -1 to 1, or around `values` if these are given."""
    spread = np.array([-1.0, -0.9, -0.7, -0.3, 0.0, 0.3, 0.7, 0.9, 1.0])
    centres = np.zeros(len(names)) if values is None else np.array(values)
    widths = np.where(centres == 0, 1.0, np.abs(centres))
    quantiles = {
        name: tuple((centre + width * spread).tolist())
        for name, centre, width in zip(names, centres, widths, strict=True)
    }
    return Cohort(**{"shares": SHARES, "quantiles": quantiles, "open_between": (0.5, 0.7), **changes})


def made_up_context(sources: tuple[Dataset, ...], **changes: Any) -> ReportContext:
    """A context with generated numbers over twenty orders of magnitude."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=len(FEATURES)) * 10.0 ** rng.integers(-10, 11, len(FEATURES))
    parts: dict[str, Any] = {
        "sources": sources,
        "mask": ellipsoid((len(sources), sources[0].Rows, sources[0].Columns)),
        "roi_name": "GTV-1",
        "sites": (codes.SCT.Lung,),
        "segmentation": None,
        "roi_source": RoiSource(RTStructureSetStorage, "1.2.3.6.1", "1.2.3.6", "1.2.3"),
        "features": FeatureVector(FEATURES, values),
        "result": StagingResult(
            stage=Stage.ADVANCED,
            probability_advanced=0.8123456789123456,
            contributions=dict(zip(FEATURES, rng.normal(size=len(FEATURES)).tolist(), strict=True)),
            domain=DomainAssessment(distance=2.345, neighbour_distance=0.789, outside=("original_glcm_Idmn",)),
            answering=ANSWERING,
            robustness=Robustness(30, 29, (0.7123456789, 0.8923456789), 28 / 29, dict.fromkeys(FEATURES, 0.123456789)),
        ),
        "bundle": BundleIdentity(
            name="lung1-stage",
            version="1.0.0",
            digest="ab" * 32,
            cohort="NSCLC-Radiomics",
            rows=160,
            prevalence_advanced=0.6125,
            stages_absent=("IV",),
            licence="CC BY-NC 3.0 training data",
            intended_use="Research on primary lung tumours in CT.",
            settings=("binWidth=25", "interpolator=sitkLinear"),
            alpha=0.2,
            worth=WORTH,
            coverage=(0.698, 0.895),
        ),
        "identity": "cd" * 32,
        "created": datetime(2024, 5, 6, 7, 8, 9, 123000, timezone(timedelta(hours=2))),
        "warnings": ("The contours were matched by geometry.",),
        "software_version": "0.1.0",
    }
    features = {**parts, **changes}["features"]
    measured = np.where(np.isfinite(features.values), features.values, 0.0)
    return ReportContext(**{**parts, "cohort": cohort(measured.tolist(), features.names), **changes})


def _with_nan() -> FeatureVector:
    values = made_up_context(generated_sources()).features.values.copy()
    values[3], values[9] = np.nan, np.inf
    return FeatureVector(FEATURES, values)


WITH_NAN = _with_nan()
BARE: dict[str, Any] = {"features": WITH_NAN, "finding": None, "sites": (), "others": ((2, "GTV-2"),)}
"""Features that failed, and a source that gives neither the region's finding nor its site."""

SURVIVAL = Endpoint("two-year survival", "alive", "dead")
COVARIATES = KnownCovariates({"age": 63.25, "histology": "adenocarcinoma"}, ("sex",), ())


def of_survival(context: ReportContext) -> ReportContext:
    """Change a context to another endpoint, with covariates."""
    shares = context.result.contributions | {"age": 0.5, "sex": 0.0, "histology": -0.25}
    result = replace(context.result, prevalence=0.2, contributions=shares)
    return replace(context, result=result, bundle=replace(context.bundle, endpoint=SURVIVAL), covariates=COVARIATES)


def write_both(context: ReportContext, folder: Path) -> tuple[Path, Path]:
    """Segmentation and report of `context`, on disk."""
    segmentation = build_segmentation(context)
    report = build_report(context, SegmentReference(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1))
    paths = folder / "seg.dcm", folder / "sr.dcm"
    segmentation.save_as(paths[0], enforce_file_format=True)
    report.save_as(paths[1], enforce_file_format=True)
    return paths


def run_tool(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a validator, or skip the test if it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, check=False)


def dciodvfy_errors(path: Path) -> set[str]:
    """Error lines of David Clunie's dciodvfy (Debian dicom3tools)."""
    done = run_tool("dciodvfy", str(path))
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


KNOWN_OF_PIXELMED = (
    # If one group is planar, it checks every group by TID 1410, although a group declares another template.
    'Template 1410 PlanarROIMeasurements/[Row 1] CONTAINER (125007,DCM,"Measurement Group")/[Row 5] SCOORD',
    'Template 1410 PlanarROIMeasurements/[Row 1] CONTAINER (125007,DCM,"Measurement Group")/[Row 7] IMAGE',
)


def pixelmed_errors(path: Path) -> list[str]:
    """Error lines of PixelMed's DicomSRValidator (Debian libpixelmed-java)."""
    jar = Path("/usr/share/java/pixelmed.jar")
    if not jar.is_file():
        pytest.skip("pixelmed.jar is not installed")
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]  # it spends most of its 15 s on compiling its style sheet
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprOp", "ExprGrp", "TotalOp")]
    done = run_tool("java", *quick, *limits, "-cp", str(jar), "com.pixelmed.validate.DicomSRValidator", str(path))
    lines = (done.stdout + done.stderr).splitlines()
    assert "Root Template Validation Complete" in lines
    return [line for line in lines if line.startswith("Error")]


def tid1500reader(path: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Read `path` with dcmqi's tid1500reader into the JSON file `output`."""
    tool = os.environ.get("LUNGSTAGE_TID1500READER", "tid1500reader")
    return run_tool(tool, "--inputDICOM", str(path), "--outputMetadata", str(output))
