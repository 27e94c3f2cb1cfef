"""IBSI's digital phantom: values that 25 teams agreed on, held against what this machine computes.

Zwanenburg et al., Radiology 2020, 295(2):328-338. The phantom is not part of lungstage; docs/commissioning.md
says where it is to be had. The whole comparison, with the CT and every aggregation, is docs/ibsi.md.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.commissioning.ibsi_tags import TAGS
from lungstage.appliance.commissioning.plan import IbsiFiles, PlanError
from lungstage.appliance.commissioning.verdict import Cell, Check, Verdict
from lungstage.appliance.radiomics import parameters
from lungstage.appliance.radiomics.extract import extract

_SETTING = "setting: {binWidth: 1}"
# Three-dimensional matrices, features averaged over their directions: what PyRadiomics does if not told otherwise.
_AGGREGATIONS = {"glcm": "_3D_avg", "glrlm": "_3D_avg", "glszm": "_3D", "gldm": "_3D", "ngtdm": "_3D"}


def check_digital_phantom(files: IbsiFiles) -> Check:
    """Measure the digital phantom, and hold every feature that IBSI defines to its consensus value.

    Raises
    ------
    PlanError
        A file of it cannot be read.
    """
    volume, mask = read_nifti(files.image, files.mask)
    published = read_consensus(files.values)
    measured = extract(volume, mask, parameters.parse(_SETTING)).as_dict()
    missed: list[dict[str, Cell]] = []
    for feature, tag in TAGS.items():
        whole_tag = tag + _AGGREGATIONS.get(feature.partition("_")[0], "")
        ours = measured[f"original_{feature}"]
        if whole_tag not in published or ours is None:
            raise PlanError(f"The IBSI files are not those of the digital phantom: there is no {whole_tag}.")
        value, tolerance = published[whole_tag]
        if not agrees(as_ibsi_defines(feature, ours, int(mask.sum())), value, tolerance):
            missed.append({"feature": feature, "ours": ours, "consensus": value, "tolerance": tolerance})
    return Check(
        "IBSI digital phantom",
        Verdict.FAIL if missed else Verdict.PASS,
        f"{len(TAGS) - len(missed)} of {len(TAGS)} features agree with IBSI's consensus within its tolerance.",
        tuple(missed),
    )


def agrees(value: float, consensus: float, tolerance: float) -> bool:
    """Whether a value lies within the tolerance, rounded as the consensus is: to three significant digits or more."""
    digits = f"{consensus:g}".partition("e")[0].replace("-", "").replace(".", "").strip("0")
    rounded = float(f"{value:.{max(3, len(digits))}g}")
    return abs(rounded - consensus) <= tolerance + 1e-6 * abs(consensus)


def as_ibsi_defines(feature: str, value: float, voxels: int) -> float:
    """Put a value of PyRadiomics' into IBSI's definition, where the two differ to three digits on the phantom.

    PyRadiomics does not subtract 3 from the kurtosis, and divides the covariance of the voxels' places by n, not n - 1.
    """
    if feature == "firstorder_Kurtosis":
        return value - 3
    if feature in ("shape_LeastAxisLength", "shape_MinorAxisLength"):
        return value * math.sqrt(voxels / (voxels - 1))
    return value


def read_consensus(path: Path) -> Mapping[str, tuple[float, float]]:
    """Read consensus values and tolerances by tag; tags without consensus are left out."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=";"))[1:]
        return {tag: (float(value), float(tolerance)) for value, tolerance, tag in rows if value}
    except (OSError, ValueError) as error:
        raise PlanError(f"IBSI's consensus values in {path.name} cannot be read.") from error


def read_nifti(image: Path, mask: Path) -> tuple[hd.Volume, npt.NDArray[np.bool_]]:
    """Read an image in HU and its mask (slices, rows, columns)."""
    import SimpleITK as sitk

    try:
        voxels, label = sitk.ReadImage(str(image)), sitk.GetArrayFromImage(sitk.ReadImage(str(mask))) > 0
    except RuntimeError as error:
        raise PlanError(f"The images {image.name} and {mask.name} cannot be read.") from error
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = voxels.GetSpacing()[::-1]
    affine[3, 3] = 1
    hu = sitk.GetArrayFromImage(voxels).astype(np.int16)
    return hd.Volume(hu, affine, coordinate_system="PATIENT"), label
