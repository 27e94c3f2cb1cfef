"""Headers: what lungstage stores about a file, as frozen values, and their form in the ledger's file table."""

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
    """The data of an image that are needed to place it in a series. Lengths in mm, positions in LPS.

    Attributes
    ----------
    path
        Path of the file.
    digest
        Hex digest of geometry and pixel encoding. It is equal for copies of the same image, even if they differ in
        other elements.
    pixel_digest
        Hex digest of the encoded pixel data; empty if they were not read yet.
    pixel_span
        Offset and length of the pixel data in the file, in bytes; () if they cannot be read separately.
    patient_key, name_key, birth_key
        Keyed hashes of the Patient ID, of each component group of the Patient's Name, and of the birth date
        (:mod:`dicom.identity`); empty if absent. The identity itself is not stored.
    frame
        Frame number in an Enhanced CT, counted from 1; 0 for a single-frame image.
    frames
        Number of Frames of a single-frame image.
    position, orientation, pixel_spacing
        Image Position (3), Image Orientation (6), Pixel Spacing (row, column); () if absent or not finite.
    acquisition
        Hashes of the elements that distinguish acquisitions or reconstructions in a series
        (:data:`dicom.acquisition.TELLING`); empty if absent.
    study_date
        Study Date as YYYY-MM-DD, so a person can find the study; empty if it is not a date.
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
        """Whether this is a CT slice: a single-frame CT image or a frame of an Enhanced CT, and not a scout."""
        is_ct = self.sop_class_uid == CTImageStorage or self.sop_class_uid in ENHANCED_CT
        return is_ct and self.modality in ("", "CT") and "LOCALIZER" not in self.image_type and self.frames == 1

    @property
    def name(self) -> str:
        """Unique name of a slice: the SOP Instance UID, and the frame number in an Enhanced CT."""
        return f"{self.sop_instance_uid} frame {self.frame}" if self.frame else self.sop_instance_uid


@dataclass(frozen=True, slots=True)
class RoiHeader:
    """The data of an RTSTRUCT or SEG that are needed to find its series.

    Attributes
    ----------
    listed
        (series, instances) of the lists of whole series; they do not show which slices are *needed*.
    image_references
        Instances that single contours or frames refer to.
    drawn_at
        Date and time of the structure set or of the segmentation's content, as YYYYMMDDHHMMSS.FFFFFF; empty if missing.
    frames_of_reference
        Frames of Reference of the regions.
    approval
        Approval Status: APPROVED, UNAPPROVED or REJECTED; empty if missing.
    referenced_studies
        Studies of its images, if the object gives them.
    confirmation
        For a contour made by lungstage: whether a person confirmed it (:class:`dicom.contours.Confirmation`). Empty for
        objects of other software.
    supersedes
        For a contour made by lungstage: (SOP Instance UID, ROI or Segment Number) of the regions that it replaces.
    patient_key, name_key, birth_key, study_date
        As in :class:`ImageHeader`.
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
    """Digest and place of an instance's Pixel Data.

    Attributes
    ----------
    digest
        Hex digest of the encoded value; empty if it was not read yet.
    span
        Offset and length of the value in the file, in bytes; () if it cannot be read separately.
    """

    digest: str
    span: tuple[int, ...]


Header = ImageHeader | RoiHeader


def headers_to_json(headers: Iterable[Header]) -> str:
    """Serialise a file's headers, e.g. for the file table; without the path, which is the table's key."""
    every = []
    for header in headers:
        fields = asdict(header)
        del fields["path"]
        every.append({"type": type(header).__name__, **fields})
    return json.dumps(every)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def headers_from_json(remembered: str, path: Path) -> tuple[Header, ...]:
    """Read the output of :func:`headers_to_json`.

    Raises
    ------
    KeyError, TypeError, ValueError
        Another version of the code wrote it.
    """
    headers: list[Header] = []
    for item in json.loads(remembered):
        fields = {key: _frozen(value) for key, value in dict(item).items()}
        kind = {"ImageHeader": ImageHeader, "RoiHeader": RoiHeader}[fields.pop("type")]
        headers.append(kind(path=path, **fields))
    return tuple(headers)
