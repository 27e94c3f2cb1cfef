"""A staging result as a DICOM structured report.

Comprehensive 3D SR, template TID 1500 "Measurement Report" (DICOM PS3.16). Its parts, in this order:

- in words: the result, and the reasons for caution;
- an Image Library of the slices;
- one volumetric group (TID 1411) with the segment, every measurement, the predicted class and its probability;
- one planar group (TID 1410) with the outline on the key slice, under the same Tracking UID, for viewers that do not
  draw segments;
- a volumetric group of the descriptors, under the same Tracking UID, with another algorithm;
- in words: what moved the answer, what the model is, and the descriptors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from lungstage.appliance.report import sentences
from lungstage.appliance.report.context import (
    BundleIdentity,
    ReportContext,
    RoiSource,
    SegmentReference,
    derive_uid,
    device_uid,
    tracking_identifier,
)
from lungstage.appliance.report.descriptor_items import DESCRIPTION, DESCRIPTORS, descriptor_group
from lungstage.appliance.report.descriptor_items import sentences as descriptor_sentences
from lungstage.appliance.report.headers import (
    MANUFACTURER,
    MODEL_NAME,
    beyond_headers,
    opening,
    settle,
    source_headers,
    with_thickness,
)
from lungstage.appliance.report.measurements import (
    blank_failures,
    contributions,
    domain_measurements,
    feature_measurements,
    measurement,
    predictive_value_measurements,
    probability_measurement,
    robustness_measurements,
    variation_items,
)
from lungstage.appliance.report.segmentation import build_segmentation, key_slice, outer_contour
from lungstage.appliance.report.vocabulary import PRIVATE_SCHEME, private

__all__ = [
    "BundleIdentity",
    "ReportContext",
    "RoiSource",
    "SegmentReference",
    "build_report",
    "build_segmentation",
    "derive_uid",
]

_VolumeGroup = sr.VolumetricROIMeasurementsAndQualitativeEvaluations
_PlanarGroup = sr.PlanarROIMeasurementsAndQualitativeEvaluations

_POSITION = (
    codes.DCM.ImagePositionPatientX,
    codes.DCM.ImagePositionPatientY,
    codes.DCM.ImagePositionPatientZ,
)

RESULT = private("RESULT", "Result (research use only)")
ANSWER = private("ANSWER", "Answer of the model (research use only)")
CHANCE = private("CHANCE", "Chance that the answer is right (research use only)")
ROBUSTNESS = private("ROBUSTNESS", "Robustness of the answer (research use only)")
VARIATIONS = private("VARIATIONS", "Variation of the features in perturbed versions")
REASON = private("REASON", "What moved the answer")
CONTRIBUTIONS = private("CONTRIBUTIONS", "Contributions of the inputs to the model's logit")
NOTICE = private("NOTICE", "Notice on the model and its use")
WARNING = private("WARNING", "Warning of the appliance")


def build_report(
    context: ReportContext, segmentation: SegmentReference, headers: list[Dataset] | None = None
) -> sr.Comprehensive3DSR:
    """Make the structured report of one staged region of interest.

    Parameters
    ----------
    context
        Content of the report.
    segmentation
        The segment of the region: from the input, or from :func:`build_segmentation`.
    headers
        Result of :func:`appliance.report.headers.source_headers`, if it was made already.

    Returns
    -------
    Comprehensive3DSR
        Complete, preliminary and unverified. The same arguments give the same bytes.
    """
    headers = headers or source_headers(context)
    before, behind = beyond_headers(context)
    used = [*before, *headers, *behind]
    tree = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(context)),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[_volume_group(context, segmentation), _key_slice_group(context, headers)],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=with_thickness(headers[:1]),
    )
    _complete_library(tree[0], used, _frames(context))
    _hand_over(tree[0])
    report = sr.Comprehensive3DSR(
        evidence=[*headers, *before, *behind, *_evidence(context, segmentation)],
        content=tree[0],
        series_number=9001,
        series_description=f"lungstage predicted {context.words.kind} (research use only)",
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[_coding_scheme()],
        previous_versions=_previous_versions(context),
        **opening(context, "sr"),
    )
    _complete_content(report, context, segmentation)
    blank_failures(report)
    settle(report, context)
    return report


def _complete_content(report: Dataset, context: ReportContext, segmentation: SegmentReference) -> None:
    """Add everything that refers to no further instance.

    highdicom searches all content for references to instances, and converts each item. The report takes a fifth less
    time if these parts are added afterwards.
    """
    (measurements,) = (item for item in report.ContentSequence if item.name == codes.DCM.ImagingMeasurements)
    for group in _descriptor_groups(context, segmentation):
        measurements.ContentSequence.extend(group)
    # The order of the template's items is significant, but an extensible template may be extended at any place (DICOM
    # PS3.16 6.2.5). So the result can be first.
    report.ContentSequence = sr.ContentSequence(
        [
            _result(context),
            *report.ContentSequence,
            _evaluations(context),
            *_descriptions(context),
            _contributions(context),
            *_variations(context),
        ]
    )
    report.ContinuityOfContent = "SEPARATE"
    for item in report.ContentSequence:
        _separate(item)


def _hand_over(content: Dataset) -> None:
    """Give highdicom the tree itself instead of a deep copy, which takes more time than any other part of the report.

    highdicom copies the tree to leave the caller's tree unchanged. Nothing else uses this tree.
    """
    content.__deepcopy__ = lambda _: content


def _complete_library(content: Dataset, headers: list[Dataset], frames: tuple[int, ...]) -> None:
    """Add the other slices to the Image Library, which contains the first slice.

    Attributes that all slices share are written once, at the group (TID 1600, row 3). The position of a slice is in the
    slice itself and in the segmentation. A full description of every slice would make the document much larger and
    slower to write.
    """
    (library,) = (item for item in content.ContentSequence if item.name == codes.DCM.ImageLibrary)
    (group,) = library.ContentSequence
    (first,) = group.ContentSequence
    varying = {*_POSITION}
    if not _is_shared(headers, "SliceThickness"):  # optional, and never invented
        varying.add(codes.DCM.SliceThickness)
    shared = [item for item in first.ContentSequence if item.name not in varying]
    entries = [
        sr.ImageContentItem(
            name=first.name,
            referenced_sop_class_uid=header.SOPClassUID,
            referenced_sop_instance_uid=header.SOPInstanceUID,
            referenced_frame_numbers=frame or None,
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
        for header, frame in zip(headers, frames or (0,) * len(headers), strict=True)
    ]
    group.ContentSequence = sr.ContentSequence([*shared, *entries])


def _frames(context: ReportContext) -> tuple[int, ...]:
    """Return each used slice's frame number in an Enhanced CT; () if all slices are separate images."""
    if not context.frames:
        return ()
    before, behind = ([frame for _, frame in some] for some in (context.before, context.behind))
    return (*before, *context.frames, *behind)


def _is_shared(headers: list[Dataset], keyword: str) -> bool:
    values = {header.get(keyword) for header in headers}
    return len(values) == 1 and None not in values


def _tracking(context: ReportContext) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=derive_uid(context.identity, "tracking"), identifier=tracking_identifier(context))


def _algorithm(context: ReportContext) -> sr.AlgorithmIdentification:
    bundle = context.bundle
    return sr.AlgorithmIdentification(
        name=bundle.name,
        version=bundle.version,
        parameters=[f"manifest SHA-256 {bundle.digest}", *bundle.settings],
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )


def _volume_group(context: ReportContext, segmentation: SegmentReference) -> _VolumeGroup:
    result, words = context.result, context.words
    return _VolumeGroup(
        tracking_identifier=_tracking(context),
        referenced_segment=_segment(context, segmentation),
        finding_type=context.finding,
        finding_sites=[sr.FindingSite(site) for site in context.sites] or None,
        algorithm_id=_algorithm(context),
        measurements=[
            probability_measurement(result, words),
            *feature_measurements(context.features),
            *domain_measurements(result.domain),
            *predictive_value_measurements(result),
            *robustness_measurements(result),
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(words.predicted, words.classes[result.stage])],
    )


def _segment(context: ReportContext, segmentation: SegmentReference) -> sr.ReferencedSegment:
    return sr.ReferencedSegment(
        sop_class_uid=segmentation.sop_class_uid,
        sop_instance_uid=segmentation.sop_instance_uid,
        segment_number=segmentation.segment_number,
        source_series=sr.SourceSeriesForSegmentation(context.sources[0].SeriesInstanceUID),
    )


def _descriptor_groups(context: ReportContext, segmentation: SegmentReference) -> list[_VolumeGroup]:
    if (found := context.descriptors) is None:
        return []
    return [descriptor_group(context, found, _segment(context, segmentation), _tracking(context))]


def _key_slice_group(context: ReportContext, headers: list[Dataset]) -> _PlanarGroup:
    index = key_slice(context.mask)
    header, region = headers[index], context.mask[index]
    frame = context.frames[index] if context.frames else 0
    area = float(np.count_nonzero(region)) * math.prod(float(spacing) for spacing in header.PixelSpacing)
    return _PlanarGroup(
        tracking_identifier=_tracking(context),
        referenced_region=sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=outer_contour(region),
            source_image=sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, [frame] if frame else None),
        ),
        finding_type=context.finding,
        finding_sites=[sr.FindingSite(site) for site in context.sites] or None,
        measurements=[measurement(codes.SCT.Area, area, "mm2")],
    )


def _observer(context: ReportContext) -> sr.ObserverContext:
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=device_uid(context),
            name=MODEL_NAME,
            manufacturer_name=MANUFACTURER,
            model_name=f"{MODEL_NAME} {context.software_version}",
            serial_number=context.bundle.digest,
        ),
    )


def _result(context: ReportContext) -> sr.ContainerContentItem:
    """Put first, in words, what a reader must see within ten seconds: many viewers show no codes."""
    # "No warnings" is a notice, not a warning: programs may count warnings by their concept.
    warned = [(WARNING, text) for text in sentences.warnings(context)] or [(NOTICE, sentences.no_warnings())]
    return _texts(
        RESULT,
        [
            (NOTICE, sentences.research_use(context)),
            (ANSWER, sentences.answer(context)),
            *((CHANCE, text) for text in (sentences.chance(context),) if text),
            *((ROBUSTNESS, text) for text in (sentences.robustness(context),) if text),
            *((NOTICE, text) for text in (sentences.worth(context),) if text),
            *warned,
        ],
    )


def _evaluations(context: ReportContext) -> sr.ContainerContentItem:
    return _texts(
        sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        [
            *((REASON, text) for text in sentences.contributions(context)),
            *((NOTICE, text) for text in sentences.notices(context)),
        ],
    )


def _contributions(context: ReportContext) -> sr.ContainerContentItem:
    """Make the contributions as numbers, for programs; the sentences above say the same.

    They stand last: below the probability, viewers would print them as fifteen footnotes without names.
    """
    container = sr.ContainerContentItem(name=CONTRIBUTIONS, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = contributions(context.result, context.words)
    return container


def _descriptions(context: ReportContext) -> list[sr.ContainerContentItem]:
    """Describe the tumour in words, separate from the reasons of the answer."""
    if context.descriptors is None:
        return []
    return [_texts(DESCRIPTORS, [(DESCRIPTION, text) for text in descriptor_sentences(context.descriptors)])]


def _variations(context: ReportContext) -> list[sr.ContainerContentItem]:
    """Make the variation of each feature in perturbed versions, for programs; it stands after all text for people."""
    items = variation_items(context.result)
    if not items:
        return []
    container = sr.ContainerContentItem(name=VARIATIONS, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = items
    return [container]


def _texts(name: Code | sr.CodedConcept, texts: Sequence[tuple[Code, str]]) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name=name, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = sr.ContentSequence(
        [sr.TextContentItem(concept, text, sr.RelationshipTypeValues.CONTAINS) for concept, text in texts]
    )
    return container


def _separate(item: Dataset) -> None:
    """Mark content as separate, in place, to give each item one line: viewers print continuous content without names.

    The Image Library stays continuous: its hundreds of slice references do not help a reader.
    """
    if item.ValueType == "CONTAINER" and item.name != codes.DCM.ImageLibrary:
        item.ContinuityOfContent = "SEPARATE"
        for child in item.get("ContentSequence", ()):
            _separate(child)


def _evidence(context: ReportContext, segmentation: SegmentReference) -> list[Dataset]:
    source = context.roi_source
    references = [
        (source.sop_class_uid, source.sop_instance_uid, source.series_instance_uid, source.study_instance_uid)
    ]
    if segmentation.sop_instance_uid != source.sop_instance_uid:
        series, study = derive_uid(context.identity, "seg-series"), context.sources[0].StudyInstanceUID
        references.append((segmentation.sop_class_uid, segmentation.sop_instance_uid, series, study))
    evidence = []
    for sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid in references:
        item = Dataset()
        item.SOPClassUID = sop_class_uid
        item.SOPInstanceUID = sop_instance_uid
        item.SeriesInstanceUID = series_instance_uid
        item.StudyInstanceUID = study_instance_uid
        evidence.append(item)
    return evidence


def _previous_versions(context: ReportContext) -> list[Dataset] | None:
    predecessor = context.predecessor
    if predecessor is None:
        return None
    item = Dataset()
    item.SOPClassUID = Comprehensive3DSRStorage
    item.SOPInstanceUID = predecessor.sop_instance_uid
    item.SeriesInstanceUID = predecessor.series_instance_uid
    item.StudyInstanceUID = predecessor.study_instance_uid
    return [item]


def _coding_scheme() -> CodingSchemeIdentificationItem:
    uid = derive_uid(PRIVATE_SCHEME, "coding-scheme")
    item = CodingSchemeIdentificationItem(PRIVATE_SCHEME, "lungstage concepts", uid=uid)
    item.CodingSchemeUID = uid  # highdicom requires it and does not write it
    item.CodingSchemeResponsibleOrganization = "lungstage"
    return item
