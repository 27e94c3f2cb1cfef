"""The slice of each contour or frame of a region: the slice that it names, else the slice in the same plane."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.linking import RUN_BY_POSITION, Link, listed_of, prove_position_tells, unresolved
from lungstage.appliance.dicom.names import are_missing, counted, named, the_region
from lungstage.appliance.dicom.pixel_grid import laid_on
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame, named_on
from lungstage.appliance.dicom.stack import Floats, Stack

Item = Outline | SegmentFrame

_DRAWN_ON_OTHERS = "It was drawn on other slices. Send the CT series that it was drawn on."
_AXIAL = 0.9999  # the slice normal's component along the patient's axis; the position is then called z


@dataclass(frozen=True, slots=True)
class Placed:
    """A contour or a frame on its slice.

    Attributes
    ----------
    item
        The contour or frame; the pixels of a frame are those of the slice.
    at
        Index of the slice in the stack.
    by_name
        Whether it refers to the slice by its UID.
    """

    item: Item
    at: int
    by_name: bool


def missing(message: str, *regions: str) -> Held:
    """Return the hold for missing slices that the measurement needs."""
    return Held(ReasonCode.SLICES_MISSING, f"{message} Send the whole CT series again from the PACS.", regions)


def whereabouts(depths: Iterable[float], normal: Floats) -> str:
    """Describe a position along the slice normal: at z = 12 mm, or at z = 12 to 24 mm."""
    is_axial = abs(normal[2]) > _AXIAL
    ends = sorted(round(depth * (np.sign(normal[2]) if is_axial else 1), 1) for depth in depths)
    span = f"{ends[0]:g}" if ends[0] == ends[-1] else f"{ends[0]:g} to {ends[-1]:g}"
    return f"at z = {span} mm" if is_axial else f"at {span} mm along the slice normal"


def listed_and_here(case: Case, region: Region) -> bool:
    """Whether all listed images of the series are present, and the list shows where the series ends.

    A list that contains only the images named by the contours does not show the end.
    """
    listed = listed_of(case, region)
    here = case.instances
    return listed <= here and not listed <= set(region.source.image_references)


def place(
    case: Case,
    region: Region,
    items: Sequence[Item],
    stack: Stack,
    link: Link,
    *,
    settled: bool,
    match_by_geometry: bool,
) -> tuple[Placed, ...]:
    """Place each contour or frame on a slice, and check that it lies in the slice's plane and on its grid.

    Parameters
    ----------
    case, region
        The series, and the region of the contours or frames in `items`.
    stack
        Stack of the case's images.
    link
        The link between region and series.
    settled
        Whether the case has been unchanged for the settle time.
    match_by_geometry
        Use positions only, and ignore the images that the region names.

    Raises
    ------
    Held
        ``slices_missing`` or ``references_unresolved``.
    Refused
        ``ambiguous_input`` or one of the geometry or region codes.
    """
    if link is Link.UNRESOLVED:
        if not match_by_geometry:
            raise unresolved(case, region)
        prove_position_tells(case, region)
    # A reference to a whole Enhanced CT does not say on which frame the item lies.
    multiframe = {image.sop_instance_uid for image in case.images if image.frame}
    by_its_name = [
        not match_by_geometry and bool(uid) and (frame > 0 or uid not in multiframe)
        for uid, frame in map(named_on, items)
    ]
    by_name = list(itertools.compress(items, by_its_name))
    by_place = [item for item, is_named in zip(items, by_its_name, strict=True) if not is_named]
    on_names = iter(_by_reference(case, region, by_name, stack) if by_name else [])
    on_places = iter(_by_geometry(case, region, by_place, stack, settled) if by_place else [])
    at = [next(on_names if is_named else on_places) for is_named in by_its_name]
    _prove_in_plane(region, [*zip(items, at, by_its_name, strict=True)], stack)
    return tuple(
        Placed(item if isinstance(item, Outline) else _on_grid(region, item, stack, k), k, is_named)
        for item, k, is_named in zip(items, at, by_its_name, strict=True)
    )


def _by_reference(case: Case, region: Region, items: Sequence[Item], stack: Stack) -> list[int]:
    """Place each item on the image that it refers to."""
    index = {(image.sop_instance_uid, image.frame): k for k, image in enumerate(stack.images)}
    present = {(image.sop_instance_uid, image.frame) for image in case.images}
    # Some writers give a frame number for an image that has only one frame.
    wanted = [(uid, 0) if (uid, 0) in present else (uid, frame) for uid, frame in map(named_on, items)]
    needed = set(wanted)
    if needed & present - index.keys():
        raise Refused(
            ReasonCode.ORIENTATION_VARIES,
            f"The slices that {named(region.name)} was drawn on differ in orientation (Image Orientation, 0020,0037). "
            "Some are at an angle to the others, or are stored mirrored. Draw the region on one axial series with the "
            "same orientation in all slices.",
            (region.name,),
        )
    if {uid for uid, _ in needed - present} & {uid for uid, _ in present}:
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            f"{the_region(region.name)} refers to frames that its image does not have. Send the image that it was "
            f"drawn on, or export the {region.source.kind} again from that image.",
            (region.name,),
        )
    if lacking := needed - index.keys():
        depths = [
            _depth(item, stack.normal) for item, reference in zip(items, wanted, strict=True) if reference in lacking
        ]
        raise missing(
            f"{len(lacking)} of the {counted(len(needed), 'slice')} that {named(region.name)} needs "
            f"{are_missing(len(lacking))}, {whereabouts(depths, stack.normal)}.",
            region.name,
        )
    return [index[reference] for reference in wanted]


def _depth(item: Item, normal: Floats) -> float:
    point = item.points[0] if isinstance(item, Outline) else item.position
    return float(np.dot(normal, point))


def _by_geometry(case: Case, region: Region, items: Sequence[Item], stack: Stack, settled: bool) -> list[int]:
    """Place each item on the image in the same plane."""
    step, tolerance = stack.step(), stack.tolerance()
    depths = [_depth(item, stack.normal) for item in items]
    placed = [stack.nearest(depth) for depth in depths]
    off = [d for d, k in zip(depths, placed, strict=True) if abs(stack.depths[k] - d) > tolerance]
    if not off:
        return placed
    planes, where = len({round(depth, 2) for depth in off}), whereabouts(off, stack.normal)
    lacking = f"{counted(planes, 'slice')} that {named(region.name)} needs {are_missing(planes)}, {where}."
    complete = listed_and_here(case, region)
    if not (settled or complete) or not step:
        raise missing(lacking, region.name)
    if any(abs((d - stack.depths[0]) / step - round((d - stack.depths[0]) / step)) * step > tolerance for d in off):
        if region.source.kind == "SEG":
            raise Refused(
                ReasonCode.SEG_GRID_MISMATCH,
                f"{the_region(region.name)} has {counted(planes, 'frame')} between the CT's slices, {where}. "
                f"{_DRAWN_ON_OTHERS}",
                (region.name,),
            )
        raise Refused(
            ReasonCode.CONTOUR_OFF_SLICE,
            f"{the_region(region.name)} has contours in {counted(planes, 'plane')} between the CT's slices, {where}. "
            f"{_DRAWN_ON_OTHERS}",
            (region.name,),
        )
    if complete:
        raise Refused(
            ReasonCode.ROI_OUTSIDE_SERIES,
            f"{the_region(region.name)} extends {counted(planes, 'slice')} beyond the CT series, {where}. Send the "
            "series that it was drawn on, or draw it within this series.",
            (region.name,),
        )
    raise missing(lacking, region.name)


def _prove_in_plane(region: Region, placed: Sequence[tuple[Item, int, bool]], stack: Stack) -> None:
    """Refuse contours and frames that do not lie in the plane of their slice."""
    tolerance = stack.tolerance()
    far: dict[bool, list[float]] = {True: [], False: []}
    for item, k, is_named in placed:
        points = item.points if isinstance(item, Outline) else item.position[None]
        off = float(np.abs(points @ stack.normal - stack.depths[k]).max())
        if off > tolerance:
            far[is_named].append(off)
    if not any(far.values()):
        return
    kind, part = (
        (ReasonCode.CONTOUR_OFF_SLICE, "contour")
        if isinstance(placed[0][0], Outline)
        else (ReasonCode.SEG_GRID_MISMATCH, "frame")
    )
    if by_name := far[True]:
        raise Refused(
            kind,
            f"{the_region(region.name)} has {counted(len(by_name), part)} up to {max(by_name):.3g} mm away from the CT "
            f"slice that the {region.source.kind} names. Look at the region over the CT. If it lies on the tumour, "
            f"{RUN_BY_POSITION}: it uses positions only. If not, export the {region.source.kind} again.",
            (region.name,),
        )
    raise Refused(
        kind,
        f"{the_region(region.name)} has {counted(len(far[False]), part)} at an angle to the CT's slices, or up to "
        f"{max(far[False]):.3g} mm away from them. {_DRAWN_ON_OTHERS}",
        (region.name,),
    )


def _on_grid(region: Region, frame: SegmentFrame, stack: Stack, k: int) -> SegmentFrame:
    laid = laid_on(stack.images[k], region, frame, stack.tolerance())
    if laid is None:
        raise Refused(
            ReasonCode.SEG_GRID_MISMATCH,
            f"The voxels of {named(region.name)} in the SEG do not match the CT slices in axes, spacing or position, "
            "or lie outside them. Send the CT series that it was drawn on, or resample the SEG to this CT.",
            (region.name,),
        )
    return laid
