"""Checks of a structured report against TID 1500 and IHE's AI Results before it is sent.

A rule is a function over the data set that gives every place where it is broken. The rules come from PS3.3 C.17 (SR
modules), PS3.16 TID 1500, 1501, 1410, 1411, 1204, 1001, 1004 and 4019, and from the requirements on the evidence
creator in IHE Radiology's profile AI Results. docs/conformance.md lists them in a table. A report that passes is not
necessarily a good report. A report that fails would be rejected or misread by archives and viewers.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

Code = tuple[str, str]

_UID: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_TITLES: Final = frozenset({"126000", "126001", "126002", "126003"})  # CID 7021
_LANGUAGE: Final = ("121049", "DCM")
_OBSERVER_TYPE: Final = ("121005", "DCM")
_DEVICE_UID: Final = ("121012", "DCM")
_PROCEDURE: Final = ("121058", "DCM")
_LIBRARY: Final = ("111028", "DCM")
_MEASUREMENTS: Final = ("126010", "DCM")
_GROUP: Final = ("125007", "DCM")
_TRACKING_TEXT: Final = ("112039", "DCM")
_TRACKING_UID: Final = ("112040", "DCM")
_FINDING: Final = ("121071", "DCM")
_REGION: Final = ("111030", "DCM")
_SEGMENT: Final = ("121191", "DCM")
_SOURCES: Final = frozenset({("121232", "DCM"), ("121233", "DCM")})
_ALGORITHM_NAME: Final = ("111001", "DCM")
_ALGORITHM_VERSION: Final = ("111003", "DCM")
_ALGORITHM_FAMILY: Final = ("111000", "DCM")
_VALUES: Final = {
    "TEXT": "TextValue", "NUM": "MeasuredValueSequence", "CODE": "ConceptCodeSequence", "UIDREF": "UID",
    "PNAME": "PersonName", "DATE": "Date", "TIME": "Time", "DATETIME": "DateTime", "IMAGE": "ReferencedSOPSequence",
    "COMPOSITE": "ReferencedSOPSequence",
    "SCOORD": "GraphicData", "SCOORD3D": "GraphicData", "TCOORD": "TemporalRangeType",
    "CONTAINER": "ContinuityOfContent",
}  # fmt: skip
_MAY_BE_UNNAMED: Final = frozenset({"IMAGE", "COMPOSITE", "SCOORD", "SCOORD3D", "TCOORD"})  # PS3.3 C.17.3.2.2
_LONGEST_MEANING, _LONGEST_VALUE = 64, 16


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that a report breaks.

    Attributes
    ----------
    rule
        Short name of the rule.
    sentence
        What the rule requires.
    where
        Where the report breaks it, as codes and tags; never a value that may identify a person.
    """

    rule: str
    sentence: str
    where: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its short name, its source, what it requires, and the function that finds where it is broken."""

    name: str
    source: str
    sentence: str
    broken: Callable[[Dataset], Iterator[str]]


def faults_in(content: bytes) -> tuple[Fault, ...]:
    """Return every rule that a file breaks; empty if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            dataset = pydicom.dcmread(io.BytesIO(content))
            list(dataset.iterall())  # read everything, to the last item
            return faults_of(dataset)
    except Exception as error:  # the bytes may be hostile: any error of the parser means that the file is unusable
        return (Fault("file", "The file is DICOM and can be read to its end.", type(error).__name__),)


def faults_of(dataset: Dataset) -> tuple[Fault, ...]:
    """Return every rule that a report breaks."""
    found = []
    for rule in RULES:
        try:
            places = list(rule.broken(dataset))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            places = [f"the rule cannot be checked: {type(error).__name__}"]
        found += [Fault(rule.name, rule.sentence, place) for place in places]
    return tuple(found)


# --- the file -----------------------------------------------------------------------------------------------------


def _meta(dataset: Dataset) -> Iterator[str]:
    meta = dataset.file_meta
    for own, other in (("SOPClassUID", "MediaStorageSOPClassUID"), ("SOPInstanceUID", "MediaStorageSOPInstanceUID")):
        if dataset.get(own) != meta.get(other):
            yield other
    if not meta.get("TransferSyntaxUID"):
        yield "TransferSyntaxUID"


def _uids(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR == "UI":
            values = [element.value] if isinstance(element.value, str) else element.value or ()
            if any(len(value) > 64 or not _UID.fullmatch(value) for value in values):
                yield str(element.tag)


def _present(*keywords: str) -> Callable[[Dataset], Iterator[str]]:
    def broken(dataset: Dataset) -> Iterator[str]:
        for keyword in keywords:
            if dataset.get(keyword) in (None, ""):
                yield keyword

    return broken


def _listed(*keywords: str) -> Callable[[Dataset], Iterator[str]]:
    """Give the missing attributes; an empty one is allowed (type 2)."""

    def broken(dataset: Dataset) -> Iterator[str]:
        yield from (keyword for keyword in keywords if keyword not in dataset)

    return broken


def _sop_class(dataset: Dataset) -> Iterator[str]:
    if dataset.get("SOPClassUID") != Comprehensive3DSRStorage:
        yield "SOPClassUID"


def _modality(dataset: Dataset) -> Iterator[str]:
    if dataset.get("Modality") != "SR":
        yield "Modality"


def _verification(dataset: Dataset) -> Iterator[str]:
    flag = dataset.get("VerificationFlag")
    if flag not in ("UNVERIFIED", "VERIFIED") or (flag == "VERIFIED") != bool(dataset.get("VerifyingObserverSequence")):
        yield "VerificationFlag"
    if dataset.get("CompletionFlag") not in ("PARTIAL", "COMPLETE"):
        yield "CompletionFlag"


# --- the tree -----------------------------------------------------------------------------------------------------


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _items(child)


def _children(item: Dataset, name: Code) -> list[Dataset]:
    return [child for child in item.get("ContentSequence") or () if _concept(child) == name]


def _coded(sequence: Any) -> Code:
    if not sequence:
        return "", ""
    code = sequence[0]
    value = code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue") or ""
    return str(value), str(code.get("CodingSchemeDesignator", ""))


def _concept(item: Dataset) -> Code:
    return _coded(item.get("ConceptNameCodeSequence"))


def _told(item: Dataset) -> str:
    value, scheme = _concept(item)
    return f"{item.get('ValueType', '?')} ({value}, {scheme})"


def _root(dataset: Dataset) -> Iterator[str]:
    template = (dataset.get("ContentTemplateSequence") or (Dataset(),))[0]
    if dataset.get("ValueType") != "CONTAINER":
        yield "ValueType"
    if (template.get("MappingResource"), template.get("TemplateIdentifier")) != ("DCMR", "1500"):
        yield "ContentTemplateSequence"


def _values(dataset: Dataset) -> Iterator[str]:
    for item in _items(dataset):
        kind = item.get("ValueType")
        if kind not in _VALUES or not item.get("RelationshipType"):
            yield _told(item)
        elif kind == "NUM":
            if not item.get("MeasuredValueSequence") and not item.get("NumericValueQualifierCodeSequence"):
                yield _told(item)
        elif item.get(_VALUES[kind]) in (None, "", []) or (kind not in _MAY_BE_UNNAMED and not all(_concept(item))):
            yield _told(item)


def _numbers(dataset: Dataset) -> Iterator[str]:
    for item in _items(dataset):
        for measured in item.get("MeasuredValueSequence") or () if item.get("ValueType") == "NUM" else ():
            code, scheme = _coded(measured.get("MeasurementUnitsCodeSequence"))
            if measured.get("NumericValue") is None or not code or scheme != "UCUM":
                yield _told(item)


def _codes(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR == "SQ" and element.keyword.endswith("CodeSequence"):
            for code in element.value:
                value, scheme = _coded([code])
                meaning = str(code.get("CodeMeaning", ""))
                too_long = len(meaning) > _LONGEST_MEANING or len(str(code.get("CodeValue", ""))) > _LONGEST_VALUE
                if not (value and scheme and meaning) or too_long:
                    yield f"({value}, {scheme})"


def _retired(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.keyword == "CodingSchemeDesignator" and element.value in ("SRT", "SNM3", "99SDM"):
            yield f"scheme {element.value}"


def _private(dataset: Dataset) -> Iterator[str]:
    declared = {item.get("CodingSchemeDesignator") for item in dataset.get("CodingSchemeIdentificationSequence") or ()}
    used = {element.value for element in dataset.iterall() if element.keyword == "CodingSchemeDesignator"}
    yield from sorted(scheme for scheme in used if scheme.startswith("99") and scheme not in declared)


def _evidence(dataset: Dataset) -> Iterator[str]:
    known = set()
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in dataset.get(keyword) or ():
            for series in study.ReferencedSeriesSequence:
                known |= {(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in series.ReferencedSOPSequence}
    for item in _items(dataset):
        for reference in item.get("ReferencedSOPSequence") or ():
            if (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) not in known:
                yield _told(item)


def _own_study(dataset: Dataset) -> Iterator[str]:
    studies = dataset.get("CurrentRequestedProcedureEvidenceSequence") or ()
    if not any(study.StudyInstanceUID == dataset.StudyInstanceUID for study in studies):
        yield "CurrentRequestedProcedureEvidenceSequence"


# --- TID 1500 -----------------------------------------------------------------------------------------------------


def _title(dataset: Dataset) -> Iterator[str]:
    value, scheme = _concept(dataset)
    if scheme != "DCM" or value not in _TITLES:
        yield f"({value}, {scheme})"


def _once(name: Code, kind: str, relationship: str) -> Callable[[Dataset], Iterator[str]]:
    def broken(dataset: Dataset) -> Iterator[str]:
        found = _children(dataset, name)
        if not found:
            yield f"({name[0]}, {name[1]}) is missing"
        for item in found:
            if (item.get("ValueType"), item.get("RelationshipType")) != (kind, relationship):
                yield _told(item)

    return broken


def _observer(dataset: Dataset) -> Iterator[str]:
    kinds = [_coded(item.get("ConceptCodeSequence")) for item in _children(dataset, _OBSERVER_TYPE)]
    if ("121007", "DCM") not in kinds:
        yield "no device is given as observer"
    elif not _children(dataset, _DEVICE_UID):
        yield "(121012, DCM) is missing"


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    for container in _children(dataset, _MEASUREMENTS):
        yield from _children(container, _GROUP)


def _has_groups(dataset: Dataset) -> Iterator[str]:
    if not any(True for _ in _groups(dataset)):
        yield "no Measurement Group"


def _tracking(dataset: Dataset) -> Iterator[str]:
    for number, group in enumerate(_groups(dataset), start=1):
        for name, kind in ((_TRACKING_TEXT, "TEXT"), (_TRACKING_UID, "UIDREF")):
            found = _children(group, name)
            if len(found) != 1 or found[0].get("ValueType") != kind:
                yield f"group {number}: ({name[0]}, {name[1]})"


def _finding(dataset: Dataset) -> Iterator[str]:
    for number, group in enumerate(_groups(dataset), start=1):
        if len(_children(group, _FINDING)) > 1:
            yield f"group {number}"


def _place(dataset: Dataset) -> Iterator[str]:
    for number, group in enumerate(_groups(dataset), start=1):
        segments, regions = _children(group, _SEGMENT), _children(group, _REGION)
        if not segments and not regions:
            yield f"group {number} has neither a segment nor a region"
        if segments and not any(_concept(item) in _SOURCES for item in group.get("ContentSequence") or ()):
            yield f"group {number} gives no source of its segment"
        for segment in segments:
            if not all(reference.get("ReferencedSegmentNumber") for reference in segment.ReferencedSOPSequence):
                yield f"group {number}: its segment has no number"
        for region in regions:
            images = [child for child in region.get("ContentSequence") or () if child.get("ValueType") == "IMAGE"]
            is_selected = all(image.get("RelationshipType") == "SELECTED FROM" for image in images)
            if region.get("ValueType") == "SCOORD" and (len(images) != 1 or not is_selected):
                yield f"group {number}: its region is selected from no image"


def _closed(dataset: Dataset) -> Iterator[str]:
    for item in _items(dataset):
        if item.get("ValueType") == "SCOORD" and item.get("GraphicType") == "POLYLINE":
            data = list(item.GraphicData)
            if len(data) < 6 or len(data) % 2 or (_concept(item) == _REGION and data[:2] != data[-2:]):
                yield _told(item)


# --- IHE AI Results -----------------------------------------------------------------------------------------------


def _one_finding(dataset: Dataset) -> Iterator[str]:
    """Find a tracking identifier with several tracking UIDs, or a UID with several identifiers."""
    pairs = set()
    for group in _groups(dataset):
        text, uid = _children(group, _TRACKING_TEXT), _children(group, _TRACKING_UID)
        if text and uid:
            pairs.add((str(text[0].TextValue), str(uid[0].UID)))
    if not len({text for text, _ in pairs}) == len({uid for _, uid in pairs}) == len(pairs):
        yield "tracking identifiers and tracking UIDs do not match one to one"


def _algorithm(dataset: Dataset) -> Iterator[str]:
    names = {_concept(item) for item in _items(dataset)}
    for name in (_ALGORITHM_NAME, _ALGORITHM_VERSION, _ALGORITHM_FAMILY):
        if name not in names:
            yield f"({name[0]}, {name[1]}) is missing"


def _not_verified(dataset: Dataset) -> Iterator[str]:
    if dataset.get("VerificationFlag") != "UNVERIFIED":
        yield "VerificationFlag"


def _language(dataset: Dataset) -> Iterator[str]:
    if not _children(dataset, _LANGUAGE):
        yield "(121049, DCM) is missing"


def _equipment(dataset: Dataset) -> Iterator[str]:
    if not any(item.get("Manufacturer") for item in dataset.get("ContributingEquipmentSequence") or ()):
        yield "ContributingEquipmentSequence"


RULES: Final[tuple[Rule, ...]] = (
    Rule("meta", "PS3.10 7.1", "The file meta information names the object and its transfer syntax.", _meta),
    Rule("uid", "PS3.5 9.1", "Every UID is valid.", _uids),
    Rule("required", "PS3.3 A.35", "Every attribute of type 1 has a value.", _present(
        "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "ContentDate",
        "ContentTime", "SpecificCharacterSet")),
    Rule("listed", "PS3.3 A.35", "Every attribute of type 2 is present; it may be empty.", _listed(
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "ReferencedPerformedProcedureStepSequence",
        "PerformedProcedureCodeSequence")),
    Rule("modality", "PS3.3 C.17.1", "The Modality is SR.", _modality),
    Rule("flags", "PS3.3 C.17.2", "Completion and Verification Flag are set; a verified report names the verifier.",
         _verification),
    Rule("template", "PS3.3 C.18.8", "The root is a container of template DCMR 1500.", _root),
    Rule("value", "PS3.3 C.17.3", "Every content item has a relationship, a concept name if required, and a value.",
         _values),
    Rule("number", "PS3.3 C.18.1", "Every number has a value and a UCUM unit.", _numbers),
    Rule("code", "PS3.3 8", "Every code has value, scheme and meaning, and none is too long.", _codes),
    Rule("retired", "PS3.16 8", "SNOMED codes use the scheme SCT, not an older one.", _retired),
    Rule("private", "PS3.3 C.12.1", "A private coding scheme is declared.", _private),
    Rule("evidence", "PS3.3 C.17.2.3", "Every instance that the content refers to is listed as evidence.", _evidence),
    Rule("title", "TID 1500 row 1", "The title is a code of CID 7021.", _title),
    Rule("observer", "TID 1001, 1004", "The observer is a device, with its UID.", _observer),
    Rule("procedure", "TID 1500 row 4", "The procedure reported is named.",
         _once(_PROCEDURE, "CODE", "HAS CONCEPT MOD")),
    Rule("library", "TID 1500 row 5", "There is one Image Library.", _once(_LIBRARY, "CONTAINER", "CONTAINS")),
    Rule("measurements", "TID 1500 row 6", "There is a container Imaging Measurements.",
         _once(_MEASUREMENTS, "CONTAINER", "CONTAINS")),
    Rule("groups", "TID 1500 row 7", "There is a Measurement Group.", _has_groups),
    Rule("tracking", "TID 1410, 1411", "Every group has one Tracking Identifier and one Tracking UID.", _tracking),
    Rule("finding", "TID 1410, 1411", "No group has more than one finding.", _finding),
    Rule("place", "TID 1410, 1411", "Every group has a location: a segment and its source, or a region in an image.",
         _place),
    Rule("outline", "PS3.3 C.18.6", "An outline has at least three points and is closed.", _closed),
    Rule("air-class", "IHE AIR", "A result is a Comprehensive 3D SR.", _sop_class),
    Rule("air-study", "IHE AIR", "The result is in the study of its images.", _own_study),
    Rule("air-algorithm", "IHE AIR, TID 4019", "The algorithm is given with name, version and family.", _algorithm),
    Rule("air-tracking", "IHE AIR", "One finding has one Tracking Identifier and one Tracking UID in all groups.",
         _one_finding),
    Rule("air-unverified", "IHE AIR", "The report is marked as unverified.", _not_verified),
    Rule("air-device", "IHE AIR", "Manufacturer, model, serial number and software version are given.",
         _present("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")),
    Rule("air-equipment", "IHE AIR", "The contributing equipment is listed.", _equipment),
    Rule("air-series", "IHE AIR", "The series has a description.", _present("SeriesDescription")),
    Rule("air-language", "IHE AIR, TID 1204", "The language is given.", _language),
)  # fmt: skip
"""All rules, in the order in which faults are listed."""
