"""One DICOM file at a time: what it is, as a frozen header that can be remembered instead of read again."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from appliance.errors import ReasonCode, Refused, Unavailable

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage (DICOM 2024c), which pydicom 3.0 does not name yet."""

Vector = tuple[float, ...]

_MAX_INFLATED = 512 * 1024 * 1024  # bytes
_UID = re.compile(r"[0-9.]{1,128}")  # longer than the standard's 64 occurs, letters must not

OWN_MODEL_NAME = "lungstage"
"""Manufacturer's Model Name of what lungstage writes, so that it never takes its own output for input."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is needed of an image to place it in a series. Lengths in mm, positions in LPS.

    Attributes
    ----------
    path
        Where the file lies.
    digest
        Hex digest of pixel data and geometry: equal for two copies of the same image, whatever their headers say.
    patient_key
        Hash of the Patient ID; the identity itself is not kept.
    position, orientation, pixel_spacing
        Image Position (3), Image Orientation (6), Pixel Spacing (row, column), each () where absent or not finite.
    """

    path: Path
    digest: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_key: str
    frame_of_reference_uid: str
    modality: str
    image_type: tuple[str, ...]
    body_part: str
    rows: int
    columns: int
    frames: int
    position: Vector
    orientation: Vector
    pixel_spacing: Vector
    slice_thickness: float | None
    spacing_between_slices: float | None
    gantry_tilt: float | None
    rescale: Vector

    @property
    def is_ct_slice(self) -> bool:
        """Whether this is an ordinary single-frame CT image that is not a scout."""
        return self.sop_class_uid == CTImageStorage and "LOCALIZER" not in self.image_type and self.frames == 1


@dataclass(frozen=True, slots=True)
class RoiHeader:
    """What is needed of an RTSTRUCT or SEG to find the series that it belongs to.

    Attributes
    ----------
    listed
        (series, instances) of the lists that name whole series; they never say which slices are *needed*.
    image_references
        Instances that single contours or frames refer to.
    frames_of_reference
        Those in which the regions are defined.
    """

    path: Path
    digest: str
    kind: Literal["RTSTRUCT", "SEG"]
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_key: str
    frames_of_reference: tuple[str, ...]
    listed: tuple[tuple[str, tuple[str, ...]], ...]
    image_references: tuple[str, ...]


Header = ImageHeader | RoiHeader


def _unreadable(message: str) -> Refused:
    return Refused(ReasonCode.DICOM_UNREADABLE, message)


def looks_like_dicom(path: Path) -> bool:
    """Whether the file starts like a DICOM file (PS3.10: a preamble of 128 bytes, then ``DICM``)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dataset(path: Path) -> FileDataset:
    """Read a whole DICOM file and prove that none of it is missing.

    Raises
    ------
    Refused
        ``dicom_unreadable``: not a regular file, not DICOM, cut short, or not parseable.
    OSError
        The disk does not give the file up for the moment; its content is not to blame.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _unreadable("This is not a regular file.")
    if not looks_like_dicom(path):
        raise _unreadable("This file is not DICOM.")
    try:
        _prove_modest(path)
        dataset = pydicom.dcmread(path)
        if not len(dataset):
            raise _unreadable("This DICOM file is cut short.")
        # pydicom hands out what there is of the last element without a word.
        last = dataset.get_item(list(dataset.keys())[-1])
        if isinstance(last, RawDataElement) and last.length != 0xFFFFFFFF and len(last.value or b"") < last.length:
            raise _unreadable("This DICOM file is cut short.")
    except (Refused, OSError):
        raise
    except Exception as error:  # the parser meets hostile bytes here: whatever it raises, the file is at fault
        raise _unreadable("This DICOM file cannot be parsed.") from error
    return dataset


def _prove_modest(path: Path) -> None:
    """Refuse a deflated file that would blow up beyond any image's size."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    with path.open("rb") as file:
        file.seek(144 + meta.FileMetaInformationGroupLength)
        if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), _MAX_INFLATED)) == _MAX_INFLATED:
            raise _unreadable("This deflated DICOM file is larger than any image.")


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _vector(dataset: Dataset, keyword: str, length: int) -> Vector:
    value = dataset.get(keyword)
    if value is None or isinstance(value, str):
        return ()
    items = tuple(float(v) for v in (value if isinstance(value, Iterable) else [value]))
    finite = all(abs(v) < 1e9 for v in items)  # also false for NaN
    return items if len(items) == length and finite else ()


def _number(dataset: Dataset, keyword: str) -> float | None:
    values = _vector(dataset, keyword, 1)
    return values[0] if values else None


def _sequence(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    return tuple(dataset.get(keyword) or ())


def _identity(dataset: Dataset, path: Path, digest: Any) -> dict[str, Any]:
    identity = {
        "path": path,
        "sop_class_uid": _text(dataset, "SOPClassUID"),
        "sop_instance_uid": _text(dataset, "SOPInstanceUID"),
        "series_instance_uid": _text(dataset, "SeriesInstanceUID"),
        "study_instance_uid": _text(dataset, "StudyInstanceUID"),
        "patient_key": hashlib.blake2b(_text(dataset, "PatientID").encode(), digest_size=16).hexdigest(),
        "digest": digest.hexdigest(),
    }
    levels = ("sop_class", "sop_instance", "series_instance", "study_instance")
    if not all(_UID.fullmatch(identity[f"{level}_uid"]) for level in levels):
        raise _unreadable("This DICOM file lacks one of the UIDs that every instance must have.")
    return identity


def _digest(*parts: Any) -> Any:
    """Digest content, and not the file around it: a PACS writes the same object with other bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest


def _pixel_bytes(dataset: Dataset) -> bytes:
    element = dataset.get_item("PixelData")
    return element.value if element is not None and isinstance(element.value, bytes) else b""


def contour_data(contour: Dataset) -> bytes:
    """Return a contour's coordinates as the bytes of their decimal strings, whatever the file's encoding."""
    element = contour.get_item("ContourData")
    if isinstance(element, RawDataElement):
        return bytes(element.value or b"").rstrip(b" \0")
    return "\\".join(str(value) for value in contour.get("ContourData") or ()).encode()


def _image_header(dataset: Dataset, path: Path) -> ImageHeader:
    geometry: dict[str, Any] = {
        "rows": int(dataset.get("Rows") or 0),
        "columns": int(dataset.get("Columns") or 0),
        "frames": int(dataset.get("NumberOfFrames") or 1),
        "position": _vector(dataset, "ImagePositionPatient", 3),
        "orientation": _vector(dataset, "ImageOrientationPatient", 6),
        "pixel_spacing": _vector(dataset, "PixelSpacing", 2),
        "rescale": (_number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")),
    }
    if None in geometry["rescale"]:
        geometry["rescale"] = ()
    encoding = (dataset.get("BitsStored"), dataset.get("PixelRepresentation"), dataset.get("PixelPaddingValue"))
    digest = _digest(geometry, encoding, _text(dataset, "FrameOfReferenceUID"), _pixel_bytes(dataset))
    return ImageHeader(
        **_identity(dataset, path, digest),
        **geometry,
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        modality=_text(dataset, "Modality"),
        image_type=tuple(str(v) for v in dataset.get("ImageType") or ()),
        body_part=_text(dataset, "BodyPartExamined").upper(),
        slice_thickness=_number(dataset, "SliceThickness"),
        spacing_between_slices=_number(dataset, "SpacingBetweenSlices"),
        gantry_tilt=_number(dataset, "GantryDetectorTilt"),
    )


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _referenced(items: Iterable[Dataset]) -> tuple[str, ...]:
    return _unique(_text(item, "ReferencedSOPInstanceUID") for item in items)


def _structure_set_header(dataset: Dataset, path: Path) -> RoiHeader:
    series = [
        series
        for frame in _sequence(dataset, "ReferencedFrameOfReferenceSequence")
        for study in _sequence(frame, "RTReferencedStudySequence")
        for series in _sequence(study, "RTReferencedSeriesSequence")
    ]
    contours = [
        contour for roi in _sequence(dataset, "ROIContourSequence") for contour in _sequence(roi, "ContourSequence")
    ]
    digest = _digest(
        [(_text(roi, "ROINumber"), _text(roi, "ROIName")) for roi in _sequence(dataset, "StructureSetROISequence")],
        [_text(item, "ReferencedROINumber") for item in _sequence(dataset, "ROIContourSequence")],
        [(_text(contour, "ContourGeometricType"), contour_data(contour)) for contour in contours],
        [_referenced(_sequence(contour, "ContourImageSequence")) for contour in contours],
    )
    return RoiHeader(
        **_identity(dataset, path, digest),
        kind="RTSTRUCT",
        frames_of_reference=_unique(
            _text(roi, "ReferencedFrameOfReferenceUID") for roi in _sequence(dataset, "StructureSetROISequence")
        ),
        listed=tuple(
            (_text(item, "SeriesInstanceUID"), _referenced(_sequence(item, "ContourImageSequence"))) for item in series
        ),
        image_references=_referenced(image for c in contours for image in _sequence(c, "ContourImageSequence")),
    )


def source_image(frame: Dataset) -> str:
    """Return the one instance that a SEG frame's functional groups say it was derived from, else an empty string."""
    sources = [
        source
        for derivation in _sequence(frame, "DerivationImageSequence")
        for source in _sequence(derivation, "SourceImageSequence")
    ]
    return _text(sources[0], "ReferencedSOPInstanceUID") if len(sources) == 1 else ""


def _segmentation_header(dataset: Dataset, path: Path) -> RoiHeader:
    groups = _sequence(dataset, "PerFrameFunctionalGroupsSequence")
    digest = _digest(
        [dataset.get(keyword) for keyword in ("Rows", "Columns", "BitsAllocated", "SegmentationType")],
        [str(item) for item in _sequence(dataset, "SegmentSequence")],
        [str(item) for item in (*_sequence(dataset, "SharedFunctionalGroupsSequence"), *groups)],
        _pixel_bytes(dataset),
    )
    return RoiHeader(
        **_identity(dataset, path, digest),
        kind="SEG",
        frames_of_reference=_unique([_text(dataset, "FrameOfReferenceUID")]),
        listed=tuple(
            (_text(item, "SeriesInstanceUID"), _referenced(_sequence(item, "ReferencedInstanceSequence")))
            for item in _sequence(dataset, "ReferencedSeriesSequence")
        ),
        image_references=_unique(source_image(group) for group in groups),
    )


def header_of(dataset: Dataset, path: Path) -> Header | None:
    """Take from a dataset what lungstage must know of it.

    Raises
    ------
    Refused
        ``dicom_unreadable``: elements that cannot be parsed, or that every instance must have and this one lacks.
    """
    try:
        if _text(dataset, "ManufacturerModelName") == OWN_MODEL_NAME:
            return None
        sop_class = _text(dataset, "SOPClassUID")
        if sop_class == RTStructureSetStorage:
            return _structure_set_header(dataset, path)
        if sop_class in (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE):
            return _segmentation_header(dataset, path)
        if "PixelData" in dataset:
            return _image_header(dataset, path)
        if sop_class == CTImageStorage:
            raise _unreadable("This CT image holds no pixel data; it may be cut short.")
        directory = dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
        if not sop_class and not directory:
            raise _unreadable("This DICOM file does not say what it is; it may be cut short.")
    except Refused:
        raise
    except Exception as error:  # lazily parsed elements: still the file's fault
        raise _unreadable("This DICOM file cannot be parsed.") from error
    return None


def read_header(path: Path) -> Header | None:
    """Read what lungstage must know of a file.

    Returns
    -------
    ImageHeader, RoiHeader or None
        None for DICOM of no interest here: neither an image nor a ROI, or an object that lungstage itself wrote.

    Raises
    ------
    Refused
        ``dicom_unreadable``.
    OSError
        The disk does not give the file up for the moment.
    """
    return header_of(read_dataset(path), path)


def read_unchanged(header: Header) -> FileDataset:
    """Read the file of a header again, whole.

    Raises
    ------
    Unavailable
        It is not what it was when the header was read; whoever plans must look again.
    """
    dataset = read_dataset(header.path)
    if header_of(dataset, header.path) != header:
        raise Unavailable("A file changed between being looked at and being read.")
    return dataset


def header_to_json(header: Header) -> str:
    """Serialise a header, e.g. for the ledger's cache; the path is left out, it is the cache's key."""
    fields = asdict(header)
    del fields["path"]
    return json.dumps({"type": type(header).__name__, **fields})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def header_from_json(text: str, path: Path) -> Header:
    """Read back what :func:`header_to_json` wrote."""
    fields = {key: _frozen(value) for key, value in json.loads(text).items()}
    kind = {"ImageHeader": ImageHeader, "RoiHeader": RoiHeader}[fields.pop("type")]
    header: Header = kind(path=path, **fields)
    return header
