"""Which regions of a case are measured: of each ROI object that offers a tumour, the newest, unless it was rejected.

Of contours that were made here, drafts are never chosen to be answered for, and confirmed ones stand in the place of
the regions that they name (:mod:`staging.succession`).
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
"""Notice of a report on a region that no rule chose."""

OLDER = "An older version of the region of interest is there too, and was left out."
DRAFT = "The region of interest is a draft that was drawn semi-automatically. No person has confirmed it."
DRAFT_LEFT_OUT = "A draft of a contour is there too. It was left out, for no person has confirmed it."
ASSISTED = (
    "The region of interest was drawn semi-automatically and confirmed by a person. The model is not validated on such "
    "contours."
)
"""Warnings of a report on contours that were made here, or that lie beside the one measured."""

_OFFERS_NONE = (
    ReasonCode.ROI_NOT_FOUND,
    ReasonCode.ROI_EMPTY,
    ReasonCode.ROI_REJECTED,
    ReasonCode.CONTOUR_NOT_CONFIRMED,
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The regions to measure, of which the first is measured and the others must agree, and notices on what was not."""

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
    """Choose a region in each ROI object; an object that offers none does not stand in the way of another.

    Where a person made a `choice`, that region is the only one, whatever other objects offer or supersede. With
    `drafts`, a draft is chosen where nothing else is.

    Raises
    ------
    Held
        ``no_roi``: those chosen were drawn on other series, which are there too.
    Refused
        ``conflicting_instances``: one UID for an object that offers a region and for another that offers none;
        ``contour_not_confirmed``: nothing but a draft offers one; ``ambiguous_input``: two contours stand in the place
        of one region.
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
            f"Two files of one SOP Instance UID, {uid}, differ: one draws the tumour, the other does not. Look at both "
            "and keep only the right one.",
        )
    here = tuple(region for region in chosen if link_of(case, region) is not Link.ELSEWHERE)
    if not here:
        name = chosen[0].name
        raise Held(
            ReasonCode.NO_ROI,
            f"{the_region(name)} was drawn on another series, which is there too, and none on this one. To measure "
            "this one, send the RTSTRUCT or SEG drawn on it.",
            (name,),
        )
    return Chosen(here, tuple(dict.fromkeys(notices)))


def _still_chosen(
    regions: Sequence[Region], rule: SelectionRule, roi_name: str | None, gone: frozenset[Named]
) -> Region | None:
    """Choose among the regions of an object; None where another contour stands in the place of what is chosen.

    Where the rule cannot choose among all of them, what is superseded no longer stands in the way of the others.
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
    """Return the region of a draft, whatever its label says.

    Raises
    ------
    Refused
        ``contour_not_confirmed`` unless drafts are taken.
    """
    if not drafts:
        raise Refused(
            ReasonCode.CONTOUR_NOT_CONFIRMED,
            f"SEG {roi.sop_instance_uid} is a draft of a contour that lungstage made, and no person has confirmed it. "
            "Look at it over the CT, correct it, and confirm it (lungstage contour, --confirmed-by NAME); or send a "
            "contour that a person drew.",
        )
    regions = load_regions(roi)
    if roi_name is not None:
        return choose(regions, rule, roi_name)
    return numbered(regions, regions[0].number if regions else 1)


def _is_elsewhere(case: Case, roi: RoiHeader) -> bool:
    """Whether a contour that was made here, and so names its images, was drawn on another series."""
    named = {*roi.image_references}
    return not named & case.instances and bool(named & {*case.elsewhere})


def contour_warnings(regions: Sequence[Region]) -> tuple[str, ...]:
    """Say so of regions that were not drawn by a person alone."""
    made_here = {region.source.confirmation for region in regions}
    drafts, assisted = Confirmation.DRAFT in made_here, Confirmation.CONFIRMED in made_here
    return (*([DRAFT] if drafts else []), *([ASSISTED] if assisted else []))


def has_its_region(case: Case, rule: SelectionRule, roi_name: str | None) -> bool:
    """Whether a region that would be chosen was drawn on the case's series, as far as it says so."""
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


def approval_warnings(chosen: Sequence[Region], case: Case) -> list[str]:
    """Say what the Approval Statuses of the ROI objects mean for the answer."""
    statuses = {roi.approval for roi in case.rois}
    warnings = []
    if "REJECTED" in statuses:
        warnings.append("A ROI object that was rejected (Approval Status) is there too, and was left out.")
    if "APPROVED" in statuses and any(region.source.approval == "UNAPPROVED" for region in chosen):
        warnings.append("The region of interest is not approved (Approval Status), though another ROI object is.")
    return warnings


def _prove_not_rejected(roi: RoiHeader) -> None:
    if roi.approval == "REJECTED":
        raise Refused(
            ReasonCode.ROI_REJECTED,
            f"The {roi.kind} was rejected by whoever reviewed it (Approval Status REJECTED). Send one that was "
            "approved.",
        )
