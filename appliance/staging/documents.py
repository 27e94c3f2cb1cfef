"""Build the documents of a measurement and its answer, and the digest that their UIDs are derived from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from lungstage.appliance import __version__
from lungstage.appliance.contract.case import KnownCovariates, Predecessor
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS, RobustnessOptions
from lungstage.appliance.contract.spec import StagingResult
from lungstage.appliance.descriptors.values import Descriptors
from lungstage.appliance.dicom.coded import SNOMED_RT, Coded, in_snomed_ct
from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.series import ReferenceVolume
from lungstage.appliance.model.answering import AnswerRule
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.model.manifest import QUANTILES
from lungstage.appliance.report import outbox
from lungstage.appliance.report import structured_report as report
from lungstage.appliance.report.cohort import Cohort
from lungstage.appliance.report.context import label
from lungstage.appliance.report.headers import copied_header, source_headers
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.report.page_documents import page_documents
from lungstage.appliance.report.result_page import PageContext
from lungstage.appliance.staging.descriptors import digest
from lungstage.appliance.staging.measure import Measurement

_USUAL = DocumentOptions()
_CODE = re.compile(r"[!-\[\]-~]{1,64}")
_SCHEME = re.compile(r"[A-Z0-9_.-]{1,16}", re.IGNORECASE)


def _document_identity(
    measurement: Measurement,
    result: StagingResult,
    bundle: Bundle,
    warnings: tuple[str, ...],
    covariates: KnownCovariates,
    predecessor: Predecessor | None,
    others: tuple[tuple[int, str], ...],
    robustness: RobustnessOptions,
    descriptors: Descriptors | None,
) -> str:
    """Digest every input of the documents, so that the same input always gives the same UIDs."""
    every = hashlib.sha256()
    volume = measurement.voxels.volume
    for part in (
        str(volume.array.dtype).encode(),
        repr(volume.array.shape).encode(),
        volume.array.tobytes(),
        volume.affine.tobytes(),
        "\n".join(image.name for image in measurement.slices.images).encode(),
        measurement.region.source.sop_instance_uid.encode(),
        f"{measurement.region.number} {measurement.region.name}".encode(),
        "\n".join(warnings).encode(),
        measurement.region.source.series_instance_uid.encode(),
        measurement.region.source.study_instance_uid.encode(),
        # Everything that the documents copy about patient, study and device: a correction gives a new document.
        str(copied_header(measurement.voxels.datasets[0]).to_json()).encode(),
        np.packbits(measurement.mask).tobytes(),
        bundle.digest.encode(),
        # The site's covariates and prevalence.
        repr((result.prevalence, dict(covariates.values), covariates.missing)).encode(),
        __version__.encode(),
        repr(predecessor).encode(),
        *_other_engine(bundle),
        *([repr(others).encode()] if others else []),
        *_of_robustness(measurement, result, robustness),
        *(() if descriptors is None else (digest(descriptors),)),
    ):
        every.update(len(part).to_bytes(8, "big") + part)
    return every.hexdigest()


def _of_robustness(measurement: Measurement, result: StagingResult, options: RobustnessOptions) -> Iterator[bytes]:
    """Yield the documents' content about robustness and additional slices; nothing if robustness was not tested."""
    if result.robustness is None:
        return
    found = result.robustness
    yield repr((options, found.as_dict(), found.slices)).encode()
    for beyond in (measurement.before, measurement.behind):
        if beyond is not None:
            yield "\n".join(str(dataset.SOPInstanceUID) for dataset in beyond.datasets).encode()


def _other_engine(bundle: Bundle) -> tuple[bytes, ...]:
    """Name the engine if it is not the default one: its numbers may differ in their last digit."""
    return () if bundle.spec.engine == "compiled" else (bundle.spec.engine.encode(),)


def _parameters(
    result: StagingResult, bundle: Bundle, covariates: KnownCovariates, robustness: RobustnessOptions
) -> tuple[str, ...]:
    """List, with all digits, every input of the answer other than images and bundle."""
    given: dict[str, object] = {key: bundle.spec.settings[key] for key in sorted(bundle.spec.settings)}
    if bundle.spec.engine != "compiled":
        given["engine"] = bundle.spec.engine
    if result.prevalence is not None:
        given["prevalence"] = result.prevalence
    if result.robustness is not None:
        given |= asdict(robustness) | {"slices_beyond": "{}+{}".format(*result.robustness.slices)}
    return tuple(f"{key}={value}" for key, value in (given | dict(covariates.values)).items())


def bundle_identity(bundle: Bundle, settings: tuple[str, ...]) -> report.BundleIdentity:
    """Return the documents' entries about a bundle; `settings` are those that it was used with."""
    provenance, worth, decision = bundle.manifest.provenance, bundle.manifest.worth, bundle.manifest.decision
    ranges = [one for one in (decision.early_coverage, decision.advanced_coverage) if one is not None]
    return report.BundleIdentity(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        digest=bundle.digest,
        prevalence_advanced=provenance.prevalence_advanced,
        stages_absent=provenance.stages_absent,
        licence=provenance.licence,
        cohort=provenance.cohort,
        rows=provenance.rows,
        intended_use=bundle.manifest.intended_use.statement,
        settings=settings,
        alpha=decision.alpha,
        endpoint=bundle.manifest.endpoint.endpoint,
        worth=None if worth is None else worth.worth,
        coverage=(min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None,
    )


def _finding(region: Region) -> Code | None:
    """Return the finding: the code of a SEG; for the contours of an RTSTRUCT only that it is a tumour."""
    return codes.SCT.Neoplasm if region.source.kind == "RTSTRUCT" else _written(region.property_type)


def _sites(region: Region, bundle: Bundle) -> tuple[Code, ...]:
    """Return the region's site: the code in its file, otherwise the lung if the bundle is for lung tumours."""
    if region.anatomy:
        return tuple(site for code in region.anatomy if (site := _written(code)))
    return (codes.SCT.Lung,) if re.search(r"\blung\b", bundle.manifest.intended_use.statement) else ()


def _written(code: Coded) -> Code | None:
    """Return a code that may be written again; None if it is malformed, retired or private."""
    value, scheme, meaning = in_snomed_ct(code) or ("", "", "")
    if not _CODE.fullmatch(value) or not _SCHEME.fullmatch(scheme) or scheme in SNOMED_RT or scheme.startswith("99"):
        return None
    return Code(value, scheme, label(meaning or value))


def build_documents(
    measurement: Measurement,
    result: StagingResult,
    bundle: Bundle,
    created: datetime,
    warnings: tuple[str, ...],
    covariates: KnownCovariates,
    predecessor: Predecessor | None = None,
    others: tuple[tuple[int, str], ...] = (),
    options: DocumentOptions = _USUAL,
    robustness: RobustnessOptions = NO_ROBUSTNESS,
    descriptors: Descriptors | None = None,
) -> tuple[Document, ...]:
    """Build the documents of one answer, in order of delivery.

    Parameters
    ----------
    measurement, result, bundle
        The measurement, the model's answer, and the bundle.
    created
        Content date and time.
    warnings
        Plain sentences for the reader.
    covariates
        The known clinical inputs.
    predecessor
        The report that this one follows, if any.
    others
        (ROI or Segment Number, name) of other possible tumours.
    options
        Which documents to make, and in which language.
    robustness
        How the answer's robustness was tested.
    descriptors
        The tumour's descriptors; None if they were not requested.

    Returns
    -------
    tuple of Document
        For a region from an RTSTRUCT, first the SEG that the SR refers to. Then the page in the requested formats. The
        SR is last.
    """
    source = measurement.region.source
    reference = None
    if source.kind == "SEG":
        reference = report.SegmentReference(source.sop_class_uid, source.sop_instance_uid, measurement.region.number)
    frames = tuple(image.frame for image in measurement.slices.images)
    context = report.ReportContext(
        sources=measurement.voxels.datasets,
        mask=measurement.mask,
        roi_name=measurement.region.name,
        segmentation=reference,
        roi_source=report.RoiSource(
            source.sop_class_uid, source.sop_instance_uid, source.series_instance_uid, source.study_instance_uid
        ),
        features=measurement.features,
        result=result,
        bundle=bundle_identity(bundle, _parameters(result, bundle, covariates, robustness)),
        identity=_document_identity(
            measurement, result, bundle, warnings, covariates, predecessor, others, robustness, descriptors
        ),
        created=created,
        warnings=warnings,
        software_version=__version__,
        cohort=_cohort(bundle, result),
        covariates=covariates,
        predecessor=predecessor,
        frames=frames if any(frames) else (),
        finding=_finding(measurement.region),
        sites=_sites(measurement.region, bundle),
        others=others,
        before=_beyond(measurement.before, measurement.slices.before),
        behind=_beyond(measurement.behind, measurement.slices.behind),
        descriptors=descriptors,
    )
    headers = source_headers(context)
    volume = measurement.voxels.volume
    page = page_documents(PageContext(context, volume.array, volume.affine), options) if options.has_page else ()
    if reference is not None:
        return (*page, outbox.encode(report.build_report(context, reference, headers)))
    segmentation = report.build_segmentation(context, headers)
    reference = report.SegmentReference(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1)
    written = outbox.encode(segmentation)
    return (written, *page, outbox.encode(report.build_report(context, reference, headers)))


def _beyond(voxels: ReferenceVolume | None, images: Sequence[ImageHeader]) -> tuple[tuple[Dataset, int], ...]:
    """Return the headers of readable slices beyond the reference volume, with their frame numbers."""
    frames = (image.frame for image in images)
    return () if voxels is None else tuple(zip(voxels.datasets, frames, strict=True))


def _cohort(bundle: Bundle, result: StagingResult) -> Cohort:
    manifest = bundle.manifest
    return Cohort(
        shares=tuple(map(float, QUANTILES)),
        quantiles={
            entry.name: tuple(entry.training_quantiles[share] for share in QUANTILES) for entry in manifest.features
        },
        open_between=AnswerRule.of(manifest, result.prevalence).open_between,
    )
