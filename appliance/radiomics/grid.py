"""The reference volume as SimpleITK images: crop, resample, save.

The first voxel of the reference volume is the origin of the resampling grid, and the reference volume follows from
the ROI alone; so the numbers do not depend on which other slices happen to have arrived.
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
    old = tuple(float(v) for v in volume.spacing)
    new = tuple(
        was if wanted == 0 or inside.stop - inside.start == 1 else float(wanted)  # PyRadiomics keeps a single slice's
        for wanted, was, inside in zip(reversed(settings["resampledPixelSpacing"]), old, box, strict=True)
    )
    if all(abs(was - now) <= 1e-8 + 1e-5 * now for was, now in zip(old, new, strict=True)):  # numpy.allclose
        return MeasurableRoi(volume.array, mask, (old[0], old[1], old[2]))  # PyRadiomics leaves the image as it is, too
    interpolator = settings.get("interpolator", "sitkBSpline")
    if interpolator == "sitkBSpline" and (fewest := min(mask.shape)) < _FEWEST_KNOTS:
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"The slices around the region are too few: there are only {fewest} voxels along an axis, and resampling "
            f"by B-spline needs {_FEWEST_KNOTS}. Send more slices of the series; if it has no more, it cannot be "
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
    """One axis of the grid to resample to.

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
        """Lay the grid around a region; it begins where the first voxel of the volume does.

        Source: PyRadiomics ``imageoperations.resampleImage``, whose order of operations decides ties between voxels.
        """
        ratio = old / new
        lower = max(math.floor((inside.start - 0.5) * ratio - pad), 0)
        upper = min(math.ceil((inside.stop - 0.5) * ratio + pad), math.ceil(size * ratio) - 1)
        return cls(old, new, 0.5 * (new - old) / old + lower / ratio, upper - lower + 1)


def _places(lines: Sequence[_Line], signs: Sequence[float], position: Sequence[float]) -> list[Floats]:
    """Continuous voxel indices (z, y, x) in the volume of the grid's planes along each axis, as ITK computes them.

    ITK goes from index to point to index, in this order of operations. On axes that are the patient's, either way
    round (`signs`), the three coordinates do not mix. Along a scan line ITK interpolates between its two ends.
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
    """Return ``array[np.ix_(*indices)]``, ascending, axis by axis within their box, which takes a fifth of the time."""
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
        The two files: what stock PyRadiomics needs to give the same numbers.
    """
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    image, label = to_images(volume, mask)
    paths = folder / "image.nii.gz", folder / "mask.nii.gz"
    sitk.WriteImage(image, str(paths[0]))
    sitk.WriteImage(label, str(paths[1]))
    return paths
