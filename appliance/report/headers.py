"""Headers of derived objects: what is copied from the CT, and what must not depend on clock or random numbers."""

from __future__ import annotations

import re
import warnings
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import numpy as np
from highdicom.base_content import ContributingEquipment
from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_description, dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, DT, TM, DSfloat, validate_value

from lungstage.appliance.dicom.charset import is_undecodable
from lungstage.appliance.dicom.instance import OWN_MODEL_NAME
from lungstage.appliance.report.context import Derived, Made, ReportContext, derive_uid, device_uid
from lungstage.appliance.report.standard_modules import read_modules_singly

MANUFACTURER = "lungstage"
MODEL_NAME = OWN_MODEL_NAME  # by which the appliance knows its own output again

# Independent of the source's Specific Character Set: ROI names and warnings must fit, too.
CHARACTER_SET = "ISO_IR 192"

# Type 2 in every composite object: present, but possibly empty.
_ALWAYS = (
    "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_OF_PATIENT_AND_STUDY = (
    "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
)  # fmt: skip
_WHERE_PRESENT = (
    *_OF_PATIENT_AND_STUDY,
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName",
    "InstitutionName", "TimezoneOffsetFromUTC",
)  # fmt: skip
_OF_EACH_SLICE = (
    "AcquisitionDate", "AcquisitionTime",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Modality",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "Rows", "Columns", "PixelSpacing", "SliceThickness",
    "ImageOrientationPatient", "ImagePositionPatient",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip

# Attributes that highdicom does not copy, and the name: highdicom would print a one-part name in a warning.
_ADDED_LAST = (
    "PatientName", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)  # fmt: skip


_ESCAPE = b"\x1b"
_OFFSET = re.compile(r"[+-]\d\d[0-5]\d")
_MOMENTS = {"DA": DA, "TM": TM, "DT": DT}


def source_headers(context: Derived) -> list[Dataset]:
    """Copy the attributes of each source that highdicom copies, in Unicode.

    Patient, study and equipment come from the first slice only.

    A value that violates its Value Representation (for example a Study ID of 18 characters, where SH allows 16) cannot
    be written again. It is left out, because a shortened identifier would be wrong. :func:`settle` adds the patient's
    name. Text that does not fit the character set of its file is also left out, and :func:`warnings_of_text` reports
    it.
    """
    read_modules_singly()  # before highdicom makes its first object
    first, *others = context.sources
    headers = [_header(first, (*_ALWAYS, *_WHERE_PRESENT, *_OF_EACH_SLICE))]
    headers += [_header(source, _OF_EACH_SLICE) for source in others]
    _complete(headers[0])
    for header in headers:
        # All orientations were checked to be equal; highdicom rejects differences in the last digits.
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
        if "Modality" not in header:
            header.Modality = "CT"  # as the SOP Class of every source says
    return headers


def beyond_headers(context: ReportContext) -> tuple[list[Dataset], list[Dataset]]:
    """Copy the headers of the slices before and behind the reference volume in the same way."""
    before, behind = (
        [_header(source, _OF_EACH_SLICE) for source, _ in some] for some in (context.before, context.behind)
    )
    for header in (*before, *behind):
        if "Modality" not in header:
            header.Modality = "CT"
    return before, behind


def copied_header(source: Dataset) -> Dataset:
    """Copy all attributes that a derived object takes from a source."""
    return _header(source, (*_ALWAYS, *_WHERE_PRESENT, *_OF_EACH_SLICE, *_ADDED_LAST))


def patient_and_study(source: Dataset) -> Dataset:
    """Copy the attributes of patient and study; :func:`settle` adds the name."""
    header = _header(source, (*_ALWAYS, *_OF_PATIENT_AND_STUDY, "StudyInstanceUID"))
    _complete(header)
    return header


def _complete(header: Dataset) -> None:
    """Add in place the required attributes of patient and study; unknown ones are empty."""
    for keyword in ("PatientName", *_ALWAYS):
        if keyword not in header:
            setattr(header, keyword, None)
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = None


def warnings_of_text(source: Dataset) -> tuple[str, ...]:
    """Name the texts of a source that the report leaves out because they cannot be decoded."""
    copied, source = (*_ALWAYS, *_WHERE_PRESENT, *_ADDED_LAST), _undecoded(source)
    names = [dictionary_description(keyword) for keyword in copied if _is_unknown(source, keyword)]
    if not names:
        return ()
    return (f"Not in the character set that the images name, and so left out of the report: {', '.join(names)}.",)


def with_thickness(headers: list[Dataset]) -> list[Dataset]:
    """Return headers with a slice thickness, which highdicom requires: if it is missing, the slice spacing is used.

    A single slice has no spacing; its thickness is then zero.
    """
    if all("SliceThickness" in header for header in headers):
        return headers
    first, last = (np.asarray(header.ImagePositionPatient, dtype=float) for header in (headers[0], headers[-1]))
    spacing = float(np.linalg.norm(last - first)) / max(len(headers) - 1, 1)
    stand_ins = []
    for header in headers:
        stand_in = Dataset()
        stand_in.update(header)
        stand_in.SliceThickness = DSfloat(decimal_string(spacing))
        stand_ins.append(stand_in)
    return stand_ins


def _header(source: Dataset, keywords: tuple[str, ...]) -> Dataset:
    header = Dataset()
    source = _undecoded(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings would quote patient data
        for keyword in keywords:
            element = None if _is_unknown(source, keyword) else _writable(source, keyword)
            if element is not None:
                header.add(element)
        header.SpecificCharacterSet = source.get("SpecificCharacterSet", "ISO_IR 6")
        header.decode()
    header.SpecificCharacterSet = CHARACTER_SET
    return header


def _undecoded(source: Dataset) -> Dataset:
    """Return a copy to decode if the dataset uses code extensions, so that its text can be checked again later.

    When pydicom has decoded a name, the bytes that it keeps have no escape sequences.
    """
    return source if isinstance(source.get("SpecificCharacterSet", ""), str) else source[:]


def _is_unknown(source: Dataset, keyword: str) -> bool:
    """Whether a text cannot be decoded, or pydicom leaves escape sequences (ESC) in it."""
    if is_undecodable(source, keyword):
        return True
    raw = source.get_item(keyword).value if keyword in source else None
    return isinstance(raw, bytes) and _ESCAPE in raw and _ESCAPE.decode() in str(source[keyword].value)


def _writable(source: Dataset, keyword: str) -> DataElement | None:
    try:
        if keyword not in source or source[keyword].is_empty:
            return None
        element = deepcopy(source[keyword])
        values = element.value if element.VM > 1 else [element.value]
        # A Slice Thickness with two numbers is invalid, and so is a Study Date with two values.
        if dictionary_VR(element.tag) != element.VR or (len(values) > 1 and dictionary_VM(element.tag) == "1"):
            return None
        if element.VR == "SQ":
            for item in element.value:
                list(item.iterall())  # decode it here, not while it is written
        elif element.VR == "DS":
            element.value = [DSfloat(decimal_string(float(value)), validation_mode=RAISE) for value in values]
        elif element.VR != "UI":  # an invalid UID must still be copied: other objects refer to it
            for value in values:
                validate_value(element.VR, value, RAISE)
                if element.VR in _MOMENTS:  # eight digits are not always a date
                    _MOMENTS[element.VR](value)
    except Exception:  # hostile bytes or an unknown Value Representation: do not copy the value
        return None
    return element


def decimal_string(value: float) -> str:
    """Write the nearest value that fits a Decimal String: at most 16 characters (DICOM PS3.5, VR DS)."""
    text = repr(value)
    if len(text) <= 16:
        return text
    candidates = {f"{value:.{digits}{kind}}" for digits in range(17) for kind in "feg"}
    candidates |= {text.replace("e-0", "e-").replace("e+0", "e+") for text in candidates}
    fitting = [text for text in candidates if len(text) <= 16]
    return min(fitting, key=lambda text: (abs(float(text) - value), len(text), text))


def moment_of(made: Derived) -> datetime:
    """Return when a document was made, in the time zone of all its dates and times.

    Timezone Offset From UTC (DICOM PS3.3 C.12.1.1) applies to every date and time of an object: to those of the study,
    which come from the CT, and to new ones. If the CT gives an offset, new times therefore use it.
    """
    stated = _zone(made.sources[0])
    if stated is None or made.created.tzinfo is None:
        return made.created
    return made.created.astimezone(stated)


def _zone(source: Dataset) -> timezone | None:
    """Read the time zone offset of a source; None if it is missing or outside -1200 to +1400."""
    element = _writable(source, "TimezoneOffsetFromUTC")
    if element is None or not _OFFSET.fullmatch(text := str(element.value).strip()):
        return None
    offset = int(f"{text[0]}1") * timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(offset) if timedelta(hours=-12) <= offset <= timedelta(hours=14) else None


def opening(context: ReportContext, kind: Literal["seg", "sr"]) -> dict[str, Any]:
    """Return the arguments for highdicom that all documents share: UIDs, dates and equipment."""
    moment = moment_of(context)
    day, time = moment.date(), moment.time()
    return {
        "series_instance_uid": derive_uid(context.identity, f"{kind}-series"),
        "series_date": day,
        "series_time": time,
        "sop_instance_uid": derive_uid(context.identity, kind),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": context.software_version,
        "device_serial_number": context.bundle.digest,
        "content_date": day,
        "content_time": time,
        "content_qualification": "RESEARCH",
        "contributing_equipment": [equipment(context)],
        "specific_character_set": CHARACTER_SET,
    }


def equipment(context: Made) -> ContributingEquipment:
    """Make the item of the Contributing Equipment Sequence for this software and its bundle."""
    item = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MODEL_NAME,
        software_versions=(context.software_version, f"{context.bundle.name} {context.bundle.version}"[:64]),
        device_serial_number=context.bundle.digest,
        contribution_datetime=context.created,
        contribution_description="Radiomics model; research use only",
    )
    item.DeviceUID = device_uid(context)
    return item


def settle(dataset: Dataset, context: Derived) -> None:
    """Replace in place what highdicom takes from clock or random numbers, and add what it does not copy.

    Parameters
    ----------
    dataset
        The new object.
    context
        Input of the object.
    """
    moment = moment_of(context)
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = DA(moment.date()), TM(moment.time())
    if len(offset := moment.strftime("%z")) == 5:
        dataset.TimezoneOffsetFromUTC = offset
    for item in dataset.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = DT(context.created)
    organization = derive_uid(context.identity, "dimension-organization")
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(keyword, []):
            item.DimensionOrganizationUID = organization
    dataset.update(_header(context.sources[0], _ADDED_LAST))
