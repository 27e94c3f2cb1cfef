"""What a person sees of a study before any answer: whose it is, its slices in three planes, and the regions on them.

Nothing is proven here, and nothing measured. A study that is not complete is shown as far as it has come, with the gaps
where slices are missing; what cannot be shown is said in a sentence.
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
_MOST_SENT = 512 * 512 * 450  # voxels of a volume: what the graphics memory of an ordinary machine holds
_NO_SLICE = np.iinfo(np.int16).min
_MOST_GAPS = 4  # times as many places as slices: what lies so far apart is no series
_LONGEST_NAME = 200
_HALO, _LINE = (17, 17, 17), (255, 196, 0)
_LETTERS: Final = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}

_Text = Annotated[str, Field(max_length=_LONGEST_NAME)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Patient:
    """Whose a study is, as one of its files says; each empty where it does not.

    Attributes
    ----------
    name, identifier
        Patient's Name as people write it, and Patient ID.
    born
        Birth date as YYYY-MM-DD.
    description
        Study Description.
    fault
        Why nothing is known.
    """

    name: _Text = ""
    identifier: _Text = ""
    born: _Text = ""
    description: _Text = ""
    fault: Annotated[str, Field(max_length=4096)] = ""


@dataclass(frozen=True, slots=True)
class Offered:
    """A region that a ROI object of the study offers.

    Attributes
    ----------
    roi, number, name
        SOP Instance UID of the object, the region's number and its name there.
    kind
        Of the object.
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
    """What there is to be seen of a study.

    Attributes
    ----------
    counts
        How many planes there are, axial, coronal and sagittal; zeros where there is nothing to be seen.
    keys
        Of each kind the plane in which the region covers most; without one, the middle.
    missing
        How many axial planes between the first and the last have no slice.
    regions
        What its ROI objects offer.
    faults
        What cannot be shown, in sentences.
    """

    counts: tuple[_Count, _Count, _Count]
    keys: tuple[_Count, _Count, _Count]
    missing: _Count
    regions: tuple[Offered, ...]
    faults: tuple[Annotated[str, Field(max_length=4096)], ...]

    def offers(self, region: RegionChoice) -> bool:
        """Whether a region is one of these."""
        return any((one.roi, one.number) == (region.roi, region.number) for one in self.regions)

    @property
    def is_too_large(self) -> bool:
        """Whether it has too many voxels to be sent to a browser as one volume."""
        return math.prod(self.counts) > _MOST_SENT


@dataclass(frozen=True, slots=True)
class Picture:
    """One plane as PNG, and which it is."""

    png: Content
    index: _Count


Layer = Literal["image", "region"]


@dataclass(frozen=True, slots=True)
class Packed:
    """A volume as NIfTI-1, compressed with gzip."""

    content: Content


def read_patients(paths: Sequence[Path]) -> tuple[Patient, ...]:
    """Say whose each file is."""
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
        return Patient(fault="The file is no longer there.")
    except Exception:  # hostile bytes: whatever the parser raises
        return Patient(fault="The file cannot be read.")
    groups = [_person(group) for group in name.split("=")[:2] if group.strip("^ ")]
    date = f"{born[:4]}-{born[4:6]}-{born[6:]}" if len(born) == 8 and born.isascii() and born.isdigit() else born
    return Patient(_line(" · ".join(dict.fromkeys(groups))), _line(identifier), _line(date), _line(description))


def _person(group: str) -> str:
    family, _, rest = group.partition("^")
    return ", ".join(part for part in (family.strip(), " ".join(rest.replace("^", " ").split())) if part)


def _line(text: str) -> str:
    """Make one short line of text, without anything that turns the direction of writing."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in unicodedata.normalize("NFC", text))
    line = " ".join("".join(c for c in kept if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn")).split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def look(headers: tuple[Header, ...], key: str, region: RegionChoice | None) -> Scene:
    """Say what there is to be seen of a case.

    Parameters
    ----------
    headers
        Of everything that may belong to it.
    key
        Of the case.
    region
        The one that is shown.
    """
    faults: list[str] = []
    case = _case(headers, key)
    offered: list[Offered] = []
    for roi in case.rois:
        try:
            regions = load_regions(roi)
        except Refused as refused:
            faults.append(refused.reason.message)
        except (OSError, Unavailable):
            faults.append(f"The {roi.kind} is no longer there, or was changed.")
        else:
            uid = roi.sop_instance_uid
            offered += [Offered(uid, r.number, _line(r.name), roi.kind, r.is_drawn) for r in regions]
    counts = keys = (0, 0, 0)
    missing = 0
    if case.images:
        try:
            stack = _stack(case.images)
            counts, missing = stack.counts, len(stack.places) - len(set(stack.rows))
            mask = None if region is None else _mask(case, region)
            keys = (_key(stack, mask, 0), _key(stack, mask, 1), _key(stack, mask, 2))
        except Refused as refused:
            faults.append(refused.reason.message)
        except (OSError, Unavailable):
            faults.append("Slices are no longer there, or were changed.")
    return Scene(counts, keys, missing, tuple(offered), tuple(dict.fromkeys(faults)))


def draw(
    headers: tuple[Header, ...], key: str, plane: Plane, index: int | None, window: str, region: RegionChoice | None
) -> Picture:
    """Draw one plane of a case, with the outline of a region.

    Parameters
    ----------
    headers, key
        As of :func:`look`.
    plane, index
        Which plane: the uppermost, foremost or rightmost is 0; None for the one in which the region covers most, or
        the middle.
    window
        A key of :data:`WINDOWS`.
    region
        Which outline is drawn.

    Raises
    ------
    Refused
        ``no_dicom``: there is no such plane; or the slices cannot be drawn.
    """
    case = _case(headers, key)
    stack = _stack(case.images)
    axis = PLANES.index(plane)
    mask = None if region is None else _mask(case, region)
    if index is None:
        index = _key(stack, mask, axis)
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
    if mask is not None:
        _outline(pen, np.asarray(mask.take(index, axis=axis)), (size[0] / hu.shape[1], size[1] / hu.shape[0]))
    _letter(pen, size, _LETTERS[plane])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return Picture(buffer.getvalue(), index)


def pack(headers: tuple[Header, ...], key: str, layer: Layer, region: RegionChoice | None) -> Packed:
    """Give a case's volume, or a region in it, to be looked at in a browser.

    Parameters
    ----------
    headers, key
        As of :func:`look`.
    layer
        ``image``: the slices in whole HU, -32768 where one is missing; ``region``: 1 inside of the region, 0 outside.
    region
        Which region.

    Raises
    ------
    Refused
        There is no such region, or there are no slices; or they cannot be shown, or are too many to be sent.
    """
    case = _case(headers, key)
    stack = _stack(case.images)
    if stack.hu.size > _MOST_SENT:
        raise Refused(ReasonCode.NO_DICOM, "These slices are too many for the viewer. See them in the pictures.")
    if layer == "image":
        volume = np.full(stack.hu.shape, _NO_SLICE, np.int16)
        for k in set(range(len(volume))) - stack.gaps:  # one by one: a whole series of floats is large
            volume[k] = np.clip(np.rint(stack.hu[k]), _NO_SLICE + 1, -_NO_SLICE - 1)
    else:
        mask = None if region is None else _mask(case, region)
        volume = np.zeros(stack.hu.shape, np.uint8) if mask is None else mask.astype(np.uint8)
    return Packed(gzip.compress(nifti(volume, stack.steps), compresslevel=1, mtime=0))


def _key(stack: _Drawn, mask: Mask | None, axis: int) -> int:
    if mask is None:
        return stack.counts[axis] // 2
    return int(np.count_nonzero(mask, axis=tuple(k for k in range(3) if k != axis)).argmax())


def _outline(pen: ImageDraw.ImageDraw, mask: Mask, scale: tuple[float, float]) -> None:
    for colour, width in ((_HALO, 8), (_LINE, 4)):
        for corners in outlines(mask):
            pen.line([(x * scale[0], y * scale[1]) for x, y in corners], fill=colour, width=width)


def _letter(pen: ImageDraw.ImageDraw, size: tuple[int, int], letters: str) -> None:
    width, height = size
    places = ((20, height / 2), (width - 20, height / 2), (width / 2, 22), (width / 2, height - 22))
    for letter, place in zip(letters, places, strict=True):
        pen.text(place, letter, fill="white", anchor="mm", stroke_width=3, stroke_fill="black", font_size=36)


def _case(headers: tuple[Header, ...], key: str) -> Case:
    found = next((case for case in assemble(headers) if case.key == key), None)
    if found is None:
        raise Refused(ReasonCode.NO_DICOM, "None of the study's files is there any more.")
    return found


@dataclass(frozen=True)
class _Drawn:
    """A series on a regular grid, turned so that the axes run head to feet, front to back and right to left.

    Attributes
    ----------
    hu
        (slices, rows, columns).
    steps
        Of the three axes in mm.
    gaps
        Places along the first axis that no slice fills.
    images, rows
        The slices, and the place of each in the volume as it was stacked; `places` are all of these.
    turn
        Turns a mask of that stack likewise.
    """

    hu: npt.NDArray[Any]
    steps: tuple[float, float, float]
    gaps: frozenset[int]
    images: tuple[ImageHeader, ...]
    rows: tuple[int, ...]
    places: range
    order: tuple[int, int, int]
    turned: tuple[slice, slice, slice]

    @property
    def counts(self) -> tuple[int, int, int]:
        first, second, third = self.hu.shape
        return first, second, third


@lru_cache(maxsize=1)  # as much as a process has room for, of the largest series
def _stack(images: tuple[ImageHeader, ...]) -> _Drawn:
    """Read a series, with room where slices are missing."""
    stack = Stack.of(images)
    shape = (stack.images[0].rows, stack.images[0].columns)
    alike = [k for k, image in enumerate(stack.images) if (image.rows, image.columns) == shape]
    step = stack.step() or stack.images[0].slice_thickness or 1.0
    place = np.rint((stack.depths - stack.depths[0]) / step).astype(int)
    kept = dict(reversed([(int(place[k]), k) for k in alike]))  # of two in one place, the first
    count = max(kept) + 1
    if count > _MOST_GAPS * len(kept) or count * shape[0] * shape[1] > _MOST_VOXELS:
        raise Refused(ReasonCode.SPACING_NOT_UNIFORM, "The slices lie too far apart, or are too many, to be drawn.")
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
    if order[0] != 0:  # a series that was not acquired axially: its gaps are not drawn as such
        gaps = frozenset()
    steps = (spacing[a], spacing[b], spacing[c])
    return _Drawn(hu.transpose(order)[turned], steps, gaps, drawn, rows, range(count), order, turned)


@lru_cache(maxsize=2)
def _mask(case: Case, choice: RegionChoice) -> Mask | None:
    """Fill a region on the slices that are there; None where nothing of it can be drawn."""
    stack = _stack(case.images)
    roi = next((roi for roi in case.rois if roi.sop_instance_uid == choice.roi), None)
    region = next((r for r in load_regions(roi) if r.number == choice.number), None) if roi is not None else None
    if region is None:
        raise Refused(ReasonCode.ROI_NOT_FOUND, "There is no such region.")
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
