"""What lungstage remembers of a file: frozen headers, and how the ledger's file table keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydicom.uid import CTImageStorage

from lungstage.appliance.contract.plain import FilePath
from lungstage.appliance.dicom.multiframe import ENHANCED_CT
from lungstage.appliance.dicom.values import Vector


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is needed of an image to place it in a series. Lengths in mm, positions in LPS.

    Attributes
    ----------
    path
        Where the file lies.
    digest
        Hex digest of geometry and pixel encoding: equal for two copies of the same image, whatever else they say.
    pixel_digest
        Hex digest of the pixel data as they are encoded; empty where they were not read yet.
    pixel_span
        Where in the file the pixel data lie: offset and length in bytes; () where they cannot be read on their own.
    patient_key, name_key, birth_key
        Keyed hashes of the Patient ID, of each component group of the Patient's Name and of the birth date, as of
        :mod:`dicom.identity`; empty where absent. The identity itself is not kept.
    frame
        Number of the frame of an Enhanced CT that this is, counted from 1; 0 for an image of its own.
    frames
        Number of Frames of an image of its own.
    position, orientation, pixel_spacing
        Image Position (3), Image Orientation (6), Pixel Spacing (row, column), each () where absent or not finite.
    acquisition
        Hashes of the elements that tell one acquisition or reconstruction of a series from another, as of
        :data:`dicom.acquisition.TELLING`; empty where absent.
    study_date
        Study Date as YYYY-MM-DD, for a person to find the study by; empty where it is no date.
    """

    path: FilePath
    digest: str
    sop_class_uid: str
    sop_instance_uid: str
    frame: int
    series_instance_uid: str
    study_instance_uid: str
    patient_key: str = field(compare=False)
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
    pixel_digest: str = ""
    pixel_span: tuple[int, ...] = field(default=(), compare=False)
    acquisition: tuple[str, ...] = ()
    name_key: tuple[str, ...] = field(default=(), compare=False)
    birth_key: str = field(default="", compare=False)
    study_date: str = field(default="", compare=False)

    @property
    def is_ct_slice(self) -> bool:
        """Whether this is a single-frame CT image or a frame of an Enhanced CT, says nothing else, and is no scout."""
        is_ct = self.sop_class_uid == CTImageStorage or self.sop_class_uid in ENHANCED_CT
        return is_ct and self.modality in ("", "CT") and "LOCALIZER" not in self.image_type and self.frames == 1

    @property
    def name(self) -> str:
        """SOP Instance UID, and the number of the frame where it is one of several: what tells slices apart."""
        return f"{self.sop_instance_uid} frame {self.frame}" if self.frame else self.sop_instance_uid


@dataclass(frozen=True, slots=True)
class RoiHeader:
    """What is needed of an RTSTRUCT or SEG to find the series that it belongs to.

    Attributes
    ----------
    listed
        (series, instances) of the lists that name whole series; they never say which slices are *needed*.
    image_references
        Instances that single contours or frames refer to.
    drawn_at
        Date and time of the structure set or of the segmentation's content, as YYYYMMDDHHMMSS.FFFFFF; empty where it
        does not say.
    frames_of_reference
        Those in which the regions are defined.
    approval
        Approval Status: APPROVED, UNAPPROVED or REJECTED; empty where the object does not say.
    referenced_studies
        Studies that it says its images belong to, where it says so.
    confirmation
        Of a contour that was made here, whether a person confirmed it (:class:`dicom.contours.Confirmation`); empty
        for an object that was made elsewhere.
    supersedes
        (SOP Instance UID, ROI or Segment Number) of the regions in whose place a contour that was made here stands.
    patient_key, name_key, birth_key, study_date
        As of :class:`ImageHeader`.
    """

    path: FilePath
    digest: str
    kind: Literal["RTSTRUCT", "SEG"]
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_key: str = field(compare=False)
    frames_of_reference: tuple[str, ...]
    listed: tuple[tuple[str, tuple[str, ...]], ...]
    image_references: tuple[str, ...]
    drawn_at: str = ""
    referenced_studies: tuple[str, ...] = ()
    name_key: tuple[str, ...] = field(default=(), compare=False)
    birth_key: str = field(default="", compare=False)
    approval: str = ""
    study_date: str = field(default="", compare=False)
    confirmation: str = ""
    supersedes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PixelData:
    """What is known of an instance's Pixel Data.

    Attributes
    ----------
    digest
        Hex digest of the value as it is encoded; empty where it was not read yet.
    span
        Offset and length of the value in the file, in bytes; () where it cannot be read on its own.
    """

    digest: str
    span: tuple[int, ...]


Header = ImageHeader | RoiHeader


def headers_to_json(headers: Iterable[Header]) -> str:
    """Serialise a file's headers, e.g. for the file table; the path is left out, it is the table's key."""
    every = []
    for header in headers:
        fields = asdict(header)
        del fields["path"]
        every.append({"type": type(header).__name__, **fields})
    return json.dumps(every)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def headers_from_json(remembered: str, path: Path) -> tuple[Header, ...]:
    """Read back what :func:`headers_to_json` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        Other code wrote it.
    """
    headers: list[Header] = []
    for item in json.loads(remembered):
        fields = {key: _frozen(value) for key, value in dict(item).items()}
        kind = {"ImageHeader": ImageHeader, "RoiHeader": RoiHeader}[fields.pop("type")]
        headers.append(kind(path=path, **fields))
    return tuple(headers)
