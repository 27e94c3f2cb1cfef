"""The reference slices as voxels in HU, and nothing but these slices."""

from __future__ import annotations

from dataclasses import dataclass

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from appliance.dicom.completeness import ReferenceSlices
from appliance.dicom.files import ImageHeader, read_unchanged
from appliance.dicom.geometry import normal_of
from appliance.errors import ReasonCode, Refused

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReferenceVolume:
    """The voxels of the reference volume.

    Attributes
    ----------
    volume
        (slices, rows, columns) in HU, slices ascending along the slice normal: int16 (int32 where that is too small)
        when the rescale is integral, else float64. The type matters, because PyRadiomics resamples into it.
    padding
        (slices, rows, columns): pixels that carry the Pixel Padding Value, and so no measurement.
    datasets
        Headers of the slices, in order, without their pixels.
    """

    volume: hd.Volume
    padding: Mask
    datasets: tuple[Dataset, ...]


def _stored_pixels(image: ImageHeader) -> tuple[npt.NDArray[np.integer], Dataset]:
    dataset = read_unchanged(image)
    try:
        pixels = dataset.pixel_array
    except Exception as error:  # hostile bytes, or a transfer syntax that no installed decoder takes
        raise Refused(
            ReasonCode.PIXEL_DATA_UNREADABLE, f"The pixels of slice {image.sop_instance_uid} cannot be decoded."
        ) from error
    if pixels.shape != (image.rows, image.columns) or not np.issubdtype(pixels.dtype, np.integer):
        raise Refused(
            ReasonCode.PIXEL_DATA_UNREADABLE, f"The pixels of slice {image.sop_instance_uid} are not a grey image."
        )
    del dataset.PixelData
    return pixels, dataset


def _as_stored(value: int, dataset: Dataset) -> int:
    """Read a padding value in the pixels' own sign: writers mix up US and SS."""
    span = 1 << int(dataset.BitsAllocated)
    value %= span
    return value - span if int(dataset.PixelRepresentation) == 1 and value >= span // 2 else value


def _padding(pixels: npt.NDArray[np.integer], dataset: Dataset) -> Mask:
    """Find padded pixels (PS3.3 C.7.5.1.1.2: a value, or a range where a limit is given)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, dtype=np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    try:
        low, high = sorted(_as_stored(int(bound), dataset) for bound in (value, value if limit is None else limit))
    except (TypeError, ValueError) as error:
        raise Refused(ReasonCode.PIXEL_DATA_UNREADABLE, "The slices' Pixel Padding Value is not a number.") from error
    padded: Mask = (pixels >= low) & (pixels <= high)
    return padded


def _to_hu(stored: npt.NDArray[np.integer], slope: float, intercept: float) -> npt.NDArray[np.generic]:
    if slope.is_integer() and intercept.is_integer():
        hu = stored.astype(np.int64) * int(slope) + int(intercept)
        small = np.iinfo(np.int16)
        fits = small.min <= hu.min() and hu.max() <= small.max
        return hu.astype(np.int16 if fits else np.int32)
    return stored * slope + intercept


def read_volume(slices: ReferenceSlices) -> ReferenceVolume:
    """Decode the reference slices, and only these.

    Raises
    ------
    Refused
        ``dicom_unreadable`` or ``pixel_data_unreadable``.
    Unavailable
        A slice is not what it was when it was looked at.
    """
    read = [_stored_pixels(image) for image in slices.images]
    stored = np.stack([pixels for pixels, _ in read])
    first = slices.images[0]
    affine = np.eye(4)
    affine[:3, 0] = normal_of(first) * slices.spacing[0]
    affine[:3, 1] = np.array(first.orientation[3:]) * slices.spacing[1]
    affine[:3, 2] = np.array(first.orientation[:3]) * slices.spacing[2]
    affine[:3, 3] = first.position
    volume = hd.Volume(
        _to_hu(stored, *first.rescale),
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=first.frame_of_reference_uid,
    )
    padding = np.stack([_padding(pixels, dataset) for pixels, dataset in read])
    return ReferenceVolume(volume, padding, tuple(dataset for _, dataset in read))
