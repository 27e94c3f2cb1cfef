"""On which slice each contour or frame of a region lies: the one that it names, else that in whose plane it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.linking import Link, listed_of, prove_position_tells, unresolved
from lungstage.appliance.dicom.pixel_grid import laid_on
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame
from lungstage.appliance.dicom.stack import Floats, Stack

Item = Outline | SegmentFrame


@dataclass(frozen=True, slots=True)
class Placed:
    """A contour or a frame on its slice.

    Attributes
    ----------
    item
        A frame's pixels are those of the slice.
    at
        Index of the slice in the stack.
    by_name
        Whether it names the slice.
    """

    item: Item
    at: int
    by_name: bool


def missing(message: str) -> Held:
    """Say that slices are missing that nothing can be measured without."""
    return Held(ReasonCode.SLICES_MISSING, message)


def listed_and_here(case: Case, region: Region) -> bool:
    """Whether everything is there that the region's file lists of the series, and the list shows where the series ends.

    A list of nothing but the images that the contours name does not show that.
    """
    listed = listed_of(case, region)
    here = {image.sop_instance_uid for image in case.images}
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
    """Place each contour or frame on a slice, and prove that it lies in its plane, or on its grid.

    Parameters
    ----------
    case, region
        The series, and the region whose contours or frames `items` are.
    stack
        Of the case's images.
    link
        What links the two.
    settled
        Nothing has been added to the case for the settle time.
    match_by_geometry
        Go by position, whatever the region names.

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
    # An Enhanced CT named as a whole is as good as not named.
    multiframe = {image.sop_instance_uid for image in case.images if image.frame}
    named = [
        not match_by_geometry and bool(uid) and (frame > 0 or uid not in multiframe)
        for uid, frame in (item.image for item in items)
    ]
    by_name = list(itertools.compress(items, named))
    by_place = [item for item, is_named in zip(items, named, strict=True) if not is_named]
    on_names = iter(_by_reference(case, by_name, stack) if by_name else [])
    on_places = iter(_by_geometry(case, region, by_place, stack, settled) if by_place else [])
    at = [next(on_names if is_named else on_places) for is_named in named]
    _prove_in_plane([*zip(items, at, named, strict=True)], stack)
    return tuple(
        Placed(item if isinstance(item, Outline) else _on_grid(region, item, stack, k), k, is_named)
        for item, k, is_named in zip(items, at, named, strict=True)
    )


def _by_reference(case: Case, items: Sequence[Item], stack: Stack) -> list[int]:
    """Place each item on the image that it names."""
    index = {(image.sop_instance_uid, image.frame): k for k, image in enumerate(stack.images)}
    present = {(image.sop_instance_uid, image.frame) for image in case.images}
    # Some writers number the one frame of an image that has no frames.
    wanted = [(uid, 0) if (uid, 0) in present else (uid, frame) for uid, frame in (item.image for item in items)]
    needed = set(wanted)
    if needed & present - index.keys():
        raise Refused(
            ReasonCode.ORIENTATION_VARIES, "A slice that the region of interest needs lies across the others."
        )
    if {uid for uid, _ in needed - present} & {uid for uid, _ in present}:
        raise Refused(
            ReasonCode.ROI_UNREADABLE, "The region of interest refers to frames that its image does not have."
        )
    if lacking := len(needed - index.keys()):
        raise missing(f"{lacking} of the {len(needed)} slices that the region of interest needs are missing.")
    return [index[reference] for reference in wanted]


def _depth(item: Item, normal: Floats) -> float:
    point = item.points[0] if isinstance(item, Outline) else item.position
    return float(np.dot(normal, point))


def _by_geometry(case: Case, region: Region, items: Sequence[Item], stack: Stack, settled: bool) -> list[int]:
    """Place each item on the image whose plane it lies in."""
    step, tolerance = stack.step(), stack.tolerance()
    depths = [_depth(item, stack.normal) for item in items]
    placed = [stack.nearest(depth) for depth in depths]
    off = [d for d, k in zip(depths, placed, strict=True) if abs(stack.depths[k] - d) > tolerance]
    if not off:
        return placed
    planes = len({round(depth, 2) for depth in off})
    complete = listed_and_here(case, region)
    if not (settled or complete) or not step:
        raise missing(f"The slices of {planes} planes of the region of interest are missing.")
    if any(abs((d - stack.depths[0]) / step - round((d - stack.depths[0]) / step)) * step > tolerance for d in off):
        if region.source.kind == "SEG":
            raise Refused(ReasonCode.SEG_GRID_MISMATCH, "The segmentation's frames do not lie on the CT's slices.")
        raise Refused(ReasonCode.CONTOUR_OFF_SLICE, f"{planes} contour planes do not lie on a slice of the series.")
    if complete:
        raise Refused(
            ReasonCode.ROI_OUTSIDE_SERIES, f"The region of interest reaches {planes} planes beyond the CT series."
        )
    raise missing(f"The slices of {planes} planes of the region of interest are missing.")


def _prove_in_plane(placed: Sequence[tuple[Item, int, bool]], stack: Stack) -> None:
    """Refuse contours and frames that do not lie in the plane of the slice that they were placed on."""
    tolerance = stack.tolerance()
    far: dict[bool, list[float]] = {True: [], False: []}
    for item, k, is_named in placed:
        points = item.points if isinstance(item, Outline) else item.position[None]
        off = float(np.abs(points @ stack.normal - stack.depths[k]).max())
        if off > tolerance:
            far[is_named].append(off)
    if not any(far.values()):
        return
    kind, parts = (
        (ReasonCode.CONTOUR_OFF_SLICE, "contours")
        if isinstance(placed[0][0], Outline)
        else (ReasonCode.SEG_GRID_MISMATCH, "frames")
    )
    if by_name := far[True]:
        raise Refused(
            kind,
            f"Image references and coordinates of the region of interest disagree: {len(by_name)} {parts} lie up to "
            f"{max(by_name):.3g} mm off the slice that they name. Have it exported again, or go by the coordinates: "
            "--match-by-geometry (match_by_geometry).",
        )
    raise Refused(kind, f"{len(far[False])} {parts} of the region of interest do not lie in the plane of a slice.")


def _on_grid(region: Region, frame: SegmentFrame, stack: Stack, k: int) -> SegmentFrame:
    laid = laid_on(stack.images[k], region, frame, stack.tolerance())
    if laid is None:
        raise Refused(
            ReasonCode.SEG_GRID_MISMATCH,
            "The segmentation's voxels are not those of the CT slices (other axes, spacing or place), or lie beyond "
            "them; have it drawn on this CT, or resampled to it.",
        )
    return laid
