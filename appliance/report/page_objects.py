"""The result page as DICOM: Encapsulated PDF, and Secondary Captures for a PACS that shows nothing else.

Both stand in the CT's study, each kind in a series of its own, under UIDs that follow from the structured report's, and
name the instances that the page was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
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

from lungstage.appliance.contract.documents import Language
from lungstage.appliance.report.context import ReportContext, derive_uid
from lungstage.appliance.report.drawing import Drawing, RgbPixels
from lungstage.appliance.report.headers import (
    CHARACTER_SET,
    MANUFACTURER,
    MODEL_NAME,
    equipment,
    patient_and_study,
    settle,
)

_SERIES: Final = {EncapsulatedPDFStorage: 9003, SecondaryCaptureImageStorage: 9004}
_TITLE: Final = codes.DCM.ImagingMeasurementReport


def page_uid(report: str, role: str, language: Language, number: int = 1) -> UID:
    """UID of a page that was made with a structured report: it follows from the report's own, and so can be found.

    Parameters
    ----------
    report
        SOP Instance UID of the structured report.
    role
        ``"pdf"``, ``"sc"`` or ``"html"``.
    language
        That the page is in.
    number
        Of several objects of one role, from 1.
    """
    return derive_uid(report, f"{role}-{language}-{number}")


def encapsulated_pdf(context: ReportContext, drawing: Drawing, title: str, language: Language) -> Dataset:
    """Wrap a page as Encapsulated PDF (DICOM PS3.3 A.45.1).

    Parameters
    ----------
    context
        What the report is made of.
    drawing
        The page.
    title
        Of the document.
    language
        That the page is in; each has a document of its own.
    """
    dataset = _object(context, EncapsulatedPDFStorage, "pdf", language, drawing.made_with)
    dataset.Modality = "DOC"
    dataset.AcquisitionDateTime = None
    dataset.SourceInstanceSequence = [*_evidence(context)]
    dataset.DocumentTitle = title
    dataset.ConceptNameCodeSequence = [_coded(_TITLE)]
    dataset.VerificationFlag = "UNVERIFIED"
    if context.predecessor is not None:
        dataset.PredecessorDocumentsSequence = [_predecessor(context)]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(drawing.pdf)
    dataset.EncapsulatedDocument = drawing.pdf + b"\0" * (len(drawing.pdf) % 2)
    settle(dataset, context)
    return dataset


def secondary_captures(
    context: ReportContext, pictures: Sequence[RgbPixels], drawing: Drawing, language: Language
) -> tuple[Dataset, ...]:
    """Make Secondary Captures (DICOM PS3.3 A.8.1) of the page, and of whatever else was drawn beside it.

    Parameters
    ----------
    context
        What the report is made of.
    pictures
        (rows, columns, 3) each.
    drawing
        What they are pictures of.
    language
        That the page is in.
    """
    made_with = (*drawing.made_with, f"pypdfium2 {version('pypdfium2')}")
    return tuple(
        _secondary_capture(context, pixels, number, language, made_with) for number, pixels in enumerate(pictures, 1)
    )


def _secondary_capture(
    context: ReportContext, pixels: RgbPixels, number: int, language: Language, made_with: Sequence[str]
) -> Dataset:
    dataset = _object(context, SecondaryCaptureImageStorage, "sc", language, made_with, number)
    dataset.Laterality = None
    dataset.Modality = "OT"  # and not CT, whose viewers would put a page among the slices
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = None
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = dataset.ContentDate, dataset.ContentTime
    dataset.DerivationDescription = "Result page of a radiomics model; research use only"
    dataset.SourceImageSequence = [
        item for item in _evidence(context) if item.ReferencedSOPClassUID == context.sources[0].SOPClassUID
    ]
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    content = pixels.tobytes()
    dataset.add_new("PixelData", "OB", content + b"\0" * (len(content) % 2))
    settle(dataset, context)
    return dataset


def _object(
    context: ReportContext,
    sop_class_uid: UID,
    role: str,
    language: Language,
    made_with: Sequence[str],
    number: int = 1,
) -> Dataset:
    """Everything that both kinds have in common."""
    dataset = patient_and_study(context.sources[0])
    report = derive_uid(context.identity, "sr")
    dataset.SpecificCharacterSet = CHARACTER_SET
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = page_uid(report, role, language, number)
    dataset.SeriesInstanceUID = derive_uid(
        dataset.SOPInstanceUID if number == 1 else page_uid(report, role, language), "series"
    )
    dataset.SeriesNumber, dataset.InstanceNumber = _SERIES[sop_class_uid], number
    dataset.SeriesDescription = f"lungstage predicted {context.words.kind} (research use only)"
    dataset.SeriesDate = dataset.ContentDate = DA(context.created.date())
    dataset.SeriesTime = dataset.ContentTime = TM(context.created.time())
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = context.software_version, context.bundle.digest
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"  # name, identifier and dates are drawn on the page
    dataset.ContributingEquipmentSequence = [equipment(context), _drawn_by(context, made_with)]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class_uid
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _drawn_by(context: ReportContext, made_with: Sequence[str]) -> ContributingEquipment:
    """Say what drew the page, with the hashes of its fonts: where these are the same, it comes out bit for bit."""
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=f"{MODEL_NAME} page",
        software_versions=tuple(made_with),
        contribution_datetime=context.created,
        contribution_description="Drawing library and fonts of the page",
    )


def drawn_with(source: Path | BinaryIO) -> Mapping[str, str]:
    """Read what a page was drawn with: library or font, and its version or hash; nothing where that cannot be read."""
    try:
        dataset = dcmread(source, specific_tags=["ContributingEquipmentSequence"])
        (item,) = (
            item
            for item in dataset.ContributingEquipmentSequence
            if item.get("ManufacturerModelName") == f"{MODEL_NAME} page"
        )
        texts = item.SoftwareVersions
        return dict(text.rsplit(" ", 1) for text in ([texts] if isinstance(texts, str) else texts))
    except Exception:  # it is not there, or hostile bytes: whatever the parser raises, nothing is known
        return {}


def _evidence(context: ReportContext) -> Iterable[Dataset]:
    """Name the structured report, the region and the slices, each once."""
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


def _predecessor(context: ReportContext) -> Dataset:
    """Name the report that this one follows, as the structured report does."""
    study, series, instance = Dataset(), Dataset(), Dataset()
    assert context.predecessor is not None
    instance.ReferencedSOPClassUID = Comprehensive3DSRStorage
    instance.ReferencedSOPInstanceUID = context.predecessor.sop_instance_uid
    series.SeriesInstanceUID, series.ReferencedSOPSequence = context.predecessor.series_instance_uid, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = context.predecessor.study_instance_uid, [series]
    return study


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
