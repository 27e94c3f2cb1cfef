"""Crop, resample and save the reference volume, and convert it to SimpleITK images.

The resampling grid starts at the first voxel of the reference volume, and the reference volume depends only on the ROI.
So the numbers do not depend on which other slices have arrived.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.radiomics import _kernels

if TYPE_CHECKING:
    import SimpleITK as sitk

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Box = tuple[slice, slice, slice]

_FEWEST_KNOTS = 3


@dataclass(frozen=True, slots=True)
class MeasurableRoi:
    """Image and mask on the grid of the features, cropped to the ROI.

    Attributes
    ----------
    image, mask
        (z, y, x), contiguous; int16 or float64 HU.
    spacing
        (z, y, x) in mm.
    """

    image: npt.NDArray[Any]
    mask: Mask
    spacing: tuple[float, float, float]


def single_precision(volume: hd.Volume) -> hd.Volume:
    """Round the geometry of `volume` to single precision.

    NIfTI headers contain single precision only. In interpolation, a shift in the eighth digit already changes some HU
    that are close to a rounding limit. Then a resampled measurement could not be repeated from the saved volume.
    Directions along the patient's axes are stored exactly. Oblique directions are not: NIfTI stores a quaternion, and
    they differ in the eighth digit after reading.
    """
    affine = volume.affine
    spacing = np.array(volume.spacing)
    rounded = spacing.astype(np.float32).astype(np.float64)
    affine[:3, :3] *= rounded / spacing
    affine[:3, 3] = affine[:3, 3].astype(np.float32).astype(np.float64)
    return hd.Volume(
        volume.array, affine, coordinate_system="PATIENT", frame_of_reference_uid=volume.frame_of_reference_uid
    )


def to_images(volume: hd.Volume, mask: Mask) -> tuple[sitk.Image, sitk.Image]:
    """Convert to SimpleITK.

    Parameters
    ----------
    volume
        (slices, rows, columns), slices ascending along the slice normal, in HU.
    mask
        (slices, rows, columns).

    Returns
    -------
    tuple of SimpleITK.Image
        Image and mask (uint8, label 1) with the same geometry, in LPS millimetres.
    """
    import SimpleITK as sitk  # imported late, here and below: it takes a third of the memory and is seldom needed

    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing([float(v) for v in volume.spacing[::-1]])
    image.SetOrigin([float(v) for v in volume.position])
    image.SetDirection([float(v) for v in volume.direction[:, ::-1].ravel()])
    label = sitk.GetImageFromArray(mask.astype(np.uint8))
    label.CopyInformation(image)
    return image, label


def bounds(mask: Mask) -> tuple[int, Box]:
    """Return the number of voxels of a mask and its bounding box (z, y, x)."""
    edges = np.zeros((3, 2), dtype=np.int64)
    voxels = _kernels.bounds(np.ascontiguousarray(mask), edges)
    first, last = edges.T.tolist()
    return voxels, (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1), slice(first[2], last[2] + 1))


def crop(roi: MeasurableRoi, box: Box) -> MeasurableRoi:
    """Crop image and mask to the bounding box of the ROI; exact, because no feature uses voxels outside it."""
    return MeasurableRoi(np.ascontiguousarray(roi.image[box]), np.ascontiguousarray(roi.mask[box]), roi.spacing)


def resample(volume: hd.Volume, mask: Mask, box: Box, settings: Mapping[str, Any]) -> MeasurableRoi:
    """Resample image and mask to the settings' ``resampledPixelSpacing``, on the grid that PyRadiomics would use.

    Parameters
    ----------
    volume, mask, box
        The reference volume, where the grid starts; its mask, and the mask's bounding box (z, y, x).
    settings
        ``resampledPixelSpacing``, ``interpolator`` and ``padDistance`` as in PyRadiomics.

    Returns
    -------
    MeasurableRoi
        A box that contains the whole region; image voxels outside the region may be 0.

    Notes
    -----
    A volume along the patient's axes (in either direction) is interpolated here, and only the region's voxels. The
    values are equal to ITK's to the last bit. ITK itself interpolates oblique volumes, and pixel types other than int16
    and float64. The pixel type of the image does not change, as in PyRadiomics: ITK cuts integer HU towards zero.

    Raises
    ------
    Refused
        ``roi_too_small`` for a B-spline with fewer than three voxels along an axis. With two voxels, ITK's own result
        changes from call to call.
    """
    old = tuple(float(v) for v in volume.spacing)
    new = tuple(
        was if wanted == 0 or inside.stop - inside.start == 1 else float(wanted)  # as PyRadiomics, for a single slice
        for wanted, was, inside in zip(reversed(settings["resampledPixelSpacing"]), old, box, strict=True)
    )
    if all(abs(was - now) <= 1e-8 + 1e-5 * now for was, now in zip(old, new, strict=True)):  # numpy.allclose
        return MeasurableRoi(volume.array, mask, (old[0], old[1], old[2]))  # as PyRadiomics, the image is unchanged
    interpolator = settings.get("interpolator", "sitkBSpline")
    if interpolator == "sitkBSpline" and (fewest := min(mask.shape)) < _FEWEST_KNOTS:
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"There are too few slices around the region: only {fewest} voxels along an axis, but resampling by "
            f"B-spline needs {_FEWEST_KNOTS}. Send more slices of the series. If it has no more, the region cannot be "
            "measured.",
        )
    pad = settings.get("padDistance", 5)
    lines = [_Line.around(*along, pad) for along in zip(box, mask.shape, old, new, strict=True)]
    direction = volume.direction[:, ::-1]
    if not (np.abs(direction) == np.eye(3)).all() or volume.array.dtype not in (np.int16, np.float64):
        return _resample_by_itk(volume, mask, lines, interpolator)
    places = _places(lines, np.diag(direction).tolist()[::-1], [float(v) for v in volume.position[::-1]])
    nearest = [np.floor(place + 0.5).astype(np.int64) for place in places]
    inside = [(index >= 0) & (index < n) for index, n in zip(nearest, mask.shape, strict=True)]
    z, y, x = (place[kept] for place, kept in zip(places, inside, strict=True))
    indices = [index[kept] for index, kept in zip(nearest, inside, strict=True)]
    label = _pick(mask, indices)
    if interpolator == "sitkNearestNeighbor":
        image = _pick(volume.array, indices)
    else:
        interpolate = _kernels.resample_bspline if interpolator == "sitkBSpline" else _kernels.resample_linear
        image = np.zeros(label.shape, dtype=volume.array.dtype)
        interpolate(np.ascontiguousarray(volume.array), z, y, x, label, image)
    return MeasurableRoi(image, label, (new[0], new[1], new[2]))


@dataclass(frozen=True, slots=True)
class _Line:
    """One axis of the new grid.

    Attributes
    ----------
    old, new
        Spacing of the volume and of the grid, in mm.
    origin
        Continuous voxel index of the grid's first voxel in the volume.
    size
        In voxels.
    """

    old: float
    new: float
    origin: float
    size: int

    @classmethod
    def around(cls, inside: slice, size: int, old: float, new: float, pad: float) -> _Line:
        """Place the grid around a region; it starts at the outer edge of the volume's first voxel.

        Source: PyRadiomics ``imageoperations.resampleImage``. Its order of operations decides ties between voxels.
        """
        ratio = old / new
        lower = max(math.floor((inside.start - 0.5) * ratio - pad), 0)
        upper = min(math.ceil((inside.stop - 0.5) * ratio + pad), math.ceil(size * ratio) - 1)
        return cls(old, new, 0.5 * (new - old) / old + lower / ratio, upper - lower + 1)


def _places(lines: Sequence[_Line], signs: Sequence[float], position: Sequence[float]) -> list[Floats]:
    """Return the continuous voxel indices (z, y, x) of the grid's planes along each axis, computed as in ITK.

    ITK converts index to point to index, in this order of operations. On the patient's axes, in either direction
    (`signs`), the three coordinates do not mix. Along a scan line ITK interpolates between its two ends.
    """
    places = []
    for axis, (line, sign, origin) in enumerate(zip(lines, signs, position, strict=True)):
        planes = np.arange(line.size, dtype=np.float64) if axis < 2 else np.array([0.0, line.size])
        step = sign * line.old
        points = step * line.origin + origin + sign * line.new * planes
        places.append((points - origin) * (1 / step))
    (first, beyond), count = places[2], lines[2].size
    places[2] = first + np.arange(count) / count * (beyond - first)
    return places


def _pick(array: npt.NDArray[Any], indices: Sequence[Ints]) -> npt.NDArray[Any]:
    """Return ``array[np.ix_(*indices)]`` for ascending indices, axis by axis in their box: in a fifth of the time."""
    edges = [(int(index[0]), int(index[-1]) + 1) if len(index) else (0, 0) for index in indices]
    picked: npt.NDArray[Any] = array[tuple(slice(*edge) for edge in edges)]
    for axis in (2, 1, 0):
        picked = picked.take(indices[axis] - edges[axis][0], axis=axis)
    return picked


def _resample_by_itk(volume: hd.Volume, mask: Mask, lines: Sequence[_Line], interpolator: str) -> MeasurableRoi:
    import SimpleITK as sitk

    image, label = to_images(volume, mask)
    x, y, z = reversed(lines)
    resampling = sitk.ResampleImageFilter()
    resampling.SetOutputSpacing((x.new, y.new, z.new))
    resampling.SetOutputDirection(image.GetDirection())
    resampling.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint((x.origin, y.origin, z.origin)))
    resampling.SetSize((x.size, y.size, z.size))
    resampling.SetInterpolator(getattr(sitk, interpolator))
    hu = sitk.GetArrayFromImage(resampling.Execute(image))
    resampling.SetInterpolator(sitk.sitkNearestNeighbor)
    inside = sitk.GetArrayFromImage(resampling.Execute(label)) == 1
    return MeasurableRoi(hu, inside, (z.new, y.new, x.new))


def save(volume: hd.Volume, mask: Mask, folder: Path) -> tuple[Path, Path]:
    """Write the reference volume and its mask as ``image.nii.gz`` and ``mask.nii.gz``.

    Returns
    -------
    tuple of Path
        The two files. Stock PyRadiomics gives the same numbers from them.
    """
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    image, label = to_images(volume, mask)
    paths = folder / "image.nii.gz", folder / "mask.nii.gz"
    sitk.WriteImage(image, str(paths[0]))
    sitk.WriteImage(label, str(paths[1]))
    return paths
