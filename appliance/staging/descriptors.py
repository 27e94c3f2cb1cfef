"""Compute the descriptors of the measured region on the slices' own voxels, independently of the model."""

from __future__ import annotations

import hashlib
from typing import Final

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from lungstage.appliance.descriptors.definitions import DEFINITIONS
from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.descriptors.values import Descriptor, Descriptors
from lungstage.appliance.staging.measure import Mask, Measurement

_NO_AGENT: Final = frozenset({"", "NO", "NONE", "N", "NO CONTRAST", "WITHOUT", "0"})
_AXIAL: Final = "HPL"  # directions in which slices, rows and columns ascend
_DIGITS: Final = 9  # significant digits that are equal on all machines


def describe_measured(measurement: Measurement) -> Descriptors:
    """Describe the region of a measurement, on the reference volume before resampling."""
    voxels = measurement.voxels
    return describe_placed(voxels.volume, measurement.mask, contrast=_contrast(voxels.datasets[0]))


def describe_placed(volume: hd.Volume, mask: Mask, *, contrast: bool | None = None) -> Descriptors:
    """Describe a region of a volume whose axes may have any order.

    Parameters
    ----------
    volume, mask
        Of the same shape; the volume's orientation in the patient is known.
    contrast
        Whether contrast medium was given; None if not known.
    """
    if "".join(way.value for way in volume.get_closest_patient_orientation()) != _AXIAL:
        volume, marked = (
            hd.Volume(array, volume.affine, coordinate_system="PATIENT").to_patient_orientation(_AXIAL)
            for array in (volume.array, mask.astype(np.uint8))
        )
        mask = marked.array.astype(bool)
    return describe(volume, mask, contrast=contrast)


def _contrast(header: Dataset) -> bool | None:
    """Whether contrast medium was given (DICOM PS3.3 C.7.6.4); None if the header does not say.

    A missing module does not decide: some scanners leave it out because no medium was given, others because they do
    not know. An empty agent does not decide either.
    """
    agent = str(header.get("ContrastBolusAgent") or "").strip().upper()
    if agent not in _NO_AGENT or header.get("ContrastBolusAgentSequence"):
        return True
    return False if agent else None


def digest(found: Descriptors) -> bytes:
    """Digest the descriptors and their definitions, so that other descriptors give other documents."""
    lines = [repr(DEFINITIONS), found.source, repr(found.unfit), *(repr(_rounded(one)) for one in found.found)]
    return hashlib.sha256("\n".join(lines).encode()).digest()


def _rounded(one: Descriptor) -> tuple[object, ...]:
    value = f"{one.value:.{_DIGITS}g}" if isinstance(one.value, float) else one.value
    return one.definition.name, value, one.word, one.percentile, one.badge, one.reason, one.caveats
