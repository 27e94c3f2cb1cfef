"""The reference slices as voxels in HU; no other slices are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.completeness import ReferenceSlices
from lungstage.appliance.dicom.files import read_slices
from lungstage.appliance.dicom.geometry import normal_of
from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.pixeldata import CORRECT_WRITER, REWRITE, UNCOMPRESSED, fault_of, in_brackets

Mask = npt.NDArray[np.bool_]

_UNSPECIFIED = "US"
_NEEDED = (
    "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation", "BitsAllocated", "BitsStored", "HighBit",
)  # fmt: skip
_MAY_LOSE = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K})


@dataclass(frozen=True, slots=True)
class ReferenceVolume:
    """The voxels of the reference volume.

    Attributes
    ----------
    volume
        (slices, rows, columns) in HU, slices ascending along the slice normal: int16 (int32 if that is too small)
        if the rescale is integral, else float64. The type matters, because PyRadiomics resamples into it.
    padding
        (slices, rows, columns): pixels with the Pixel Padding Value, which are not measured; None if there are none.
    datasets
        Headers of the slices, in order, without their pixels; each like that of a single-frame image.
    """

    volume: hd.Volume
    padding: Mask | None
    datasets: tuple[Dataset, ...]


def _prove_encoding(image: ImageHeader, dataset: Dataset) -> None:
    """Refuse pixels that a lenient decoder would decode wrongly.

    Of more native pixels than rows times columns, a decoder uses the first; the image is sheared if Columns is wrong.
    In fragments under a native transfer syntax, it reads the item tags as pixels. It also expects the stored bits to be
    the lowest ones (PS3.5, 8.1.1).
    """
    lacking = [keyword for keyword in _NEEDED if dataset.get(keyword) in (None, "")]
    if lacking:
        names = ", ".join(f"{dictionary_description(keyword)} {in_brackets(Tag(keyword))}" for keyword in lacking)
        raise _PixelsError(
            f"cannot be decoded because the header has no {names}. Send the original CT series from the PACS; an "
            "anonymiser or converter may have removed the element."
        )
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if int(dataset.HighBit) != stored - 1 or not 0 < stored <= allocated:
        raise _PixelsError(
            "have contradictory Bits Allocated (0028,0100), Bits Stored (0028,0101) and High Bit (0028,0102). "
            f"{REWRITE}"
        )
    if fault := fault_of(dataset, 1):
        raise _PixelsError(fault)


class _PixelsError(Exception):
    """Pixels cannot be used; holds the rest of a sentence that begins with "The pixel data", and what to do."""


def _no_pixels(faulty: Sequence[tuple[ImageHeader, _PixelsError]], count: int) -> Refused:
    """Return the refusal with the number of faulty slices and the first fault."""
    first, fault = faulty[0]
    several = f"The pixel data of {len(faulty)} of the {count} needed slices cannot be used. " if faulty[1:] else ""
    return Refused(ReasonCode.PIXEL_DATA_UNREADABLE, f"{several}The pixel data of slice {first.name} {fault}")


def _stored_pixels(image: ImageHeader, dataset: Dataset) -> npt.NDArray[np.integer]:
    try:
        _prove_encoding(image, dataset)
        pixels = dataset.pixel_array
    except _PixelsError:
        raise
    except Exception as error:  # hostile bytes, or no installed decoder for the transfer syntax
        raise _PixelsError(f"cannot be decoded. {UNCOMPRESSED}") from error
    if pixels.shape != (image.rows, image.columns) or not np.issubdtype(pixels.dtype, np.integer):
        raise _PixelsError("are not a grey image. Send the CT series itself, not secondary captures.")
    stored, is_signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if is_signed else (0, (1 << stored) - 1)
    if pixels.min() < low or pixels.max() > high:  # a codestream contains its own precision
        raise _PixelsError(f"were compressed with more bits than Bits Stored (0028,0101) gives. {UNCOMPRESSED}")
    del dataset.PixelData
    return pixels


def _prove_unit(image: ImageHeader, dataset: Dataset) -> None:
    """Refuse values that are not declared as Hounsfield units (Rescale Type, PS3.3 C.11.1.1.2; HU if absent)."""
    if _unit(dataset) not in ("", "HU", _UNSPECIFIED):
        raise Refused(
            ReasonCode.RESCALE_VARIES,
            f"The values of slice {image.name} are not in Hounsfield units (Rescale Type, 0028,1054). "
            "Send the original CT of the scanner, in HU.",
        )


def _unit(dataset: Dataset) -> str:
    """Rescale Type in capitals without outer blanks (not significant in LO, PS3.5 6.2); "hu" is read as HU."""
    return str(dataset.get("RescaleType") or "").strip().upper()


def of_unspecified_unit(dataset: Dataset) -> bool:
    """Whether the unit of a slice's values is declared as unspecified."""
    return _unit(dataset) == _UNSPECIFIED


def lost_by_compression(dataset: Dataset) -> bool:
    """Whether the pixels of a slice were ever compressed with loss, according to its header.

    Lossy Image Compression also states this for pixels that are now uncompressed (PS3.3 C.7.6.1.1.5). If it is absent,
    the transfer syntax decides.
    """
    stated = dataset.get("LossyImageCompression")
    return stated == "01" or (stated != "00" and dataset.file_meta.TransferSyntaxUID in _MAY_LOSE)


def _as_stored(value: int, dataset: Dataset) -> int:
    """Read a padding value with the sign of the pixels, because writers confuse US and SS."""
    span = 1 << int(dataset.BitsAllocated)
    value %= span
    return value - span if int(dataset.PixelRepresentation) == 1 and value >= span // 2 else value


def _padding(pixels: npt.NDArray[np.integer], dataset: Dataset) -> Mask | None:
    """Find padded pixels (PS3.3 C.7.5.1.1.2: one value, or a range if a limit is given)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    try:
        low, high = sorted(_as_stored(int(bound), dataset) for bound in (value, value if limit is None else limit))
    except (TypeError, ValueError) as error:
        raise _PixelsError(f"have a Pixel Padding Value (0028,0120) that is not a number. {CORRECT_WRITER}") from error
    padded: Mask = (pixels >= low) & (pixels <= high)
    return padded


def _to_hu(stored: npt.NDArray[np.integer], slope: float, intercept: float) -> npt.NDArray[np.generic]:
    """One slice in HU, as int16 or, if that is too small, int32; as float64 if the rescale is not integral."""
    if not (slope.is_integer() and intercept.is_integer()):
        return stored * slope + intercept
    ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
    small = np.iinfo(np.int16)
    pixel_type = np.int16 if small.min <= min(ends) and max(ends) <= small.max else np.int32
    # Integers wrap around: the final value is correct if it fits, even if an intermediate value did not.
    hu: npt.NDArray[Any] = stored.astype(pixel_type)
    if slope != 1:
        hu *= np.array(int(slope)).astype(pixel_type)
    hu += np.array(int(intercept)).astype(pixel_type)
    return hu


def read_volume(slices: ReferenceSlices) -> ReferenceVolume:
    """Decode the reference slices only.

    Raises
    ------
    Refused
        ``dicom_unreadable`` or ``pixel_data_unreadable``.
    Unavailable
        A slice has changed since its header was read.
    """
    first = slices.images[0]
    planes, paddings, datasets = [], [], []
    faulty: list[tuple[ImageHeader, _PixelsError]] = []
    for image, dataset in zip(slices.images, read_slices(slices.images), strict=True):
        _prove_unit(image, dataset)
        try:
            stored = _stored_pixels(image, dataset)
            paddings.append(_padding(stored, dataset))
        except _PixelsError as fault:
            faulty.append((image, fault))
            continue
        planes.append(_to_hu(stored, *first.rescale))
        datasets.append(dataset)
    if faulty:
        raise _no_pixels(faulty, len(slices.images))
    affine = np.eye(4)
    affine[:3, 0] = normal_of(first) * slices.spacing[0]
    affine[:3, 1] = np.array(first.orientation[3:]) * slices.spacing[1]
    affine[:3, 2] = np.array(first.orientation[:3]) * slices.spacing[2]
    affine[:3, 3] = first.position
    volume = hd.Volume(
        np.stack(planes),  # if one slice needs the wider type, all slices get it
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=first.frame_of_reference_uid,
    )
    padded = [
        np.zeros((first.rows, first.columns), dtype=np.bool_) if padding is None else padding for padding in paddings
    ]
    padding = np.stack(padded) if any(padding is not None for padding in paddings) else None
    return ReferenceVolume(volume, padding, tuple(datasets))
