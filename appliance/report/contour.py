"""A contour made with lungstage, as a DICOM Segmentation: a draft, or confirmed by a person.

:mod:`dicom.contours` reads from the object which of the two it is; docs/contour.md describes this.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom.base_content import ContributingEquipment
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import RTStructureSetStorage

from lungstage.appliance.contract.errors import LungstageError
from lungstage.appliance.dicom.contours import MANUFACTURER, MODEL_NAME, SUPERSEDED, Confirmation, RegionReference
from lungstage.appliance.report.context import derive_uid, label
from lungstage.appliance.report.headers import CHARACTER_SET, moment_of, source_headers
from lungstage.appliance.report.segmentation import segmentation_of

_DRAFT_SUFFIX: Final = ", draft"
_LONGEST_NAME = 64  # characters of a component group of a Person Name (PS3.5, VR PN)
_SERIES_NUMBER = 9005
_MOST_COMPONENTS = 5
_NOT_IN_A_NAME = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}  # characters that nobody sees, or that turn the others


class PersonNameError(LungstageError):
    """A text cannot be a person's name in a DICOM object."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How a contour was made.

    Attributes
    ----------
    name, version, source
        Name, version and maker of the algorithm; for another tool, as given in its file.
    family
        Code of CID 7162.
    account
        Input of the algorithm as (key, value): a prompt and its corrections, or the region that it started from.
    """

    name: str
    version: str
    source: str
    family: Code = codes.DCM.ArtificialIntelligence
    account: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Contour:
    """Input of a contour's object; it does not depend on clock or disk.

    Attributes
    ----------
    sources
        Headers of CT slices, in slice order; pixel data may be missing.
    mask
        (slices, rows, columns) bool, on exactly these slices; at least one voxel.
    name
        Name of the region. A region that supersedes another keeps its name.
    origin
        How it was made.
    created
        When it was drawn, or confirmed.
    software_version
        Version of lungstage.
    confirmed_by
        Who confirmed it, as a DICOM Person Name (Family^Given) or in plain words; None for a draft.
    supersedes
        The regions that it replaces.
    frames
        For each source its frame number in an Enhanced CT; () if all are separate images.
    """

    sources: tuple[Dataset, ...]
    mask: npt.NDArray[np.bool_]
    name: str
    origin: Origin
    created: datetime
    software_version: str
    confirmed_by: str | None = None
    supersedes: tuple[RegionReference, ...] = ()
    frames: tuple[int, ...] = field(default=())

    @property
    def confirmation(self) -> Confirmation:
        """Whether a person confirmed it."""
        return Confirmation.DRAFT if self.confirmed_by is None else Confirmation.CONFIRMED

    @property
    def label(self) -> str:
        """Segment Label. That of a draft says so: no rule then uses a copy that has lost all other marks."""
        plain = label(label(self.name).removesuffix(_DRAFT_SUFFIX))
        if self.confirmed_by is not None:
            return plain
        return plain[: 64 - len(_DRAFT_SUFFIX)].rstrip() + _DRAFT_SUFFIX

    @cached_property
    def identity(self) -> str:
        """Hex SHA-256 of everything except the time: the same contour, confirmed again, is the same object."""
        digest = hashlib.sha256()
        for part in (
            "\n".join(f"{source.SOPInstanceUID} {source.StudyInstanceUID}" for source in self.sources).encode(),
            repr((self.frames, self.mask.shape, self.label, self.confirmation, self.confirmed_by)).encode(),
            np.packbits(self.mask).tobytes(),
            repr((self.origin.name, self.origin.version, self.origin.source, self.origin.account)).encode(),
            repr(self.supersedes).encode(),
            self.software_version.encode(),
        ):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


def person_name(name: str) -> str:
    """Check that a name can be one component group of a Person Name (PS3.5 6.2).

    Raises
    ------
    PersonNameError
        It has no letter, is too long, or contains a separator of values or groups, or invisible characters.
    """
    plain = " ".join(filter(None, name.split(" ")))
    kinds = {unicodedata.category(character) for character in plain}
    if (
        not any(kind.startswith("L") for kind in kinds) or kinds & _NOT_IN_A_NAME or set("\\=") & set(plain)
        or len(plain) > _LONGEST_NAME or plain.count("^") >= _MOST_COMPONENTS
    ):  # fmt: skip
        raise PersonNameError(
            f"A person's name must have letters, and at most {_LONGEST_NAME} characters. It must not contain "
            "backslashes, equals signs or invisible characters. Write Family^Given, or the name in plain words."
        )
    return plain


def build_contour(contour: Contour) -> Segmentation:
    """Make the Segmentation (DICOM PS3.3 A.51) of a contour made with lungstage.

    Returns
    -------
    Segmentation
        One segment, only the frames that contain a part of it; the same `contour` gives the same bytes.

    Raises
    ------
    PersonNameError
        `confirmed_by` cannot be a Person Name.
    """
    by = None if contour.confirmed_by is None else person_name(contour.confirmed_by)
    origin, moment = contour.origin, moment_of(contour)
    algorithm = AlgorithmIdentificationSequence(
        name=label(origin.name),
        family=origin.family,
        version=label(origin.version),
        source=label(origin.source),
        parameters=dict(origin.account) or None,
    )
    segment = SegmentDescription(
        segment_number=1,
        segment_label=contour.label,
        segmented_property_category=codes.cid7150.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=algorithm,
    )
    segment.SegmentDescription = (
        "Drawn semi-automatically; not confirmed by a person." if by is None
        else "Drawn semi-automatically; confirmed by the Content Creator."
    )  # fmt: skip
    in_words = "draft, not confirmed" if by is None else "confirmed by a person"
    segmentation = segmentation_of(
        contour.mask,
        source_headers(contour),
        contour,
        segment_descriptions=[segment],
        series_instance_uid=derive_uid(contour.identity, "contour-series"),
        series_number=_SERIES_NUMBER,
        series_description=f"lungstage contour, {in_words} (research use only)",
        series_date=moment.date(),
        series_time=moment.time(),
        sop_instance_uid=derive_uid(contour.identity, "contour"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=contour.software_version,
        device_serial_number=contour.software_version,
        content_label=contour.confirmation.value,
        content_description=f"Contour: {in_words}",
        content_date=moment.date(),
        content_time=moment.time(),
        content_qualification="RESEARCH",
        contributing_equipment=[_equipment(contour)],
        specific_character_set=CHARACTER_SET,
    )
    segmentation.ContentCreatorName = by  # highdicom would quote one in a warning
    for one in contour.supersedes:
        _name_predecessor(segmentation, one)
    return segmentation


def _equipment(contour: Contour) -> ContributingEquipment:
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MODEL_NAME,
        software_versions=contour.software_version,
        contribution_datetime=contour.created,
        contribution_description="Contour; research use only",
    )


def _name_predecessor(segmentation: Dataset, region: RegionReference) -> None:
    """Add a predecessor in place: an RTSTRUCT to the source instances, a SEG to the source images (PS3.3 C.12.4)."""
    item = _reference(region)
    if region.sop_class_uid == RTStructureSetStorage:
        keyword, item.ReferencedROINumber = "SourceInstanceSequence", region.number
    else:
        keyword, item.ReferencedSegmentNumber = "SourceImageSequence", region.number
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = SUPERSEDED
    item.PurposeOfReferenceCodeSequence = [purpose]
    setattr(segmentation, keyword, [*segmentation.get(keyword, []), item])
    _list_instance(segmentation, region)


def _list_instance(segmentation: Dataset, region: RegionReference) -> None:
    """List an instance in the Common Instance Reference module, as every referenced one (PS3.3 C.12.2)."""
    if not (region.series_instance_uid and region.study_instance_uid):
        return
    holder = segmentation
    if region.study_instance_uid != segmentation.StudyInstanceUID:
        keyword = "StudiesContainingOtherReferencedInstancesSequence"
        studies = [*segmentation.get(keyword, [])]
        found = [study for study in studies if study.StudyInstanceUID == region.study_instance_uid]
        holder = found[0] if found else Dataset()
        if not found:
            holder.StudyInstanceUID, holder.ReferencedSeriesSequence = region.study_instance_uid, []
            setattr(segmentation, keyword, [*studies, holder])
    for series in holder.ReferencedSeriesSequence:
        if series.SeriesInstanceUID == region.series_instance_uid:
            uids = [instance.ReferencedSOPInstanceUID for instance in series.ReferencedInstanceSequence]
            if region.sop_instance_uid not in uids:
                series.ReferencedInstanceSequence.append(_reference(region))
            return
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = region.series_instance_uid, [_reference(region)]
    holder.ReferencedSeriesSequence.append(series)


def _reference(region: RegionReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = region.sop_class_uid, region.sop_instance_uid
    return item
