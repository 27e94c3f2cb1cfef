"""Inputs to damage: real files of $LUNGSTAGE_DATA, real studies, and small generated studies of every kind."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, JPEGLSLossless

from lungstage.appliance.staging.phantom import ct_datasets
from tests.conftest import ROOT
from tests.support.enhanced import enhanced_rtstruct_study, enhanced_seg_study
from tests.support.studies import AROUND, ROI_SLICES, SQUARE, Study, contour, seg_study, structure_set, volume

Files = dict[str, bytes]

_LARGEST = 1_000_000  # bytes; larger files are left out
_REAL_STUDIES = ("dicom/lung1-001-slab", "ibsi/ct_phantom/dicom")


def data_folder() -> Path | None:
    """Return the folder of real data, if there is one."""
    folder = Path(os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


def _bytes(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _files(study: Study) -> Files:
    named = {f"ct-{k:02}": _bytes(dataset) for k, dataset in enumerate(study.slices)}
    return named | {f"roi-{k}": _bytes(dataset) for k, dataset in enumerate(study.rois)}


def _contoured(*, reference: bool = True, rotation: np.ndarray | None = None) -> Study:
    """Make a study with a tumour and, around it, an organ that must not be mistaken for it."""
    slices = ct_datasets(volume(rotation=rotation), "fuzzed study")
    rois = {
        name: [contour(slices[k], polygon, reference=reference) for k in ROI_SLICES]
        for name, polygon in (("GTV-1", SQUARE), ("Heart", AROUND))
    }
    return Study(slices, [structure_set(slices, rois, slices)])


def _in_syntax(study: Study, syntax: pydicom.uid.UID) -> Study:
    for dataset in (*study.slices, *study.rois):
        if not syntax.is_encapsulated:
            dataset.file_meta.TransferSyntaxUID = syntax
        elif "PixelData" in dataset:
            dataset.compress(syntax, generate_instance_uid=False)
    return study


def generated_studies() -> dict[str, Files]:
    """Make small studies; each of them is staged."""
    angle = np.deg2rad(8)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return {
        "contours": _files(_contoured()),
        "contours without references": _files(_contoured(reference=False)),
        "contours, oblique": _files(_contoured(rotation=tilt)),
        "contours, implicit": _files(_in_syntax(_contoured(), ImplicitVRLittleEndian)),
        "contours, JPEG-LS": _files(_in_syntax(_contoured(), JPEGLSLossless)),
        "segment": _files(seg_study()),
        "Enhanced CT, contours": _files(enhanced_rtstruct_study(single=_contoured())),
        "Enhanced CT, segment": _files(enhanced_seg_study()),
    }


def real_studies() -> dict[str, Files]:
    """Return real patients that are staged; none if the data are absent."""
    folder = data_folder()
    studies: dict[str, Files] = {}
    for name in _REAL_STUDIES if folder else ():
        files = [p.read_bytes() for p in sorted((folder / name).rglob("*")) if p.is_file()]  # type: ignore[operator]
        files = [content for content in files if content[128:132] == b"DICM"]
        studies[name] = {}
        for number, content in enumerate(files):
            sop_class = pydicom.dcmread(io.BytesIO(content), specific_tags=["SOPClassUID"]).SOPClassUID
            studies[name][f"{'ct' if sop_class == CTImageStorage else 'roi'}-{number:02}"] = content
    return studies


def real_files() -> list[bytes]:
    """Return every real DICOM file of moderate size: hostile, compressed, SR, SEG, CT, RTSTRUCT."""
    folder = data_folder()
    found = []
    for part in ("hostile", "sr", "dicom", "ibsi") if folder else ():
        for path in sorted((folder / part).rglob("*")):  # type: ignore[operator]
            if path.is_file() and path.stat().st_size < _LARGEST:
                content = path.read_bytes()
                if content[128:132] == b"DICM":
                    found.append(content)
    return found
