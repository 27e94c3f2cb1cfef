"""The result page as DICOM: Encapsulated PDF, and Secondary Captures for a PACS that shows nothing else.

Both stand in the CT's study, each kind in a series of its own, under UIDs that follow from the structured report's, and
name the instances that the page was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page belongs.

    Attributes
    ----------
    made
        By what and when; its first source says whose the study is.
    root
        The UID that the page's own follow from: the structured report's, where there is one.
    description
        Of the series.
    evidence
        The instances that the page was made from.
    predecessor
        The report that it follows.
    """

    made: Made
    root: str
    description: str
    evidence: tuple[Dataset, ...]
    predecessor: Dataset | None = None


def of_report(context: ReportContext) -> Origin:
    """Say where the page beside a structured report belongs."""
    return Origin(
        context,
        derive_uid(context.identity, "sr"),
        f"lungstage predicted {context.words.kind} (research use only)",
        tuple(_evidence(context)),
        None if context.predecessor is None else _predecessor(context.predecessor),
    )


def of_refusal(context: RefusalContext) -> Origin:
    """Say where the page about a study that was not answered belongs."""
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
        Of the document.
    language
        That the page is in; each has a document of its own.
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
    """Make Secondary Captures (DICOM PS3.3 A.8.1) of the page, and of whatever else was drawn beside it.

    Parameters
    ----------
    origin
        Where the page belongs.
    pictures
        (rows, columns, 3) each.
    drawing
        What they are pictures of.
    language
        That the page is in.
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
    dataset.Modality = "OT"  # and not CT, whose viewers would put a page among the slices
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
    """Everything that both kinds have in common."""
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
    dataset.BurnedInAnnotation = "YES"  # name, identifier and dates are drawn on the page
    dataset.ContributingEquipmentSequence = [equipment(made), _drawn_by(made, made_with)]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class_uid
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _drawn_by(made: Made, made_with: Sequence[str]) -> ContributingEquipment:
    """Say what drew the page, with the hashes of its fonts: where these are the same, it comes out bit for bit."""
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=f"{MODEL_NAME} page",
        software_versions=tuple(made_with),
        contribution_datetime=made.created,
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


def _predecessor(predecessor: Predecessor) -> Dataset:
    """Name the report that this one follows, as the structured report does."""
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
