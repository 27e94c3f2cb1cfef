"""Compose the steps: from a case to a plan, and from a plan to an answer and its documents.

This module uses no folders, clocks or ledgers. It reads the case's files. Everything else is passed in and returned as
a value.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lungstage.appliance.contract.case import Predecessor, RegionChoice
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS, RobustnessOptions
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.choice import SelectionRule, other_tumours
from lungstage.appliance.dicom.completeness import ReferenceSlices, reference_slices
from lungstage.appliance.dicom.files import with_pixel_digest
from lungstage.appliance.dicom.identity import prove_one_patient
from lungstage.appliance.dicom.linking import BY_POSITION
from lungstage.appliance.dicom.roi import load_regions
from lungstage.appliance.model.answering import AnswerRule, at_prevalence
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.report.headers import warnings_of_text
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.staging.choosing import (
    CHOSEN,
    NOT_VALIDATED,
    OLDER,
    approval_warnings,
    choose_each,
    contour_warnings,
    newest,
)
from lungstage.appliance.staging.covariates import Site, known_covariates
from lungstage.appliance.staging.descriptors import describe_measured
from lungstage.appliance.staging.documents import build_documents, bundle_identity
from lungstage.appliance.staging.intended_use import (
    prove_anatomy,
    prove_domain,
    prove_series,
    prove_slices,
    prove_voxels,
)
from lungstage.appliance.staging.measure import PlacedRegion, Stopwatch, measure
from lungstage.appliance.staging.outcome import outcome
from lungstage.appliance.staging.parts import prove_linked, prove_parts, prove_study
from lungstage.appliance.staging.robustness import try_out, withheld, withheld_unless_robust
from lungstage.appliance.staging.robustness import warnings as robustness_warnings

_USUAL = DocumentOptions()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. Everything that the measurement needs has arrived.

    Attributes
    ----------
    case
        The case that the plan was made from.
    regions
        The chosen region of each region object that contains one, with its reference slices. The first is measured;
        the others must agree with it.
    fingerprint
        Hex digest of the needed content. Equal content gives an equal fingerprint, independent of the file paths.
    notices
        Plain sentences for the report, in addition to `ending`.
    ending
        A sentence: why slices next to the region were not used; empty if they were used (:class:`ReferenceSlices`).
    others
        (ROI or Segment Number, name) of other possible tumours in the regions' files
        (:func:`dicom.choice.other_tumours`).
    """

    case: Case
    regions: tuple[PlacedRegion, ...]
    fingerprint: str
    notices: tuple[str, ...]
    ending: str = ""
    others: tuple[tuple[int, str], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Plain sentences for the report."""
        return (*self.notices, self.ending) if self.ending else self.notices

    @property
    def instances(self) -> tuple[dict[str, str], ...]:
        """Every region object that was considered and every needed slice, with the digests of their content.

        ``uid`` is the SOP Instance UID, with a frame number as in :attr:`ImageHeader.name`. ``digest`` is the digest
        of the header, and ``pixels`` the ``pixel_digest`` of a slice.
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

    @property
    def beyond(self) -> tuple[str, ...]:
        """Names of the additional slices beyond the reference volume. `fingerprint` does not include them."""
        _, placed = self.regions[0]
        return tuple(image.name for image in (*placed.before, *placed.behind))

    def with_beyond(self, names: Collection[str]) -> Plan:
        """Return the plan with only these slices beyond the reference volume, so that later ones change nothing."""
        (region, placed), *others = self.regions
        before = tuple(itertools.takewhile(lambda image: image.name in names, reversed(placed.before)))[::-1]
        behind = tuple(itertools.takewhile(lambda image: image.name in names, placed.behind))
        return replace(self, regions=((region, replace(placed, before=before, behind=behind)), *others))


@dataclass(frozen=True, slots=True)
class Staged:
    """An answer: the outcome in the form of the command contract, and the documents in order of delivery."""

    outcome: dict[str, Any]
    documents: tuple[Document, ...]


def _sealed(slices: ReferenceSlices) -> ReferenceSlices:
    """Record the digest of each slice's pixels, so that exactly the planned content is measured."""
    images = tuple(with_pixel_digest(image) for image in slices.images)
    try:
        before, behind = (tuple(map(with_pixel_digest, beyond)) for beyond in (slices.before, slices.behind))
    except (Unavailable, OSError):  # the measurement does not depend on these slices
        before = behind = ()
    return replace(slices, images=images, before=before, behind=behind)


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
    waited: bool | None = None,
    roi_name: str | None = None,
    match_by_geometry: bool = False,
    strict_frame_of_reference: bool = False,
    choice: RegionChoice | None = None,
    beyond_mm: float = 0.0,
    drafts: bool = False,
) -> Plan:
    """Decide what to measure, from headers and regions only; for the other parameters see :func:`prepare`.

    Parameters
    ----------
    rule, spec
        How to find the tumour's region, and what to measure in it.
    drafts
        Measure an unconfirmed contour if there is no other. No model may answer for it.

    Raises
    ------
    Held
        Something that is needed has not arrived yet.
    Refused
        The case cannot be measured.
    """
    prove_parts(case)
    is_known = prove_one_patient(case.headers)
    chosen = choose_each(case, rule, roi_name, choice, drafts=drafts)
    current = newest(chosen.regions)
    for region in current if not is_known else ():
        prove_linked(case, region)
    notices = [*contour_warnings(current)]
    notices += [notice for region in current for notice in prove_study(case, region)]
    regions = tuple(
        (
            region,
            _sealed(
                reference_slices(
                    case,
                    region,
                    spec.margin_slices,
                    settled=settled,
                    waited=waited,
                    match_by_geometry=match_by_geometry,
                    strict_frame_of_reference=strict_frame_of_reference,
                    beyond_mm=beyond_mm,
                )
            ),
        )
        for region in current
    )
    if choice is not None:
        notices.append(CHOSEN.format(choice.number))
    if match_by_geometry:
        notices.append(BY_POSITION)
    if len(current) < len(chosen.regions):
        notices.append(OLDER)
    notices += chosen.notices
    if len(regions) > 1:
        notices.append(f"{len(regions)} ROI objects describe this tumour, and agree.")
    notices += [warning for _, slices in regions for warning in slices.warnings]
    notices += approval_warnings(current, case)
    beside = (other for region in current for other in other_tumours(load_regions(region.source), region))
    others = tuple(dict.fromkeys((other.number, other.name) for other in beside))
    ending = regions[0][1].ending
    return Plan(case, regions, _fingerprint(regions), tuple(dict.fromkeys(notices)), ending, others)


def prepare(
    case: Case,
    bundle: Bundle,
    *,
    settled: bool,
    waited: bool | None = None,
    roi_name: str | None = None,
    match_by_geometry: bool = False,
    strict_frame_of_reference: bool = False,
    choice: RegionChoice | None = None,
    beyond_mm: float = 0.0,
) -> Plan:
    """Decide what to measure and whether the model may answer, from headers and regions only.

    Parameters
    ----------
    case
        As far as it has arrived.
    bundle
        Contains the ROI rule, the extraction spec and the intended use.
    settled
        Nothing has been added to the case for the settle time.
    waited
        Nothing has been added for the time that missing neighbours are waited for; None: as `settled`.
    roi_name
        A region's name; takes precedence over the bundle's rule.
    match_by_geometry
        Accept slices by position although the region refers to others.
    strict_frame_of_reference
        Refuse a SEG of another Frame of Reference even if all its frames name their slices and lie on them.
    choice
        The region of one of the case's region objects that a person chose; takes precedence over name and rule.
    beyond_mm
        How far beyond the region additional slices are used, if they have arrived. Only perturbed versions use them.

    Raises
    ------
    Held
        Something that is needed has not arrived yet.
    Refused
        The case cannot be staged.
    """
    prove_parts(case)
    use = bundle.manifest.intended_use
    prove_series([image for image in case.images if image.is_ct_slice], use)
    plan = plan_measurement(
        case,
        bundle.manifest.roi_rule,
        bundle.spec,
        settled=settled,
        waited=waited,
        roi_name=roi_name,
        match_by_geometry=match_by_geometry,
        strict_frame_of_reference=strict_frame_of_reference,
        choice=choice,
        beyond_mm=beyond_mm,
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
    documents: DocumentOptions = _USUAL,
    robustness: RobustnessOptions = NO_ROBUSTNESS,
    describes: bool = True,
) -> Staged:
    """Measure a plan, predict, and make the documents.

    Parameters
    ----------
    plan
        From :func:`prepare` with the same bundle.
    bundle
        The model.
    created
        Content date and time of the documents. The same plan, time and site give the same bytes.
    site
        Prevalence for probability and answer, and covariates that take precedence over the header's.
    watch
        Collects the seconds of each step.
    save_volume
        A folder to write the reference volume and its mask to.
    predecessor
        The report that this one follows, if any.
    documents
        Which documents to make, and in which language.
    robustness
        Whether and how to test the answer's robustness against changes of contour and scan.
    describes
        Whether to compute the tumour's descriptors. The model does not use them.

    Raises
    ------
    Refused
        The voxels, the region or the distance to the training cohort are outside the intended use.
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
        of_input = (
            plan.warnings
            + measurement.warnings
            + warnings_of_text(measurement.voxels.datasets[0])
            + prove_voxels(measurement, use)
            + covariates.warnings
        )
        of_domain = prove_domain(result, use)
        rule = AnswerRule.of(manifest, site.prevalence)
        result = at_prevalence(result, rule)
    assisted = contour_warnings([region for region, _ in plan.regions])
    if assisted and not manifest.is_validated_on_assisted:
        assisted += (NOT_VALIDATED,)
    if robustness.perturbations:
        with watch.step("robustness"):
            found = try_out(measurement, result, bundle, rule, covariates.values, robustness)
            result = replace(result, robustness=found)
    result = withheld_unless_robust(result) if assisted else withheld(result, robustness)
    of_robustness = () if result.robustness is None else tuple(robustness_warnings(result.robustness))
    # Semi-automatic contours come first, then the other warnings in order of importance.
    warnings = tuple(dict.fromkeys((*assisted, *of_domain, *of_robustness, *of_input)))
    descriptors = None
    if describes:
        with watch.step("descriptors"):
            descriptors = describe_measured(measurement)
    with watch.step("report"):
        built = build_documents(
            measurement, result, bundle, created, warnings, covariates, predecessor, plan.others, documents, robustness,
            descriptors,
        )  # fmt: skip
    answer = outcome(
        status="staged",
        measurement=measurement,
        others=plan.others,
        result=result,
        warnings=warnings,
        seconds=watch.seconds,
        endpoint=manifest.endpoint.endpoint,
        bundle=bundle_identity(bundle, ()),
        descriptors=descriptors,
    )
    return Staged(answer, built)
