"""Write a contour as a SEG by lungstage: a draft, or a contour that a person confirmed.

:func:`take_over` converts the contour of another tool (``lungstage contour --from``). A segment or a mask may contain
several nodules. A person must choose one of them. :mod:`staging.prompting` draws a new contour.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from lungstage.appliance import __version__
from lungstage.appliance.contract.errors import Held, Reason, ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case, assemble, the_one_case
from lungstage.appliance.dicom.choice import numbered
from lungstage.appliance.dicom.completeness import whole_series
from lungstage.appliance.dicom.contours import RegionReference, predecessors
from lungstage.appliance.dicom.files import read_dataset, read_headers, read_slices, with_pixel_digest
from lungstage.appliance.dicom.geometry import normal_of, prove_regular
from lungstage.appliance.dicom.header import ImageHeader, RoiHeader
from lungstage.appliance.dicom.identity import prove_one_patient
from lungstage.appliance.dicom.names import listed
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.roi import load_regions
from lungstage.appliance.dicom.stack import Stack
from lungstage.appliance.radiomics.components import Component, components
from lungstage.appliance.radiomics.nifti import is_nifti, read_mask
from lungstage.appliance.report import outbox
from lungstage.appliance.report.contour import Contour, Origin, build_contour, person_name
from lungstage.appliance.staging.one_shot import OptionsError, Scan, scan
from lungstage.appliance.staging.parts import prove_parts, prove_study

Mask = npt.NDArray[np.bool_]

_TOLD: Final = 20  # most parts that a message lists
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Taken:
    """The source, the part of it to use, and who confirms it.

    Attributes
    ----------
    source
        A SEG, or a NIfTI mask on the CT's voxels.
    segment
        Segment Number; None if only one segment of the SEG has content.
    label
        Value of the mask's voxels; None if the mask has only one label.
    component
        Number of the connected part, where 1 is the largest; None if there is only one.
    confirmed_by
        Name of the person who confirms it; None for a draft.
    """

    source: Path
    segment: int | None = None
    label: int | None = None
    component: int | None = None
    confirmed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A contour on slices of the series.

    Attributes
    ----------
    images
        The slices, ascending along their normal.
    affine
        (4, 4), from voxel (slice, row, column) to LPS mm.
    mask
        (slices, rows, columns).
    name
        Name of the region.
    origin
        How it was drawn.
    supersedes
        The regions that it replaces.
    is_whole
        Whether all separate parts belong to it; otherwise a person must choose one.
    """

    images: tuple[ImageHeader, ...]
    affine: npt.NDArray[np.float64]
    mask: Mask
    name: str
    origin: Origin
    supersedes: tuple[RegionReference, ...] = field(default=())
    is_whole: bool = False


class _SeveralPartsError(Refused):
    def __init__(self, parts: Sequence[Component]) -> None:
        told = [f"{k}: {_in_words(part)}" for k, part in enumerate(parts[:_TOLD], start=1)]
        told += [f"and {len(parts) - _TOLD} smaller ones"] if len(parts) > _TOLD else []
        super().__init__(
            ReasonCode.ROI_AMBIGUOUS,
            f"The region consists of {len(parts)} separate parts, and lungstage does not choose between them. "
            f"Choose one with --component: {'; '.join(told)}.",
        )
        self.parts = tuple(parts)


def _in_words(part: Component) -> str:
    x, y, z = part.centre
    return f"centre ({x:.1f}, {y:.1f}, {z:.1f}) mm, {part.volume / 1000:.2f} ml"


def take_over(paths: Sequence[Path], taken: Taken, out: Path) -> dict[str, Any]:
    """Write a SEG of another tool's contour on the one CT series in `paths`.

    Returns
    -------
    dict
        ``status`` (``draft``, ``confirmed``, ``held``, ``refused``), ``reason``, ``seg`` (path of the SEG), ``roi``
        (name, voxels, volume_mm3, centre in LPS mm), ``components`` (number, voxels, volume_mm3, centre) of all
        parts. Every key is always present.

    Raises
    ------
    OptionsError
        An option does not fit the kind of the source.
    PersonNameError
        The name of the confirming person cannot be written to a DICOM object.
    Unavailable, OSError
        A path does not exist, or `out` cannot be written to.
    """
    of_nifti = is_nifti(taken.source)
    if of_nifti and taken.segment is not None:
        raise OptionsError("--segment is for a SEG only; choose the region of a NIfTI mask with --label")
    if not of_nifti and taken.label is not None:
        raise OptionsError("--label is for a NIfTI mask only; choose the region of a SEG with --segment")
    return write_contour(
        paths if of_nifti else [*paths, taken.source],  # in one scan, to compare the patients
        partial(_from_nifti if of_nifti else _from_seg, taken=taken),
        out,
        component=taken.component,
        confirmed_by=taken.confirmed_by,
    )


def write_contour(
    paths: Sequence[Path],
    draw: Callable[[Scan], Drawn],
    out: Path,
    *,
    component: int | None = None,
    confirmed_by: str | None = None,
) -> dict[str, Any]:
    """Draw a contour on the one CT series in `paths`, and write it.

    Parameters
    ----------
    paths
        Files or folders.
    draw
        Draws the contour.
    out
        Folder for the SEG; it is created.
    component, confirmed_by
        As :class:`Taken`.

    Returns
    -------
    dict
        As :func:`take_over`.

    Raises
    ------
    PersonNameError, Unavailable, OSError
        As :func:`take_over`.
    """
    if confirmed_by is not None:
        confirmed_by = person_name(confirmed_by)  # as it is written: spaces more or less make no other contour
    answer: dict[str, Any] = dict.fromkeys(("status", "reason", "seg", "roi"))
    answer["components"] = []
    found: Scan | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values, and these may be a person's name
        try:
            found = scan(paths)
            return answer | _write(draw(found), component, confirmed_by, out)
        except (Refused, Held) as error:
            status = "refused" if isinstance(error, Refused) else "held"
            parts = error.parts if isinstance(error, _SeveralPartsError) else ()
            return answer | {
                "status": status, "reason": _reason(error.in_full(), found), "components": _facts(parts),
            }  # fmt: skip


def _reason(reason: Reason, found: Scan | None) -> dict[str, str]:
    return {"code": reason.code.value, "message": reason.message if found is None else found.by_file(reason.message)}


def _facts(parts: Sequence[Component]) -> list[dict[str, Any]]:
    return [
        {"number": k, "voxels": part.voxels, "volume_mm3": part.volume, "centre": list(part.centre)}
        for k, part in enumerate(parts, start=1)
    ]


def images_of(found: Scan) -> list[ImageHeader]:
    """Return the CT images of a scan; if there are none because of unreadable files, refuse them by name."""
    images = [header for header in found.headers if isinstance(header, ImageHeader)]
    if not images and found.unreadable:
        raise Refused(ReasonCode.DICOM_UNREADABLE, f"{found.in_words()} There is no other DICOM file.")
    return images


def _from_seg(found: Scan, taken: Taken) -> Drawn:
    roi = _seg_header(found, taken.source)
    case: Case = the_one_case(assemble([*images_of(found), roi]), lambda one: bool(one.images) and roi in one.rois)
    prove_parts(case)
    prove_one_patient(case.headers)
    region = _the_segment(load_regions(roi), taken.segment)
    prove_study(case, region)
    images, spacing, mask = whole_series(case, region)
    dataset = read_dataset(taken.source, with_pixels=False)
    # A draft supersedes nothing. So the confirmed contour names the draft's predecessors, too.
    return Drawn(
        images,
        affine_of(images[0], spacing),
        mask,
        region.name,
        _origin(dataset, region),
        (reference_to(roi, region.number), *predecessors(dataset)),
    )


def _seg_header(found: Scan, source: Path) -> RoiHeader:
    for header in found.headers:
        if isinstance(header, RoiHeader) and header.kind == "SEG" and header.path == source.resolve():
            return header
    read_headers(source.resolve(), hash_pixels=False)  # raises its own message if the file is damaged
    raise Refused(
        ReasonCode.NO_ROI,
        f"'{source.name}' is neither a SEG nor a NIfTI mask. Give with --from a SEG, of another tool or of lungstage "
        "contour, or a NIfTI mask.",
    )


def reference_to(roi: RoiHeader, number: int) -> RegionReference:
    """Return the reference by which a contour names one region of an object as its predecessor."""
    return RegionReference(
        roi.sop_class_uid, roi.sop_instance_uid, roi.series_instance_uid, roi.study_instance_uid, number
    )


def _the_segment(regions: Sequence[Region], number: int | None) -> Region:
    if number is not None:
        return numbered(regions, number)
    drawn = [region for region in regions if region.is_drawn]
    if len(drawn) == 1 or not drawn:
        return numbered(regions, (drawn or [*regions])[0].number if regions else 1)
    numbers = ", ".join(str(region.number) for region in drawn)
    names = tuple(region.name for region in drawn)
    raise Refused(
        ReasonCode.ROI_AMBIGUOUS,
        f"The SEG has {len(drawn)} segments (numbers {numbers}): {listed(names)}. Choose one with --segment.",
        names,
    )


def _origin(dataset: Dataset, region: Region) -> Origin:
    """Return the tool that drew a segment, as far as the file names it; a contour by lungstage keeps its entries."""
    segment = next(item for item in dataset.SegmentSequence if item.SegmentNumber == region.number)
    (algorithm, *_) = segment.get("SegmentationAlgorithmIdentificationSequence") or (Dataset(),)
    is_manual = segment.get("SegmentAlgorithmType") == "MANUAL"
    name = algorithm.get("AlgorithmName") or segment.get("SegmentAlgorithmName")
    return Origin(
        name=str(name or ("drawn by hand" if is_manual else _UNKNOWN)),
        version=str(algorithm.get("AlgorithmVersion") or dataset.get("SoftwareVersions") or _UNKNOWN),
        source=str(algorithm.get("AlgorithmSource") or dataset.get("Manufacturer") or _UNKNOWN),
        family=codes.DCM.ManualProcessing if is_manual else codes.DCM.ArtificialIntelligence,
        account=(("from", region.source.sop_instance_uid), ("segment", str(region.number))),
    )


def _from_nifti(found: Scan, taken: Taken) -> Drawn:
    images = images_of(found)
    case = the_one_case(assemble(images), lambda one: True)
    prove_one_patient(case.headers)
    stack = Stack.of(case.images)
    spacing = prove_regular(stack.images, stack.normal, stack.depths)
    first = stack.images[0]
    affine = affine_of(first, spacing)
    grid = hd.VolumeGeometry(affine, (len(stack.images), first.rows, first.columns), "PATIENT")
    mask, label = read_mask(taken.source, grid, taken.label)
    origin = Origin("mask of another tool", _UNKNOWN, _UNKNOWN, account=(("from", "NIfTI"), ("label", str(label))))
    return Drawn(stack.images, affine, mask, "Tumour", origin)


def affine_of(first: ImageHeader, spacing: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Return the matrix from voxel (slice, row, column) to LPS mm."""
    affine = np.eye(4)
    affine[:3, 0] = normal_of(first) * spacing[0]
    affine[:3, 1] = np.array(first.orientation[3:]) * spacing[1]
    affine[:3, 2] = np.array(first.orientation[:3]) * spacing[2]
    affine[:3, 3] = first.position
    return affine


def _write(drawn: Drawn, component: int | None, confirmed_by: str | None, out: Path) -> dict[str, Any]:
    if not drawn.mask.any():
        raise Refused(ReasonCode.ROI_EMPTY, "The region is empty. Choose another.")
    parts, numbers = components(drawn.mask, drawn.affine)
    if not drawn.is_whole:
        drawn = _one_part(drawn, component, parts, numbers)
    made = contour_of(drawn, confirmed_by)
    document = outbox.encode(build_contour(made))
    out.mkdir(parents=True, exist_ok=True)
    (path,) = outbox.deliver([document], out)
    places = (drawn.affine @ np.append(np.argwhere(drawn.mask).mean(axis=0), 1.0))[:3]
    voxels = int(np.count_nonzero(drawn.mask))
    return {
        "status": made.confirmation.lower(),
        "seg": str(path),
        "roi": {
            "name": made.label,
            "voxels": voxels,
            "volume_mm3": voxels * abs(float(np.linalg.det(drawn.affine[:3, :3]))),
            "centre": places.tolist(),
        },
        "components": _facts(parts),
    }


def _one_part(drawn: Drawn, number: int | None, parts: Sequence[Component], numbers: npt.NDArray[np.uint32]) -> Drawn:
    """Keep the part that a person chose, or the only one."""
    if number is None and len(parts) > 1:
        raise _SeveralPartsError(parts)
    number = 1 if number is None else number
    if not 1 <= number <= len(parts):
        raise Refused(
            ReasonCode.ROI_NOT_FOUND,
            f"There is no part {number}: the region has {len(parts)}. Choose one of them with --component.",
        )
    if len(parts) == 1:
        return drawn
    account = (*drawn.origin.account, ("component", str(number)))
    return replace(drawn, mask=numbers == number, origin=replace(drawn.origin, account=account))


def contour_of(drawn: Drawn, confirmed_by: str | None, created: datetime | None = None) -> Contour:
    """Collect what the SEG of a contour needs, with the headers of its slices.

    Parameters
    ----------
    drawn
        The contour.
    confirmed_by
        Name of the person who confirms it; None for a draft.
    created
        When it was drawn or confirmed; by default now.
    """
    sources = []
    for dataset in read_slices([with_pixel_digest(image) for image in drawn.images]):
        if "PixelData" in dataset:
            del dataset.PixelData
        sources.append(dataset)
    frames = tuple(image.frame for image in drawn.images)
    return Contour(
        sources=tuple(sources),
        mask=drawn.mask,
        name=drawn.name,
        origin=drawn.origin,
        created=created or datetime.now().astimezone().replace(microsecond=0),
        software_version=__version__,
        confirmed_by=confirmed_by,
        supersedes=drawn.supersedes,
        frames=frames if any(frames) else (),
    )
