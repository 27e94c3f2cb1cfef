"""A generated chest phantom: the golden case of every bundle, and the volume of ``lungstage demo``.

Its numbers must be the same on every machine, so nothing in it depends on rounding. Spacings are powers of two, HU have
the values 2 + 80 k, and shapes and texture come from exact integer arithmetic. In linear resampling to 1 mm, every
weight is a multiple of a sixteenth. So every HU is 2 + 5 j: a whole number that is never on the edge of a bin, if the
bin width is a multiple of 5 HU.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused

NAME = "spiculated-1"

_SHAPE = (32, 192, 192)  # slices, rows, columns
_SPACING = (2.0, 0.5, 0.5)  # mm
_AIR, _LUNG, _TISSUE = -958, -798, 2
_STEP = 80  # HU
_FRAME_OF_REFERENCE = "2.25.178023489012374890123748901237489012"


_Plane = npt.NDArray[np.int32]
_Floats = npt.NDArray[np.float64]


def _noise(shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.int32]:
    """Return white noise in 0 … 15 from an integer hash of the voxel's index."""
    z, y, x = np.indices(shape, dtype=np.uint64, sparse=True)
    key = (
        (z * np.uint64(73856093)) ^ (y * np.uint64(19349663)) ^ (x * np.uint64(83492791)) ^ np.uint64(seed * 2654435761)
    )
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (29, 0xC4CEB9FE1A85EC53)):
        key ^= key >> np.uint64(shift)
        key *= np.uint64(factor)
    noise: npt.NDArray[np.int32] = (key >> np.uint64(60)).astype(np.int32)
    return noise


def _smoothed(field: npt.NDArray[np.int32], radius: tuple[int, int, int]) -> npt.NDArray[np.int32]:
    """Sum `field` over a box with wrap-around; with integers, the order of summation does not matter."""
    for axis, reach in enumerate(radius):
        ends = [(0, 0)] * field.ndim
        ends[axis] = (reach + 1, reach)
        running = np.moveaxis(np.cumsum(np.pad(field, ends, mode="wrap"), axis=axis, dtype=np.int32), axis, 0)
        field = np.moveaxis(running[2 * reach + 1 :] - running[: -2 * reach - 1], 0, axis)
    return field


def _ranked(field: npt.NDArray[np.int32], cuts: tuple[float, ...]) -> npt.NDArray[np.int32]:
    """Count the quantiles `cuts` that each voxel reaches."""
    places = [int(cut * field.size) for cut in cuts]
    ranks = np.zeros(field.shape, dtype=np.int32)
    for quantile in np.partition(field, places, axis=None)[places]:
        ranks += field >= quantile
    return ranks


def _centred(count: int, step: float) -> _Floats:
    """Return the places in mm of `count` voxels at distance `step`, centred on 0."""
    indices: _Floats = np.arange(count, dtype=np.float64)
    return (indices - (count - 1) / 2) * step


def _slice(
    relief: _Plane, texture: _Plane, vessels: _Plane, z: float, y: _Floats, x: _Floats
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Make one slice as HU and as tumour mask; the whole volume in doubles would take 100 MB."""
    body = (x / 46) ** 2 + (y / 43) ** 2 <= 1
    lung = (x / 40) ** 2 + (y / 37) ** 2 <= 1
    # Mean radius 16 mm, with lobes and a coarse random relief. Only multiplications and additions are used: IEEE 754
    # rounds them in the same way on every machine.
    radius = 16 + (x * y + y * z - x * z) / 90 + (relief - 243 * 243 * 15 / 2) / 9216
    reach = x * x + 1.25 * y * y + 1.5 * z * z
    tumour = reach <= radius * radius
    rim = 0 + (reach > (radius - 3) * (radius - 3)) + 2 * (reach > (radius - 1.5) * (radius - 1.5))
    necrosis = (x + 4) ** 2 + (y - 3) ** 2 + z**2 <= 25
    hu = np.where(body, _TISSUE + _STEP * (texture == 2), _AIR)
    hu = np.where(lung, _LUNG + 2 * _STEP * vessels, hu)
    hu = np.where(tumour, _TISSUE + _STEP * (texture - necrosis - rim), hu)
    return hu.astype(np.int16), tumour


def make(name: str = NAME) -> tuple[hd.Volume, npt.NDArray[np.bool_]]:
    """Make the phantom.

    Parameters
    ----------
    name
        Generator and version; only :data:`NAME` is accepted.

    Returns
    -------
    tuple
        The CT as int16 HU and the tumour mask, both (32, 192, 192) at 2 × 0.5 × 0.5 mm (slices, rows, columns).

    Raises
    ------
    Refused
        ``bundle_invalid`` if this version cannot make the phantom that a bundle names.
    """
    if name != NAME:
        raise Refused(
            ReasonCode.BUNDLE_INVALID,
            f"This version cannot make the phantom '{name}' of the bundle. Install a newer lungstage, or use another "
            "bundle.",
        )
    relief = _smoothed(_smoothed(_noise(_SHAPE, 1), (1, 4, 4)), (1, 4, 4))
    texture = _ranked(_smoothed(_smoothed(_noise(_SHAPE, 2), (1, 4, 4)), (1, 4, 4)), (0.04, 0.2, 0.85, 0.99)) - 2
    vessels = _ranked(_smoothed(_noise(_SHAPE, 3), (1, 1, 1)), (0.9, 0.97, 0.99))
    z, y, x = (_centred(count, step) for count, step in zip(_SHAPE, _SPACING, strict=True))
    slices = [_slice(*plane, y[:, None], x) for plane in zip(relief, texture, vessels, z, strict=True)]
    hu, tumour = (np.stack(planes) for planes in zip(*slices, strict=True))
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = _SPACING
    affine[:, 3] = (-47.75, -47.75, -31.0, 1.0)
    volume = hd.Volume(hu, affine, coordinate_system="PATIENT", frame_of_reference_uid=_FRAME_OF_REFERENCE)
    return volume, tumour
