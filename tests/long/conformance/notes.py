"""What the tables of the conformance statement say of values in words; that none is missing or left over is tested."""

from __future__ import annotations

from lungstage.appliance.descriptors.definitions import BY_NAME
from lungstage.appliance.report.descriptor_items import NUMBERS, WORDS

_CLAIMED = "date and time at which the content was first claimed under this bundle"
_DATE = f"{_CLAIMED}, by Timezone Offset From UTC"
_DERIVED = "2.25., derived from everything that the document says but the time"
_DIGEST = "SHA-256 of the bundle's manifest.json, in hexadecimal"
_VERSION = "version of lungstage"

_COMMON = {
    "ContentDate": _DATE,
    "ContentTime": _DATE,
    "ContributingEquipmentSequence": "what acquired the CT (by its header); lungstage with its bundle; highdicom",
    "ContributingEquipmentSequence.ContributionDateTime": f"{_CLAIMED}, with the offset of the appliance's clock",
    "ContributingEquipmentSequence.DeviceSerialNumber": f"of lungstage: {_DIGEST}",
    "ContributingEquipmentSequence.DeviceUID": "of lungstage: 2.25., derived from bundle and version",
    "ContributingEquipmentSequence.SoftwareVersions": f"of lungstage: {_VERSION}; name and version of the bundle",
    "DeviceSerialNumber": _DIGEST,
    "InstanceCreationDate": _DATE,
    "InstanceCreationTime": _DATE,
    "SOPInstanceUID": _DERIVED,
    "SeriesDate": _DATE,
    "SeriesInstanceUID": f"{_DERIVED}; a series of its own for each document",
    "SeriesTime": _DATE,
    "SoftwareVersions": _VERSION,
    "TimezoneOffsetFromUTC": "the CT's, else that of the appliance's clock",
}

_EVIDENCE = "CurrentRequestedProcedureEvidenceSequence.ReferencedSeriesSequence"
_PERTINENT = "PertinentOtherEvidenceSequence"
_PREDECESSOR = "PredecessorDocumentsSequence.ReferencedSeriesSequence"
SR = _COMMON | {
    "SeriesDescription": "lungstage predicted stage group, or class, (research use only)",
    "PredecessorDocumentsSequence": "where a report of other content or another bundle was delivered for this series",
    f"{_PREDECESSOR}.ReferencedSOPSequence.ReferencedSOPInstanceUID": "of the report that this one follows",
    f"{_PREDECESSOR}.SeriesInstanceUID": "of that report",
    "CurrentRequestedProcedureEvidenceSequence": "the slices measured; the RTSTRUCT or SEG read; the SEG written",
    f"{_EVIDENCE}.ReferencedSOPSequence.ReferencedSOPInstanceUID": "of these",
    f"{_EVIDENCE}.SeriesInstanceUID": "of these",
    _PERTINENT: "the RTSTRUCT or SEG read, where it bears a Study Instance UID of its own",
    f"{_PERTINENT}.ReferencedSeriesSequence.ReferencedSOPSequence.ReferencedSOPClassUID": "its own",
    f"{_PERTINENT}.ReferencedSeriesSequence.ReferencedSOPSequence.ReferencedSOPInstanceUID": "its own",
    f"{_PERTINENT}.ReferencedSeriesSequence.SeriesInstanceUID": "its own",
    f"{_PERTINENT}.StudyInstanceUID": "its own",
    "ContentSequence": "table below",
}  # fmt: skip

_FRAMES = "PerFrameFunctionalGroupsSequence"
SEG = _COMMON | {
    "DimensionOrganizationSequence.DimensionOrganizationUID": _DERIVED,
    "DimensionIndexSequence.DimensionOrganizationUID": "the same",
    "DimensionOrganizationType": "absent for a single slice",
    "NumberOfFrames": "slices that hold a part of the region",
    f"{_FRAMES}.DerivationImageSequence.SourceImageSequence.ReferencedSOPInstanceUID": "of the slice",
    f"{_FRAMES}.FrameContentSequence.DimensionIndexValues": "1, and the frame's number",
    f"{_FRAMES}.PlanePositionSequence.ImagePositionPatient": "of the slice",
    "SourceImageSequence": "slices of the reference volume",
    "SegmentSequence.AnatomicRegionSequence": "where the bundle's intended use names the lung",
    "SegmentSequence.SegmentLabel": "ROI Name, cut to what a Long String holds",
    "SegmentSequence.SegmentDescription": "names the RTSTRUCT that the contours are from",
    "SegmentSequence.SegmentationAlgorithmIdentificationSequence.AlgorithmVersion": _VERSION,
    "SegmentSequence.TrackingID": "as in the SR",
    "SegmentSequence.TrackingUID": "as in the SR",
    "SharedFunctionalGroupsSequence.PixelMeasuresSequence.SliceThickness": "the slice spacing where the CT states none",
    "SharedFunctionalGroupsSequence.PixelMeasuresSequence.SpacingBetweenSlices": "as measured on the positions",
    "PixelData": "one bit a voxel, or a byte (0 or 255) where the bits of a frame do not fill whole bytes",
}

TREE = {
    "121012": "the Device UID of the Contributing Equipment",
    "121015": "lungstage and its version",
    "121016": _DIGEST,
    "IMAGE 260753009": "a slice of the reference volume, or one beyond it; with Referenced Frame Number where it is a "
    "frame",
    "112039": "ROI name, predicted class, 'research use only'; of descriptors that they are no inputs of the model",
    "112040": "derived; the same in both groups of the answer and in the SEG; of descriptors another",
    "111001": "name of the bundle",
    "111003": "version of the bundle; of descriptors that of lungstage",
    "111002": "SHA-256 of the manifest; extraction settings, prevalence, covariates, engine, robustness as key=value",
    "121071": "Segmented Property Type of the SEG; Neoplasm for contours",
    "363698007": "Anatomic Region of the SEG; else Lung, where the bundle's intended use names the lung",
    "CHANCE": "how often such an answer is right at the prevalence in force, and whom that is worked out from",
    "PREDICTIVEVALUE": "of the answer, at the prevalence that CHANCE names; absent where it is not known",
    "ROBUSTNESS": "range of the probability and agreement in perturbed versions, in words",
    "PROBABILITYLOW": "at the prevalence in force; absent, as the next three, where robustness is not known",
    "PROBABILITYHIGH": "likewise",
    "AGREEMENT": "with the report's own answer",
    "VERSIONS": "that were measured and answered",
    "VARIATION": "of a feature whose mean is not about zero",
    "ANSWER": "predicted class, probability, and the prevalence that it holds at",
    "REASON": "of each input, strongest first: to which class it moved the model, and how far",
    "PADVANCED": "to a decimal, and exactly as a Floating Point Value; at the prevalence that the answer names",
    "CONTRIBUTION": "in units of the logit, strongest first",
    "FEATURE": "PyRadiomics' name; for a clinical input the concept is COVARIATE",
    "each feature of the bundle (table of features)": "to six digits, and exactly as a Floating Point Value",
    "121401": "of the table of features, where there is one",
    "DOMAINDISTANCE": "",
    "NEIGHBOURDIST": "",
    "STAGEGROUP": "EARLY, ADVANCED-III, ADVANCED-III-IV or INDETERMINATE; of another endpoint the class's own code",
    "121191": "the SEG, with the segment's number: the one that was read, or that was written for an RTSTRUCT",
    "121232": "Series Instance UID of the CT",
    "42798000": "of the region on the key slice, by voxels",
    "111030": "closed POLYLINE along the voxels' sides, of the largest part on the slice with most voxels",
    "NOTICE": "of research use first; that no warning is there; of worth, cohort, prevalence, covariates, "
    "intended use, licence, and the model's limits",
    "WARNING": "of the appliance: loss, matching by position, other tumours, features outside the range, and so on",
    "DESCRIPTION": "first that none is an input of the model; then each with its value, word, worth and caveats",
    "TSIZECLASS": "TSIZE-T1a to TSIZE-T4: of the long axis, of the solid part where the tumour is part-solid",
    **{one.name.value: f"{BY_NAME[name].title}; docs/descriptors.md" for name, one in NUMBERS.items() if not one.site},
    **{concept.value: f"word of {BY_NAME[name].title}" for name, (concept, _) in WORDS.items()},
}  # fmt: skip
