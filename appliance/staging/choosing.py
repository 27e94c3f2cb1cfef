"""Choose the regions of a case to measure: the newest tumour region of each region object that was not rejected.

Two rules hold for contours made by lungstage. A model never answers for a draft. A confirmed contour replaces the
regions that it names (:mod:`staging.succession`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.choice import SelectionRule, choose, numbered
from lungstage.appliance.dicom.contours import Confirmation
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.linking import Link, link_of
from lungstage.appliance.dicom.names import the_region
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.roi import load_regions
from lungstage.appliance.staging.succession import Named, is_draft, successors, superseded

CHOSEN = "The region of interest, number {} of its file, was chosen by a person."
"""Notice of a report whose region was chosen by a person instead of a rule. The report's reader parses this text."""

OLDER = "An older version of the region of interest is there too, and was left out."
DRAFT = "The region of interest is a draft that was drawn semi-automatically. No person has confirmed it."
DRAFT_LEFT_OUT = "The files also contain a draft contour. It was not used, because no person has confirmed it."
ASSISTED = "The region of interest was drawn semi-automatically and confirmed by a person."
NOT_VALIDATED = "The model is not validated on semi-automatic contours."
"""Warnings of a report on contours made by lungstage, and on other contours than the measured one."""

_OFFERS_NONE = (
    ReasonCode.ROI_NOT_FOUND,
    ReasonCode.ROI_EMPTY,
    ReasonCode.ROI_REJECTED,
    ReasonCode.CONTOUR_NOT_CONFIRMED,
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The chosen regions, and notices on the others. The first region is measured; the others must agree with it."""

    regions: tuple[Region, ...]
    notices: tuple[str, ...] = ()


def choose_each(
    case: Case,
    rule: SelectionRule,
    roi_name: str | None,
    choice: RegionChoice | None = None,
    *,
    drafts: bool = False,
) -> Chosen:
    """Choose a region in each region object; an object without a suitable region does not block the others.

    If a person made a `choice`, only that region is used, and other objects are ignored. With `drafts`, a draft is
    chosen if there is nothing else.

    Raises
    ------
    Held
        ``no_roi``: the chosen regions were drawn on other series that were also received.
    Refused
        ``conflicting_instances``: two objects have the same UID, and only one of them contains a suitable region;
        ``contour_not_confirmed``: only a draft contains one; ``ambiguous_input``: two contours replace the same region.
    """
    gone = frozenset[Named]()
    if choice is None:
        gone = superseded(successors(roi for roi in case.rois if not _is_elsewhere(case, roi)))
    chosen: list[Region] = []
    notices: list[str] = []
    failures: dict[str, Refused] = {}  # by SOP Instance UID
    for roi in sorted(case.rois, key=lambda roi: (is_draft(roi), roi.kind != "SEG", roi.sop_instance_uid)):
        if choice is not None and roi.sop_instance_uid != choice.roi:
            continue
        if is_draft(roi) and chosen:
            notices.append(DRAFT_LEFT_OUT)
            continue
        try:
            _prove_not_rejected(roi)
            region: Region | None
            if is_draft(roi):
                region = _the_draft(roi, rule, roi_name, drafts)
            elif choice is not None:
                region = numbered(load_regions(roi), choice.number)
            else:
                region = _still_chosen(load_regions(roi), rule, roi_name, gone)
        except Refused as refusal:
            if refusal.reason.code not in _OFFERS_NONE:
                raise
            failures.setdefault(roi.sop_instance_uid, refusal)
        else:
            chosen += [] if region is None else [region]
            notices += [OLDER] if region is None else []
    if not chosen:
        raise min(failures.values(), key=lambda refused: refused.reason.code is not ReasonCode.CONTOUR_NOT_CONFIRMED)
    for uid in {region.source.sop_instance_uid for region in chosen} & failures.keys():
        raise Refused(
            ReasonCode.CONFLICTING_INSTANCES,
            f"Two files have the same SOP Instance UID, {uid}, but only one of them contains the tumour. Look at both "
            "and keep only the right one.",
        )
    here = tuple(region for region in chosen if link_of(case, region) is not Link.ELSEWHERE)
    if not here:
        name = chosen[0].name
        raise Held(
            ReasonCode.NO_ROI,
            f"{the_region(name)} was drawn on another series that was also received. No region was drawn on this "
            "series. To measure this series, send the RTSTRUCT or SEG drawn on it.",
            (name,),
        )
    return Chosen(here, tuple(dict.fromkeys(notices)))


def _still_chosen(
    regions: Sequence[Region], rule: SelectionRule, roi_name: str | None, gone: frozenset[Named]
) -> Region | None:
    """Choose among the regions of an object; None if another contour replaces the chosen region.

    If the rule cannot choose among all regions, it chooses among those that are not superseded.
    """
    remaining = [region for region in regions if _name(region) not in gone]
    try:
        region = choose(regions, rule, roi_name)
    except Refused:
        if len(remaining) == len(regions):
            raise
        return choose(remaining, rule, roi_name) if remaining else None
    return None if _name(region) in gone else region


def _name(region: Region) -> Named:
    return region.source.sop_instance_uid, region.number


def _the_draft(roi: RoiHeader, rule: SelectionRule, roi_name: str | None, drafts: bool) -> Region:
    """Return the region of a draft, whatever its label is.

    Raises
    ------
    Refused
        ``contour_not_confirmed`` unless drafts are allowed.
    """
    if not drafts:
        raise Refused(
            ReasonCode.CONTOUR_NOT_CONFIRMED,
            f"SEG {roi.sop_instance_uid} is a draft contour made by lungstage, and no person has confirmed it. "
            "Look at it over the CT, correct it, and confirm it (lungstage contour, --confirmed-by NAME). Or send a "
            "contour that a person drew.",
        )
    regions = load_regions(roi)
    if roi_name is not None:
        return choose(regions, rule, roi_name)
    return numbered(regions, regions[0].number if regions else 1)


def _is_elsewhere(case: Case, roi: RoiHeader) -> bool:
    """Whether a contour made by lungstage was drawn on another series. Such a contour always names its images."""
    named = {*roi.image_references}
    return not named & case.instances and bool(named & {*case.elsewhere})


def contour_warnings(regions: Sequence[Region]) -> tuple[str, ...]:
    """Return warnings for regions that were not drawn by a person alone."""
    made_here = {region.source.confirmation for region in regions}
    drafts, assisted = Confirmation.DRAFT in made_here, Confirmation.CONFIRMED in made_here
    return (*([DRAFT] if drafts else []), *([ASSISTED] if assisted else []))


def has_its_region(case: Case, rule: SelectionRule, roi_name: str | None) -> bool:
    """Whether a region that would be chosen was drawn on the case's series, according to its references."""
    if not any(image.is_ct_slice for image in case.images):
        return False
    try:
        choose_each(case, rule, roi_name)
    except Held:
        return False
    except Refused as refused:
        return refused.reason.code != ReasonCode.ROI_NOT_FOUND
    return True


def newest(chosen: Sequence[Region]) -> tuple[Region, ...]:
    """Leave out regions that have a newer version.

    A newer version has the same kind, the same series and the same name, and a later time. All other differing
    regions are two opinions, and lungstage does not choose between them.
    """

    def succeeds(new: Region, old: Region) -> bool:
        return (
            (new.source.kind, new.source.series_instance_uid, new.name)
            == (old.source.kind, old.source.series_instance_uid, old.name)
            and bool(old.source.drawn_at)
            and new.source.drawn_at > old.source.drawn_at
        )  # fmt: skip

    return tuple(old for old in chosen if not any(succeeds(new, old) for new in chosen))


def approval_warnings(chosen: Sequence[Region], case: Case) -> list[str]:
    """Return warnings about the Approval Status of the region objects."""
    statuses = {roi.approval for roi in case.rois}
    warnings = []
    if "REJECTED" in statuses:
        warnings.append("The files also contain a rejected region object (Approval Status). It was not used.")
    if "APPROVED" in statuses and any(region.source.approval == "UNAPPROVED" for region in chosen):
        warnings.append("The region of interest is not approved (Approval Status), but another region object is.")
    return warnings


def _prove_not_rejected(roi: RoiHeader) -> None:
    if roi.approval == "REJECTED":
        raise Refused(
            ReasonCode.ROI_REJECTED,
            f"The {roi.kind} was rejected in its review (Approval Status REJECTED). Send one that was approved.",
        )
