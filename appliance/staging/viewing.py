"""Show a study before it is answered: the patient, the slices in three planes, and the regions on them.

Nothing is checked or measured here. An incomplete study is shown as far as it has arrived, with gaps for missing
slices. A sentence says what cannot be shown.
"""

from __future__ import annotations

import gzip
import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydantic import Field

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.plain import Content
from lungstage.appliance.dicom.cases import Case, assemble
from lungstage.appliance.dicom.charset import text_of
from lungstage.appliance.dicom.completeness import ReferenceSlices
from lungstage.appliance.dicom.files import read_dataset, with_pixel_digest
from lungstage.appliance.dicom.header import Header, ImageHeader
from lungstage.appliance.dicom.pixel_grid import corners_in_pixels, laid_on
from lungstage.appliance.dicom.raster import fill
from lungstage.appliance.dicom.region import Outline, Region, SegmentFrame
from lungstage.appliance.dicom.roi import load_regions
from lungstage.appliance.dicom.series import read_volume
from lungstage.appliance.dicom.stack import Stack
from lungstage.appliance.report.key_views import LUNG, SOFT_TISSUE, Plane, Window, towards_patient
from lungstage.appliance.report.segmentation import outlines
from lungstage.appliance.staging.nifti import nifti

PLANES: Final[tuple[Plane, ...]] = ("axial", "coronal", "sagittal")
WINDOWS: Final = {window.code: window for window in (LUNG, SOFT_TISSUE, Window("bone", 400, 1800))}

_LONGEST_SIDE = 768  # pixels of a picture
_MOST_VOXELS = 512 * 512 * 1200
_MOST_SENT = 512 * 512 * 450  # voxels of a volume that fit into the graphics memory of an ordinary computer
_NO_SLICE = np.iinfo(np.int16).min
_MOST_GAPS = 4  # at most this many places per slice; a series with larger gaps is not drawn
_LONGEST_NAME = 200
_HALO, _LINE, _SKETCH = (17, 17, 17), (255, 196, 0), (64, 220, 255)
_LETTERS: Final = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}

_Text = Annotated[str, Field(max_length=_LONGEST_NAME)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Row = tuple[_Finite, _Finite, _Finite, _Finite]
_Matrix = tuple[_Row, _Row, _Row]
_NO_AFFINE: Final[_Matrix] = ((0.0,) * 4, (0.0,) * 4, (0.0,) * 4)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Patient:
    """The patient of a study, from one of its files; an attribute is empty if the file does not contain it.

    Attributes
    ----------
    name, identifier
        Patient's Name in ordinary writing, and Patient ID.
    born
        Birth date as YYYY-MM-DD.
    description
        Study Description.
    fault
        Why nothing could be read.
    """

    name: _Text = ""
    identifier: _Text = ""
    born: _Text = ""
    description: _Text = ""
    fault: Annotated[str, Field(max_length=4096)] = ""


@dataclass(frozen=True, slots=True)
class Offered:
    """A region in a region object of the study.

    Attributes
    ----------
    roi, number, name
        SOP Instance UID of the object, and the region's number and name in it.
    kind
        Kind of the object.
    is_drawn
        Whether it has any content.
    """

    roi: Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]
    number: int
    name: _Text
    kind: Literal["RTSTRUCT", "SEG"]
    is_drawn: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """What can be shown of a study.

    Attributes
    ----------
    counts
        Number of axial, coronal and sagittal planes; zeros if nothing can be shown.
    keys
        For each kind, the plane with the largest area of the region; without a region, the middle plane.
    missing
        Number of axial planes between the first and the last that have no slice.
    affine
        The first three rows of the matrix from (axial, coronal, sagittal) plane numbers to patient coordinates in mm.
    regions
        The regions in its region objects.
    faults
        Sentences about what cannot be shown.
    """

    counts: tuple[_Count, _Count, _Count]
    keys: tuple[_Count, _Count, _Count]
    missing: _Count
    regions: tuple[Offered, ...]
    faults: tuple[Annotated[str, Field(max_length=4096)], ...]
    affine: _Matrix = _NO_AFFINE

    def offers(self, region: RegionChoice) -> bool:
        """Whether a region is one of these."""
        return any((one.roi, one.number) == (region.roi, region.number) for one in self.regions)

    @property
    def is_too_large(self) -> bool:
        """Whether the volume has too many voxels to be sent to a browser."""
        return math.prod(self.counts) > _MOST_SENT


@dataclass(frozen=True, slots=True)
class Picture:
    """One plane as PNG, and its index."""

    png: Content
    index: _Count


Layer = Literal["image", "region"]


@dataclass(frozen=True, slots=True)
class Packed:
    """A volume as NIfTI-1, compressed with gzip."""

    content: Content


def read_patients(paths: Sequence[Path]) -> tuple[Patient, ...]:
    """Read the patient of each file."""
    return tuple(map(_read_patient, paths))


def _read_patient(path: Path) -> Patient:
    try:
        dataset = read_dataset(path, with_pixels=False)
        name, identifier, born, description = (
            text_of(dataset, keyword, dataset)
            for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDescription")
        )
    except Refused as refused:
        return Patient(fault=refused.reason.message)
    except OSError:
        return Patient(fault="The file no longer exists.")
    except Exception:  # malformed bytes can raise any exception in the parser
        return Patient(fault="The file cannot be read.")
    groups = [_person(group) for group in name.split("=")[:2] if group.strip("^ ")]
    date = f"{born[:4]}-{born[4:6]}-{born[6:]}" if len(born) == 8 and born.isascii() and born.isdigit() else born
    return Patient(line_of(" · ".join(dict.fromkeys(groups))), line_of(identifier), line_of(date), line_of(description))


def _person(group: str) -> str:
    family, _, rest = group.partition("^")
    return ", ".join(part for part in (family.strip(), " ".join(rest.replace("^", " ").split())) if part)


def line_of(text: str) -> str:
    """Make one short line of text, without characters that change the direction of writing."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in unicodedata.normalize("NFC", text))
    line = " ".join("".join(c for c in kept if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn")).split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def look(headers: tuple[Header, ...], key: str, region: RegionChoice | None) -> Scene:
    """Return what can be shown of a case.

    Parameters
    ----------
    headers
        Of all files that may belong to the case.
    key
        Key of the case.
    region
        The region to show.
    """
    faults: list[str] = []
    case = case_of(headers, key)
    offered: list[Offered] = []
    for roi in case.rois:
        try:
            regions = load_regions(roi)
        except Refused as refused:
            faults.append(refused.reason.message)
        except (OSError, Unavailable):
            faults.append(f"The {roi.kind} no longer exists, or it was changed.")
        else:
            uid = roi.sop_instance_uid
            offered += [Offered(uid, r.number, line_of(r.name), roi.kind, r.is_drawn) for r in regions]
    counts = keys = (0, 0, 0)
    missing, affine = 0, _NO_AFFINE
    if case.images:
        try:
            stack = stacked(case.images)
            counts, missing = stack.counts, len(stack.places) - len(set(stack.rows))
            first, second, third = (tuple(row) for row in stack.affine[:3].tolist())
            affine = (first, second, third)
            mask = None if region is None else region_mask(case, region)
            keys = (largest_plane(stack, mask, 0), largest_plane(stack, mask, 1), largest_plane(stack, mask, 2))
        except Refused as refused:
            faults.append(refused.reason.message)
        except (OSError, Unavailable):
            faults.append("Some slices no longer exist, or they were changed.")
    return Scene(counts, keys, missing, tuple(offered), tuple(dict.fromkeys(faults)), affine)


def draw(
    headers: tuple[Header, ...],
    key: str,
    plane: Plane,
    index: int | None,
    window: str,
    region: RegionChoice | None,
    sketch: Mask | None = None,
) -> Picture:
    """Draw one plane of a case, with the outlines of a region and of a sketch.

    Parameters
    ----------
    headers, key
        As in :func:`look`.
    plane, index
        The plane: 0 is the uppermost, foremost or rightmost. None means the plane with the largest area of the region,
        or the middle plane.
    window
        A key of :data:`WINDOWS`.
    region
        The region whose outline is drawn.
    sketch
        Mask of a contour that a person is drawing, with the planes as its axes.

    Raises
    ------
    Refused
        ``no_dicom``: the plane does not exist, or the slices cannot be drawn.
    """
    case = case_of(headers, key)
    stack = stacked(case.images)
    axis = PLANES.index(plane)
    mask = None if region is None else region_mask(case, region)
    if index is None:
        index = largest_plane(stack, mask if sketch is None else sketch, axis)
    if not 0 <= index < stack.counts[axis]:
        raise Refused(ReasonCode.NO_DICOM, f"There is no {plane} plane {index}.")
    down, across = (step for k, step in enumerate(stack.steps) if k != axis)
    hu = stack.hu.take(index, axis=axis).astype(np.float32)
    if axis == 0:
        hu[:] = np.nan if index in stack.gaps else hu
    else:
        hu[sorted(stack.gaps)] = np.nan
    pixels = WINDOWS[window].apply(hu)
    scale = _LONGEST_SIDE / max(hu.shape[0] * down, hu.shape[1] * across)
    size = (max(1, round(hu.shape[1] * across * scale)), max(1, round(hu.shape[0] * down * scale)))
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for shown, line in ((mask, _LINE), (sketch, _SKETCH)):
        if shown is not None:
            pixel = size[0] / hu.shape[1], size[1] / hu.shape[0]
            _outline(pen, np.asarray(shown.take(index, axis=axis)), pixel, line)
    _letter(pen, size, _LETTERS[plane])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return Picture(buffer.getvalue(), index)


def pack(
    headers: tuple[Header, ...], key: str, layer: Layer, region: RegionChoice | None, sketch: Mask | None = None
) -> Packed:
    """Return a case's volume, or a region in it, for the viewer in a browser.

    Parameters
    ----------
    headers, key
        As in :func:`look`.
    layer
        ``image``: the slices in whole HU, -32768 for a missing slice; ``region``: 1 inside of the region, 0 outside.
    region
        The region for the layer ``region``.
    sketch
        Mask for this layer, if there is no region.

    Raises
    ------
    Refused
        The region does not exist, there are no slices, they cannot be shown, or there are too many to be sent.
    """
    case = case_of(headers, key)
    stack = stacked(case.images)
    if stack.hu.size > _MOST_SENT:
        raise Refused(
            ReasonCode.NO_DICOM, "The series has too many slices for the viewer. Look at the pictures instead."
        )
    if layer == "image":
        volume = np.full(stack.hu.shape, _NO_SLICE, np.int16)
        for k in set(range(len(volume))) - stack.gaps:  # one by one, because a whole series of floats is large
            volume[k] = np.clip(np.rint(stack.hu[k]), _NO_SLICE + 1, -_NO_SLICE - 1)
    else:
        mask = sketch if region is None else region_mask(case, region)
        volume = np.zeros(stack.hu.shape, np.uint8) if mask is None else mask.astype(np.uint8)
    return Packed(gzip.compress(nifti(volume, stack.steps), compresslevel=1, mtime=0))


def largest_plane(stack: Stacked, mask: Mask | None, axis: int) -> int:
    """Return the plane with the largest area of a mask; without a mask, the middle one."""
    if mask is None:
        return stack.counts[axis] // 2
    return int(np.count_nonzero(mask, axis=tuple(k for k in range(3) if k != axis)).argmax())


def _outline(pen: ImageDraw.ImageDraw, mask: Mask, scale: tuple[float, float], line: tuple[int, int, int]) -> None:
    for colour, width in ((_HALO, 8), (line, 4)):
        for corners in outlines(mask):
            pen.line([(x * scale[0], y * scale[1]) for x, y in corners], fill=colour, width=width)


def _letter(pen: ImageDraw.ImageDraw, size: tuple[int, int], letters: str) -> None:
    width, height = size
    places = ((20, height / 2), (width - 20, height / 2), (width / 2, 22), (width / 2, height - 22))
    for letter, place in zip(letters, places, strict=True):
        pen.text(place, letter, fill="white", anchor="mm", stroke_width=3, stroke_fill="black", font_size=36)


def case_of(headers: tuple[Header, ...], key: str) -> Case:
    """Find a case by its key; ``no_dicom`` if its files are gone."""
    found = next((case for case in assemble(headers) if case.key == key), None)
    if found is None:
        raise Refused(ReasonCode.NO_DICOM, "The files of this study no longer exist.")
    return found


@dataclass(frozen=True)
class Stacked:
    """A series on a regular grid, turned so that the axes run head to feet, front to back and right to left.

    Attributes
    ----------
    hu
        (slices, rows, columns).
    steps
        Spacing of the three axes in mm.
    affine
        (4, 4), from voxel (slice, row, column) to LPS mm.
    gaps
        Places along the first axis without a slice.
    images, rows, places
        The slices, the place of each slice in the stacked volume before turning, and all places of that volume.
    order, turned
        Turn a mask of the stacked volume in the same way.
    """

    hu: npt.NDArray[Any]
    steps: tuple[float, float, float]
    affine: npt.NDArray[np.float64]
    gaps: frozenset[int]
    images: tuple[ImageHeader, ...]
    rows: tuple[int, ...]
    places: range
    order: tuple[int, int, int]
    turned: tuple[slice, slice, slice]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        first, second, third = self.hu.shape
        return first, second, third

    @property
    def stored_steps(self) -> tuple[float, float, float]:
        """Spacing (slice, row, column) of the stored slices in mm."""
        slices, rows, columns = (self.steps[self.order.index(axis)] for axis in range(3))
        return slices, rows, columns

    def stored(self, mask: Mask) -> Mask:
        """Turn a mask back into the order of the stored slices, rows and columns."""
        return mask[self.turned].transpose(np.argsort(self.order))


@lru_cache(maxsize=1)  # a process has room for only one of the largest series
def stacked(images: tuple[ImageHeader, ...]) -> Stacked:
    """Read a series, with empty places for missing slices."""
    stack = Stack.of(images)
    shape = (stack.images[0].rows, stack.images[0].columns)
    alike = [k for k, image in enumerate(stack.images) if (image.rows, image.columns) == shape]
    step = stack.step() or stack.images[0].slice_thickness or 1.0
    place = np.rint((stack.depths - stack.depths[0]) / step).astype(int)
    kept = dict(reversed([(int(place[k]), k) for k in alike]))  # of two slices in one place, the first
    count = max(kept) + 1
    if count > _MOST_GAPS * len(kept) or count * shape[0] * shape[1] > _MOST_VOXELS:
        raise Refused(ReasonCode.SPACING_NOT_UNIFORM, "The slices are too far apart or too many to be drawn.")
    rows = tuple(sorted(kept))
    drawn = tuple(with_pixel_digest(stack.images[kept[row]]) for row in rows)
    spacing = (step, drawn[0].pixel_spacing[0], drawn[0].pixel_spacing[1])
    read = read_volume(ReferenceSlices(drawn, spacing, ()))
    hu = np.zeros((count, *shape), dtype=read.volume.array.dtype)
    hu[list(rows)] = read.volume.array
    order, backwards = towards_patient(read.volume.affine)
    first, second, third = (slice(None, None, -1 if flip else 1) for flip in backwards)
    turned = (first, second, third)
    a, b, c = order
    gaps = frozenset((count - 1 - row if backwards[0] else row) for row in range(count) if row not in rows)
    if order[0] != 0:  # gaps are not marked in a series that was not acquired axially
        gaps = frozenset()
    steps = (spacing[a], spacing[b], spacing[c])
    affine = turned_affine(read.volume.affine, (count, *shape), order, backwards)
    return Stacked(hu.transpose(order)[turned], steps, affine, gaps, drawn, rows, range(count), order, turned)


def turned_affine(
    affine: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    order: tuple[int, int, int],
    backwards: tuple[bool, bool, bool],
) -> npt.NDArray[np.float64]:
    """Return the affine of a volume after its axes were put in another order, and some of them reversed."""
    made = affine[:, [*order, 3]].copy()
    for axis, (source, flip) in enumerate(zip(order, backwards, strict=True)):
        if flip:
            made[:3, 3] += made[:3, axis] * (shape[source] - 1)
            made[:3, axis] *= -1
    return made


@lru_cache(maxsize=2)
def region_mask(case: Case, choice: RegionChoice) -> Mask | None:
    """Fill a region on the slices that have arrived; None if nothing of it can be drawn."""
    stack = stacked(case.images)
    roi = next((roi for roi in case.rois if roi.sop_instance_uid == choice.roi), None)
    region = next((r for r in load_regions(roi) if r.number == choice.number), None) if roi is not None else None
    if region is None:
        raise Refused(ReasonCode.ROI_NOT_FOUND, "This region does not exist.")
    normal = np.cross(stack.images[0].orientation[:3], stack.images[0].orientation[3:])
    depths = np.array([float(np.dot(normal, image.position)) for image in stack.images])
    reach = max(0.1, 0.3 * float(np.min(np.diff(depths), initial=10.0)))
    mask = np.zeros((len(stack.places), stack.images[0].rows, stack.images[0].columns), dtype=np.bool_)
    items: tuple[Outline | SegmentFrame, ...] = (*region.outlines, *region.frames)
    for item in items:
        point = item.points[0] if isinstance(item, Outline) else item.position
        off = np.abs(depths - float(np.dot(normal, point)))
        k = int(off.argmin())
        if off[k] <= reach:
            mask[stack.rows[k]] ^= _on_slice(item, region, stack.images[k], reach)
    return mask.transpose(stack.order)[stack.turned] if mask.any() else None


def _on_slice(item: Outline | SegmentFrame, region: Region, image: ImageHeader, reach: float) -> Mask:
    shape = (image.rows, image.columns)
    if isinstance(item, Outline):
        return fill(corners_in_pixels(item, image), shape)
    laid = laid_on(image, region, item, reach)
    return np.zeros(shape, dtype=np.bool_) if laid is None else laid.pixels
