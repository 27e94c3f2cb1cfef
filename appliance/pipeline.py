"""The steps composed: from a case to a plan, from a plan to an answer and its documents.

Nothing here knows of folders, clocks or ledgers: the files named in the case are read, everything else comes in as a
value and goes out as one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom.dataset import Dataset

from appliance import __version__, report
from appliance.bundle import Bundle
from appliance.dicom.cases import Case
from appliance.dicom.completeness import ReferenceSlices, reference_slices
from appliance.dicom.files import Header, ImageHeader
from appliance.dicom.roi import Region, SelectionRule, choose, load_regions
from appliance.dicom.series import ReferenceVolume, rasterise, read_volume
from appliance.errors import Held, Reason, ReasonCode, Refused
from appliance.manifest import IntendedUse
from appliance.radiomics import extract, grid
from appliance.spec import ExtractionSpec, FeatureVector, StagingResult

STEPS = ("scan", "read", "roi", "resample", "radiomics", "infer", "report", "total")

Mask = npt.NDArray[np.bool_]

# Aerated lung: denser than the air around a patient, thinner than fat. A lung tumour has some of it within reach;
# a sarcoma of the thigh has muscle and fat there (figures in docs/decisions.md).
_LUNG_HU = (-950, -500)
_LUNG_REACH = 10.0  # mm
_LUNG_SHARE = 0.05


class Stopwatch:
    """Seconds spent in each named step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside to step `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, with everything that it needs known to be there.

    Attributes
    ----------
    case
        The case that it was made from.
    regions
        The chosen region of each ROI object that offers one, with its reference slices; the first is measured and
        the others must agree with it.
    fingerprint
        Hex digest of the content that is needed; equal for equal content, wherever the files lie.
    warnings
        Plain sentences for the report.
    """

    case: Case
    regions: tuple[tuple[Region, ReferenceSlices], ...]
    fingerprint: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The features of one region, with the voxels that they were measured on."""

    region: Region
    slices: ReferenceSlices
    voxels: ReferenceVolume
    mask: Mask
    features: FeatureVector
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Staged:
    """An answer: the outcome as the command contract has it, and the documents in order of delivery."""

    outcome: dict[str, Any]
    documents: tuple[Dataset, ...]


def outcome(
    *,
    status: str,
    reason: Reason | None = None,
    measurement: Measurement | None = None,
    result: StagingResult | None = None,
    warnings: tuple[str, ...] = (),
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write an outcome in the form of the command contract: every key is there, null where unknown."""
    timing = dict(seconds or {})
    return {
        "status": status,
        "reason": None if reason is None else {"code": str(reason.code), "message": reason.message},
        "stage": None if result is None else str(result.stage),
        "probability_advanced": None if result is None else result.probability_advanced,
        "contributions": None if result is None else dict(result.contributions),
        "features": None if measurement is None else measurement.features.as_dict(),
        "domain": None
        if result is None
        else {"distance": result.domain.distance, "outside": list(result.domain.outside)},
        "roi": None if measurement is None else _roi_facts(measurement),
        "sr": None,
        "warnings": list(warnings),
        "seconds": {step: timing.get(step) for step in STEPS},
    }


def _roi_facts(measurement: Measurement) -> dict[str, Any]:
    voxels = int(measurement.mask.sum())
    return {
        "name": measurement.region.name,
        "voxels": voxels,
        "volume_mm3": voxels * float(np.prod(measurement.slices.spacing)),
    }


def _prove_identity(case: Case) -> None:
    """Refuse ROI objects and images that name different patients or studies."""
    every: tuple[Header, ...] = (*case.images, *case.rois)
    if len({header.patient_key for header in every}) > 1:
        raise Refused(ReasonCode.PATIENT_MISMATCH, "The CT and the region of interest name different patients.")
    if len({header.study_instance_uid for header in every}) > 1:
        raise Refused(ReasonCode.STUDY_MISMATCH, "The CT and the region of interest name different studies.")


def _prove_parts(case: Case) -> None:
    """Hold or refuse a case in which the CT or its region of interest is not there, or not the right kind."""
    if len(case.candidates) > 1:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"The region of interest could belong to {len(case.candidates)} CT series, and names none of them.",
        )
    if not case.images:
        raise Held(ReasonCode.CT_MISSING, "The images that the region of interest was drawn on are not there.")
    if not any(image.is_ct_slice for image in case.images):
        kinds = sorted({image.modality or "unknown" for image in case.images})
        what = "scout, multi-frame or secondary images" if kinds == ["CT"] else f"images of modality {', '.join(kinds)}"
        raise Refused(ReasonCode.NOT_CT, f"The series holds {what}; only single-frame axial CT is measured.")
    if not case.rois:
        raise Held(ReasonCode.NO_ROI, "There is no region of interest for this series yet.")


def _outside(message: str) -> Refused:
    return Refused(ReasonCode.OUTSIDE_INTENDED_USE, f"The model is not meant for this: {message}.")


def _between(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _prove_acquisition(images: tuple[ImageHeader, ...], use: IntendedUse) -> None:
    """Refuse images whose headers already say that they lie outside the model's intended use."""
    for image in images:
        if not image.is_ct_slice:
            continue
        if image.body_part and image.body_part not in use.body_parts:
            raise _outside(f"the body part examined is {image.body_part!r}")
        if "ORIGINAL" not in image.image_type[:1] or "AXIAL" not in image.image_type:
            raise _outside("the images are not original axial CT")
        if image.slice_thickness is not None and not _between(image.slice_thickness, use.slice_thickness_mm):
            raise _outside(f"the slice thickness is {image.slice_thickness:g} mm")
        if image.pixel_spacing and not all(_between(v, use.pixel_spacing_mm) for v in image.pixel_spacing):
            raise _outside(f"the pixel spacing is {max(image.pixel_spacing):g} mm")


def _choose_each(case: Case, rule: SelectionRule, roi_name: str | None) -> tuple[Region, ...]:
    """Choose a region in each ROI object; an object that offers none does not stand in the way of another."""
    chosen: list[Region] = []
    failures: list[Refused] = []
    for roi in sorted(case.rois, key=lambda roi: (roi.kind != "SEG", roi.sop_instance_uid)):
        try:
            chosen.append(choose(load_regions(roi), rule, roi_name))
        except Refused as refusal:
            if refusal.reason.code not in (ReasonCode.ROI_NOT_FOUND, ReasonCode.ROI_AMBIGUOUS):
                raise
            failures.append(refusal)
    if not chosen:
        raise failures[0]
    return tuple(chosen)


def _fingerprint(regions: tuple[tuple[Region, ReferenceSlices], ...]) -> str:
    digest = hashlib.sha256()
    for region, slices in regions:
        parts = [region.source.sop_instance_uid, region.source.digest, str(region.number)]
        parts += [f"{image.sop_instance_uid} {image.digest}" for image in slices.images]
        digest.update("\n".join(parts).encode())
    return digest.hexdigest()


def plan_measurement(
    case: Case,
    rule: SelectionRule,
    spec: ExtractionSpec,
    *,
    settled: bool,
    roi_name: str | None = None,
    match_by_geometry: bool = False,
) -> Plan:
    """Decide what to measure, from headers and regions alone.

    Raises
    ------
    Held
        While something that is needed has not arrived.
    Refused
        Where the case cannot be measured as it is.
    """
    _prove_parts(case)
    _prove_identity(case)
    regions = tuple(
        (
            region,
            reference_slices(
                case, region, spec.margin_slices, settled=settled, match_by_geometry=match_by_geometry
            ),
        )
        for region in _choose_each(case, rule, roi_name)
    )  # fmt: skip
    warnings = []
    if match_by_geometry:
        warnings.append("The slices were matched to the region of interest by position, not by its references.")
    if len(regions) > 1:
        warnings.append(f"{len(regions)} ROI objects describe this tumour, and agree.")
    if regions[0][1].clipped:
        warnings.append("The series ends at the region of interest; its outermost voxels are extrapolated.")
    return Plan(case, regions, _fingerprint(regions), tuple(warnings))


def prepare(
    case: Case,
    bundle: Bundle,
    *,
    settled: bool,
    roi_name: str | None = None,
    match_by_geometry: bool = False,
) -> Plan:
    """Decide what to measure, and whether the model may answer at all, from headers and regions alone.

    Parameters
    ----------
    case
        As far as it has arrived.
    bundle
        Says which region is the tumour, what is measured and what the model is meant for.
    settled
        Nothing has been added to the case for the settle time.
    roi_name
        A region's name, which overrides the bundle's rule.
    match_by_geometry
        Accept slices by position although the region refers to others.

    Raises
    ------
    Held
        While something that is needed has not arrived.
    Refused
        Where the case cannot be staged as it is.
    """
    _prove_parts(case)
    _prove_acquisition(case.images, bundle.manifest.intended_use)
    return plan_measurement(
        case,
        bundle.manifest.roi_rule,
        bundle.spec,
        settled=settled,
        roi_name=roi_name,
        match_by_geometry=match_by_geometry,
    )


def _components(mask: Mask) -> int:
    """Count the connected components, diagonal neighbours included."""
    inside = np.nonzero(mask)
    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in inside)
    labels = sitk.ConnectedComponent(sitk.GetImageFromArray(mask[box].astype(np.uint8)), True)
    return int(sitk.GetArrayViewFromImage(labels).max())


def measure(plan: Plan, spec: ExtractionSpec, watch: Stopwatch, *, save_volume: Path | None = None) -> Measurement:
    """Read the reference volume and compute the features.

    Raises
    ------
    Refused
        ``roi_disagree``, ``padding_in_roi`` or whatever reading and rasterising raise.
    """
    region, slices = plan.regions[0]
    with watch.step("read"):
        voxels = read_volume(slices)
    with watch.step("roi"):
        mask = rasterise(slices)
        for other, other_slices in plan.regions[1:]:
            uids = [image.sop_instance_uid for image in slices.images]
            if uids != [i.sop_instance_uid for i in other_slices.images] or (rasterise(other_slices) != mask).any():
                code = ReasonCode.ROI_DISAGREE if other.source.kind != region.source.kind else ReasonCode.ROI_AMBIGUOUS
                raise Refused(
                    code, f"The {region.source.kind} and another {other.source.kind} draw the tumour differently."
                )
        if (voxels.padding & mask).any():
            raise Refused(ReasonCode.PADDING_IN_ROI, "The region of interest holds padded, unmeasured pixels.")
        pieces = _components(mask)
    volume = voxels.volume if spec.resampled_spacing is None else grid.single_precision(voxels.volume)
    with watch.step("resample"):
        roi = extract.place_on_grid(volume, mask, spec)
    with watch.step("radiomics"):
        features = extract.compute(roi, spec)
    if save_volume is not None:
        grid.save(volume, mask, save_volume)
    warnings = list(plan.warnings)
    if pieces > 1:
        warnings.append(f"The region of interest consists of {pieces} separate parts.")
    failed = [name for name, value in features.as_dict().items() if value is None]
    if failed:
        warnings.append(f"These features could not be computed: {', '.join(failed)}.")
    return Measurement(region, slices, voxels, mask, features, tuple(warnings))


def _prove_voxels(measurement: Measurement, use: IntendedUse) -> tuple[str, ...]:
    """Refuse voxels outside the model's intended use; return what is merely worth a warning."""
    hu = measurement.voxels.volume.array
    inside = hu[measurement.mask]
    if not (_between(float(inside.min()), use.hu_range) and _between(float(inside.max()), use.hu_range)):
        raise _outside(f"the region of interest holds values from {inside.min():g} to {inside.max():g} HU")
    if all(image.body_part for image in measurement.slices.images):
        return ()
    if _lung_around(measurement) < _LUNG_SHARE:
        raise _outside("the images do not say which body part they show, and there is no lung next to the tumour")
    return ("The images do not say which body part they show; lung was found next to the tumour.",)


def _lung_around(measurement: Measurement) -> float:
    """Measure which share of the shell around the region, in its own slices, is aerated lung."""
    spacing = measurement.slices.spacing
    reach = [0, *(int(np.ceil(_LUNG_REACH / step)) for step in spacing[1:])]
    box = tuple(
        slice(max(0, int(index.min()) - far), int(index.max()) + far + 1)
        for index, far in zip(np.nonzero(measurement.mask), reach, strict=True)
    )
    label = sitk.GetImageFromArray(measurement.mask[box].astype(np.uint8))
    label.SetSpacing([float(step) for step in spacing[::-1]])
    distances = sitk.SignedMaurerDistanceMap(label, squaredDistance=False, useImageSpacing=True)
    distance = sitk.GetArrayViewFromImage(distances)
    shell = measurement.voxels.volume.array[box][(distance > 0) & (distance <= _LUNG_REACH)]
    return float(((shell >= _LUNG_HU[0]) & (shell <= _LUNG_HU[1])).mean()) if shell.size else 0.0


def _prove_domain(result: StagingResult, use: IntendedUse) -> tuple[str, ...]:
    distance = result.domain.distance
    if not distance <= use.domain_distance_max:
        raise _outside(f"the tumour lies {distance:.1f} standard deviations from the training cohort")
    if distance > use.domain_distance_warn:
        return ("The tumour is unlike almost all tumours that the model was trained on.",)
    return ()


def _patient_and_study(source: Dataset) -> bytes:
    """Everything that a document takes over of the patient and the study: a correction makes a new document."""
    study = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
    part = source.group_dataset(0x0010)
    for keyword in study:
        if keyword in source:
            part.add(source[keyword])
    return str(part.to_json(suppress_invalid_tags=True)).encode()


def _document_identity(measurement: Measurement, bundle: Bundle, warnings: tuple[str, ...]) -> str:
    """Digest everything that the documents follow from, so that the same input always makes the same UIDs."""
    digest = hashlib.sha256()
    volume = measurement.voxels.volume
    for part in (
        str(volume.array.dtype).encode(),
        repr(volume.array.shape).encode(),
        volume.array.tobytes(),
        volume.affine.tobytes(),
        "\n".join(image.sop_instance_uid for image in measurement.slices.images).encode(),
        measurement.region.source.sop_instance_uid.encode(),
        f"{measurement.region.number} {measurement.region.name}".encode(),
        "\n".join(warnings).encode(),
        _patient_and_study(measurement.voxels.datasets[0]),
        np.packbits(measurement.mask).tobytes(),
        bundle.digest.encode(),
        __version__.encode(),
    ):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _documents(
    measurement: Measurement, result: StagingResult, bundle: Bundle, created: datetime, warnings: tuple[str, ...]
) -> tuple[Dataset, ...]:
    source = measurement.region.source
    reference = None
    if source.kind == "SEG":
        reference = report.SegmentReference(source.sop_class_uid, source.sop_instance_uid, measurement.region.number)
    provenance = bundle.manifest.provenance
    context = report.ReportContext(
        sources=measurement.voxels.datasets,
        mask=measurement.mask,
        roi_name=measurement.region.name,
        segmentation=reference,
        roi_source=report.RoiSource(source.sop_class_uid, source.sop_instance_uid, source.series_instance_uid),
        features=measurement.features,
        result=result,
        bundle=report.BundleIdentity(
            name=bundle.manifest.name,
            version=bundle.manifest.version,
            digest=bundle.digest,
            prevalence_advanced=provenance.prevalence_advanced,
            stages_absent=provenance.stages_absent,
            licence=provenance.licence,
            cohort=provenance.cohort,
            rows=provenance.rows,
            intended_use=bundle.manifest.intended_use.statement,
            settings=tuple(f"{key}={bundle.spec.settings[key]}" for key in sorted(bundle.spec.settings)),
        ),
        identity=_document_identity(measurement, bundle, warnings),
        created=created,
        warnings=warnings,
        software_version=__version__,
    )
    if reference is not None:
        return (report.build_report(context, reference),)
    segmentation = report.build_segmentation(context)
    reference = report.SegmentReference(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1)
    return segmentation, report.build_report(context, reference)


def stage(
    plan: Plan,
    bundle: Bundle,
    *,
    created: datetime,
    watch: Stopwatch | None = None,
    save_volume: Path | None = None,
) -> Staged:
    """Measure, predict and report.

    Parameters
    ----------
    plan
        From :func:`prepare` with the same bundle.
    bundle
        The model.
    created
        Content date and time of the documents; the same plan and time give the same bytes.
    watch
        Collects the seconds of each step.
    save_volume
        A folder to write the reference volume and its mask to.

    Raises
    ------
    Refused
        Where the voxels, the region or the distance to the training cohort forbid an answer.
    """
    watch = watch or Stopwatch()
    measurement = measure(plan, bundle.spec, watch, save_volume=save_volume)
    use = bundle.manifest.intended_use
    with watch.step("infer"):
        warnings = measurement.warnings + _prove_voxels(measurement, use)
        result = bundle.predictor.predict(measurement.features)
        warnings += _prove_domain(result, use)
    with watch.step("report"):
        documents = _documents(measurement, result, bundle, created, warnings)
    answer = outcome(
        status="staged", measurement=measurement, result=result, warnings=warnings, seconds=watch.seconds
    )  # fmt: skip
    return Staged(answer, documents)
