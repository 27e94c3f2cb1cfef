"""Headers of derived objects: what they take over from the CT, and what must not come from clock or chance."""

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

# Whatever the source's Specific Character Set, the text of ROI names and warnings must fit as well.
CHARACTER_SET = "ISO_IR 192"

# Type 2 in every composite object: present, though maybe empty.
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

# What highdicom does not hand on, and the name, which it would print in a warning where it has a single component.
_ADDED_LAST = (
    "PatientName", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)  # fmt: skip


_ESCAPE = b"\x1b"
_OFFSET = re.compile(r"[+-]\d\d[0-5]\d")
_MOMENTS = {"DA": DA, "TM": TM, "DT": DT}


def source_headers(context: Derived) -> list[Dataset]:
    """Copy of each source's header, cut down to what highdicom takes over from it, in Unicode.

    Patient, study and equipment are taken from the first slice alone.

    A value that breaks its Value Representation (say, a Study ID of 18 characters, where SH allows 16) cannot be
    written again. It is left out, rather than cut into an identifier that is nobody's. The patient's name is left to
    :func:`settle`. Text that is not in the character set that its file names is left out, too, as
    :func:`warnings_of_text` says.
    """
    read_modules_singly()  # before highdicom builds the first of its objects
    first, *others = context.sources
    headers = [_header(first, (*_ALWAYS, *_WHERE_PRESENT, *_OF_EACH_SLICE))]
    headers += [_header(source, _OF_EACH_SLICE) for source in others]
    _complete(headers[0])
    for header in headers:
        # One orientation is proven; highdicom minds noise in its last digits.
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
        if "Modality" not in header:
            header.Modality = "CT"  # what the SOP Class of every source is
    return headers


def beyond_headers(context: ReportContext) -> tuple[list[Dataset], list[Dataset]]:
    """Headers, likewise, of the slices before and behind the reference volume."""
    before, behind = (
        [_header(source, _OF_EACH_SLICE) for source, _ in some] for some in (context.before, context.behind)
    )
    for header in (*before, *behind):
        if "Modality" not in header:
            header.Modality = "CT"
    return before, behind


def copied_header(source: Dataset) -> Dataset:
    """Everything that a derived object takes over from a source."""
    return _header(source, (*_ALWAYS, *_WHERE_PRESENT, *_OF_EACH_SLICE, *_ADDED_LAST))


def patient_and_study(source: Dataset) -> Dataset:
    """Copy what every object of a study says of patient and study; the name is left to :func:`settle`."""
    header = _header(source, (*_ALWAYS, *_OF_PATIENT_AND_STUDY, "StudyInstanceUID"))
    _complete(header)
    return header


def _complete(header: Dataset) -> None:
    """Set in place what every object has to state of patient and study: empty where it is not known."""
    for keyword in ("PatientName", *_ALWAYS):
        if keyword not in header:
            setattr(header, keyword, None)
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = None


def warnings_of_text(source: Dataset) -> tuple[str, ...]:
    """Say which text of a source the report leaves out, as nobody knows what it says."""
    copied, source = (*_ALWAYS, *_WHERE_PRESENT, *_ADDED_LAST), _undecoded(source)
    names = [dictionary_description(keyword) for keyword in copied if _is_unknown(source, keyword)]
    if not names:
        return ()
    return (f"Not in the character set that the images name, and so left out of the report: {', '.join(names)}.",)


def with_thickness(headers: list[Dataset]) -> list[Dataset]:
    """Headers as highdicom insists on them: where no slice thickness is known, the slice spacing stands in for it.

    A single slice has no spacing either; zero stands for that.
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
        warnings.simplefilter("ignore")  # pydicom's would quote the patient's data
        for keyword in keywords:
            element = None if _is_unknown(source, keyword) else _writable(source, keyword)
            if element is not None:
                header.add(element)
        header.SpecificCharacterSet = source.get("SpecificCharacterSet", "ISO_IR 6")
        header.decode()
    header.SpecificCharacterSet = CHARACTER_SET
    return header


def _undecoded(source: Dataset) -> Dataset:
    """Return a dataset to decode in the place of one with code extensions, whose text must be looked at again.

    Once pydicom has decoded a name, the bytes that it keeps of it are without escape sequences.
    """
    return source if isinstance(source.get("SpecificCharacterSet", ""), str) else source[:]


def _is_unknown(source: Dataset, keyword: str) -> bool:
    """Whether nobody knows what a text says, or pydicom leaves escape sequences of its character set (ESC) in it."""
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
        # A Slice Thickness of two numbers is none, and neither is a Study Date in two.
        if dictionary_VR(element.tag) != element.VR or (len(values) > 1 and dictionary_VM(element.tag) == "1"):
            return None
        if element.VR == "SQ":
            for item in element.value:
                list(item.iterall())  # so that it is decoded here, and not while it is written
        elif element.VR == "DS":
            element.value = [DSfloat(decimal_string(float(value)), validation_mode=RAISE) for value in values]
        elif element.VR != "UI":  # an odd UID must still be handed on: it is what others refer to
            for value in values:
                validate_value(element.VR, value, RAISE)
                if element.VR in _MOMENTS:  # eight digits may be no date
                    _MOMENTS[element.VR](value)
    except Exception:  # hostile bytes, of a Value Representation that is none: not to be handed on either
        return None
    return element


def decimal_string(value: float) -> str:
    """Nearest value that a Decimal String holds: at most 16 characters (DICOM PS3.5, VR DS)."""
    text = repr(value)
    if len(text) <= 16:
        return text
    candidates = {f"{value:.{digits}{kind}}" for digits in range(17) for kind in "feg"}
    candidates |= {text.replace("e-0", "e-").replace("e+0", "e+") for text in candidates}
    fitting = [text for text in candidates if len(text) <= 16]
    return min(fitting, key=lambda text: (abs(float(text) - value), len(text), text))


def moment_of(made: Derived) -> datetime:
    """Moment at which a document was made, by the clock that all its dates and times are told by.

    Timezone Offset From UTC (DICOM PS3.3 C.12.1.1) holds for every date and time of an object: for those of the study,
    which are the CT's, as for our own. So where the CT states an offset, our own are told by that one.
    """
    stated = _zone(made.sources[0])
    if stated is None or made.created.tzinfo is None:
        return made.created
    return made.created.astimezone(stated)


def _zone(source: Dataset) -> timezone | None:
    """Read the offset that a source states; None where it states none, or what can be none (-1200 to +1400)."""
    element = _writable(source, "TimezoneOffsetFromUTC")
    if element is None or not _OFFSET.fullmatch(text := str(element.value).strip()):
        return None
    offset = int(f"{text[0]}1") * timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(offset) if timedelta(hours=-12) <= offset <= timedelta(hours=14) else None


def opening(context: ReportContext, kind: Literal["seg", "sr"]) -> dict[str, Any]:
    """Return what every document of ours begins with, as highdicom's objects take it: UIDs, dates and equipment."""
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
    """Item of the Contributing Equipment Sequence that stands for this software and its bundle."""
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
    """Set in place what highdicom takes from the clock or from chance, and add what it does not hand on.

    Parameters
    ----------
    dataset
        The new object.
    context
        What the object is made of.
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
