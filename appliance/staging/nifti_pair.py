"""A NIfTI image and its mask to an outcome: measured as PyRadiomics would, with a word on what a file does not say."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.descriptors.values import Descriptors
from lungstage.appliance.radiomics.grid import bounds
from lungstage.appliance.radiomics.nifti import NiftiPair, read_pair
from lungstage.appliance.staging.descriptors import describe_placed
from lungstage.appliance.staging.intended_use import LUNG_HU
from lungstage.appliance.staging.measure import Stopwatch, measure_volume
from lungstage.appliance.staging.outcome import Outcome, outcome, roi_facts

_HU: Final = (-1024.0, 3071.0)  # what 12 bits hold at the usual rescale intercept
_AS_DICOM: Final = "HPL"  # the directions that an axial CT's slices, rows and columns follow one another in

NOT_AS_DICOM: Final = (
    "Resampling starts at the first voxel of the file and keeps its pixel type, as PyRadiomics has it. From DICOM it "
    "starts at the slices of the region, in whole HU, so the values of this tumour would be others (docs/nifti.md)."
)
NOT_DESCRIBED: Final = (
    "No descriptors are given: they need Hounsfield units, and an image that says how it lies in the patient."
)


def measure_pair(
    image: Path,
    mask: Path,
    spec: ExtractionSpec,
    watch: Stopwatch,
    *,
    label: int | None,
    save_volume: Path | None,
    describes: bool = True,
) -> Outcome:
    """Measure the voxels of an image that its mask gives a label.

    Parameters
    ----------
    image, mask
        NIfTI files.
    spec, watch, save_volume
        As for :func:`staging.measure.measure`.
    label
        Of the mask; None means 1.
    describes
        Whether it is said what a radiologist would say of the region, where the image's place and values allow it.

    Raises
    ------
    Refused, Unavailable, OSError
        See :func:`radiomics.nifti.read_pair` and :mod:`radiomics.extract`.
    """
    label = 1 if label is None else label
    with watch.step("read"):
        pair = read_pair(image, mask, label)
    _, features, told = measure_volume(pair.volume, pair.mask, spec, watch, save_volume=save_volume)
    others = [(other, _name(other)) for other in pair.others]
    descriptors: Descriptors | None = None
    why: tuple[str, ...] = ()
    if describes and pair.is_placed and not _is_no_ct(pair):
        with watch.step("descriptors"):
            descriptors = describe_placed(pair.volume, pair.mask)
    elif describes:
        why = (NOT_DESCRIBED,)
    warnings = (*_doubts(pair, spec), *why, *told)
    return outcome(status="measured", warnings=warnings, descriptors=descriptors) | {
        "features": features.as_dict(),
        "roi": roi_facts(_name(label), pair.mask, pair.volume.spacing, others),
    }


def _is_no_ct(pair: NiftiPair) -> bool:
    """Whether no voxel is as thin as lung or air, by the rule by which a model refuses a CT of DICOM."""
    return bool(pair.volume.array.min() > LUNG_HU[1])


def _name(label: int) -> str:
    return f"label {label}"


def _doubts(pair: NiftiPair, spec: ExtractionSpec) -> list[str]:
    """Say what makes the values doubtful, or others than DICOM's."""
    volume, doubts = pair.volume, []
    inside = volume.array[pair.mask]
    if _is_no_ct(pair):
        doubts.append(
            "No voxel of the image is as thin as lung or air, so its values may be no Hounsfield units. They were "
            "measured as they are."
        )
    elif inside.min() < _HU[0] or inside.max() > _HU[1]:
        doubts.append(
            f"The region holds values from {inside.min():g} to {inside.max():g}, and a CT has {_HU[0]:g} to "
            f"{_HU[1]:g} HU. They were measured as they are."
        )
    if not pair.is_placed:
        doubts.append("The image does not say how it lies in the patient; its axes were taken as they are.")
    ways = "".join(way.value for way in volume.get_closest_patient_orientation())
    if not all(way in pairs for way, pairs in zip(ways, ("HF", "AP", "LR"), strict=True)) and _knows_axes(spec):
        doubts.append(
            "The image is not stored in axial slices. What features call slice, row and column are the file's own axes."
        )
    if spec.resampled_spacing is not None:
        _, (slices, _, _) = bounds(pair.mask)
        is_whole = np.issubdtype(volume.array.dtype, np.integer)
        if ways != _AS_DICOM or slices.start > spec.margin_slices or not is_whole:
            doubts.append(NOT_AS_DICOM)
    return doubts


def _knows_axes(spec: ExtractionSpec) -> bool:
    """Whether any value depends on which axis is which."""
    return any("Maximum2DDiameter" in name for name in spec.features) or bool(spec.settings.get("force2D"))
