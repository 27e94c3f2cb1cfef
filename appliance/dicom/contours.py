"""Contours made by lungstage: how a SEG marks them, whether a person confirmed them, and which region they replace.

A SEG is one of these if Manufacturer is :data:`MANUFACTURER` and Manufacturer's Model Name is :data:`MODEL_NAME`. In
other SEGs, Content Label and references are not interpreted here. docs/contour.md explains the choice of attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom.dataset import Dataset

from lungstage.appliance.dicom.values import sequence, text, whole

MANUFACTURER: Final = "lungstage"
MODEL_NAME: Final = "lungstage contour"
"""It differs from the model name of reports, which are never read as input."""

SUPERSEDED: Final = ("superseded-roi", "99LUNGSTAGE", "Region that this one supersedes")
"""Purpose of Reference of a predecessor: code value, scheme and meaning; CIDs 7013 and 7202 are extensible."""


class Confirmation(StrEnum):
    """State of a contour made by lungstage, in its Content Label."""

    DRAFT = "DRAFT"
    """No person has confirmed it."""
    CONFIRMED = "CONFIRMED"
    """A person has confirmed it: the Content Creator, at the content's date and time."""


@dataclass(frozen=True, slots=True)
class RegionReference:
    """One region of an RTSTRUCT or SEG.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid
        UIDs of the object; series and study are empty if they are not given.
    number
        ROI Number or Segment Number.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    number: int


def confirmation(dataset: Dataset) -> Confirmation | None:
    """Return whether a contour made by lungstage is confirmed; None for an object of other software.

    A contour is confirmed only if it is marked so and names the person. The name may be missing only if the file is
    marked as de-identified. Any other contour is a draft.
    """
    if text(dataset, "ManufacturerModelName") != MODEL_NAME or text(dataset, "Manufacturer") != MANUFACTURER:
        return None
    has_name = bool(text(dataset, "ContentCreatorName").strip("^= "))
    is_known = has_name or text(dataset, "PatientIdentityRemoved") == "YES"
    if text(dataset, "ContentLabel") == Confirmation.CONFIRMED and is_known:
        return Confirmation.CONFIRMED
    return Confirmation.DRAFT


def predecessors(dataset: Dataset) -> tuple[RegionReference, ...]:
    """Return the regions that a contour made by lungstage replaces; () for any other object."""
    if confirmation(dataset) is None:
        return ()
    places = dict(_places(dataset))
    named = []
    for keyword, number_keyword in (
        ("SourceInstanceSequence", "ReferencedROINumber"),
        ("SourceImageSequence", "ReferencedSegmentNumber"),
    ):
        for item in sequence(dataset, keyword):
            codes = sequence(item, "PurposeOfReferenceCodeSequence")
            purposes = [(text(code, "CodeValue"), text(code, "CodingSchemeDesignator")) for code in codes]
            uid, number = text(item, "ReferencedSOPInstanceUID"), whole(item, number_keyword)
            if SUPERSEDED[:2] in purposes and uid and number is not None:
                series, study = places.get(uid, ("", ""))
                named.append(RegionReference(text(item, "ReferencedSOPClassUID"), uid, series, study, number))
    return tuple(dict.fromkeys(named))


def _places(dataset: Dataset) -> Iterator[tuple[str, tuple[str, str]]]:
    """Series and study of every instance in the Common Instance Reference module."""
    own = text(dataset, "StudyInstanceUID")
    others = sequence(dataset, "StudiesContainingOtherReferencedInstancesSequence")
    for holder, study in ((dataset, own), *((item, text(item, "StudyInstanceUID")) for item in others)):
        for series in sequence(holder, "ReferencedSeriesSequence"):
            for item in sequence(series, "ReferencedInstanceSequence"):
                yield text(item, "ReferencedSOPInstanceUID"), (text(series, "SeriesInstanceUID"), study)
