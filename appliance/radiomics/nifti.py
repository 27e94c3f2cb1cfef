"""Read a CT and its mask from a pair of NIfTI files, and check that they are complete and on the same grid.

SimpleITK reads the voxels, as in PyRadiomics, so both get the same values. But SimpleITK replaces the missing part of a
truncated file and NaN by 0, and an invalid voxel size by 1 mm. So the file itself is checked first.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable

if TYPE_CHECKING:
    import SimpleITK as sitk

Mask = npt.NDArray[np.bool_]

# Pixel types by the header's `datatype` (nifti1.h): whole and floating-point numbers, no colours or complex numbers.
_KINDS: Final = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_COLOURS: Final = (128, 2304)
_HEADER, _FIRST_VOXEL = 348, 352  # bytes
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 20
_SHEARED: Final = "has axes that are not perpendicular. Save it with perpendicular axes."
_GREY: Final = "Save the CT or the mask with one whole number per voxel."
# The headers' single precision moves a corner by up to a ten-thousandth of a voxel. A larger movement is another grid.
# A thousandth of a voxel changes no voxel of the mask.
_SAME_PLACE: Final = 1e-3  # voxels
_SAME_SIZE: Final = 1e-3  # of a voxel's edge


@dataclass(frozen=True, slots=True)
class NiftiPair:
    """Image and mask on one grid.

    Attributes
    ----------
    volume
        (slices, rows, columns) with the axes of the file, the first one outermost. It has the file's pixel type, or
        float32 if the header rescales, as in PyRadiomics.
    mask
        (slices, rows, columns), true where the mask file has the label.
    others
        Other labels in the mask file, ascending.
    is_placed
        Whether the header gives the volume's orientation in the patient.
    """

    volume: hd.Volume
    mask: Mask
    others: tuple[int, ...]
    is_placed: bool


class _AsRead(hd.Volume):
    """A volume with exactly the spacing and directions of the file, to the last bit.

    highdicom stores their products. For oblique directions, the last bit changes when they are computed back. Then an
    interpolated value that ITK cuts to a whole number may differ from PyRadiomics' value.
    """

    def __init__(self, volume: hd.Volume, image: sitk.Image) -> None:
        x, y, z = image.GetSpacing()
        self._spacing: tuple[float, float, float] = (z, y, x)
        self._direction: npt.NDArray[np.float64] = np.reshape(image.GetDirection(), (3, 3))[:, ::-1]
        super().__init__(volume.array, volume.affine, coordinate_system="PATIENT")

    @property
    def spacing(self) -> tuple[float, float, float]:
        return self._spacing

    @property
    def direction(self) -> npt.NDArray[np.float64]:
        return self._direction.copy()


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI according to its name, ``.nii`` or ``.nii.gz``."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_pair(image: Path, mask: Path, label: int = 1) -> NiftiPair:
    """Read an image and the voxels of its mask that have a label.

    Parameters
    ----------
    image, mask
        NIfTI-1 files, gzipped or not. A mask with other axis directions than the image is turned to those of the image.
    label
        Label in the mask; 1 is PyRadiomics' own default.

    Raises
    ------
    Refused
        ``nifti_invalid``: a file is not NIfTI-1 or is truncated; it contains more than one volume, colours, voxels that
        are not numbers, or no voxel size; or the mask contains fractions. ``mask_mismatch``: image and mask have
        different grids. ``roi_not_found``, ``roi_empty``: the mask does not have this label, or has no labels.
    Unavailable, OSError
        A file does not exist, or cannot be read.
    """
    found, is_placed = _read(image)
    drawn, _ = _read(mask)
    volume = _AsRead(_volume(found, image), found)
    inside, others = _labelled(_on_grid(_volume(drawn, mask), volume, mask), mask, label)
    return NiftiPair(volume, inside, others, is_placed)


def read_mask(mask: Path, grid: hd.VolumeGeometry, label: int | None) -> tuple[Mask, int]:
    """Read the voxels of a mask file that have a label, on the grid of an image that is not a NIfTI file.

    Parameters
    ----------
    mask
        As in :func:`read_pair`.
    grid
        Grid of the image: (slices, rows, columns).
    label
        None means the only label in the file.

    Returns
    -------
    tuple
        The voxels, (slices, rows, columns), and their label.

    Raises
    ------
    Refused
        As :func:`read_pair`; ``roi_ambiguous``: the mask has several labels, and none was chosen.
    """
    drawn, _ = _read(mask)
    voxels = _on_grid(_volume(drawn, mask), grid, mask)
    labels = [int(value) for value in np.unique(voxels) if value == np.rint(value) != 0]
    if label is None and len(labels) > 1:
        raise Refused(
            ReasonCode.ROI_AMBIGUOUS,
            f"The mask '{mask.name}' has {len(labels)} labels: {', '.join(map(str, labels[:9]))}. Choose one of them "
            "with --label.",
        )
    wanted = label if label is not None else (labels or [1])[0]
    return _labelled(voxels, mask, wanted)[0], wanted


def _invalid(path: Path, why: str) -> Refused:
    return Refused(ReasonCode.NIFTI_INVALID, f"'{path.name}' {why}")


def _read(path: Path) -> tuple[sitk.Image, bool]:
    """Read one file; also return whether its header gives the orientation in the patient."""
    import SimpleITK as sitk  # imported late, as in :mod:`radiomics.grid`

    if not path.exists():
        raise Unavailable(f"There is no file or folder {path}.")
    is_placed = _prove(path)
    display = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # the causes of ITK's warnings are checked here
    try:
        return sitk.ReadImage(str(path), imageIO="NiftiImageIO"), is_placed
    except RuntimeError as error:
        why = _SHEARED if "orthonormal" in str(error) else "cannot be read as NIfTI. Save it again."
        raise _invalid(path, why) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(display)


def _prove(path: Path) -> bool:
    """Check that a file is one complete volume of numbers; return whether it gives the orientation in the patient."""
    try:
        with _opened(path) as file:
            raw = file.read(_HEADER)
            order = next((order for order in "<>" if raw[:4] == struct.pack(f"{order}i", _HEADER)), None)
            if order is None or len(raw) < _HEADER or raw[344:348] != b"n+1\0":
                if raw[4:8] in (b"n+2\0", b"ni2\0"):
                    raise _invalid(path, "is NIfTI-2. Save it as NIfTI-1.")
                raise _invalid(path, "is not NIfTI-1 in one file. Save it as .nii or .nii.gz.")
            kind, count = _prove_header(path, raw, order)
            first = max(_FIRST_VOXEL, math.ceil(struct.unpack_from(f"{order}f", raw, 108)[0]))
            file.read(first - _HEADER)
            needed, bad = count * kind.itemsize, 0
            while needed and (chunk := file.read(min(_CHUNK, needed))):
                needed -= len(chunk)
                if kind.kind == "f":
                    bad += int((~np.isfinite(np.frombuffer(chunk[: len(chunk) // 8 * 8], kind))).sum())
            file.read(_CHUNK)  # reads the checksum at the end of a gzipped file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _invalid(path, "is cut short or damaged. Copy it again.") from error
    if needed:
        raise _invalid(path, f"is cut short: {needed} of {count * kind.itemsize} bytes are missing. Copy it again.")
    if bad:
        raise _invalid(path, f"contains {bad} voxels without a number (NaN or infinite). Give each voxel a number.")
    return any(struct.unpack_from(f"{order}2h", raw, 252))


def _prove_header(path: Path, raw: bytes, order: str) -> tuple[np.dtype[Any], int]:
    """Refuse a header without exactly one volume of grey values and a voxel size; return pixel type and voxel count."""
    dimensions = struct.unpack_from(f"{order}8h", raw, 40)
    (datatype,) = struct.unpack_from(f"{order}h", raw, 70)
    steps = struct.unpack_from(f"{order}3f", raw, 80)
    rescale = struct.unpack_from(f"{order}2f", raw, 112)
    size = dimensions[1 : 1 + max(dimensions[0], 0)]
    if len(size) < 3 or min(size) < 1:
        raise _invalid(path, f"contains no volume: it has {len(size)} dimensions of {_times(size)}. Use a 3D file.")
    if max(size[4:], default=1) > 1:
        raise _invalid(path, f"contains {math.prod(size[4:])} numbers per voxel, like colours or vectors. {_GREY}")
    if max(size[3:], default=1) > 1:
        raise _invalid(path, f"contains more than one volume ({_times(size)}). Save the right one as a file.")
    if datatype not in _KINDS:
        what = "colours" if datatype in _COLOURS else f"complex or unknown numbers (datatype {datatype})"
        raise _invalid(path, f"contains {what} instead of grey values. {_GREY}")
    if not all(map(math.isfinite, rescale)):
        raise _invalid(path, "has a rescale that is not a number (scl_slope, scl_inter). Save it again.")
    if not all(math.isfinite(step) and step > 0 for step in steps):
        raise _invalid(path, "does not give a voxel size in its header (pixdim). Save it again with its voxel size.")
    if struct.unpack_from(f"{order}h", raw, 254)[0] > 0:
        rows = np.reshape(struct.unpack_from(f"{order}12f", raw, 280), (3, 4))
        if not np.allclose(np.linalg.norm(rows[:, :3], axis=0), steps, rtol=_SAME_SIZE, atol=0):
            raise _invalid(path, "gives two different voxel sizes in its header (pixdim and sform). Save it again.")
    return np.dtype(order + _KINDS[datatype]), math.prod(size)


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as file:
        is_zipped = file.read(2) == _GZIP
    if is_zipped and path.suffix.lower() != ".gz":
        raise _invalid(path, "is compressed with gzip, but its name does not say so. Rename it to .nii.gz.")
    return gzip.open(path) if is_zipped else path.open("rb")


def _times(size: tuple[int, ...]) -> str:
    return " × ".join(map(str, size))


def _volume(image: sitk.Image, path: Path) -> hd.Volume:
    """Return an image with its affine, from voxel (slice, row, column) to LPS mm."""
    import SimpleITK as sitk

    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    try:
        return hd.Volume(sitk.GetArrayFromImage(image), affine, coordinate_system="PATIENT")
    except ValueError as error:
        raise _invalid(path, _SHEARED) from error


def _on_grid(drawn: hd.Volume, volume: hd.Volume | hd.VolumeGeometry, path: Path) -> npt.NDArray[Any]:
    """Return a mask's voxels in the order of the image's voxels; refuse a mask on another grid."""
    turned = drawn.to_patient_orientation(volume.get_closest_patient_orientation())
    if turned.spatial_shape != volume.spatial_shape:
        raise Refused(
            ReasonCode.MASK_MISMATCH,
            f"The mask '{path.name}' has {_times(drawn.spatial_shape[::-1])} voxels, but its image has "
            f"{_times(volume.spatial_shape[::-1])}. Draw or resample the mask on the measured image.",
        )
    ends = np.array(np.meshgrid(*((0, n - 1) for n in volume.spatial_shape))).reshape(3, -1)
    corners = np.vstack([ends, np.ones(ends.shape[1])])
    apart = np.linalg.norm(((turned.affine - volume.affine) @ corners)[:3], axis=0).max()
    if not apart <= _SAME_PLACE * min(volume.spacing):
        raise Refused(
            ReasonCode.MASK_MISMATCH,
            f"The mask '{path.name}' and its image are not in the same place: their voxels are up to {apart:.3g} mm "
            "apart. Draw or resample the mask on the measured image.",
        )
    array: npt.NDArray[Any] = turned.array
    return array


def _labelled(drawn: npt.NDArray[Any], path: Path, label: int) -> tuple[Mask, tuple[int, ...]]:
    """Return the voxels of a label, and the other labels."""
    values = np.unique(drawn)
    if (values != np.rint(values)).any():
        raise _invalid(
            path, "is not a mask: it contains values between whole numbers. Apply a threshold, and save it as labels."
        )
    labels = [int(value) for value in values if value != 0]
    if not labels:
        raise Refused(ReasonCode.ROI_EMPTY, f"The mask '{path.name}' is empty. Draw the region, and save it again.")
    if label not in labels:
        known = ", ".join(map(str, labels[:9])) + (", …" if len(labels) > 9 else "")
        raise Refused(
            ReasonCode.ROI_NOT_FOUND,
            f"The mask '{path.name}' has no label {label}. It has: {known}. Choose one of them with --label.",
        )
    return np.ascontiguousarray(drawn == label), tuple(other for other in labels if other != label)
