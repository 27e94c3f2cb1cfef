"""Headers of DICOM instances: what lungstage needs of one instance, read from its dataset."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.acquisition import acquisition_of
from lungstage.appliance.dicom.contours import confirmation, predecessors
from lungstage.appliance.dicom.header import Header, ImageHeader, PixelData, RoiHeader
from lungstage.appliance.dicom.identity import patient_keys
from lungstage.appliance.dicom.multiframe import ENHANCED_CT, single_frames
from lungstage.appliance.dicom.pixeldata import CORRECT_WRITER, damaged
from lungstage.appliance.dicom.references import frame_numbers, source_images
from lungstage.appliance.dicom.values import (
    ElementError,
    directions,
    moment,
    number,
    sequence,
    text,
    texts,
    unfit,
    vector,
    whole,
)

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage (DICOM 2024c); pydicom 3.0 has no name for it yet."""

_UID = re.compile(r"[0-9.]{1,128}")  # more than the standard's 64 characters occur; letters are not accepted

_DATE = re.compile(r"[0-9]{8}")

_MOST_REFERENCES = 20_000
"""Largest number of series and images that a ROI object may refer to; the index keeps all of them.

Ten phases of a whole body have about 5,000.
"""

OWN_MODEL_NAME = "lungstage"
"""Manufacturer's Model Name of lungstage's documents. So lungstage never reads its own output as input."""


def _identity(dataset: Dataset, path: Path, digest: Any, key: bytes) -> dict[str, Any]:
    identity = {
        "path": path,
        "sop_class_uid": text(dataset, "SOPClassUID"),
        "sop_instance_uid": text(dataset, "SOPInstanceUID"),
        "series_instance_uid": text(dataset, "SeriesInstanceUID"),
        "study_instance_uid": text(dataset, "StudyInstanceUID"),
        "digest": digest.hexdigest(),
        **patient_keys(dataset, key),
        "study_date": _date(dataset, "StudyDate"),
    }
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        uid = text(dataset, keyword)
        if not _UID.fullmatch(uid):
            raise unfit(keyword, _why_no_uid(uid))
    return identity


def _why_no_uid(text: str) -> str:
    if not text:
        return "is missing"
    return (
        "is too long for a UID" if re.fullmatch("[0-9.]+", text) else "is not a UID: a UID has only digits and points"
    )


def _date(dataset: Dataset, keyword: str) -> str:
    """Return a Date (DA) as YYYY-MM-DD; empty if it is not a date, because it could be free text."""
    try:
        value = text(dataset, keyword)
        return datetime.strptime(value, "%Y%m%d").date().isoformat() if _DATE.fullmatch(value) else ""
    except Exception:  # a library may raise any error for bytes that it cannot decode; the file is still usable
        return ""


def _digest(*parts: Any) -> Any:
    """Digest the content, not the file: a PACS may write the same object with other bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest


def contour_data(contour: Dataset) -> bytes:
    """Return a contour's coordinates as the bytes of their decimal strings, for any encoding of the file."""
    element = contour.get_item("ContourData")
    if isinstance(element, RawDataElement):
        return bytes(element.value or b"").rstrip(b" \0")
    return "\\".join(str(value) for value in contour.get("ContourData") or ()).encode()


def image_header(dataset: Dataset, path: Path, pixels: PixelData, frame: int = 0, *, key: bytes = b"") -> ImageHeader:
    """Read the header of an image; `frame` is its number in an Enhanced CT."""
    geometry: dict[str, Any] = {
        "rows": whole(dataset, "Rows") or 0,
        "columns": whole(dataset, "Columns") or 0,
        "frames": 1 if (frames := whole(dataset, "NumberOfFrames")) is None else frames,
        "position": vector(dataset, "ImagePositionPatient", 3),
        "orientation": directions(dataset),
        "pixel_spacing": vector(dataset, "PixelSpacing", 2),
        "rescale": (number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")),
    }
    if None in geometry["rescale"]:
        geometry["rescale"] = ()
    encoding = tuple(whole(dataset, name) for name in ("BitsStored", "PixelRepresentation", "PixelPaddingValue"))
    digest = _digest(geometry, encoding, text(dataset, "FrameOfReferenceUID"))
    return ImageHeader(
        **_identity(dataset, path, digest, key),
        **geometry,
        frame=frame,
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID"),
        modality=text(dataset, "Modality"),
        image_type=texts(dataset, "ImageType"),
        body_part=text(dataset, "BodyPartExamined").upper(),
        slice_thickness=number(dataset, "SliceThickness"),
        spacing_between_slices=number(dataset, "SpacingBetweenSlices"),
        gantry_tilt=number(dataset, "GantryDetectorTilt"),
        pixel_digest=pixels.digest,
        pixel_span=pixels.span,
        acquisition=acquisition_of(dataset),
    )


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def as_uid(reference: str) -> str:
    """Return a UID unchanged; replace any other text by a derived UID that no object has.

    A reference can become a case's name in the log and the ledger, and free text could identify a patient. The
    reference must not be dropped either: a reference to something unknown differs from no reference.
    """
    if not reference or _UID.fullmatch(reference):
        return reference
    digest = hashlib.blake2b(reference.encode(errors="replace"), digest_size=16).digest()
    return f"2.25.{int.from_bytes(digest, 'big')}"


def _referenced(items: Iterable[Dataset]) -> tuple[str, ...]:
    return _unique(as_uid(text(item, "ReferencedSOPInstanceUID")) for item in items)


def _approval(dataset: Dataset) -> str:
    status = text(dataset, "ApprovalStatus").upper()
    return status if status in ("APPROVED", "UNAPPROVED", "REJECTED") else ""


def _bounded(header: RoiHeader) -> RoiHeader:
    """Refuse an object with more references than any study has images."""
    listed = sum(1 + len(instances) for _, instances in header.listed)
    count = len(header.image_references) + listed + len(header.supersedes)
    if count > _MOST_REFERENCES:
        raise Refused(
            ReasonCode.LIMITS_EXCEEDED,
            f"This {header.kind} refers to {count} images and series; at most {_MOST_REFERENCES} can be read. "
            "Export it with references only to the images of its series.",
        )
    return header


def _structure_set_header(dataset: Dataset, path: Path, key: bytes) -> RoiHeader:
    studies = [
        study
        for frame in sequence(dataset, "ReferencedFrameOfReferenceSequence")
        for study in sequence(frame, "RTReferencedStudySequence")
    ]
    series = [series for study in studies for series in sequence(study, "RTReferencedSeriesSequence")]
    rois, items = sequence(dataset, "StructureSetROISequence"), sequence(dataset, "ROIContourSequence")
    contours = [contour for item in items for contour in sequence(item, "ContourSequence")]
    frames = [frame_numbers(image) for c in contours for image in sequence(c, "ContourImageSequence")]
    offsets = [str(contour.get("ContourOffsetVector") or "") for contour in contours]
    observed = sequence(dataset, "RTROIObservationsSequence")
    digest = _digest(
        [[text(roi, k) for k in ("ROINumber", "ROIName", "ReferencedFrameOfReferenceUID")] for roi in rois],
        [(text(item, "ReferencedROINumber"), len(sequence(item, "ContourSequence"))) for item in items],
        [(text(contour, "ContourGeometricType"), contour_data(contour)) for contour in contours],
        [_referenced(sequence(contour, "ContourImageSequence")) for contour in contours],
        *([frames] if any(frames) else []),
        *([offsets] if any(offsets) else []),
        [[text(item, keyword) for keyword in ("ReferencedROINumber", "RTROIInterpretedType")] for item in observed],
        _approval(dataset),
    )
    return RoiHeader(
        **_identity(dataset, path, digest, key),
        kind="RTSTRUCT",
        frames_of_reference=_unique(text(roi, "ReferencedFrameOfReferenceUID") for roi in rois),
        listed=tuple(
            (as_uid(text(item, "SeriesInstanceUID")), _referenced(sequence(item, "ContourImageSequence")))
            for item in series
        ),
        image_references=_referenced(image for c in contours for image in sequence(c, "ContourImageSequence")),
        drawn_at=moment(dataset, "StructureSetDate", "StructureSetTime"),
        referenced_studies=_referenced(studies),
        approval=_approval(dataset),
    )


def _segmentation_header(dataset: Dataset, path: Path, pixels: PixelData | None, key: bytes) -> RoiHeader:
    groups = sequence(dataset, "PerFrameFunctionalGroupsSequence")
    named = _unique(as_uid(uid) for group in groups for uid, _ in source_images(group))
    made_here = confirmation(dataset)  # if so, it is in the CT's study; objects of other studies are predecessors
    supersedes = tuple((as_uid(one.sop_instance_uid), one.number) for one in predecessors(dataset))
    # Images of its own study are listed at the top level, those of other studies in a sequence (PS3.3 C.12.2).
    elsewhere = sequence(dataset, "StudiesContainingOtherReferencedInstancesSequence")
    listed = _without(
        {uid for uid, _ in supersedes},
        (
            (as_uid(text(item, "SeriesInstanceUID")), _referenced(sequence(item, "ReferencedInstanceSequence")))
            for holder in (dataset, *elsewhere)
            for item in sequence(holder, "ReferencedSeriesSequence")
        ),
    )
    if not (named or listed):
        # Some collections list the images only here, and no series (OHIF/Viewers#2017).
        sources = _referenced(sequence(dataset, "SourceImageSequence"))
        listed = (("", sources),) if sources else ()
    digest = _digest(
        [dataset.get(keyword) for keyword in ("Rows", "Columns", "BitsAllocated", "SegmentationType")],
        [str(item) for item in sequence(dataset, "SegmentSequence")],
        [str(item) for item in (*sequence(dataset, "SharedFunctionalGroupsSequence"), *groups)],
        "" if pixels is None else pixels.digest,
        _approval(dataset),
        *([str(made_here), supersedes] if made_here else []),
    )
    return RoiHeader(
        **_identity(dataset, path, digest, key),
        kind="SEG",
        frames_of_reference=_unique([text(dataset, "FrameOfReferenceUID")]),
        listed=listed,
        image_references=named,
        drawn_at=moment(dataset, "ContentDate", "ContentTime"),
        referenced_studies=_unique(as_uid(text(study, "StudyInstanceUID")) for study in elsewhere if not made_here),
        approval=_approval(dataset),
        confirmation=str(made_here or ""),
        supersedes=supersedes,
    )


def _without(
    instances: set[str], listed: Iterable[tuple[str, tuple[str, ...]]]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Leave out listed predecessors; they do not show on which series the contour was drawn."""
    if not instances:
        return tuple(listed)
    kept = ((series, tuple(uid for uid in uids if uid not in instances), bool(uids)) for series, uids in listed)
    return tuple((series, uids) for series, uids, named in kept if uids or not named)


def is_segmentation(dataset: Dataset) -> bool:
    """Whether this is a Segmentation: binary, fractional or a label map."""
    return text(dataset, "SOPClassUID") in (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE)


def headers_of(dataset: Dataset, path: Path, pixels: tuple[PixelData, ...], *, key: bytes = b"") -> tuple[Header, ...]:
    """Read the headers of an instance from its dataset.

    Parameters
    ----------
    dataset
        The instance, with or without its Pixel Data.
    path
        Path of its file.
    pixels
        Its Pixel Data: one item, or one per frame of an Enhanced CT; () if it has none.
    key
        Key of the hashes of the patient's identity.

    Returns
    -------
    tuple of ImageHeader or RoiHeader
        One per frame of an Enhanced CT, else one. None if the object is neither an image nor a ROI object, or if
        lungstage wrote it.

    Raises
    ------
    Refused
        ``dicom_unreadable``: elements cannot be parsed, or a required element is missing.
    """
    try:
        sop_class = text(dataset, "SOPClassUID")
        is_ct = sop_class == CTImageStorage or sop_class in ENHANCED_CT
        if not is_ct and text(dataset, "ManufacturerModelName") == OWN_MODEL_NAME:  # lungstage never writes a CT
            return ()
        if sop_class == RTStructureSetStorage:
            return (_bounded(_structure_set_header(dataset, path, key)),)
        if is_segmentation(dataset):
            return (_bounded(_segmentation_header(dataset, path, pixels[0] if pixels else None, key)),)
        if pixels and sop_class in ENHANCED_CT:
            frames = enumerate(single_frames(dataset, range(1, len(pixels) + 1)), start=1)
            return tuple(image_header(frame, path, pixels[number - 1], number, key=key) for number, frame in frames)
        if pixels:
            return (image_header(dataset, path, pixels[0], key=key),)
        if is_ct:
            raise damaged("This CT image has no Pixel Data (7FE0,0010). It may be incomplete.")
        directory = dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
        if not sop_class and not directory:
            raise damaged("This DICOM file has no SOP Class UID (0008,0016). It may be incomplete.")
    except Refused:
        raise
    except ElementError as error:
        raise damaged(str(error), CORRECT_WRITER) from error
    except Exception as error:  # from elements that are parsed late; the file is the cause
        raise damaged("This DICOM file cannot be parsed.") from error
    return ()
