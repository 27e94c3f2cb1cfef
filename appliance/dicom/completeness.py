"""Which slices are needed before a region can be measured.

The region of interest defines what is needed: its own slices, and a margin at either end for the resampler. Nothing
here depends on which other slices have arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.acquisition import of_one_acquisition, telling_apart
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.files import with_pixel_digest
from lungstage.appliance.dicom.geometry import POSITION_TOLERANCE, even_step, prove_regular, slack
from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.instance import as_uid
from lungstage.appliance.dicom.linking import POSITION_ALONE, RUN_BY_POSITION, Link, link_of, listed_of, named_by
from lungstage.appliance.dicom.names import are_missing, counted, named, the_region
from lungstage.appliance.dicom.pixel_grid import run_through_centres
from lungstage.appliance.dicom.placing import Item, Placed, listed_and_here, missing, place, whereabouts
from lungstage.appliance.dicom.region import Mask, Outline, Region, SegmentFrame, named_on
from lungstage.appliance.dicom.stack import Stack
from lungstage.appliance.dicom.structure_set import prove_outlines

# If the spacing of a SEG differs by more from that of the slices, it was drawn on other slices.
_STEP_SHARE = 0.02
_ONE_STEP = 1.5  # times a step or a thickness: in a larger gap, a slice is missing

LEFT_OUT = (
    "A slice next to the region of interest was left out, because it differs from the region's slices in {}. The "
    "outermost voxels are extrapolated."
)
NEVER_CAME = (
    "{} listed slices were not received; the region of interest lies at the end of the received slices, and its "
    "outermost voxels are extrapolated."
)
ONE_NEVER_CAME = (
    "1 listed slice was not received; the region of interest lies at the end of the received slices, and its outermost "
    "voxels are extrapolated."
)
SERIES_ENDS = "The series ends at the region of interest; its outermost voxels are extrapolated."
"""Warnings of a report that was made without the slices next to the region."""


@dataclass(frozen=True, slots=True)
class ReferenceSlices:
    """The slices of the reference volume, checked to be a regular grid.

    Attributes
    ----------
    images
        In ascending position along the slice normal.
    spacing
        (slice, row, column) in mm.
    content
        For each image, the contours or segment frames on it, frames on its pixels; empty in the margin.
    ending
        Why the slices end before the margin does, as a sentence for the report; empty if they do not.
    warnings
        Other sentences for the report.
    before, behind
        Slices before the first and behind the last of `images`, if requested and present; also ascending. The
        measurement of the region does not depend on them.
    """

    images: tuple[ImageHeader, ...]
    spacing: tuple[float, float, float]
    content: tuple[tuple[Item, ...], ...]
    ending: str = ""
    warnings: tuple[str, ...] = ()
    before: tuple[ImageHeader, ...] = ()
    behind: tuple[ImageHeader, ...] = ()


def more_may_come(message: str) -> Held:
    """Return the hold for a case that could be measured, while slices may still arrive that would change the answer."""
    return Held(ReasonCode.MORE_MAY_COME, message)


def _proven_step(case: Case, region: Region, stack: Stack, occupied: list[int]) -> float:
    """Distance between neighbouring slices around the region (mm), checked not to be a gap of missing slices."""
    places_there = np.flatnonzero(
        np.diff(stack.depths, prepend=-np.inf) > POSITION_TOLERANCE
    )  # the first of two at the same position
    first, last = np.searchsorted(places_there, [occupied[0], occupied[-1]], side="right") - 1
    around = places_there[max(first - 1, 0) : last + 2].tolist()
    depths = stack.depths[around]
    step = 0.0
    if len(around) > 1:
        gaps = np.diff(depths)
        # If positions are rounded, the smallest gap is less than the step.
        unit = float(np.median(gaps[gaps < _ONE_STEP * gaps.min()]))
        places = np.concatenate([[0], np.cumsum(np.rint(gaps / unit))]).astype(np.int64)
        step = even_step(depths, places, [stack.images[k] for k in around], stack.depths)
    thickness = [stack.images[k].slice_thickness or 0.0 for k in occupied]
    listed = listed_of(case, region)
    if min(thickness) <= 0 and listed and not listed <= case.instances:
        raise missing(
            f"Slices that the region's {region.source.kind} lists are missing. The region may need them, but this "
            "cannot be checked: the slices have no Slice Thickness (0018,0050)."
        )
    if min(thickness) > 0 and step > _ONE_STEP * max(thickness):
        raise missing(
            f"The slices at {named(region.name)} are {step:g} mm apart, but only {max(thickness):g} mm thick. The "
            "slices between them are missing.",
            region.name,
        )
    return step


def _span(stack: Stack, step: float, placed: Sequence[Placed], margin: int, listed: frozenset[str]) -> list[int]:
    """Find the stack's slices from the first to the last occupied one plus `margin` at either end, without gaps."""
    occupied = _occupied(placed)
    depths = stack.depths[occupied]
    places = np.rint((depths - depths[0]) / step)
    rest = depths - places * step
    first, reach = (rest.max() + rest.min()) / 2, slack(step, depths)
    span: list[int] = []
    gaps: list[float] = []
    alone: list[int] = []
    for place_ in range(-margin, int(places[-1]) + margin + 1):
        hits = stack.within(reach, first + place_ * step)
        is_within = 0 <= place_ <= places[-1]
        if hits:
            span.append(_the_one(stack, hits, placed, listed))
            alone += hits if len(hits) == 1 and not is_within else []
        elif is_within:
            gaps.append(first + place_ * step)
    if gaps:
        raise missing(
            f"{counted(len(gaps), 'slice')} within the region {are_missing(len(gaps))}, "
            f"{whereabouts(gaps, stack.normal)}."
        )
    for neighbour in alone:
        _prove_of_one_set(stack, neighbour, placed, listed, reach)
    return span


def _prove_of_one_set(
    stack: Stack, neighbour: int, placed: Sequence[Placed], listed: frozenset[str], reach: float
) -> None:
    """Refuse a neighbouring slice that may belong to another image set than the slices of the region."""
    images = stack.images

    def kind(k: int) -> tuple[object, ...]:
        return images[k].acquisition, images[k].sop_instance_uid in listed

    for at in _occupied(placed):
        beside = stack.within(reach, stack.depths[at])
        others = [k for k in beside if k != at and kind(k) == kind(neighbour)]
        if others and with_pixel_digest(images[others[0]]).pixel_digest != with_pixel_digest(images[at]).pixel_digest:
            raise Refused(
                ReasonCode.DUPLICATE_POSITION,
                f"The series holds two image sets: {images[at].name} and {images[others[0]].name} lie at the same "
                f"position. The slice next to the region, {images[neighbour].name}, may belong to either of them. "
                "Send only the reconstruction that the region was drawn on.",
            )


def _occupied(placed: Sequence[Placed]) -> list[int]:
    return sorted({one.at for one in placed})


def _the_one(stack: Stack, hits: list[int], placed: Sequence[Placed], listed: frozenset[str]) -> int:
    """Choose one of several slices at the same position.

    The order is: a slice that the region refers to, a slice that its file lists, a slice of the same acquisition.
    """
    if len(hits) == 1:
        return hits[0]
    images = stack.images
    if len({images[k].name for k in hits}) < len(hits):
        raise Refused(
            ReasonCode.CONFLICTING_INSTANCES,
            f"Two different files have the same SOP Instance UID (0008,0018): {images[hits[0]].sop_instance_uid}. Keep "
            "only the correct one, or send the series again from the PACS.",
        )
    named = {one.at for one in placed if one.by_name}
    known = {images[k].acquisition for k in named}
    for is_meant in (
        named.__contains__,
        lambda k: images[k].sop_instance_uid in listed,
        lambda k: images[k].acquisition in known,
    ):
        hits = [k for k in hits if is_meant(k)] or hits
    sealed = [with_pixel_digest(images[k]) for k in hits]
    if len({(image.digest, image.pixel_digest) for image in sealed}) > 1:
        telling = telling_apart(sealed)
        told = f"They differ in {telling}" if telling else "Their headers do not show which one was drawn on"
        raise Refused(
            ReasonCode.DUPLICATE_POSITION,
            f"{len(hits)} different slices of the series lie {whereabouts([stack.depths[hits[0]]], stack.normal)}, "
            f"for example {images[hits[0]].name} and {images[hits[1]].name}. {told}. Send only the reconstruction "
            "that the region was drawn on.",
        )
    return hits[0]


def _moved(stack: Stack, span: list[int], placed: Sequence[Placed]) -> tuple[Placed, ...]:
    """Move contours and frames from slices that were left out to the slice at the same position."""
    chosen = set(span)
    moved = []
    for one in placed:
        at = one.at
        if at not in chosen:
            at = min(span, key=lambda k: abs(stack.depths[k] - stack.depths[one.at]))
            if stack.images[at].digest != stack.images[one.at].digest:
                raise Refused(
                    ReasonCode.DUPLICATE_POSITION,
                    f"Two slices, {stack.images[one.at].name} and {stack.images[at].name}, lie at the same position, "
                    f"{whereabouts([stack.depths[at]], stack.normal)}, but differ in their geometry. Send only the "
                    "reconstruction that the region was drawn on.",
                )
        moved.append(Placed(one.item, at, one.by_name))
    return tuple(moved)


def _prove_unskipped(region: Region, stack: Stack, step: float, span: list[int], occupied: list[int]) -> None:
    """Refuse a region that skips slices; it was probably drawn on thicker slices.

    A segmentation may consist of separate parts; then some of its slices are neighbours.
    """
    skipped = [k for k in span if occupied[0] < k < occupied[-1] and k not in occupied]
    if region.source.kind == "RTSTRUCT":
        if skipped:
            raise Refused(
                ReasonCode.CONTOURS_SKIP_SLICES,
                f"{the_region(region.name)} has no contour on {counted(len(skipped), 'slice')} between its first and "
                f"its last, {whereabouts(stack.depths[skipped], stack.normal)}. Draw it there, or interpolate in the "
                "contouring software. If it was drawn on thicker slices, send that CT series.",
                (region.name,),
            )
        return
    images = [stack.images[k] for k in occupied]
    drawn = _drawn_step(region, step, images)
    if drawn:
        raise Refused(
            ReasonCode.CONTOURS_SKIP_SLICES,
            f"{the_region(region.name)} was drawn on {drawn:g} mm slices, but this CT has slices {step:g} mm apart. "
            "Send the CT series that it was drawn on.",
            (region.name,),
        )
    places = np.searchsorted(span, occupied)
    if len(occupied) > 1 and np.diff(places).min() > 1:
        raise Refused(
            ReasonCode.CONTOURS_SKIP_SLICES,
            f"{the_region(region.name)} skips {counted(len(skipped), 'slice')} between its first and its last, and no "
            "two of its slices are neighbours. It was drawn on thicker slices. Send the CT series that it was drawn "
            "on.",
            (region.name,),
        )


def _drawn_step(region: Region, step: float, images: Sequence[ImageHeader]) -> float:
    """Return the slice spacing or thickness of a segmentation if it differs from the CT's; 0 if it does not."""
    declared = {abs(image.spacing_between_slices or 0.0) for image in images}
    own = region.slice_spacing
    if own and abs(own - step) > max(_STEP_SHARE * step, POSITION_TOLERANCE) and own not in declared:
        return own
    thick = region.slice_thickness
    is_thicker = not own and thick >= _ONE_STEP * step and thick not in {image.slice_thickness for image in images}
    return thick if is_thicker else 0.0


def _not_in_place_of_others(
    case: Case, named: frozenset[str], listed: frozenset[str], match_by_geometry: bool
) -> tuple[ImageHeader, ...]:
    """Leave out images that the region's file does not list, as long as listed images are missing.

    A second image set under the same Series Instance UID has slices at the same positions. If it arrives first, only
    the list shows that the region was not drawn on it. If no listed or named image is present, and matching by position
    was requested, the UIDs were changed, and the list is not used.

    Raises
    ------
    Held
        ``slices_missing``: no listed or named image is present.
    """
    here = case.instances
    if listed <= here:
        return case.images
    kept = tuple(image for image in case.images if image.sop_instance_uid in listed | named)
    if kept:
        return kept
    if match_by_geometry:
        return case.images
    none_there = (
        f"All slices that the region's file lists are missing (for example {min(listed)}). The slices of this series "
        "have other SOP Instance UIDs (0008,0018)."
    )
    if case.neighbours:
        raise missing(none_there)
    raise Held(
        ReasonCode.SLICES_MISSING,
        f"{none_there} Send the listed slices from the PACS. Or an anonymiser or archive has changed the UIDs. "
        f"Then, if the region lies on the tumour over these slices, {RUN_BY_POSITION}.",
    )


def _prove_frame_of_reference(case: Case, region: Region, stack: Stack, strict: bool) -> tuple[str, ...]:
    """Refuse a region in another Frame of Reference, unless it is a SEG and each of its frames names its slice.

    The later placement checks that each frame also lies on its slice.

    Returns
    -------
    tuple of str
        Warnings.
    """
    own = region.frame_of_reference_uid
    if own in {image.frame_of_reference_uid for image in stack.images} or (not own and region.outlines):
        return ()
    here = case.instances
    vouched = bool(region.frames) and all(named_on(frame)[0] in here for frame in region.frames)
    if not vouched or strict:
        raise Refused(
            ReasonCode.FRAME_OF_REFERENCE_MISMATCH,
            f"{the_region(region.name)} lies in another Frame of Reference (coordinate system) than the CT. "
            + (
                "Its frames name their slices, but the setting strict_frame_of_reference does not allow this. "
                if vouched
                else ""
            )
            + f"Send the CT series that it was drawn on, or export the {region.source.kind} again with that CT's Frame "
            "of Reference UID (0020,0052).",
            (region.name,),
        )
    return ("The segmentation names another Frame of Reference than the CT, or none; its frames name their slices.",)


def _content(region: Region, placed: Sequence[Placed], span: Sequence[int]) -> tuple[tuple[Item, ...], ...]:
    """Return the contours or frames on each slice; two frames of a segment on one slice must be equal."""
    content: list[tuple[Item, ...]] = []
    for k in span:
        items = [one.item for one in placed if one.at == k]
        frames = [item for item in items if isinstance(item, SegmentFrame)]
        if any((frame.pixels != frames[0].pixels).any() for frame in frames[1:]):
            raise Refused(
                ReasonCode.ROI_UNREADABLE,
                f"{the_region(region.name)} has two different frames on one slice. Export it as an RTSTRUCT instead.",
                (region.name,),
            )
        content.append(tuple(items))
    return tuple(content)


def _beyond(
    stack: Stack, step: float, span: Sequence[int], images: tuple[ImageHeader, ...], wanted: int
) -> tuple[tuple[ImageHeader, ...], tuple[ImageHeader, ...]]:
    """Find up to `wanted` slices beyond either end of a span; they must continue its regular spacing."""
    found: list[list[ImageHeader]] = [[], []]
    reach = slack(step, stack.depths[list(span)])
    for end, at, way in ((0, span[0], -1), (1, span[-1], 1)):
        for far in range(1, wanted + 1):
            hits = stack.within(reach, stack.depths[at] + way * far * step)
            if len(hits) != 1:  # nothing shows which of two at the same position is meant
                break
            found[end].append(stack.images[hits[0]])
    before, behind = tuple(reversed(found[0])), tuple(found[1])
    try:
        prove_regular((*before, *images, *behind), stack.normal, stack.depths)
    except Refused:
        return (), ()
    return before, behind


def reference_slices(
    case: Case,
    region: Region,
    margin: int,
    *,
    settled: bool,
    waited: bool | None = None,
    match_by_geometry: bool = False,
    strict_frame_of_reference: bool = False,
    beyond_mm: float = 0.0,
) -> ReferenceSlices:
    """Find and check the slices of the reference volume.

    Parameters
    ----------
    case
        The series and its ROI objects, as far as they have arrived.
    region
        The region to measure.
    margin
        Number of slices wanted beyond the region at either end. The margin may be shorter in two cases: the series ends
        there (all images that the ROI object lists are present), or no more slices arrived within the waiting time
        (`waited`). There is no time limit for the region's own slices.
    settled
        Whether the case has been unchanged for the settle time.
    waited
        Whether the case has been unchanged for the waiting time of missing neighbours; None: same as `settled`.
    match_by_geometry
        Accept images by position in the Frame of Reference although the region refers to other images.
    strict_frame_of_reference
        Refuse a SEG in another Frame of Reference even if all its frames name their slices.
    beyond_mm
        Distance beyond the region, in mm, up to which additional slices are used if they are present. The case does
        not wait for them.

    Raises
    ------
    Held
        ``slices_missing``, ``references_unresolved``, or ``more_may_come``; the last only as long as not `waited`.
    Refused
        ``ambiguous_input``, or one of the geometry or region codes.
    """
    prove_outlines(region)
    items: tuple[Item, ...] = (*region.outlines, *region.frames)
    if not items:
        raise Refused(
            ReasonCode.ROI_EMPTY, f"{the_region(region.name)} is empty. Draw it, and export again.", (region.name,)
        )
    link, listed, meant, kept, stack = _slices_of(case, region, match_by_geometry)
    warnings = _prove_frame_of_reference(case, region, stack, strict_frame_of_reference)
    placed = place(case, region, items, stack, link, settled=settled, match_by_geometry=match_by_geometry)
    occupied = _occupied(placed)
    step = _proven_step(case, region, stack, occupied)
    if step:
        span = _span(stack, step, placed, margin, listed)
        placed = _moved(stack, span, placed)
        occupied = _occupied(placed)
        _prove_unskipped(region, stack, step, span, occupied)
    else:
        span = occupied
    clipped = len(span) < span.index(occupied[-1]) - span.index(occupied[0]) + 1 + 2 * margin
    if clipped and stack.others:
        raise Refused(
            ReasonCode.GEOMETRY_MISSING,
            f"A slice that may be next to {named(region.name)} has no usable position, orientation or pixel spacing "
            "(Image Position, 0020,0032; Image Orientation, 0020,0037; Pixel Spacing, 0028,0030). Send the original CT "
            "series from the PACS.",
            (region.name,),
        )
    images = tuple(stack.images[k] for k in span)
    spacing = prove_regular(images, stack.normal, stack.depths)
    common = images[0].frame_of_reference_uid
    if region.outlines and (not common or as_uid(common) != common):
        raise Refused(
            ReasonCode.FRAME_OF_REFERENCE_MISMATCH,
            "The slices have no Frame of Reference UID (0020,0052). The contours' coordinates may not belong to them. "
            "Send the original CT series from the PACS.",
        )
    content = _content(region, placed, span)
    _prove_rest(case, region, link, clipped, settled if waited is None else waited, match_by_geometry)
    if link is Link.POSITION:
        warnings += (POSITION_ALONE,)
    if run_through_centres(
        (item, image)
        for image, on_it in zip(images, content, strict=True)
        for item in on_it
        if isinstance(item, Outline)
    ):
        warnings += (
            "The contours run from pixel centre to pixel centre, as some software draws them. Up to 8 % of the volume "
            "may be missing at the rim.",
        )
    ending = ""
    if clipped:
        here = case.instances
        left_out = frozenset(meant) - frozenset(kept)
        ending = _why_clipped(stack, occupied, margin * step, left_out, len(listed - here))
    before: tuple[ImageHeader, ...] = ()
    behind: tuple[ImageHeader, ...] = ()
    if step and beyond_mm:
        # A slice covers half its spacing on either side, and a resampled region needs one more at either end.
        wanted = int(beyond_mm / step + 0.5) + min(margin, 1) - margin
        before, behind = _beyond(stack, step, span, images, wanted)
    return ReferenceSlices(images, spacing, content, ending, warnings, before, behind)


def whole_series(case: Case, region: Region) -> tuple[tuple[ImageHeader, ...], tuple[float, float, float], Mask]:
    """Place a segment on all slices of its series; it may consist of several parts. Nothing is measured yet.

    Returns
    -------
    tuple
        The slices in ascending position along their normal, their spacing (slice, row, column) in mm, and the mask
        (slices, rows, columns) on them.

    Raises
    ------
    Held, Refused
        As :func:`reference_slices`, but skipped slices are allowed.
    """
    link, _, _, _, stack = _slices_of(case, region, match_by_geometry=False)
    _prove_frame_of_reference(case, region, stack, strict=False)
    spacing = prove_regular(stack.images, stack.normal, stack.depths)
    placed = place(case, region, region.frames, stack, link, settled=True, match_by_geometry=False)
    mask = np.zeros((len(stack.images), stack.images[0].rows, stack.images[0].columns), dtype=np.bool_)
    for one in placed:
        if isinstance(one.item, SegmentFrame):
            mask[one.at] |= one.item.pixels
    return stack.images, spacing, mask


def _slices_of(
    case: Case, region: Region, match_by_geometry: bool
) -> tuple[Link, frozenset[str], tuple[ImageHeader, ...], tuple[ImageHeader, ...], Stack]:
    """Return the link between region and series, the listed images, and the slices: possible, kept and stacked."""
    link, listed, drawn_on = link_of(case, region), listed_of(case, region), named_by(region)
    beyond = listed if not listed <= set(region.source.image_references) else frozenset[str]()
    meant = _not_in_place_of_others(case, drawn_on, beyond, match_by_geometry)
    kept = of_one_acquisition(meant, drawn_on, beyond)
    return link, listed, meant, kept, Stack.of(kept, drawn_on)


def _why_clipped(
    stack: Stack, occupied: Sequence[int], reach: float, left_out: frozenset[ImageHeader], never_came: int
) -> str:
    """Say why slices within `reach` (mm) of the region are missing."""
    ends = stack.depths[[occupied[0], occupied[-1]]] + [-reach - POSITION_TOLERANCE, reach + POSITION_TOLERANCE]
    beside = [
        image
        for image in left_out
        if image.is_ct_slice and image.position and ends[0] <= np.dot(stack.normal, image.position) <= ends[1]
    ]
    if beside:
        return LEFT_OUT.format(telling_apart([*(stack.images[k] for k in occupied), *beside]))
    if not never_came:
        return SERIES_ENDS
    return ONE_NEVER_CAME if never_came == 1 else NEVER_CAME.format(never_came)


def _prove_rest(case: Case, region: Region, link: Link, clipped: bool, waited: bool, match_by_geometry: bool) -> None:
    """Hold a case as long as images may still arrive that would change the answer."""
    if waited:
        return
    if clipped and not listed_and_here(case, region):
        raise more_may_come("Slices next to the region may still arrive.")
    if link is Link.POSITION or (link is Link.UNRESOLVED and match_by_geometry):
        raise more_may_come("The region is matched by its position only. Another matching series may still arrive.")
