"""IBSI's digital phantom: compare the values that 25 teams agreed on with those that this machine computes.

Zwanenburg et al., Radiology 2020, 295(2):328-338. The phantom is not part of lungstage; docs/commissioning.md says
where to download it. docs/ibsi.md contains the whole comparison, with the CT and every aggregation.
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
# The default of PyRadiomics: three-dimensional matrices, features averaged over directions.
_AGGREGATIONS = {"glcm": "_3D_avg", "glrlm": "_3D_avg", "glszm": "_3D", "gldm": "_3D", "ngtdm": "_3D"}


def check_digital_phantom(files: IbsiFiles) -> Check:
    """Measure the digital phantom, and compare every feature that IBSI defines with its consensus value.

    Raises
    ------
    PlanError
        A file of the phantom cannot be read.
    """
    volume, mask = read_nifti(files.image, files.mask)
    published = read_consensus(files.values)
    measured = extract(volume, mask, parameters.parse(_SETTING)).as_dict()
    missed: list[dict[str, Cell]] = []
    for feature, tag in TAGS.items():
        whole_tag = tag + _AGGREGATIONS.get(feature.partition("_")[0], "")
        ours = measured[f"original_{feature}"]
        if whole_tag not in published or ours is None:
            raise PlanError(
                f"The files in [ibsi] are not those of the digital phantom: there is no {whole_tag}. Use the files "
                "that docs/commissioning.md names."
            )
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
    """Whether a value is within the tolerance, rounded like the consensus: to three significant digits or more."""
    digits = f"{consensus:g}".partition("e")[0].replace("-", "").replace(".", "").strip("0")
    rounded = float(f"{value:.{max(3, len(digits))}g}")
    return abs(rounded - consensus) <= tolerance + 1e-6 * abs(consensus)


def as_ibsi_defines(feature: str, value: float, voxels: int) -> float:
    """Convert a value of PyRadiomics to IBSI's definition, if the two differ in three digits on the phantom.

    PyRadiomics does not subtract 3 from the kurtosis. It divides the covariance of the voxels' positions by n, not
    n - 1.
    """
    if feature == "firstorder_Kurtosis":
        return value - 3
    if feature in ("shape_LeastAxisLength", "shape_MinorAxisLength"):
        return value * math.sqrt(voxels / (voxels - 1))
    return value


def read_consensus(path: Path) -> Mapping[str, tuple[float, float]]:
    """Read consensus values and tolerances by tag; tags without a consensus are left out."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=";"))[1:]
        return {tag: (float(value), float(tolerance)) for value, tolerance, tag in rows if value}
    except (OSError, ValueError) as error:
        raise PlanError(
            f"IBSI's consensus values in {path.name} cannot be read. Check the path and the file."
        ) from error


def read_nifti(image: Path, mask: Path) -> tuple[hd.Volume, npt.NDArray[np.bool_]]:
    """Read an image in HU and its mask (slices, rows, columns)."""
    import SimpleITK as sitk

    try:
        voxels, label = sitk.ReadImage(str(image)), sitk.GetArrayFromImage(sitk.ReadImage(str(mask))) > 0
    except RuntimeError as error:
        raise PlanError(
            f"The images {image.name} and {mask.name} cannot be read. Check the paths and the files."
        ) from error
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = voxels.GetSpacing()[::-1]
    affine[3, 3] = 1
    hu = sitk.GetArrayFromImage(voxels).astype(np.int16)
    return hd.Volume(hu, affine, coordinate_system="PATIENT"), label
