"""Which slices must be there before a region may be measured.

The region of interest says what is needed: its own slices, and a margin at either end for the resampler. Nothing
here looks at pixels, and nothing depends on which other slices have arrived.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.geometry import POSITION_TOLERANCE, allowed, normal_of, prove_regular
from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.instance import as_uid
from lungstage.appliance.dicom.names import the_region
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame, same_grid, same_place
from lungstage.appliance.dicom.structure_set import prove_outlines

Floats = npt.NDArray[np.float64]
Item = Outline | SegmentFrame

# A contour lies on a slice when it is no further off than this (mm), or than a fifth of the slice spacing.
_PLANE_TOLERANCE = 0.1
_PLANE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class ReferenceSlices:
    """The slices of the reference volume, proven to be a regular grid.

    Attributes
    ----------
    images
        In ascending position along the slice normal.
    spacing
        (slice, row, column) in mm.
    content
        For each image, the outlines or segment frames that lie on it; empty in the margin.
    clipped
        The series ends before the margin does.
    """

    images: tuple[ImageHeader, ...]
    spacing: tuple[float, float, float]
    content: tuple[tuple[Item, ...], ...]
    clipped: bool


def _missing(message: str) -> Held:
    return Held(ReasonCode.SLICES_MISSING, message)


@dataclass(frozen=True, slots=True)
class _Stack:
    """The series' slices that have a place, in ascending position along one normal, and whether others have none."""

    images: tuple[ImageHeader, ...]
    depths: Floats
    normal: Floats
    others: bool

    @classmethod
    def of(cls, images: Sequence[ImageHeader]) -> _Stack:
        slices = [image for image in images if image.is_ct_slice]
        placed = [image for image in slices if image.position and image.orientation and image.pixel_spacing]
        others = len(placed) < len(slices)
        if not placed:
            raise Refused(ReasonCode.GEOMETRY_MISSING, "The CT slices do not say where they lie.")
        # A stray image of another orientation must not tilt the stack; if it is needed, it is missed by name.
        facing = Counter(tuple(np.round(image.orientation, 3)) for image in placed)
        common = max(sorted(facing), key=lambda orientation: facing[orientation])
        placed = [image for image in placed if np.allclose(image.orientation, common, atol=2e-3)]
        normal = normal_of(placed[0])
        depths = np.array([float(np.dot(normal, image.position)) for image in placed])
        order = sorted(range(len(placed)), key=lambda k: (depths[k], placed[k].sop_instance_uid, placed[k].frame))
        return cls(tuple(placed[k] for k in order), depths[order], normal, others)

    def nearest(self, depth: float) -> int:
        return int(np.abs(self.depths - depth).argmin())

    def step(self) -> float:
        """Return the commonest distance between neighbouring positions in mm; 0 for a single slice."""
        gaps = np.round(np.diff(self.depths), 2)
        gaps = gaps[gaps > 0]
        if not gaps.size:
            return 0.0
        values, counts = np.unique(gaps, return_counts=True)
        return float(values[counts.argmax()])


def _tolerance(step: float) -> float:
    return min(_PLANE_TOLERANCE, _PLANE_SHARE * step) if step else _PLANE_TOLERANCE


def _listed(case: Case) -> set[str]:
    """Every instance of this series that a ROI object lists: more than are needed, but no more than exist."""
    return {
        instance
        for roi in case.rois
        for series, instances in roi.listed
        if series == case.series_instance_uid
        for instance in instances
    }


def _series_is_all_there(case: Case) -> bool:
    listed = _listed(case)
    return bool(listed) and listed <= {image.sop_instance_uid for image in case.images}


def _unresolved(wanted: int) -> Held:
    return Held(
        ReasonCode.REFERENCES_UNRESOLVED,
        f"The region of interest refers to {wanted or 'other'} images none of which is there, though others in its "
        "Frame of Reference are; --match-by-geometry accepts these.",
    )


def _resolve_by_reference(case: Case, items: Sequence[Item], stack: _Stack) -> list[int]:
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
    found = needed & index.keys()
    if not found:
        raise _unresolved(len(needed))
    if len(found) < len(needed):
        raise _missing(
            f"{len(needed - found)} of the {len(needed)} slices that the region of interest needs are missing."
        )
    return [index[reference] for reference in wanted]


def _names_another_series(case: Case, region: Region) -> bool:
    """Whether the region's object lists series, and this case's is none of them."""
    listed = region.source.listed
    here = {image.sop_instance_uid for image in case.images}
    return bool(listed) and not any(uid == case.series_instance_uid or here & set(names) for uid, names in listed)


def _resolve(
    case: Case, region: Region, items: Sequence[Item], stack: _Stack, *, settled: bool, match_by_geometry: bool
) -> list[int]:
    """Place each item: by the image or frame it names, where it names one, else by geometry."""
    if match_by_geometry:
        return _resolve_by_geometry(case, region, items, stack, settled)
    if _names_another_series(case, region):
        raise _unresolved(0)
    # An Enhanced CT named as a whole is as good as not named.
    multiframe = {image.sop_instance_uid for image in case.images if image.frame}
    named = [bool(uid) and (frame > 0 or uid not in multiframe) for uid, frame in (item.image for item in items)]
    by_name = list(itertools.compress(items, named))
    by_place = [item for item, is_named in zip(items, named, strict=True) if not is_named]
    on_names = iter(_resolve_by_reference(case, by_name, stack) if by_name else [])
    on_places = iter(_resolve_by_geometry(case, region, by_place, stack, settled) if by_place else [])
    return [next(on_names if is_named else on_places) for is_named in named]


def _depth(item: Item, normal: Floats) -> float:
    point = item.points[0] if isinstance(item, Outline) else item.position
    return float(np.dot(normal, point))


def _resolve_by_geometry(case: Case, region: Region, items: Sequence[Item], stack: _Stack, settled: bool) -> list[int]:
    """Place each item on the image whose plane it lies in."""
    step = stack.step()
    depths = [_depth(item, stack.normal) for item in items]
    placed = [stack.nearest(depth) for depth in depths]
    off = [d for d, k in zip(depths, placed, strict=True) if abs(stack.depths[k] - d) > _tolerance(step)]
    if not off:
        return placed
    planes = len({round(depth, 2) for depth in off})
    complete = _series_is_all_there(case)
    if not (settled or complete) or not step:
        raise _missing(f"The slices of {planes} planes of the region of interest are missing.")
    if any(
        abs((d - stack.depths[0]) / step - round((d - stack.depths[0]) / step)) * step > _tolerance(step) for d in off
    ):
        if region.source.kind == "SEG":
            raise Refused(ReasonCode.SEG_GRID_MISMATCH, "The segmentation's frames do not lie on the CT's slices.")
        raise Refused(ReasonCode.CONTOUR_OFF_SLICE, f"{planes} contour planes do not lie on a slice of the series.")
    if complete:
        raise Refused(
            ReasonCode.ROI_OUTSIDE_SERIES, f"The region of interest reaches {planes} planes beyond the CT series."
        )
    raise _missing(f"The slices of {planes} planes of the region of interest are missing.")


def _prove_on_plane(region: Region, items: Sequence[Item], placed: list[int], stack: _Stack) -> None:
    """Prove that each item lies in the plane, or on the grid, of the image it was placed on."""
    tolerance = _tolerance(stack.step())
    for item, k in zip(items, placed, strict=True):
        image = stack.images[k]
        if isinstance(item, Outline):
            if np.abs(item.points @ stack.normal - stack.depths[k]).max() > tolerance:
                raise Refused(
                    ReasonCode.CONTOUR_OFF_SLICE, "A contour does not lie in the plane of the slice it belongs to."
                )
        elif not (
            item.pixels.shape == (image.rows, image.columns)
            and same_grid(region, image.orientation, image.pixel_spacing)
            and same_place(item.position, np.array(image.position))
        ):
            raise Refused(ReasonCode.SEG_GRID_MISMATCH, "The segmentation's grid is not that of the CT slices.")


def _span(region: Region, case: Case, stack: _Stack, occupied: list[int], margin: int, settled: bool) -> list[int]:
    """Find the stack's slices from the first to the last occupied one and `margin` further, with none left out."""
    step = _proven_step(case, stack, occupied)
    complete = settled or _series_is_all_there(case)
    if not step:
        if not complete:
            raise _missing("The slices next to the region of interest may still come.")
        return occupied
    first = stack.depths[occupied[0]]
    count = round((stack.depths[occupied[-1]] - first) / step)
    span: list[int] = []
    gaps = 0
    for place in range(-margin, count + margin + 1):
        depth = first + place * step
        hits = np.flatnonzero(np.abs(stack.depths - depth) <= allowed(step))
        if len({stack.images[k].name for k in hits}) < len(hits):
            raise Refused(
                ReasonCode.CONFLICTING_INSTANCES, "One SOP Instance UID of the series came with different content."
            )
        if len(hits) > 1:
            raise Refused(ReasonCode.DUPLICATE_POSITION, "Two different slices of the series lie at the same position.")
        if len(hits):
            span.append(int(hits[0]))
        elif 0 <= place <= count:
            gaps += 1
    if gaps:
        raise _missing(f"{gaps} slices within the region of interest are missing.")
    skipped = [k for k in span if occupied[0] < k < occupied[-1] and k not in occupied]
    if skipped and region.source.kind == "RTSTRUCT":
        raise Refused(
            ReasonCode.CONTOURS_SKIP_SLICES,
            f"The region of interest has no contour on {len(skipped)} slices between its first and its last.",
        )
    wanted = count + 1 + 2 * margin
    if len(span) < wanted and not complete:
        raise _missing("The slices next to the region of interest may still come.")
    if len(span) < wanted and stack.others:
        raise Refused(
            ReasonCode.GEOMETRY_MISSING,
            "A slice that may be next to the region of interest does not say where it lies.",
        )
    return span


def _proven_step(case: Case, stack: _Stack, occupied: list[int]) -> float:
    """Distance between neighbouring slices around the region, in mm; proven not to be a gap that something fills."""
    around = [k for k in range(occupied[0] - 1, occupied[-1] + 2) if 0 <= k < len(stack.images)]
    gaps = np.diff(stack.depths[around])
    gaps = gaps[gaps > POSITION_TOLERANCE]
    step = 0.0
    if gaps.size:
        places = np.round(gaps / gaps.min())
        step = float(gaps.sum() / places.sum())
        if np.abs(gaps - places * step).max() > allowed(step):
            raise Refused(ReasonCode.SPACING_NOT_UNIFORM, "The slices of the series are not evenly spaced.")
    thickness = [stack.images[k].slice_thickness or 0.0 for k in occupied]
    if min(thickness) <= 0 and _listed(case) and not _series_is_all_there(case):
        raise _missing(
            "The slices do not say how thick they are, so only the whole series can show that none is missing."
        )
    if min(thickness) > 0 and step > 1.5 * max(thickness):
        raise _missing(
            f"The slices lie {step:g} mm apart but are only {max(thickness):g} mm thick; those between are missing."
        )
    return step


def _extent(content: Sequence[Sequence[Item]]) -> int:
    """Count the slices from the first to the last that holds a part of the region."""
    occupied = [k for k, items in enumerate(content) if items]
    return occupied[-1] - occupied[0] + 1


def reference_slices(
    case: Case, region: Region, margin: int, *, settled: bool, match_by_geometry: bool
) -> ReferenceSlices:
    """Find and prove the slices of the reference volume.

    Parameters
    ----------
    case
        The series and its ROI objects, as far as they have arrived.
    region
        The region to measure.
    margin
        Slices wanted beyond the region at either end. Where the series provably ends (what the ROI object lists is
        all there) or nothing more came until it was `settled`, the margin ends with it.
    settled
        Nothing has been added to the case for the settle time.
    match_by_geometry
        Accept images by position in the Frame of Reference although the region refers to others.

    Raises
    ------
    Held
        ``slices_missing`` or ``references_unresolved``.
    Refused
        One of the geometry or region codes.
    """
    items: tuple[Item, ...] = (*region.outlines, *region.frames)
    if not items:
        raise Refused(ReasonCode.ROI_EMPTY, f"{the_region(region.name)} is empty.", (region.name,))
    prove_outlines(region)
    stack = _Stack.of(case.images)
    frames = {image.frame_of_reference_uid for image in stack.images}
    if region.frame_of_reference_uid and region.frame_of_reference_uid not in frames:
        raise Refused(
            ReasonCode.FRAME_OF_REFERENCE_MISMATCH,
            "The region of interest lies in another Frame of Reference than the CT.",
        )
    placed = _resolve(case, region, items, stack, settled=settled, match_by_geometry=match_by_geometry)
    _prove_on_plane(region, items, placed, stack)
    span = _span(region, case, stack, sorted(set(placed)), margin, settled)
    images = tuple(stack.images[k] for k in span)
    spacing = prove_regular(images, stack.normal)
    common = images[0].frame_of_reference_uid
    if region.outlines and (not common or as_uid(common) != common):
        raise Refused(
            ReasonCode.FRAME_OF_REFERENCE_MISMATCH,
            "The slices name no Frame of Reference, so the contours' coordinates may not be theirs.",
        )
    content: list[tuple[Item, ...]] = [
        tuple(item for item, k in zip(items, placed, strict=True) if k == at) for at in span
    ]
    return ReferenceSlices(images, spacing, tuple(content), len(span) < _extent(content) + 2 * margin)
