"""A study with a region and a known truth, as datasets that a transformation may change, and as files.

The truth comes only from arrays on the patient's axes and from the drawing, never from the written files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from lungstage.appliance.staging.phantom import ct_datasets, segmentation
from tests.support.studies import structure_set, volume

Files = dict[str, bytes]
Mask = npt.NDArray[np.bool_]
Axis = tuple[int, int]  # one of the volume's axes (1 from front to back, 2 from right to left), and its sign

DRAWN_ON = range(3, 9)
NAME = "Phantom^Generated"
_NOTCH = (20, 22)


class Unfit(Exception):
    """Two transformations cannot be applied to one study, because one removes what the other changes."""


@dataclass(frozen=True)
class Drawing:
    """The imaged volume, and its layout in the files; lengths in mm."""

    matrix: tuple[int, int] = (40, 48)
    step: float = 3.0
    decimals: int | None = None  # of the rounded slice positions
    down: Axis = (1, 1)  # the axis along a column of the images
    across: Axis = (2, 1)  # the axis along a row
    corner: int = 0  # side of a corner without measured pixels, in pixels

    def turned(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn slices on the patient's axes into images on the axes of the layout."""
        steps = {axis: slice(None, None, sense) for axis, sense in (self.down, self.across)}
        return array[:, steps[1], steps[2]].transpose(0, self.down[0], self.across[0])


@dataclass(frozen=True)
class Truth:
    """Voxels on the patient's axes (LPS): slices upwards, rows to the back, columns to the left.

    Attributes
    ----------
    hu, mask
        (slices, rows, columns); `mask` is None if no number is right.
    places
        For each of the three axes, the coordinates in mm of its voxels.
    name
        The patient's name; None if it is not certain, so that a report leaves it out and says so.
    """

    hu: npt.NDArray[Any]
    mask: Mask | None
    places: tuple[npt.NDArray[np.float64], ...]
    name: str | None = NAME


@dataclass
class Study:
    """A study before it is written. `beside` are other objects in the same folder, `loose` other files."""

    drawing: Drawing
    truth: Truth
    ct: list[Dataset]
    contours: Dataset | None
    segment: Any  # a Dataset, or None
    beside: list[Dataset] = field(default_factory=list)
    loose: Files = field(default_factory=dict)

    def every(self) -> Iterator[Dataset]:
        """Yield all objects of the study."""
        yield from (dataset for dataset in (self.contours, self.segment) if dataset is not None)
        yield from self.ct
        yield from self.beside

    def nothing_is_right(self) -> None:
        """Mark that no number is right, unless another region object still gives the truth."""
        if self.contours is None or self.segment is None:
            self.truth = replace(self.truth, mask=None)

    def files(self) -> Files:
        """Write every object."""
        named = {"rtstruct.dcm": self.contours, "seg.dcm": self.segment}
        named |= {f"ct-{k:03}.dcm": dataset for k, dataset in enumerate(self.ct)}
        named |= {f"beside-{k:03}.dcm": dataset for k, dataset in enumerate(self.beside)}
        return {name: as_bytes(dataset) for name, dataset in named.items() if dataset is not None} | self.loose


def outline(k: int) -> list[tuple[int, int]]:
    """Corners (row, column) between pixels of the region on slice `k`; it is asymmetric and varies between slices."""
    top, right = 12 + k % 3, 30 - k % 2
    return [(top, 14), (27, 14), (27, right), (_NOTCH[0], right), _NOTCH, (top, _NOTCH[1])]


def _drawn(shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, dtype=np.bool_)
    for k in DRAWN_ON:
        (top, left), _, (bottom, right), *_ = outline(k)
        mask[k, top:bottom, left:right] = True
        mask[k, top : _NOTCH[0], _NOTCH[1] : right] = False
    return mask


@lru_cache(maxsize=64)
def truth_of(drawing: Drawing) -> Truth:
    """Return the true voxels of a drawing."""
    rows, columns = drawing.matrix
    source = volume(spacing=(drawing.step, 1.0, 1.25))
    hu = np.array(source.array[:, :rows, :columns])
    if drawing.corner:
        hu[:, : drawing.corner, : drawing.corner] = -1024
    x, y, z = source.affine[:3, 3]
    heights = z + drawing.step * np.arange(len(hu))
    if drawing.decimals is not None:
        heights = heights.round(drawing.decimals)
    return Truth(hu, _drawn(hu.shape), (heights, y + 1.0 * np.arange(rows), x + 1.25 * np.arange(columns)))


@lru_cache(maxsize=64)
def _ct(drawing: Drawing) -> tuple[bytes, ...]:
    truth = truth_of(drawing)
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[2, 0] = drawing.step
    origin = [float(truth.places[axis][0]) for axis in (2, 1, 0)]
    for column, (axis, sense) in ((1, drawing.down), (2, drawing.across)):
        along = truth.places[axis]
        affine[2 - axis, column] = sense * (along[1] - along[0])
        origin[2 - axis] = float(along[0] if sense > 0 else along[-1])
    affine[:3, 3] = origin
    image = np.ascontiguousarray(drawing.turned(truth.hu))
    source = hd.Volume(image, affine, coordinate_system="PATIENT", frame_of_reference_uid="1.2.826.0.1.77")
    slices = ct_datasets(source, f"transformed {drawing}")
    for dataset, height in zip(slices, truth.places[0], strict=True):
        dataset.ImagePositionPatient = [f"{v:.10g}" for v in (*origin[:2], height)]
        if drawing.corner:
            dataset.PixelPaddingValue = 0
    return tuple(as_bytes(dataset) for dataset in slices)


def contour(truth: Truth, image: Dataset, k: int) -> Dataset:
    """Return the region on slice `k` as a contour that names `image`."""
    heights, back, left = truth.places
    corners = np.array(outline(k)) - 0.5
    rows, columns = corners.T
    points = np.stack([np.interp(columns, np.arange(len(left)), left), np.interp(rows, np.arange(len(back)), back)])
    of, item = Dataset(), Dataset()
    of.ReferencedSOPClassUID, of.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    item.ContourImageSequence = [of]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(corners)
    item.ContourData = [f"{v:.10g}" for x, y in points.T for v in (x, y, heights[k])]
    return item


@lru_cache(maxsize=64)
def _contours(drawing: Drawing) -> bytes:
    slices, truth = [read(content) for content in _ct(drawing)], truth_of(drawing)
    roi = structure_set(slices, {"GTV-1": [contour(truth, slices[k], k) for k in DRAWN_ON]}, slices)
    return as_bytes(roi)


@lru_cache(maxsize=64)
def _segment(drawing: Drawing) -> bytes:
    mask = truth_of(drawing).mask
    slices = [read(content) for content in _ct(drawing)]
    return as_bytes(segmentation(slices, np.ascontiguousarray(drawing.turned(mask))))  # type: ignore[arg-type]


def study_of(drawing: Drawing, *, contours: bool, segment: bool) -> Study:
    """The study before any transformation of its objects."""
    return Study(
        drawing,
        truth_of(drawing),
        [read(content) for content in _ct(drawing)],
        read(_contours(drawing)) if contours else None,
        read(_segment(drawing)) if segment else None,
    )


def read(content: bytes) -> Dataset:
    """Read an object that was written here."""
    return pydicom.dcmread(io.BytesIO(content))


def as_bytes(dataset: Dataset) -> bytes:
    """Write an object as a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@cache
def uid(*parts: object) -> str:
    """Return a UID that follows from its purpose."""
    return str(generate_uid(entropy_srcs=[repr(parts)]))


def rename(dataset: Dataset, instance: str, **elements: object) -> Dataset:
    """Give an object another SOP Instance UID, and other elements."""
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def stored(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Stored values (rows, columns) of a slice that is not compressed."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in dataset:
        raise Unfit
    cells = int(dataset.Rows) * int(dataset.Columns)
    words = np.frombuffer(dataset.PixelData[: 2 * cells], dtype="<u2").astype(np.int64)
    bits = int(dataset.BitsStored)
    words &= (1 << bits) - 1
    if int(dataset.PixelRepresentation) == 1:
        words = np.where(words >> (bits - 1), words - (1 << bits), words)
    return words.reshape(int(dataset.Rows), int(dataset.Columns))


def store(dataset: Dataset, values: npt.NDArray[Any]) -> None:
    """Store pixel values, in as many bits as the header says."""
    bits, is_signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed else (0, (1 << bits) - 1)
    if values.min() < low or values.max() > high:
        raise Unfit
    content = (values.astype(np.int64) & ((1 << bits) - 1)).astype("<u2").tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW"


def frames_of(segment: Dataset) -> npt.NDArray[np.uint8]:
    """Return the frames (frames, rows, columns) of a SEG with correctly packed pixels."""
    shape = int(segment.NumberOfFrames), int(segment.Rows), int(segment.Columns)
    bits = np.frombuffer(segment.PixelData, dtype=np.uint8)
    if int(segment.BitsAllocated) == 1:
        bits = np.unpackbits(bits, bitorder="little")
    cells = int(np.prod(shape))
    if segment.file_meta.TransferSyntaxUID.is_compressed or not cells <= len(bits) < cells + 16:
        raise Unfit
    return bits[:cells].reshape(shape)


def set_frames(segment: Dataset, frames: npt.NDArray[np.uint8]) -> None:
    """Store frames, correctly packed."""
    segment.NumberOfFrames, segment.Rows, segment.Columns = frames.shape
    bits = np.ascontiguousarray(frames).ravel()
    packed = np.packbits(bits, bitorder="little") if int(segment.BitsAllocated) == 1 else bits
    segment.PixelData = packed.tobytes() + b"\0" * (len(packed) % 2)
