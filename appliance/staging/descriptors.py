"""What a radiologist would say of the region that was measured: on the slices' own voxels, and apart from the model."""

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
_AXIAL: Final = "HPL"  # the directions that slices, rows and columns follow one another in
_DIGITS: Final = 9  # beyond what two machines share


def describe_measured(measurement: Measurement) -> Descriptors:
    """Describe the region of a measurement, on the reference volume as the scanner made it."""
    voxels = measurement.voxels
    return describe_placed(voxels.volume, measurement.mask, contrast=_contrast(voxels.datasets[0]))


def describe_placed(volume: hd.Volume, mask: Mask, *, contrast: bool | None = None) -> Descriptors:
    """Describe a region of a volume whose axes may follow one another in any order.

    Parameters
    ----------
    volume, mask
        Of one shape; the volume says how it lies in the patient.
    contrast
        Whether contrast medium was given; None where that is not known.
    """
    if "".join(way.value for way in volume.get_closest_patient_orientation()) != _AXIAL:
        volume, marked = (
            hd.Volume(array, volume.affine, coordinate_system="PATIENT").to_patient_orientation(_AXIAL)
            for array in (volume.array, mask.astype(np.uint8))
        )
        mask = marked.array.astype(bool)
    return describe(volume, mask, contrast=contrast)


def _contrast(header: Dataset) -> bool | None:
    """Whether contrast medium was given (DICOM PS3.3 C.7.6.4); None where the header does not say.

    The module is left out where none was given, and by scanners that do not know. Its agent may be empty, and then
    says nothing.
    """
    agent = str(header.get("ContrastBolusAgent") or "").strip().upper()
    if agent not in _NO_AGENT or header.get("ContrastBolusAgentSequence"):
        return True
    return False if agent else None


def digest(found: Descriptors) -> bytes:
    """Digest what was found and by which definitions, so that other descriptors make other documents."""
    lines = [repr(DEFINITIONS), found.source, repr(found.unfit), *(repr(_rounded(one)) for one in found.found)]
    return hashlib.sha256("\n".join(lines).encode()).digest()


def _rounded(one: Descriptor) -> tuple[object, ...]:
    value = f"{one.value:.{_DIGITS}g}" if isinstance(one.value, float) else one.value
    return one.definition.name, value, one.word, one.percentile, one.badge, one.reason, one.caveats
