"""Which series the chosen region was drawn on: what its own contours or frames say, then what its file lists.

What other regions of the same file refer to says nothing about it: organs may have been drawn on another series.
"""

from __future__ import annotations

from enum import Enum

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.instance import as_uid
from lungstage.appliance.dicom.names import counted, named, the_region
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame

POSITION_ALONE = "The region of interest names no image; the slices were matched to it by its position alone."
BY_POSITION = "The slices were matched to the region of interest by position, not by its references."
"""Warnings of a report that another series would have made doubtful, had it come in time."""

RUN_BY_POSITION = "run again with --match-by-geometry (daemon: match_by_geometry in the settings)"
"""What helps where a region's references lead nowhere, though it sits on the tumour."""


class Link(Enum):
    """What links a region with the series of a case."""

    NAMED = "its contours or frames name images of the series, come or still to come"
    LISTED = "it names no image, and its file lists this series only"
    POSITION = "it names no image, and its file lists none"
    UNRESOLVED = "it names images, or its file lists a series, that are not there"
    ELSEWHERE = "it was drawn on another series, which is there too"


def named_by(region: Region) -> frozenset[str]:
    """SOP Instance UIDs that a region's own contours or frames name."""
    items: tuple[Outline | SegmentFrame, ...] = (*region.outlines, *region.frames)
    return frozenset(uid for item in items for uid, _ in item.images)


def listed_of(case: Case, region: Region) -> frozenset[str]:
    """Every instance of the case's series that the region's file lists: more than are needed, no more than exist."""
    here = case.instances
    return frozenset(
        instance
        for series, instances in region.source.listed
        if series == case.series_instance_uid or here.intersection(instances)
        for instance in instances
    )


def link_of(case: Case, region: Region) -> Link:
    """Say what links the chosen region with the case's series.

    Raises
    ------
    Refused
        ``ambiguous_input``: nothing says on which of several series it was drawn.
    """
    here = case.instances
    elsewhere = set(case.elsewhere)
    images = named_by(region)
    if images & (here | listed_of(case, region)):
        if images & elsewhere:
            raise _ambiguous(
                region, f"{the_region(region.name)} names images of several CT series. {_export_again(region)}"
            )
        return Link.NAMED
    if images:
        return Link.ELSEWHERE if images & elsewhere else Link.UNRESOLVED
    if not region.source.listed:
        if case.neighbours:
            raise _ambiguous(
                region,
                f"{the_region(region.name)} names no image, and {len(case.neighbours) + 1} CT series lie in its Frame "
                "of Reference: nothing says on which it was drawn. Send only that one, or export the "
                f"{region.source.kind} again from it, so that it names that series' images.",
            )
        return Link.POSITION
    ours, others = _listed_here(case, region), _listed_elsewhere(case, region)
    if ours and others:
        raise _ambiguous(
            region,
            f"{the_region(region.name)} names no image, and its {region.source.kind} lists {len(others) + 1} series: "
            f"nothing says on which it was drawn. {_export_again(region)}",
        )
    if ours:
        return Link.LISTED
    return Link.ELSEWHERE if any(elsewhere & set(names) for names in others.values()) else Link.UNRESOLVED


def _listed_here(case: Case, region: Region) -> bool:
    here = case.instances
    return any(uid == case.series_instance_uid or here & set(names) for uid, names in region.source.listed)


def _listed_elsewhere(case: Case, region: Region) -> dict[str, tuple[str, ...]]:
    """Series that the region's file lists beside the case's own, with their instances."""
    here, elsewhere = case.instances, set(case.elsewhere)
    return {
        uid: names
        for uid, names in region.source.listed
        if elsewhere & set(names) or not (uid == case.series_instance_uid or here & set(names))
    }


def prove_position_tells(case: Case, region: Region) -> None:
    """Prove that matching by position cannot take another series for the one that an unresolved region was drawn on.

    Raises
    ------
    Refused
        ``ambiguous_input``: several CT series lie in its Frame of Reference.
    Held
        ``references_unresolved``: its file knows this series, and says that the region was drawn on another.
    """
    if case.neighbours:
        raise _ambiguous(
            region,
            f"The images that {named(region.name)} names (such as {_an_image_of(region)}) are not there, and "
            f"{len(case.neighbours) + 1} CT series lie in its Frame of Reference: position cannot tell on which it was "
            "drawn. Send the images that it names.",
        )
    if _is_told_apart(case, region):
        raise unresolved(case, region)


def _is_told_apart(case: Case, region: Region) -> bool:
    here = case.instances
    return bool(here.intersection(region.source.image_references)) or (
        _listed_here(case, region) and bool(_listed_elsewhere(case, region))
    )


def unresolved(case: Case, region: Region) -> Held:
    """Say that nothing of what a region refers to is there, and what to do."""
    count = len(named_by(region))
    what = (
        f"names {counted(count, 'image')}, none of which is" if count else "was drawn on another series, which is not"
    )
    drawn_on = _drawn_on(case, region)
    advice = f"Send the CT series that it was drawn on{drawn_on}."
    if not case.neighbours and not _is_told_apart(case, region):
        advice = (
            "Others in its Frame of Reference (coordinate system) are. Send the CT series that it was drawn on"
            f"{drawn_on}; or, if it sits on the tumour over these, {RUN_BY_POSITION}."
        )
    return Held(ReasonCode.REFERENCES_UNRESOLVED, f"{the_region(region.name)} {what} there. {advice}", (region.name,))


def _drawn_on(case: Case, region: Region) -> str:
    """Name the series that a region was drawn on, where its file lists one other alone; else an image that it names."""
    series = {uid for uid, _ in region.source.listed if uid}
    if len(series) == 1 and case.series_instance_uid not in series:
        return f" (Series Instance UID {min(series)})"
    return f" (one of its images is {_an_image_of(region)})" if named_by(region) else ""


def _an_image_of(region: Region) -> str:
    """Name one image that a region names; free text in a reference's place is told as a UID that is nobody's."""
    return as_uid(min(named_by(region)))


def _export_again(region: Region) -> str:
    return (
        f"Export the {region.source.kind} again from the series on which it was drawn, so that it names that series' "
        "images and no others; to leave a series out is not enough."
    )


def _ambiguous(region: Region, message: str) -> Refused:
    return Refused(ReasonCode.AMBIGUOUS_INPUT, message, (region.name,))
