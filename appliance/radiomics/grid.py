"""The reference volume as SimpleITK images: crop, resample, save.

The first voxel of the reference volume is the origin of the resampling grid, and the reference volume follows from
the ROI alone; so the numbers do not depend on which other slices happen to have arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import imageoperations

Mask = npt.NDArray[np.bool_]


def single_precision(volume: hd.Volume) -> hd.Volume:
    """Round the geometry of `volume` to single precision.

    NIfTI headers hold single precision only. Where voxels are interpolated, a shift in the eighth digit already
    turns some HU at the rounding edge over, so a resampled measurement could not be repeated from the saved volume.
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
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing([float(v) for v in volume.spacing[::-1]])
    image.SetOrigin([float(v) for v in volume.position])
    image.SetDirection([float(v) for v in volume.direction[:, ::-1].ravel()])
    label = sitk.GetImageFromArray(mask.astype(np.uint8))
    label.CopyInformation(image)
    return image, label


def resample(image: sitk.Image, label: sitk.Image, settings: Mapping[str, Any]) -> tuple[sitk.Image, sitk.Image]:
    """Resample image and mask to the settings' ``resampledPixelSpacing``, with PyRadiomics' own resampler.

    The pixel type stays that of the image, as PyRadiomics has it: integer HU are rounded to integer HU.
    """
    resampled, resampled_label = imageoperations.resampleImage(image, label, **settings)
    return resampled, resampled_label


def crop(image: sitk.Image, label: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """Cut image and mask to the bounding box of the ROI; exact, because no feature looks outside it."""
    where = np.nonzero(sitk.GetArrayViewFromImage(label))
    lower = [int(index.min()) for index in reversed(where)]
    upper = [int(index.max()) + 1 for index in reversed(where)]
    box = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
    return image[box], label[box]


def save(volume: hd.Volume, mask: Mask, folder: Path) -> tuple[Path, Path]:
    """Write the reference volume and its mask as ``image.nii.gz`` and ``mask.nii.gz``.

    Returns
    -------
    tuple of Path
        The two files: what stock PyRadiomics needs to give the same numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, label = to_images(volume, mask)
    paths = folder / "image.nii.gz", folder / "mask.nii.gz"
    sitk.WriteImage(image, str(paths[0]))
    sitk.WriteImage(label, str(paths[1]))
    return paths
