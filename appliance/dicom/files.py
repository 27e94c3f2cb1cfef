"""One DICOM file at a time: what it is, as a frozen header that can be remembered instead of read again."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, CTImageStorage, RTStructureSetStorage, SegmentationStorage

from appliance.errors import ReasonCode, Refused

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage (DICOM 2024c), which pydicom 3.0 does not name yet."""

Vector = tuple[float, ...]

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
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _unreadable("This is not a regular file.")
        if not looks_like_dicom(path):
            raise _unreadable("This file is not DICOM.")
        dataset = pydicom.dcmread(path)
        tags = list(dataset.keys())
        for element in (dataset.get_item(tag) for tag in tags[-1:]):
            # pydicom hands out what there is of the last element without a word.
            if (
                isinstance(element, RawDataElement)
                and element.length != 0xFFFFFFFF
                and len(element.value or b"") < element.length
            ):
                raise _unreadable("This DICOM file is cut short.")
    except Refused:
        raise
    except OSError as error:
        raise _unreadable("This file cannot be read.") from error
    except Exception as error:  # the parser meets hostile bytes here: whatever it raises, the file is at fault
        raise _unreadable("This DICOM file cannot be parsed.") from error
    return dataset


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
    if not all(
        identity[f"{level}_uid"] for level in ("sop_class", "sop_instance", "series_instance", "study_instance")
    ):
        raise _unreadable("This DICOM file lacks the UIDs that every instance must have.")
    return identity


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
    pixels = dataset.get_item("PixelData")
    encoding = (dataset.get("BitsStored"), dataset.get("PixelRepresentation"), dataset.get("PixelPaddingValue"))
    digest = hashlib.blake2b(repr((geometry, encoding, _text(dataset, "FrameOfReferenceUID"))).encode(), digest_size=16)
    digest.update(pixels.value if pixels is not None and isinstance(pixels.value, bytes) else b"")
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


def _structure_set_header(dataset: Dataset, path: Path, digest: Any) -> RoiHeader:
    series = [
        series
        for frame in _sequence(dataset, "ReferencedFrameOfReferenceSequence")
        for study in _sequence(frame, "RTReferencedStudySequence")
        for series in _sequence(study, "RTReferencedSeriesSequence")
    ]
    contours = [
        contour for roi in _sequence(dataset, "ROIContourSequence") for contour in _sequence(roi, "ContourSequence")
    ]
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


def _segmentation_header(dataset: Dataset, path: Path, digest: Any) -> RoiHeader:
    return RoiHeader(
        **_identity(dataset, path, digest),
        kind="SEG",
        frames_of_reference=_unique([_text(dataset, "FrameOfReferenceUID")]),
        listed=tuple(
            (_text(item, "SeriesInstanceUID"), _referenced(_sequence(item, "ReferencedInstanceSequence")))
            for item in _sequence(dataset, "ReferencedSeriesSequence")
        ),
        image_references=_unique(source_image(f) for f in _sequence(dataset, "PerFrameFunctionalGroupsSequence")),
    )


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
    """
    dataset = read_dataset(path)
    if _text(dataset, "ManufacturerModelName") == OWN_MODEL_NAME:
        return None
    try:
        sop_class = _text(dataset, "SOPClassUID")
        if sop_class in (RTStructureSetStorage, SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE):
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16)
            is_seg = sop_class != RTStructureSetStorage
            return (_segmentation_header if is_seg else _structure_set_header)(dataset, path, digest)
        if "PixelData" in dataset:
            return _image_header(dataset, path)
        if sop_class == CTImageStorage:
            raise _unreadable("This CT image holds no pixel data; it may be cut short.")
    except Refused:
        raise
    except Exception as error:  # lazily parsed elements: still the file's fault
        raise _unreadable("This DICOM file cannot be parsed.") from error
    return None


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
