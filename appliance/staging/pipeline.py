"""The steps composed: from a case to a plan, from a plan to an answer and its documents.

Nothing here knows of folders, clocks or ledgers: the files named in the case are read, everything else comes in as a
value and goes out as one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.choice import SelectionRule, choose, other_tumours
from lungstage.appliance.dicom.completeness import ReferenceSlices, reference_slices
from lungstage.appliance.dicom.files import with_pixel_digest
from lungstage.appliance.dicom.header import ImageHeader, RoiHeader
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.roi import load_regions
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.model.inference import at_prevalence
from lungstage.appliance.model.manifest import IntendedUse
from lungstage.appliance.staging.covariates import Site, known_covariates
from lungstage.appliance.staging.documents import build_documents
from lungstage.appliance.staging.intended_use import (
    prove_acquisition,
    prove_anatomy,
    prove_domain,
    prove_slices,
    prove_voxels,
)
from lungstage.appliance.staging.measure import PlacedRegion, Stopwatch, measure
from lungstage.appliance.staging.outcome import outcome

# Terms of PS3.3 C.7.3.1.1.1 that a message may quote; anything else could be somebody's free text.
_MODALITIES = frozenset({"CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "RF", "US", "XA"})


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
    others
        (ROI or Segment Number, name) of what else may be a tumour in the files of the regions
        (:func:`dicom.choice.other_tumours`).
    """

    case: Case
    regions: tuple[PlacedRegion, ...]
    fingerprint: str
    warnings: tuple[str, ...]
    others: tuple[tuple[int, str], ...] = ()

    @property
    def instances(self) -> tuple[dict[str, str], ...]:
        """Every ROI object that had a say and every slice that is needed, with the digests of their content.

        ``uid`` is the SOP Instance UID, with the number of a frame as in :attr:`ImageHeader.name`; ``digest`` that of
        the header, ``pixels`` a slice's ``pixel_digest``.
        """
        rois = [{"kind": roi.kind, "uid": roi.sop_instance_uid, "digest": roi.digest} for roi in self.case.rois]
        slices = {image.name: image for _, placed in self.regions for image in placed.images}
        return (
            *rois,
            *(
                {"kind": "CT", "uid": name, "digest": image.digest, "pixels": image.pixel_digest}
                for name, image in slices.items()
            ),
        )


@dataclass(frozen=True, slots=True)
class Staged:
    """An answer: the outcome as the command contract has it, and the documents in order of delivery."""

    outcome: dict[str, Any]
    documents: tuple[Dataset, ...]


def _prove_identity(case: Case) -> None:
    """Refuse ROI objects and images that name different patients or studies."""
    if len({header.patient_key for header in case.headers}) > 1:
        raise Refused(ReasonCode.PATIENT_MISMATCH, "The CT and the region of interest name different patients.")
    if len({header.study_instance_uid for header in case.headers}) > 1:
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
        kinds = sorted({image.modality for image in case.images} & _MODALITIES) or ["unknown"]
        what = "scout or secondary images" if kinds == ["CT"] else f"images of modality {', '.join(kinds)}"
        raise Refused(ReasonCode.NOT_CT, f"The series holds {what}; only axial CT is measured.")
    if not case.rois:
        raise Held(ReasonCode.NO_ROI, "There is no region of interest for this series yet.")


def _prove_series(slices: Sequence[ImageHeader], use: IntendedUse) -> None:
    """Refuse at once a series of which no slice is fit, whatever else it lacks.

    That one slice is unfit is no matter here: it may be one that nobody needs.
    """
    refusals: list[Refused] = []
    for image in slices:
        try:
            prove_acquisition([image], use)
        except Refused as refusal:
            refusals.append(refusal)
        else:
            return
    raise refusals[0]


def _prove_not_rejected(roi: RoiHeader) -> None:
    if roi.approval == "REJECTED":
        raise Refused(
            ReasonCode.ROI_REJECTED,
            f"The {roi.kind} was rejected by whoever reviewed it (Approval Status REJECTED). Send one that was not.",
        )


def _approval_warnings(chosen: Sequence[Region], case: Case) -> list[str]:
    """Say what the Approval Statuses of the ROI objects mean for the answer."""
    statuses = {roi.approval for roi in case.rois}
    warnings = []
    if "REJECTED" in statuses:
        warnings.append("A ROI object that was rejected (Approval Status) is there too, and was left out.")
    if "APPROVED" in statuses and any(region.source.approval == "UNAPPROVED" for region in chosen):
        warnings.append("The region of interest is not approved (Approval Status), though another ROI object is.")
    return warnings


_OFFERS_NONE = (ReasonCode.ROI_NOT_FOUND, ReasonCode.ROI_EMPTY, ReasonCode.ROI_REJECTED)


def _choose_each(case: Case, rule: SelectionRule, roi_name: str | None) -> tuple[Region, ...]:
    """Choose a region in each ROI object; an object that offers none does not stand in the way of another."""
    chosen: list[Region] = []
    failures: list[Refused] = []
    for roi in sorted(case.rois, key=lambda roi: (roi.kind != "SEG", roi.sop_instance_uid)):
        try:
            _prove_not_rejected(roi)
            chosen.append(choose(load_regions(roi), rule, roi_name))
        except Refused as refusal:
            if refusal.reason.code not in _OFFERS_NONE:
                raise
            failures.append(refusal)
    if not chosen:
        raise failures[0]
    return tuple(chosen)


def _current(chosen: Sequence[Region]) -> tuple[Region, ...]:
    """Leave out regions of which a newer version is there.

    A version of another is only what says so: of the same kind, in the same series, under the same name, and later.
    Anything else that differs is two opinions, of which none is ours to choose.
    """

    def succeeds(new: Region, old: Region) -> bool:
        return (
            (new.source.kind, new.source.series_instance_uid, new.name)
            == (old.source.kind, old.source.series_instance_uid, old.name)
            and bool(old.source.drawn_at)
            and new.source.drawn_at > old.source.drawn_at
        )  # fmt: skip

    return tuple(old for old in chosen if not any(succeeds(new, old) for new in chosen))


def _sealed(slices: ReferenceSlices) -> ReferenceSlices:
    """Note the digest of each slice's pixels: what is planned is what will be measured."""
    return replace(slices, images=tuple(with_pixel_digest(image) for image in slices.images))


def _fingerprint(regions: tuple[PlacedRegion, ...]) -> str:
    digest = hashlib.sha256()
    for region, slices in regions:
        parts = [region.source.sop_instance_uid, region.source.digest, str(region.number), repr(slices.spacing)]
        parts += [f"{image.name} {image.digest} {image.pixel_digest}" for image in slices.images]
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
    chosen = _choose_each(case, rule, roi_name)
    current = _current(chosen)
    regions = tuple(
        (
            region,
            _sealed(
                reference_slices(case, region, spec.margin_slices, settled=settled, match_by_geometry=match_by_geometry)
            ),
        )
        for region in current
    )
    warnings = []
    if match_by_geometry:
        warnings.append("The slices were matched to the region of interest by position, not by its references.")
    if len(current) < len(chosen):
        warnings.append("An older version of the region of interest is there too, and was left out.")
    if len(regions) > 1:
        warnings.append(f"{len(regions)} ROI objects describe this tumour, and agree.")
    if regions[0][1].clipped:
        warnings.append("The series ends at the region of interest; its outermost voxels are extrapolated.")
    warnings += _approval_warnings(current, case)
    beside = (other for region in current for other in other_tumours(load_regions(region.source), region))
    others = tuple(dict.fromkeys((other.number, other.name) for other in beside))
    return Plan(case, regions, _fingerprint(regions), tuple(warnings), others)


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
    use = bundle.manifest.intended_use
    _prove_series([image for image in case.images if image.is_ct_slice], use)
    plan = plan_measurement(
        case,
        bundle.manifest.roi_rule,
        bundle.spec,
        settled=settled,
        roi_name=roi_name,
        match_by_geometry=match_by_geometry,
    )
    for region, slices in plan.regions:
        prove_anatomy(region)
        prove_slices(slices, use)
    return plan


def stage(
    plan: Plan,
    bundle: Bundle,
    *,
    created: datetime,
    site: Site,
    watch: Stopwatch | None = None,
    save_volume: Path | None = None,
    predecessor: Predecessor | None = None,
) -> Staged:
    """Measure, predict and report.

    Parameters
    ----------
    plan
        From :func:`prepare` with the same bundle.
    bundle
        The model.
    created
        Content date and time of the documents; the same plan, time and site give the same bytes.
    site
        The prevalence that the probability is stated at, and covariates that outrank the header's.
    watch
        Collects the seconds of each step.
    save_volume
        A folder to write the reference volume and its mask to.
    predecessor
        The report that this one follows, if any.

    Raises
    ------
    Refused
        Where the voxels, the region or the distance to the training cohort forbid an answer.
    """
    watch = watch or Stopwatch()
    measurement = measure(plan.regions, bundle.spec, watch, save_volume=save_volume)
    manifest = bundle.manifest
    use = manifest.intended_use
    with watch.step("infer"):
        covariates = known_covariates(
            manifest.covariates,
            measurement.voxels.datasets[0],
            site.covariates.get(plan.case.study_instance_uid, {}),
        )
        result = bundle.predictor.predict(measurement.features, covariates.values)
        warnings = (
            plan.warnings
            + measurement.warnings
            + prove_voxels(measurement, use)
            + covariates.warnings
            + prove_domain(result, use)
        )
        result = at_prevalence(result, manifest.provenance.prevalence_advanced, site.prevalence)
    with watch.step("report"):
        documents = build_documents(
            measurement, result, bundle, created, warnings, covariates, predecessor, plan.others
        )
    answer = outcome(
        status="staged",
        measurement=measurement,
        others=plan.others,
        result=result,
        warnings=warnings,
        seconds=watch.seconds,
        endpoint=manifest.endpoint.endpoint,
    )
    return Staged(answer, documents)
