"""Contours that are made here: how a SEG says so, whether a person confirmed it, and which region it replaces.

A SEG is one of these where Manufacturer and Manufacturer's Model Name are :data:`MANUFACTURER` and :data:`MODEL_NAME`;
of any other, nothing here is read, whatever its Content Label or its references say. Why these attributes and no others
stands in docs/contour.md.
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
"""Another than that of reports, which are never taken for input."""

SUPERSEDED: Final = ("superseded-roi", "99LUNGSTAGE", "Region that this one supersedes")
"""Purpose of Reference of a predecessor: value, scheme and meaning; CIDs 7013 and 7202 may be extended."""


class Confirmation(StrEnum):
    """What the Content Label of a contour made here says of it."""

    DRAFT = "DRAFT"
    """Nobody has confirmed it."""
    CONFIRMED = "CONFIRMED"
    """A person has: the Content Creator, at the content's date and time."""


@dataclass(frozen=True, slots=True)
class RegionReference:
    """One region of an RTSTRUCT or SEG.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid
        Of the object; series and study empty where they are not said.
    number
        ROI Number or Segment Number.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    number: int


def confirmation(dataset: Dataset) -> Confirmation | None:
    """Say whether a contour that was made here is confirmed; None of an object that was made elsewhere.

    Whatever does not say wholly that it is confirmed, by whom, is a draft. The name alone may be missing where the file
    says that it was de-identified.
    """
    if text(dataset, "ManufacturerModelName") != MODEL_NAME or text(dataset, "Manufacturer") != MANUFACTURER:
        return None
    has_name = bool(text(dataset, "ContentCreatorName").strip("^= "))
    is_known = has_name or text(dataset, "PatientIdentityRemoved") == "YES"
    if text(dataset, "ContentLabel") == Confirmation.CONFIRMED and is_known:
        return Confirmation.CONFIRMED
    return Confirmation.DRAFT


def predecessors(dataset: Dataset) -> tuple[RegionReference, ...]:
    """Return the regions that a contour made here names as those that it supersedes; () of any other object."""
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
    """Series and study of every instance that the Common Instance Reference module lists."""
    own = text(dataset, "StudyInstanceUID")
    others = sequence(dataset, "StudiesContainingOtherReferencedInstancesSequence")
    for holder, study in ((dataset, own), *((item, text(item, "StudyInstanceUID")) for item in others)):
        for series in sequence(holder, "ReferencedSeriesSequence"):
            for item in sequence(series, "ReferencedInstanceSequence"):
                yield text(item, "ReferencedSOPInstanceUID"), (text(series, "SeriesInstanceUID"), study)
