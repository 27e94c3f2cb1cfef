"""Check that the parts of a case belong together: a CT and a region of interest of one study and one patient."""

from __future__ import annotations

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case, ct_missing
from lungstage.appliance.dicom.linking import Link, link_of
from lungstage.appliance.dicom.names import named
from lungstage.appliance.dicom.region import Region

# Terms of PS3.3 C.7.3.1.1.1. A message may quote only these: any other value could be free text about a patient.
_MODALITIES = frozenset({"CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "RF", "US", "XA"})


def prove_parts(case: Case) -> None:
    """Hold or refuse a case whose CT or region of interest is missing or of the wrong kind."""
    if len(case.candidates) > 1:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"The region could belong to {len(case.candidates)} CT series, but names none of them. Export the "
            f"{case.rois[0].kind} again from the series on which it was drawn, so that it names that series' images.",
        )
    if not case.images:
        raise ct_missing(case.rois)
    if not any(image.is_ct_slice for image in case.images):
        kinds = sorted({image.modality for image in case.images} & _MODALITIES) or ["unknown"]
        what = "scout or secondary images" if kinds == ["CT"] else f"images of modality {', '.join(kinds)}"
        raise Refused(
            ReasonCode.NOT_CT,
            f"The series contains {what}, but only axial CT can be measured. Send the axial CT that the region was "
            "drawn on.",
        )
    if not case.rois:
        raise Held(
            ReasonCode.NO_ROI, "No region was received for this CT series. Send the RTSTRUCT or SEG drawn on it."
        )


def prove_study(case: Case, region: Region) -> tuple[str, ...]:
    """Refuse a region of another study, unless it refers to this study's images.

    Some archives and tools give an RTSTRUCT or SEG a new Study Instance UID. The position alone must not link a region
    to another study of the same patient.

    Returns
    -------
    tuple of str
        Warnings.
    """
    studies = {image.study_instance_uid for image in case.images}
    if len(studies) > 1:
        raise Refused(
            ReasonCode.STUDY_MISMATCH,
            "The slices of the series belong to different studies (Study Instance UID, 0020,000D). Send the series "
            "again from the PACS.",
        )
    source = region.source
    if source.study_instance_uid in studies:
        return ()
    if link_of(case, region) not in (Link.NAMED, Link.LISTED):
        raise Refused(
            ReasonCode.STUDY_MISMATCH,
            f"The CT and the {source.kind} belong to different studies (Study Instance UID, 0020,000D), and "
            f"{named(region.name)} does not refer to images of this CT. Send the CT that the region was drawn on. If "
            f"it is this CT, export the {source.kind} again with references to its images.",
            (region.name,),
        )
    if source.referenced_studies and not studies & set(source.referenced_studies):
        raise Refused(
            ReasonCode.STUDY_MISMATCH,
            f"The {source.kind} refers to images of another study than that of this CT. Send the CT of that "
            f"study (Study Instance UID {source.referenced_studies[0]}).",
        )
    return (
        f"The {source.kind} has another Study Instance UID than the CT. Its patient and its references match the CT.",
    )


def prove_linked(case: Case, region: Region) -> None:
    """Refuse files that do not identify the patient, unless the region's references show that they belong together."""
    if link_of(case, region) not in (Link.NAMED, Link.LISTED):
        raise Refused(
            ReasonCode.PATIENT_MISMATCH,
            f"Neither the CT nor the {region.source.kind} identifies its patient, and {named(region.name)} does not "
            "refer to images of the CT. Make sure that both are of the same patient, and export them again with the "
            "Patient ID.",
            (region.name,),
        )
