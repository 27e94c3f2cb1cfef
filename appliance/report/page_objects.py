"""The result page as DICOM: Encapsulated PDF, and Secondary Captures for a PACS that shows only pictures.

Both belong to the CT's study, each kind in a separate series. Their UIDs are derived from the UID of the structured
report. They reference the instances that the page was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from highdicom.base_content import ContributingEquipment
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pydicom.valuerep import DA, TM

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.documents import Language
from lungstage.appliance.report.context import Made, ReportContext, derive_uid
from lungstage.appliance.report.drawing import Drawing, RgbPixels
from lungstage.appliance.report.headers import (
    CHARACTER_SET,
    MANUFACTURER,
    MODEL_NAME,
    equipment,
    moment_of,
    patient_and_study,
    settle,
)
from lungstage.appliance.report.refusal_page import RefusalContext

_SERIES: Final = {EncapsulatedPDFStorage: 9003, SecondaryCaptureImageStorage: 9004}
_TITLE: Final = codes.DCM.ImagingMeasurementReport


def page_uid(report: str, role: str, language: Language, number: int = 1) -> UID:
    """Derive the UID of a page from the UID of its structured report, so that each can be found from the other.

    Parameters
    ----------
    report
        SOP Instance UID of the structured report.
    role
        ``"pdf"``, ``"sc"`` or ``"html"``.
    language
        Language of the page.
    number
        Number among several objects of one role, from 1.
    """
    return derive_uid(report, f"{role}-{language}-{number}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page belongs.

    Attributes
    ----------
    made
        What made it and when; its first source gives patient and study.
    root
        The UID that the page's UIDs are derived from: that of the structured report, if there is one.
    description
        Series Description.
    evidence
        The instances that the page was made from.
    predecessor
        The report that it replaces.
    """

    made: Made
    root: str
    description: str
    evidence: tuple[Dataset, ...]
    predecessor: Dataset | None = None


def of_report(context: ReportContext) -> Origin:
    """Return where the page of a structured report belongs."""
    return Origin(
        context,
        derive_uid(context.identity, "sr"),
        f"lungstage predicted {context.words.kind} (research use only)",
        tuple(_evidence(context)),
        None if context.predecessor is None else _predecessor(context.predecessor),
    )


def of_refusal(context: RefusalContext) -> Origin:
    """Return where the page of a refusal belongs."""
    image = context.sources[0]
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    root = derive_uid(context.identity, "refusal")
    return Origin(context, root, "lungstage: no answer (research use only)", (item,))


def encapsulated_pdf(origin: Origin, drawing: Drawing, title: str, language: Language) -> Dataset:
    """Wrap a page as Encapsulated PDF (DICOM PS3.3 A.45.1).

    Parameters
    ----------
    origin
        Where the page belongs.
    drawing
        The page.
    title
        Title of the document.
    language
        Language of the page; each language is a separate document.
    """
    dataset = _object(origin, EncapsulatedPDFStorage, "pdf", language, drawing.made_with)
    dataset.Modality = "DOC"
    dataset.AcquisitionDateTime = None
    dataset.SourceInstanceSequence = list(origin.evidence)
    dataset.DocumentTitle = title
    dataset.ConceptNameCodeSequence = [_coded(_TITLE)]
    dataset.VerificationFlag = "UNVERIFIED"
    if origin.predecessor is not None:
        dataset.PredecessorDocumentsSequence = [origin.predecessor]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(drawing.pdf)
    dataset.EncapsulatedDocument = drawing.pdf + b"\0" * (len(drawing.pdf) % 2)
    settle(dataset, origin.made)
    return dataset


def secondary_captures(
    origin: Origin, pictures: Sequence[RgbPixels], drawing: Drawing, language: Language
) -> tuple[Dataset, ...]:
    """Make Secondary Captures (DICOM PS3.3 A.8.1) of the page and of the other drawn pictures.

    Parameters
    ----------
    origin
        Where the page belongs.
    pictures
        Pictures, (rows, columns, 3) each.
    drawing
        The drawn page that they show.
    language
        Language of the page.
    """
    made_with = (*drawing.made_with, f"pypdfium2 {version('pypdfium2')}")
    return tuple(
        _secondary_capture(origin, pixels, number, language, made_with) for number, pixels in enumerate(pictures, 1)
    )


def _secondary_capture(
    origin: Origin, pixels: RgbPixels, number: int, language: Language, made_with: Sequence[str]
) -> Dataset:
    dataset = _object(origin, SecondaryCaptureImageStorage, "sc", language, made_with, number)
    dataset.Laterality = None
    dataset.Modality = "OT"  # with CT, viewers would put the page among the slices
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = None
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = dataset.ContentDate, dataset.ContentTime
    dataset.DerivationDescription = "Result page of a radiomics model; research use only"
    of_images = {str(source.SOPClassUID) for source in origin.made.sources}
    dataset.SourceImageSequence = [item for item in origin.evidence if item.ReferencedSOPClassUID in of_images]
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    content = pixels.tobytes()
    dataset.add_new("PixelData", "OB", content + b"\0" * (len(content) % 2))
    settle(dataset, origin.made)
    return dataset


def _object(
    origin: Origin,
    sop_class_uid: UID,
    role: str,
    language: Language,
    made_with: Sequence[str],
    number: int = 1,
) -> Dataset:
    """Make the attributes that both kinds share."""
    made = origin.made
    dataset = patient_and_study(made.sources[0])
    dataset.SpecificCharacterSet = CHARACTER_SET
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = page_uid(origin.root, role, language, number)
    dataset.SeriesInstanceUID = derive_uid(page_uid(origin.root, role, language), "series")
    dataset.SeriesNumber, dataset.InstanceNumber = _SERIES[sop_class_uid], number
    dataset.SeriesDescription = origin.description[:64]
    moment = moment_of(made)
    dataset.SeriesDate = dataset.ContentDate = DA(moment.date())
    dataset.SeriesTime = dataset.ContentTime = TM(moment.time())
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = made.software_version, made.bundle.digest
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"  # the page shows name, identifier and dates
    dataset.ContributingEquipmentSequence = [equipment(made), _drawn_by(made, made_with)]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class_uid
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _drawn_by(made: Made, made_with: Sequence[str]) -> ContributingEquipment:
    """Name drawing library and font hashes. If these are the same, a new drawing has the same bytes."""
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=f"{MODEL_NAME} page",
        software_versions=tuple(made_with),
        contribution_datetime=made.created,
        contribution_description="Drawing library and fonts of the page",
    )


def drawn_with(source: Path | BinaryIO) -> Mapping[str, str]:
    """Read what a page was drawn with: versions of libraries and hashes of fonts; empty if it cannot be read."""
    try:
        dataset = dcmread(source, specific_tags=["ContributingEquipmentSequence"])
        (item,) = (
            item
            for item in dataset.ContributingEquipmentSequence
            if item.get("ManufacturerModelName") == f"{MODEL_NAME} page"
        )
        texts = item.SoftwareVersions
        return dict(text.rsplit(" ", 1) for text in ([texts] if isinstance(texts, str) else texts))
    except Exception:  # the item is missing, or the bytes are hostile: any error means that nothing is known
        return {}


def _evidence(context: ReportContext) -> Iterable[Dataset]:
    """List references to the structured report, the region and the slices, each once."""
    source = context.roi_source
    references = [
        (Comprehensive3DSRStorage, derive_uid(context.identity, "sr"), 0),
        (source.sop_class_uid, source.sop_instance_uid, 0),
    ]
    if context.segmentation is None:
        references.append((SegmentationStorage, derive_uid(context.identity, "seg"), 0))
    frames = context.frames or (0,) * len(context.sources)
    references += [
        (image.SOPClassUID, image.SOPInstanceUID, frame) for image, frame in zip(context.sources, frames, strict=True)
    ]
    numbers: dict[tuple[str, str], list[int]] = {}
    for sop_class_uid, sop_instance_uid, frame in references:
        numbers.setdefault((str(sop_class_uid), str(sop_instance_uid)), []).append(frame)
    for (sop_class_uid, sop_instance_uid), of in numbers.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        if any(of):
            item.ReferencedFrameNumber = of
        yield item


def _predecessor(predecessor: Predecessor) -> Dataset:
    """Make the reference to the replaced report, as in the structured report."""
    study, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = Comprehensive3DSRStorage
    instance.ReferencedSOPInstanceUID = predecessor.sop_instance_uid
    series.SeriesInstanceUID, series.ReferencedSOPSequence = predecessor.series_instance_uid, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = predecessor.study_instance_uid, [series]
    return study


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def pdf_inside(content: bytes) -> bytes:
    """Return the PDF inside an Encapsulated PDF of this module.

    Parameters
    ----------
    content
        The delivered file.

    Returns
    -------
    bytes
        The PDF, without the padding byte.
    """
    dataset = dcmread(BytesIO(content))
    pdf: bytes = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    return pdf
