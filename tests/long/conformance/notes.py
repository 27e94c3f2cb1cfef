"""Notes on values in the tables of the conformance statement; a test checks that no note is missing or unused."""

from __future__ import annotations

from lungstage.appliance.descriptors.definitions import BY_NAME
from lungstage.appliance.report.descriptor_items import NUMBERS, WORDS

_CLAIMED = "date and time of the first claim of the content under this bundle"
_DATE = f"{_CLAIMED}, in the Timezone Offset From UTC"
_DERIVED = "2.25., derived from the whole content of the document except the time"
_DIGEST = "SHA-256 of the bundle's manifest.json, in hexadecimal"
_VERSION = "version of lungstage"

_COMMON = {
    "ContentDate": _DATE,
    "ContentTime": _DATE,
    "ContributingEquipmentSequence": "the equipment that acquired the CT (from its header); lungstage with its bundle; "
    "highdicom",
    "ContributingEquipmentSequence.ContributionDateTime": f"{_CLAIMED}, with the offset of the appliance's clock",
    "ContributingEquipmentSequence.DeviceSerialNumber": f"for lungstage: {_DIGEST}",
    "ContributingEquipmentSequence.DeviceUID": "for lungstage: 2.25., derived from bundle and version",
    "ContributingEquipmentSequence.SoftwareVersions": f"for lungstage: {_VERSION}; name and version of the bundle",
    "DeviceSerialNumber": _DIGEST,
    "InstanceCreationDate": _DATE,
    "InstanceCreationTime": _DATE,
    "SOPInstanceUID": _DERIVED,
    "SeriesDate": _DATE,
    "SeriesInstanceUID": f"{_DERIVED}; each document has a separate series",
    "SeriesTime": _DATE,
    "SoftwareVersions": _VERSION,
    "TimezoneOffsetFromUTC": "that of the CT, else that of the appliance's clock",
}

_EVIDENCE = "CurrentRequestedProcedureEvidenceSequence.ReferencedSeriesSequence"
_PERTINENT = "PertinentOtherEvidenceSequence"
_PREDECESSOR = "PredecessorDocumentsSequence.ReferencedSeriesSequence"
SR = _COMMON | {
    "SeriesDescription": "lungstage predicted stage group, or class, (research use only)",
    "PredecessorDocumentsSequence": "present if a report with other content or another bundle was delivered for this "
    "series",
    f"{_PREDECESSOR}.ReferencedSOPSequence.ReferencedSOPInstanceUID": "of the previous report",
    f"{_PREDECESSOR}.SeriesInstanceUID": "of the previous report",
    "CurrentRequestedProcedureEvidenceSequence": "the measured slices; the RTSTRUCT or SEG that was read; the SEG that "
    "was written",
    f"{_EVIDENCE}.ReferencedSOPSequence.ReferencedSOPInstanceUID": "of these objects",
    f"{_EVIDENCE}.SeriesInstanceUID": "of these objects",
    _PERTINENT: "the RTSTRUCT or SEG that was read, if it has another Study Instance UID",
    f"{_PERTINENT}.ReferencedSeriesSequence.ReferencedSOPSequence.ReferencedSOPClassUID": "of this object",
    f"{_PERTINENT}.ReferencedSeriesSequence.ReferencedSOPSequence.ReferencedSOPInstanceUID": "of this object",
    f"{_PERTINENT}.ReferencedSeriesSequence.SeriesInstanceUID": "of this object",
    f"{_PERTINENT}.StudyInstanceUID": "of this object",
    "ContentSequence": "see the content tree below",
}  # fmt: skip

_FRAMES = "PerFrameFunctionalGroupsSequence"
SEG = _COMMON | {
    "DimensionOrganizationSequence.DimensionOrganizationUID": _DERIVED,
    "DimensionIndexSequence.DimensionOrganizationUID": "the same",
    "DimensionOrganizationType": "absent for a single slice",
    "NumberOfFrames": "number of slices that contain a part of the region",
    f"{_FRAMES}.DerivationImageSequence.SourceImageSequence.ReferencedSOPInstanceUID": "of the slice",
    f"{_FRAMES}.FrameContentSequence.DimensionIndexValues": "1, and the frame number",
    f"{_FRAMES}.PlanePositionSequence.ImagePositionPatient": "of the slice",
    "SourceImageSequence": "slices of the reference volume",
    "SegmentSequence.AnatomicRegionSequence": "present if the bundle's intended use names the lung",
    "SegmentSequence.SegmentLabel": "ROI Name, shortened to the length of a Long String",
    "SegmentSequence.SegmentDescription": "names the RTSTRUCT of the contours",
    "SegmentSequence.SegmentationAlgorithmIdentificationSequence.AlgorithmVersion": _VERSION,
    "SegmentSequence.TrackingID": "as in the SR",
    "SegmentSequence.TrackingUID": "as in the SR",
    "SharedFunctionalGroupsSequence.PixelMeasuresSequence.SliceThickness": "the slice spacing if the CT has none",
    "SharedFunctionalGroupsSequence.PixelMeasuresSequence.SpacingBetweenSlices": "measured from the positions",
    "PixelData": "one bit per voxel, or one byte (0 or 255) if the bits of a frame do not fill whole bytes",
}

TREE = {
    "121012": "the Device UID of the Contributing Equipment",
    "121015": "lungstage and its version",
    "121016": _DIGEST,
    "IMAGE 260753009": "a slice of the reference volume, or one beyond it; with Referenced Frame Number if it is a "
    "frame",
    "112039": "ROI name, predicted class, 'research use only'",
    "112040": "derived; the same in every group and in the SEG",
    "111001": "name of the bundle",
    "111003": "version of the bundle; for descriptors: version of lungstage",
    "111002": "SHA-256 of the manifest; extraction settings, prevalence, covariates, engine, robustness as key=value",
    "121071": "Segmented Property Type of the SEG; Neoplasm for contours",
    "363698007": "Anatomic Region of the SEG; else Lung, if the bundle's intended use names the lung",
    "CHANCE": "how often such an answer is right at the prevalence in force, and the patients behind this number",
    "PREDICTIVEVALUE": "of the answer, at the prevalence given in CHANCE; absent if it is not known",
    "ROBUSTNESS": "range of the probability and agreement in perturbed versions, in words",
    "PROBABILITYLOW": "at the prevalence in force; absent, like the next three, if robustness is not known",
    "PROBABILITYHIGH": "at the prevalence in force",
    "AGREEMENT": "share with the same answer as the report",
    "VERSIONS": "number of versions that were measured and answered",
    "VARIATION": "of a feature whose mean is not near zero",
    "ANSWER": "predicted class, probability, and its prevalence",
    "REASON": "for each input, strongest first: to which class it moved the model, and how far",
    "PADVANCED": "to one decimal, and exactly as a Floating Point Value; at the prevalence given in the answer",
    "CONTRIBUTION": "in units of the logit, strongest first",
    "FEATURE": "PyRadiomics' name; for a clinical input the concept is COVARIATE",
    "each feature of the bundle (table of features)": "to six digits, and exactly as a Floating Point Value",
    "121401": "see the table of features, if there is one",
    "DOMAINDISTANCE": "",
    "NEIGHBOURDIST": "",
    "STAGEGROUP": "EARLY, ADVANCED-III, ADVANCED-III-IV or INDETERMINATE; for another endpoint: the code of the class",
    "121191": "the SEG with the segment number: the SEG that was read, or that was written for an RTSTRUCT",
    "121232": "Series Instance UID of the CT",
    "42798000": "area of the region on the key slice, from its voxels",
    "111030": "closed POLYLINE along the sides of the voxels, of the largest part on the slice with most voxels",
    "NOTICE": "research use first; that there is no warning; performance, cohort, prevalence, covariates, "
    "intended use, licence, and limits of the model",
    "WARNING": "warnings of the appliance: loss, matching by position, other tumours, features outside the range, and "
    "others",
    "DESCRIPTION": "first that none is an input of the model; then each with its value, word, evidence and caveats",
    "TSIZECLASS": "TSIZE-T1a to TSIZE-T4: by the long axis, or by that of the solid part of a part-solid tumour",
    **{one.name.value: f"{BY_NAME[name].title}; docs/descriptors.md" for name, one in NUMBERS.items() if not one.site},
    **{concept.value: f"word of {BY_NAME[name].title}" for name, (concept, _) in WORDS.items()},
}  # fmt: skip
