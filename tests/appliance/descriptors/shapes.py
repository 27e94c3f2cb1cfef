"""Tumours of known shape in lung, as volume and mask."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

LUNG, TISSUE = -850, 40


def volume_of(hu: npt.NDArray[np.generic], spacing: Spacing = (1.0, 0.7, 0.7)) -> hd.Volume:
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing[::-1])[:, ::-1]
    return hd.Volume(hu, affine, coordinate_system="PATIENT")


def places(half_mm: float, spacing: Spacing = (1.0, 0.7, 0.7), offset: float = 0.13) -> tuple[Floats, Floats, Floats]:
    """Coordinates (z, y, x) in mm from the middle of a cube, for broadcasting. The middle is at no voxel's centre."""
    z, y, x = (
        (np.arange(2 * int(half_mm / step) + 1) - int(half_mm / step) + offset) * step for step in spacing
    )  # fmt: skip
    return z[:, None, None], y[:, None], x


def ramp(distance: Floats, width: float = 2.0, inside: float = TISSUE, outside: float = LUNG) -> npt.NDArray[np.int16]:
    """HU that fall linearly over `width` mm across the surface, where the signed distance is 0."""
    return np.rint(np.clip((inside + outside) / 2 - distance * (inside - outside) / width, outside, inside)).astype(
        np.int16
    )


def ball(radius: float, spacing: Spacing = (1.0, 0.7, 0.7), **hu: float) -> tuple[hd.Volume, Mask]:
    z, y, x = places(radius + 8, spacing)
    distance = np.sqrt(z**2 + y**2 + x**2) - radius
    return volume_of(ramp(distance, **hu), spacing), distance <= 0
