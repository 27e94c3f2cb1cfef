"""Which regions of a case are measured: of each ROI object that offers a tumour, the newest, unless it was rejected."""

from __future__ import annotations

from collections.abc import Sequence

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.choice import SelectionRule, choose, numbered
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.linking import Link, link_of
from lungstage.appliance.dicom.names import the_region
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.roi import load_regions

CHOSEN = "The region of interest, number {} of its file, was chosen by a person."
"""Notice of a report on a region that no rule chose."""

_OFFERS_NONE = (ReasonCode.ROI_NOT_FOUND, ReasonCode.ROI_EMPTY, ReasonCode.ROI_REJECTED)


def choose_each(
    case: Case, rule: SelectionRule, roi_name: str | None, choice: RegionChoice | None = None
) -> tuple[Region, ...]:
    """Choose a region in each ROI object; an object that offers none does not stand in the way of another.

    Where a person made a `choice`, that region is the only one, whatever other objects offer.

    Raises
    ------
    Held
        ``no_roi``: those chosen were drawn on other series, which are there too.
    Refused
        ``conflicting_instances``: one UID for an object that offers a region and for another that offers none.
    """
    chosen: list[Region] = []
    failures: dict[str, Refused] = {}  # by SOP Instance UID
    for roi in sorted(case.rois, key=lambda roi: (roi.kind != "SEG", roi.sop_instance_uid)):
        if choice is not None and roi.sop_instance_uid != choice.roi:
            continue
        try:
            _prove_not_rejected(roi)
            regions = load_regions(roi)
            chosen.append(choose(regions, rule, roi_name) if choice is None else numbered(regions, choice.number))
        except Refused as refusal:
            if refusal.reason.code not in _OFFERS_NONE:
                raise
            failures.setdefault(roi.sop_instance_uid, refusal)
    if not chosen:
        raise next(iter(failures.values()))
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
    return here


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
