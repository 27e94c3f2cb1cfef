"""The series that the chosen region was drawn on: first from its own contours or frames, then from its file's lists.

The references of other regions in the same file are not used: organs may have been drawn on another series.
"""

from __future__ import annotations

from enum import Enum

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.instance import as_uid
from lungstage.appliance.dicom.names import are_missing, counted, named, the_region
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame

POSITION_ALONE = "The region of interest names no image; the slices were matched to it by its position alone."
BY_POSITION = "The slices were matched to the region of interest by position, not by its references."
"""Warnings of a report. It would have been doubtful if another series had arrived in time."""

_NOT_CLEAR = "It is not clear on which one it was drawn."

RUN_BY_POSITION = "run again with --match-by-geometry (daemon: match_by_geometry in the settings)"
"""What to do if a region's references cannot be resolved, although it lies on the tumour."""


class Link(Enum):
    """The link between a region and the series of a case."""

    NAMED = "its contours or frames refer to images of the series, received or still missing"
    LISTED = "it refers to no image, and its file lists this series only"
    POSITION = "it refers to no image, and its file lists none"
    UNRESOLVED = "it refers to images, or its file lists a series, that are missing"
    ELSEWHERE = "it was drawn on another series, which is present as well"


def named_by(region: Region) -> frozenset[str]:
    """SOP Instance UIDs that a region's own contours or frames refer to."""
    items: tuple[Outline | SegmentFrame, ...] = (*region.outlines, *region.frames)
    return frozenset(uid for item in items for uid, _ in item.images)


def listed_of(case: Case, region: Region) -> frozenset[str]:
    """Every instance of the case's series that the region's file lists; usually more than the region needs."""
    here = case.instances
    return frozenset(
        instance
        for series, instances in region.source.listed
        if series == case.series_instance_uid or here.intersection(instances)
        for instance in instances
    )


def link_of(case: Case, region: Region) -> Link:
    """Return the link between the chosen region and the case's series.

    Raises
    ------
    Refused
        ``ambiguous_input``: it is not clear on which of several series it was drawn.
    """
    here = case.instances
    elsewhere = set(case.elsewhere)
    images = named_by(region)
    if images & (here | listed_of(case, region)):
        if images & elsewhere:
            raise _ambiguous(
                region, f"{the_region(region.name)} refers to images of several CT series. {_export_again(region)}"
            )
        return Link.NAMED
    if images:
        return Link.ELSEWHERE if images & elsewhere else Link.UNRESOLVED
    if not region.source.listed:
        if case.neighbours:
            raise _ambiguous(
                region,
                f"{the_region(region.name)} refers to no image, and {len(case.neighbours) + 1} CT series lie in its "
                f"Frame of Reference. {_NOT_CLEAR} Send only that series, or export the {region.source.kind} again "
                "with references to its images.",
            )
        return Link.POSITION
    ours, others = _listed_here(case, region), _listed_elsewhere(case, region)
    if ours and others:
        raise _ambiguous(
            region,
            f"{the_region(region.name)} refers to no image, and its {region.source.kind} lists {len(others) + 1} "
            f"series. {_NOT_CLEAR} {_export_again(region)}",
        )
    if ours:
        return Link.LISTED
    return Link.ELSEWHERE if any(elsewhere & set(names) for names in others.values()) else Link.UNRESOLVED


def _listed_here(case: Case, region: Region) -> bool:
    here = case.instances
    return any(uid == case.series_instance_uid or here & set(names) for uid, names in region.source.listed)


def _listed_elsewhere(case: Case, region: Region) -> dict[str, tuple[str, ...]]:
    """Other series that the region's file lists, with their instances."""
    here, elsewhere = case.instances, set(case.elsewhere)
    return {
        uid: names
        for uid, names in region.source.listed
        if elsewhere & set(names) or not (uid == case.series_instance_uid or here & set(names))
    }


def prove_position_tells(case: Case, region: Region) -> None:
    """Check that matching by position cannot choose a wrong series for a region with unresolved references.

    Raises
    ------
    Refused
        ``ambiguous_input``: several CT series lie in its Frame of Reference.
    Held
        ``references_unresolved``: its file lists this series, but the region was drawn on another.
    """
    if case.neighbours:
        raise _ambiguous(
            region,
            f"The images that {named(region.name)} refers to are missing (for example {_an_image_of(region)}), and "
            f"{len(case.neighbours) + 1} CT series lie in its Frame of Reference. {_NOT_CLEAR} Send the images that it "
            "refers to.",
        )
    if _is_told_apart(case, region):
        raise unresolved(case, region)


def _is_told_apart(case: Case, region: Region) -> bool:
    here = case.instances
    return bool(here.intersection(region.source.image_references)) or (
        _listed_here(case, region) and bool(_listed_elsewhere(case, region))
    )


def unresolved(case: Case, region: Region) -> Held:
    """Return the hold for a region whose references cannot be resolved, with the next step."""
    count = len(named_by(region))
    what = f"refers to {counted(count, 'image')}, which" if count else "was drawn on another series, which"
    advice = f"Send the CT series that it was drawn on{_drawn_on(case, region)}."
    if not case.neighbours and not _is_told_apart(case, region):
        advice = (
            f"Other images lie in its Frame of Reference (coordinate system). {advice} Or, if it lies on the tumour "
            f"over these images, {RUN_BY_POSITION}."
        )
    message = f"{the_region(region.name)} {what} {are_missing(count or 1)}. {advice}"
    return Held(ReasonCode.REFERENCES_UNRESOLVED, message, (region.name,))


def _drawn_on(case: Case, region: Region) -> str:
    """Name the series that a region was drawn on if its file lists only one other; else an image that it refers to."""
    series = {uid for uid, _ in region.source.listed if uid}
    if len(series) == 1 and case.series_instance_uid not in series:
        return f" (Series Instance UID {min(series)})"
    return f" (one of its images is {_an_image_of(region)})" if named_by(region) else ""


def _an_image_of(region: Region) -> str:
    """Return one image that a region refers to; free text in place of a UID is replaced by a derived UID."""
    return as_uid(min(named_by(region)))


def _export_again(region: Region) -> str:
    return (
        f"Export the {region.source.kind} again from the series on which it was drawn. It must refer to the images of "
        "that series only; sending fewer series is not enough."
    )


def _ambiguous(region: Region, message: str) -> Refused:
    return Refused(ReasonCode.AMBIGUOUS_INPUT, message, (region.name,))
