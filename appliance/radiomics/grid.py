"""The reference volume as SimpleITK images: crop, resample, save.

The first voxel of the reference volume is the origin of the resampling grid, and the reference volume follows from
the ROI alone; so the numbers do not depend on which other slices happen to have arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """Image and mask on the grid on which features are computed, cropped to the ROI.

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

    NIfTI headers hold single precision only. Where voxels are interpolated, a shift in the eighth digit already
    turns some HU at the rounding edge over, so a resampled measurement could not be repeated from the saved volume.
    Directions along the patient's axes survive as they are. Oblique ones do not: NIfTI keeps a quaternion of them,
    which comes back another in the eighth digit each time.
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
    import SimpleITK as sitk  # deferred, here and below: a third of the process's memory, and seldom needed

    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing([float(v) for v in volume.spacing[::-1]])
    image.SetOrigin([float(v) for v in volume.position])
    image.SetDirection([float(v) for v in volume.direction[:, ::-1].ravel()])
    label = sitk.GetImageFromArray(mask.astype(np.uint8))
    label.CopyInformation(image)
    return image, label


def bounds(mask: Mask) -> tuple[int, Box]:
    """Count the voxels of a mask, and find its bounding box (z, y, x)."""
    edges = np.zeros((3, 2), dtype=np.int64)
    voxels = _kernels.bounds(np.ascontiguousarray(mask), edges)
    first, last = edges.T.tolist()
    return voxels, (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1), slice(first[2], last[2] + 1))


def crop(roi: MeasurableRoi, box: Box) -> MeasurableRoi:
    """Cut image and mask to the bounding box of the ROI; exact, because no feature looks outside it."""
    return MeasurableRoi(np.ascontiguousarray(roi.image[box]), np.ascontiguousarray(roi.mask[box]), roi.spacing)


def resample(volume: hd.Volume, mask: Mask, box: Box, settings: Mapping[str, Any]) -> MeasurableRoi:
    """Resample image and mask to the settings' ``resampledPixelSpacing``, on the grid that PyRadiomics would use.

    Parameters
    ----------
    volume, mask, box
        The reference volume, which the grid starts at; its mask, and the mask's bounding box (z, y, x).
    settings
        ``resampledPixelSpacing``, ``interpolator`` and ``padDistance`` as PyRadiomics has them.

    Returns
    -------
    MeasurableRoi
        A box that holds the whole region; image voxels outside the region may be 0.

    Notes
    -----
    A volume whose axes are the patient's (either way round) is interpolated here, for the region's voxels only; the
    values equal ITK's to the last bit. An oblique one, or one of another pixel type than int16 and float64, ITK
    interpolates itself. The pixel type stays that of the image, as PyRadiomics has it: ITK cuts integer HU towards
    zero.

    Raises
    ------
    Refused
        ``roi_too_small`` for a B-spline through fewer than three voxels along an axis: of two, ITK's own answer changes
        from one call to the next.
    """
    # From here on in SimpleITK's order, (x, y, z).
    old = np.array([float(v) for v in volume.spacing[::-1]])
    first = np.array([index.start for index in reversed(box)])
    extent = np.array([index.stop - index.start for index in reversed(box)])
    new = np.array(settings["resampledPixelSpacing"], dtype=np.float64)
    new = np.where((new == 0) | (extent == 1), old, new)  # PyRadiomics keeps the spacing across a single slice
    if np.allclose(old, new):  # PyRadiomics then leaves the image as it is
        return MeasurableRoi(volume.array, mask, (float(old[2]), float(old[1]), float(old[0])))
    interpolator = settings.get("interpolator", "sitkBSpline")
    if interpolator == "sitkBSpline" and (fewest := min(mask.shape)) < _FEWEST_KNOTS:
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"There are only {fewest} voxels along an axis; a B-spline needs {_FEWEST_KNOTS} to be repeatable. "
            "Send more slices of the series; if it has no more, it cannot be measured.",
        )
    size = np.array(mask.shape[::-1])
    target = _Target.around(first, extent, size, old, new, settings.get("padDistance", 5))
    aligned = np.array_equal(np.abs(volume.direction[:, ::-1]), np.eye(3))
    if not aligned or volume.array.dtype not in (np.int16, np.float64):
        return _resample_by_itk(volume, mask, target, interpolator)
    places = _places(volume, target)
    nearest = [np.floor(place + 0.5).astype(np.int64) for place in places]
    inside = [(index >= 0) & (index < n) for index, n in zip(nearest, size, strict=True)]
    places = [place[kept] for place, kept in zip(places, inside, strict=True)]
    x, y, z = (index[kept] for index, kept in zip(nearest, inside, strict=True))
    label = _pick(mask, z, y, x)
    if interpolator == "sitkNearestNeighbor":
        image = _pick(volume.array, z, y, x)
    else:
        interpolate = _kernels.resample_bspline if interpolator == "sitkBSpline" else _kernels.resample_linear
        image = np.zeros(label.shape, dtype=volume.array.dtype)
        interpolate(np.ascontiguousarray(volume.array), places[2], places[1], places[0], label, image)
    return MeasurableRoi(image, label, (float(new[2]), float(new[1]), float(new[0])))


@dataclass(frozen=True, slots=True)
class _Target:
    """The grid to resample to, around a region; (x, y, z), as SimpleITK has it.

    Attributes
    ----------
    spacing
        In mm.
    origin
        Continuous voxel index of its first voxel in the volume.
    size
        In voxels.
    """

    spacing: Floats
    origin: Floats
    size: Ints

    @classmethod
    def around(cls, first: Ints, extent: Ints, size: Ints, old: Floats, new: Floats, pad: float) -> _Target:
        """Lay the grid; it begins where the first voxel of the volume does (PyRadiomics ``resampleImage``).

        Its operations are in that order, so that ties between voxels fall as they do there.
        """
        ratio = old / new
        lower = np.maximum(np.floor((first - 0.5) * ratio - pad), 0)
        upper = np.minimum(np.ceil((first + extent - 0.5) * ratio + pad), np.ceil(size * ratio) - 1)
        return cls(new, 0.5 * (new - old) / old + lower / ratio, (upper - lower + 1).astype(np.int64))


def _pick(array: npt.NDArray[Any], z: Ints, y: Ints, x: Ints) -> npt.NDArray[Any]:
    """Return ``array[np.ix_(z, y, x)]``, one axis after the other within the box, which takes a fifth of the time."""
    first = [index.min(initial=n) for index, n in zip((z, y, x), array.shape, strict=True)]
    box = tuple(slice(low, index.max(initial=-1) + 1) for low, index in zip(first, (z, y, x), strict=True))
    picked: npt.NDArray[Any] = array[box]
    for axis, index in ((2, x), (1, y), (0, z)):
        picked = picked.take(index - first[axis], axis=axis)
    return picked


def _places(volume: hd.Volume, target: _Target) -> list[Floats]:
    """Continuous voxel indices (x, y, z) of the grid's planes along each axis, as ITK computes them.

    ITK goes from index to point to index, in this order of operations. On axes that are the patient's the three
    coordinates do not mix. Along a scan line ITK interpolates between its two ends.
    """
    sign = np.array([float(v) for v in np.diag(volume.direction[:, ::-1])])
    step = sign * np.array([float(v) for v in volume.spacing[::-1]])
    origin = np.array([float(v) for v in volume.position])
    start = step * target.origin + origin
    places = []
    for axis in range(3):
        count = int(target.size[axis])
        ends = np.array([0, count]) if axis == 0 else np.arange(count)
        points = start[axis] + sign[axis] * target.spacing[axis] * ends
        places.append((points - origin[axis]) * (1 / step[axis]))
    count = int(target.size[0])
    places[0] = places[0][0] + np.arange(count) / count * (places[0][1] - places[0][0])
    return places


def _resample_by_itk(volume: hd.Volume, mask: Mask, target: _Target, interpolator: str) -> MeasurableRoi:
    import SimpleITK as sitk

    image, label = to_images(volume, mask)
    resampling = sitk.ResampleImageFilter()
    resampling.SetOutputSpacing(target.spacing.tolist())
    resampling.SetOutputDirection(image.GetDirection())
    resampling.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(target.origin.tolist()))
    resampling.SetSize(target.size.tolist())
    resampling.SetInterpolator(getattr(sitk, interpolator))
    hu = sitk.GetArrayFromImage(resampling.Execute(image))
    resampling.SetInterpolator(sitk.sitkNearestNeighbor)
    inside = sitk.GetArrayFromImage(resampling.Execute(label)) == 1
    x, y, z = target.spacing.tolist()
    return MeasurableRoi(hu, inside, (z, y, x))


def save(volume: hd.Volume, mask: Mask, folder: Path) -> tuple[Path, Path]:
    """Write the reference volume and its mask as ``image.nii.gz`` and ``mask.nii.gz``.

    Returns
    -------
    tuple of Path
        The two files: what stock PyRadiomics needs to give the same numbers.
    """
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    image, label = to_images(volume, mask)
    paths = folder / "image.nii.gz", folder / "mask.nii.gz"
    sitk.WriteImage(image, str(paths[0]))
    sitk.WriteImage(label, str(paths[1]))
    return paths
