"""Draw, show and confirm a contour for a person at the page: the worker's side.

A sketch exists only as its prompt. Every request draws it again, or takes it from a small cache. Only a confirmed
contour is written, as a SEG.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Annotated

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydantic import Field

from lungstage.appliance.contour.prompts import Prompt
from lungstage.appliance.contour.windows import Point
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.contours import RegionReference, predecessors
from lungstage.appliance.dicom.files import read_dataset
from lungstage.appliance.dicom.geometry import normal_of, prove_regular
from lungstage.appliance.dicom.header import Header, RoiHeader
from lungstage.appliance.dicom.identity import prove_one_patient
from lungstage.appliance.dicom.roi import load_regions
from lungstage.appliance.model.contour_bundle import ContourBundle
from lungstage.appliance.radiomics.components import components
from lungstage.appliance.report import outbox
from lungstage.appliance.report.contour import build_contour
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.staging.contouring import Drawn, affine_of, contour_of, reference_to
from lungstage.appliance.staging.prompting import (
    NAME,
    draw_checked,
    origin_of,
    require_corrections,
    require_inside,
    require_one_slice,
    require_size,
)
from lungstage.appliance.staging.succession import is_confirmed
from lungstage.appliance.staging.viewing import Mask, Stacked, case_of, largest_plane, line_of, region_mask, stacked


@dataclass(frozen=True, slots=True)
class Draft:
    """A contour that a person is drawing.

    Attributes
    ----------
    prompt
        What the person has drawn. For an existing region its kind is ``region``, without points, or with one point in
        the part that the person keeps.
    base
        The existing region that is corrected; None for a new contour.
    """

    prompt: Prompt
    base: RegionChoice | None = None


_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Sketched:
    """What a person is told about a sketch.

    Attributes
    ----------
    volume_mm3
        Its volume.
    parts
        Number of its separate parts.
    keys
        For each kind of plane, the plane with its largest area.
    images
        Hash of the slices that it was drawn on: other slices need another look.
    rivals
        Who has confirmed another contour of this study, which this one would not replace.
    replaced
        Who has confirmed other contours besides the one that is corrected, which this one would replace, too.
    """

    volume_mm3: _Finite
    parts: _Count
    keys: tuple[_Count, _Count, _Count]
    images: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rivals: tuple[Annotated[str, Field(max_length=200)], ...]
    replaced: tuple[Annotated[str, Field(max_length=200)], ...] = ()


def sketch(headers: tuple[Header, ...], key: str, draft: Draft, bundle: ContourBundle) -> Sketched:
    """Draw a contour, and say what a person needs to know about it.

    Parameters
    ----------
    headers, key
        As in :func:`staging.viewing.look`.
    draft
        What a person has drawn.
    bundle
        The network that draws.

    Raises
    ------
    Refused
        ``prompt_unsuitable``, or a reason why nothing can be drawn on these slices.
    """
    case = case_of(headers, key)
    stack, mask = _drawn(case, draft, bundle)
    first, second, third = (largest_plane(stack, mask, axis) for axis in range(3))
    volume = float(np.count_nonzero(mask)) * float(np.prod(stack.steps))
    parts, _ = components(mask, stack.affine)
    others = _persons(_others(case, draft.base))
    rivals, replaced = ((), others) if _corrects_confirmed(case, draft.base) else (others, ())
    return Sketched(volume, len(parts), (first, second, third), _images(stack), rivals, replaced)


def sketch_mask(headers: tuple[Header, ...], key: str, draft: Draft, bundle: ContourBundle) -> Mask:
    """Return the mask of a sketch, turned like the planes of :mod:`staging.viewing`."""
    return _drawn(case_of(headers, key), draft, bundle)[1]


def confirm(
    headers: tuple[Header, ...],
    key: str,
    draft: Draft,
    bundle: ContourBundle,
    *,
    confirmed_by: str,
    created: datetime,
    images: str,
) -> Document:
    """Make the SEG of a contour that a person confirms.

    Parameters
    ----------
    headers, key, draft, bundle
        As in :func:`sketch`.
    confirmed_by
        Name of the person.
    created
        When it is confirmed.
    images
        :attr:`Sketched.images` that the person has seen.

    Raises
    ------
    Refused
        ``conflicting_instances``: the slices have changed. ``ambiguous_input``: another person has confirmed another
        contour. And as :func:`sketch`.
    PersonNameError
        `confirmed_by` cannot be written to a DICOM object.
    """
    case = case_of(headers, key)
    stack, mask = _drawn(case, draft, bundle)
    if _images(stack) != images:
        raise Refused(
            ReasonCode.CONFLICTING_INSTANCES,
            "The slices of this study have changed since the contour was drawn. Open the study again, and draw anew.",
        )
    others = _others(case, draft.base)
    if others and not _corrects_confirmed(case, draft.base):
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"{' and '.join(_persons(others))} already confirmed a contour of this study. Open that contour and "
            "correct it.",
        )
    if draft.base is not None and _drawn_by_a_tool(case, draft.base):
        parts, _ = components(mask, stack.affine)
        if len(parts) > 1:
            raise Refused(
                ReasonCode.ROI_AMBIGUOUS,
                f"The region was drawn by software, and consists of {len(parts)} separate parts. Choose the one that "
                "is the tumour, and confirm again.",
            )
    name, supersedes = (NAME, ()) if draft.base is None else _predecessor(case, draft.base)
    supersedes += tuple(reference_to(other, 1) for other in others)
    drawn = Drawn(
        images=stack.images,
        affine=affine_of(stack.images[0], stack.stored_steps),
        mask=stack.stored(mask),
        name=name,
        origin=origin_of(bundle, draft.prompt),
        supersedes=supersedes,
        is_whole=True,
    )
    return outbox.encode(build_contour(contour_of(drawn, confirmed_by, created)))


@lru_cache(maxsize=4)
def _drawn(case: Case, draft: Draft, bundle: ContourBundle) -> tuple[Stacked, Mask]:
    prompt = draft.prompt
    require_corrections(prompt)
    prove_one_patient(case.headers)
    stack = stacked(case.images)
    if len(stack.images) != len(stack.places):
        raise Refused(ReasonCode.SLICES_MISSING, "Slices are missing. Send the whole series, then draw the contour.")
    normal = normal_of(stack.images[0])
    spacing = prove_regular(
        stack.images, normal, np.array([float(np.dot(normal, image.position)) for image in stack.images])
    )
    volume = hd.Volume(stack.hu, stack.affine, coordinate_system="PATIENT")
    existing = None
    if draft.base is not None:
        existing = region_mask(case, draft.base)
        if existing is None:
            raise Refused(ReasonCode.ROI_EMPTY, "This region is empty on these slices. Draw a new contour.")
        if prompt.points:
            existing = _the_part(existing, stack.affine, prompt.points[0])
        prompt = replace(prompt, kind="box", points=_box(existing, stack.affine))
    else:
        require_size(prompt)
        require_one_slice(prompt, volume.get_geometry(), normal, spacing[0])
    require_inside(prompt, volume.get_geometry())
    if existing is None and prompt.corrections:  # most of the time it was just drawn without the last correction
        before = replace(prompt, include=(), exclude=(), smooth=0.0)
        _, existing = _drawn(case, Draft(before), bundle)
    return stack, draw_checked(volume, prompt, bundle, existing)


def _the_part(mask: Mask, affine: npt.NDArray[np.float64], point: Point) -> Mask:
    """Return the connected part of a mask that contains a point."""
    _, numbers = components(mask, affine)
    at = np.rint((np.linalg.inv(affine) @ (*point, 1.0))[:3]).astype(int)
    is_inside = bool((at >= 0).all() and (at < mask.shape).all())
    number = int(numbers[tuple(at)]) if is_inside else 0
    if not number:
        raise Refused(
            ReasonCode.PROMPT_UNSUITABLE, "The region has no part at this point. Click on the part that is the tumour."
        )
    part: Mask = numbers == number
    return part


def _drawn_by_a_tool(case: Case, base: RegionChoice) -> bool:
    """Whether a region is a segment that software drew without a person."""
    roi = _roi_of(case, base)
    if roi.kind != "SEG":
        return False
    segments = read_dataset(roi.path, with_pixels=False).SegmentSequence
    return any(one.SegmentNumber == base.number and one.get("SegmentAlgorithmType") == "AUTOMATIC" for one in segments)


def _roi_of(case: Case, base: RegionChoice) -> RoiHeader:
    return next(roi for roi in case.rois if roi.sop_instance_uid == base.roi)


def _box(mask: Mask, affine: npt.NDArray[np.float64]) -> tuple[Point, Point]:
    """Two opposite corners of the box around a mask, in patient coordinates."""
    where = np.argwhere(mask)
    ends = np.stack([where.min(axis=0), where.max(axis=0)]).T
    (xa, xb), (ya, yb), (za, zb) = (affine[:3, :3] @ ends + affine[:3, 3:]).tolist()
    return (xa, ya, za), (xb, yb, zb)


def _images(stack: Stacked) -> str:
    told = "\n".join(f"{image.sop_instance_uid} {image.frame} {image.pixel_digest}" for image in stack.images)
    return hashlib.sha256(told.encode()).hexdigest()


def _in_force(case: Case) -> list[RoiHeader]:
    """Return the confirmed contours of this study that no other one has replaced."""
    confirmed = [roi for roi in case.rois if is_confirmed(roi)]
    replaced = {uid for roi in confirmed for uid, _ in roi.supersedes}
    return [roi for roi in confirmed if roi.sop_instance_uid not in replaced]


def _corrects_confirmed(case: Case, base: RegionChoice | None) -> bool:
    """Whether a confirmed contour is corrected. With it, a person may replace its rivals."""
    return base is not None and any(roi.sop_instance_uid == base.roi for roi in _in_force(case))


def _others(case: Case, base: RegionChoice | None) -> list[RoiHeader]:
    """Return the confirmed contours that are in force, other than the one that is corrected."""
    return [roi for roi in _in_force(case) if base is None or roi.sop_instance_uid != base.roi]


def _persons(contours: Iterable[RoiHeader]) -> tuple[str, ...]:
    """Name those who confirmed contours."""
    found = [read_dataset(roi.path, with_pixels=False) for roi in contours]
    return tuple(dict.fromkeys(line_of(str(one.get("ContentCreatorName") or "Somebody")) for one in found))


def _predecessor(case: Case, base: RegionChoice) -> tuple[str, tuple[RegionReference, ...]]:
    """Return the name of a region, and what its successor replaces; for a draft, also what the draft replaced."""
    roi = _roi_of(case, base)
    region = next(one for one in load_regions(roi) if one.number == base.number)
    return region.name, (reference_to(roi, base.number), *predecessors(read_dataset(roi.path, with_pixels=False)))
