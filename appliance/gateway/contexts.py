"""The SOP Classes and transfer syntaxes that are accepted and sent, for presentation contexts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from lungstage.appliance.dicom.instance import LABEL_MAP_SEGMENTATION_STORAGE
from lungstage.appliance.dicom.multiframe import ENHANCED_CT

VERIFICATION: Final = UID("1.2.840.10008.1.1")
COMMITMENT: Final = UID("1.2.840.10008.1.20.1")
"""Storage Commitment Push Model."""
COMMITMENT_INSTANCE: Final = UID("1.2.840.10008.1.20.1.1")
"""Its well-known instance."""

_NATIVE: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_COMPRESSED: Final = tuple(
    UID(f"1.2.840.10008.1.2.{rest}")
    for rest in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.201", "4.202", "4.203", "5")
)
PIXELS: Final = (*_NATIVE, *_COMPRESSED)
"""Transfer syntaxes whose pixels the appliance can read."""

RECEIVED: Final[Mapping[UID, tuple[UID, ...]]] = MappingProxyType(
    {
        CTImageStorage: PIXELS,
        **{UID(uid): PIXELS for uid in sorted(ENHANCED_CT)},
        SegmentationStorage: PIXELS,
        LABEL_MAP_SEGMENTATION_STORAGE: PIXELS,
        RTStructureSetStorage: _NATIVE,
    }
)
"""Accepted objects: transfer syntaxes by SOP Class."""

SENT: Final[Mapping[str, UID]] = MappingProxyType(
    {
        "sr": Comprehensive3DSRStorage,
        "seg": SegmentationStorage,
        "pdf": EncapsulatedPDFStorage,
        "sc": SecondaryCaptureImageStorage,
    }
)
"""SOP Classes of sent documents, all in Explicit VR Little Endian as in the outbox."""


def is_taken(sop_class_uid: str, transfer_syntax_uid: str) -> bool:
    """Whether an object of this kind is accepted."""
    return UID(transfer_syntax_uid) in RECEIVED.get(UID(sop_class_uid), ())
