"""Measure a NIfTI image and its mask as PyRadiomics does, and warn of what the files do not contain."""

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

_HU: Final = (-1024.0, 3071.0)  # the range of 12 bits at the usual rescale intercept
_AS_DICOM: Final = "HPL"  # directions in which slices, rows and columns of an axial CT ascend

NOT_AS_DICOM: Final = (
    "Resampling starts at the first voxel of the file and keeps its pixel type, as in PyRadiomics. With DICOM it "
    "starts at the slices of the region and uses whole HU. So DICOM would give other values (docs/nifti.md)."
)
NOT_DESCRIBED: Final = (
    "No descriptors are given. They need Hounsfield units, and a header that gives the orientation in the patient."
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
    """Measure the voxels of an image whose mask has a given label.

    Parameters
    ----------
    image, mask
        NIfTI files.
    spec, watch, save_volume
        As for :func:`staging.measure.measure`.
    label
        Of the mask; None means 1.
    describes
        Whether to compute descriptors, if the image's orientation and values allow it.

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
    """Whether no voxel is as low as lung or air. The same rule refuses a DICOM CT for a model."""
    return bool(pair.volume.array.min() > LUNG_HU[1])


def _name(label: int) -> str:
    return f"label {label}"


def _doubts(pair: NiftiPair, spec: ExtractionSpec) -> list[str]:
    """List why the values may be doubtful, or differ from those of DICOM."""
    volume, doubts = pair.volume, []
    inside = volume.array[pair.mask]
    if _is_no_ct(pair):
        doubts.append(
            f"All voxels of the image are above {LUNG_HU[1]}, but lung and air are below in Hounsfield units. The "
            "values may have another unit. They were measured unchanged."
        )
    elif inside.min() < _HU[0] or inside.max() > _HU[1]:
        doubts.append(
            f"The region contains values from {inside.min():g} to {inside.max():g}, but a CT has {_HU[0]:g} to "
            f"{_HU[1]:g} HU. They were measured unchanged."
        )
    if not pair.is_placed:
        doubts.append("The image header does not give the orientation in the patient. The file's axes were used.")
    ways = "".join(way.value for way in volume.get_closest_patient_orientation())
    if not all(way in pairs for way, pairs in zip(ways, ("HF", "AP", "LR"), strict=True)) and _knows_axes(spec):
        doubts.append(
            "The image is not stored in axial slices. In feature names, slice, row and column mean the file's axes."
        )
    if spec.resampled_spacing is not None:
        _, (slices, _, _) = bounds(pair.mask)
        is_whole = np.issubdtype(volume.array.dtype, np.integer)
        if ways != _AS_DICOM or slices.start > spec.margin_slices or not is_whole:
            doubts.append(NOT_AS_DICOM)
    return doubts


def _knows_axes(spec: ExtractionSpec) -> bool:
    """Whether any feature value depends on the order of the axes."""
    return any("Maximum2DDiameter" in name for name in spec.features) or bool(spec.settings.get("force2D"))
